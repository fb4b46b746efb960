package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sethvargo/go-retry"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/run"
	"github.com/trueup/trueup/worker/reconcile/spool"
	"github.com/trueup/trueup/worker/reconcile/walk"
)

// work is one run under way in one turn. What of it has to outlive the process is in run
// and in the spool; the rest is remembered for speed, or for manners.
type work struct {
	*Reconciler
	turn int64
	run  run.Run
	runs Runs // these two are a plan's own where it is one
	rows Rows

	spool *spool.Spool // nil: not open
	mark  mark         // of the spool's last page
	walk  *walk.Walk   // nil: begins after the spool's last page
	calls int64        // list calls before this walk

	began    time.Time // the phase, in this process
	saved    time.Time // when the run was last saved,
	pages    int64     // with how many pages
	progress time.Time // when it last got on
	backoff  retry.Backoff
	written  bool     // all hits that may be, in this process
	final    *run.Run // what FinishRun was asked for
}

// carry carries one run as far as it goes in this turn. It returns nil when the run has
// ended, whoever ended it.
func (t *tenure) carry(ctx context.Context, open run.Run) error {
	w := &work{Reconciler: t.Reconciler, turn: t.turn, run: open, runs: t.Runs, rows: t.Rows,
		began: t.Now(), saved: t.Now(), pages: open.Slices}
	w.run.Notes, w.run.Phase = slices.Clone(open.Notes), cmp.Or(open.Phase, run.PhaseAccount)
	w.moved()
	defer w.close()
	w.Logger.InfoContext(ctx, "reconcile.carried", "run", open.ID, "kind", string(open.Kind), "state", string(open.State), "phase", string(w.run.Phase))
	w.prune(ctx)
	err := w.phases(ctx)
	for {
		switch {
		case errors.Is(err, errFinished):
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, event.ErrTurnMoved):
			return err
		case errors.Is(err, run.ErrEnded):
			w.ended(ctx)
			return nil
		}
		if err = w.survive(ctx, err); err == nil {
			err = w.phases(ctx)
		}
	}
}

// errFinished means that the run's final state is stored.
var errFinished = errors.New("the run has its final state")

// phases takes the run through what is left of it. It returns errFinished in the end.
func (w *work) phases(ctx context.Context) error {
	if err := w.enlist(ctx); err != nil {
		return err
	}
	for {
		var err error
		switch w.run.Phase {
		case run.PhaseList:
			err = w.list(ctx)
		case run.PhaseCompare:
			err = w.compare(ctx)
		case run.PhaseBrake:
			err = w.brake(ctx)
		case run.PhaseRepair, run.PhaseSettle: // what a release has opened again is repaired first
			err = w.repair(ctx)
		default:
			err = w.account(ctx)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", w.run.Phase, err)
		}
	}
}

// enlist gets a plan its own doors.
func (w *work) enlist(ctx context.Context) error {
	if w.PlanRows == nil || !w.planning() {
		return nil
	}
	doors, note, err := w.PlanRows(ctx)
	if err != nil {
		return fmt.Errorf("take the role of a plan: %w", err)
	}
	w.runs, w.rows = doors, doors
	if note != "" {
		w.noteOnce("%s", note)
	}
	return nil
}

// planning reports whether the run is to change nothing.
func (w *work) planning() bool { return w.run.Kind == run.Plan && w.run.State != run.Applying }

// enter stores that the next phase begins. Only then does it.
func (w *work) enter(ctx context.Context, p run.Phase) error {
	next := w.run
	next.Phase, next.Waiting = p, ""
	if err := w.store(ctx, next); err != nil {
		return err
	}
	w.Metrics.phase(w.run.Phase, w.Now().Sub(w.began))
	w.Logger.InfoContext(ctx, "reconcile.phase", "run", w.run.ID, "phase", string(p))
	w.run, w.began = next, w.Now()
	w.moved()
	return nil
}

func (w *work) save(ctx context.Context) error { return w.store(ctx, w.run) }

func (w *work) store(ctx context.Context, r run.Run) error {
	if err := w.runs.SaveRun(ctx, w.turn, r); err != nil {
		return fmt.Errorf("save the run: %w", err)
	}
	w.saved, w.pages = w.Now(), r.Slices
	return nil
}

// tell saves the run when it is time to.
func (w *work) tell(ctx context.Context) error {
	if w.Now().Sub(w.saved) < w.SaveEvery && w.run.Slices-w.pages < w.SavePages {
		return nil
	}
	return w.save(ctx)
}

// moved notes that the run got on.
func (w *work) moved() {
	w.progress, w.backoff, w.run.Waiting = w.Now(), w.growing(), ""
}

// finish stores the run's final state.
func (w *work) finish(ctx context.Context, state run.State, why string) error {
	last := w.run
	last.State, last.Error, last.Waiting = state, why, ""
	w.final = &last
	if err := w.runs.FinishRun(ctx, w.turn, last); err != nil {
		return fmt.Errorf("store the run's end: %w", err)
	}
	w.Metrics.phase(w.run.Phase, w.Now().Sub(w.began))
	w.run = last
	w.leave(ctx)
	return errFinished
}

// ended is for a run that others have ended: an operator, or our own call whose answer
// got lost.
func (w *work) ended(ctx context.Context) {
	w.run.State = run.Cancelled
	if w.final != nil {
		w.run = *w.final
	}
	w.leave(ctx)
}

// leave lets the spool go, unless a plan may be applied from it.
func (w *work) leave(ctx context.Context) {
	w.Metrics.ended(&w.run, w.Now())
	w.Logger.InfoContext(ctx, "reconcile.ended", "run", w.run.ID, "kind", string(w.run.Kind), "state", string(w.run.State),
		"listed", w.run.Listed, "rows", w.run.Rows, "candidates", w.run.Candidates, "fuse", w.run.Fuse, "error", w.run.Error)
	if w.run.State != run.Planned {
		w.drop(ctx)
	}
}
