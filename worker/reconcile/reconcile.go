package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/sethvargo/go-retry"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/run"
)

// PlanDoors are the rows as a plan may see them: PostgreSQL itself refuses it everything
// but its run and findings.
type PlanDoors interface {
	Runs
	Rows
}

// Config is what a Reconciler needs. Library, Runs, Rows, Brakes, Queue and Dir are
// required.
type Config struct {
	Library Library
	Runs    Runs
	Rows    Rows
	Brakes  Brakes
	Queue   Publisher
	// PlanRows are the doors for a plan, and a sentence where they are weaker than they
	// should be; nil: Runs and Rows.
	PlanRows func(context.Context) (doors PlanDoors, note string, err error)
	// Prove opens the tickets inside a snapshot; nil: nothing is proven.
	Prove func(*file.Snapshot) file.Proof
	// Ask searches for files by id, for findings whose listing is old or elsewhere; nil:
	// their findings become events. Files it does not find do, too.
	Ask func(ctx context.Context, ids []string) ([]file.Observation, error)
	// Dir is where listings are spooled, each run in a folder of its own.
	Dir string
	// Account is the fingerprint of the private key and the endpoint in use.
	Account run.Account
	// Every is how often a run begins by itself; zero means never.
	Every time.Duration

	// Slice is how many findings are saved, or repaired, at once; zero means 500.
	Slice int
	// Ahead is how many events of a run may be unsettled at once; zero means 500.
	Ahead int
	// SettleFor is how long a run waits for its last events; zero means 10 min.
	SettleFor time.Duration
	// GiveUp is how long a run waits for ImageKit, the queue or its disk without getting
	// on; zero means 15 min. It waits for the database, and for the end of an operator's
	// pause, as long as it takes.
	GiveUp time.Duration
	// PlanFresh is how long after its end a listing may be repaired from; zero means 1 h.
	PlanFresh time.Duration
	// SavePages and SaveEvery are how many pages are spooled, or how much time passes,
	// before the run says in the database how far it is; zero means 10 pages, 2 s.
	SavePages int64
	SaveEvery time.Duration
	// Look is how often a run looks whether its events are settled; zero means 500 ms.
	Look time.Duration
	// Backoff is the first wait after a failure, doubled up to 64 times as much; zero
	// means 500 ms.
	Backoff time.Duration

	Now func() time.Time // nil: time.Now
	// Jitter gives numbers in [0, 1) that keep schedules apart; nil: random ones.
	Jitter  func() float64
	Metrics *Metrics     // nil: nothing is measured
	Logger  *slog.Logger // nil: nobody hears

	// pageSize is for tests; zero means ImageKit's 1,000.
	pageSize int
}

// Reconciler carries out the runs, one at a time, and begins those of the schedule. It
// keeps nothing that a crash could lose: what a run has done is in the rows and in its
// spool, and every step can be repeated.
type Reconciler struct {
	Config
	woken chan struct{}
}

// New returns a Reconciler that does nothing until Run.
func New(c Config) (*Reconciler, error) {
	if c.Library == nil || c.Runs == nil || c.Rows == nil || c.Brakes == nil || c.Queue == nil || c.Dir == "" {
		return nil, errors.New("reconcile: a Reconciler needs Library, Runs, Rows, Brakes, Queue and Dir")
	}
	c.Slice = cmp.Or(c.Slice, 500)
	c.Ahead = cmp.Or(c.Ahead, 500)
	c.SettleFor = cmp.Or(c.SettleFor, 10*time.Minute)
	c.GiveUp = cmp.Or(c.GiveUp, 15*time.Minute)
	c.PlanFresh = cmp.Or(c.PlanFresh, time.Hour)
	c.SavePages = cmp.Or(c.SavePages, 10)
	c.SaveEvery = cmp.Or(c.SaveEvery, 2*time.Second)
	c.Look = cmp.Or(c.Look, 500*time.Millisecond)
	c.Backoff = cmp.Or(c.Backoff, 500*time.Millisecond)
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Jitter == nil {
		c.Jitter = rand.Float64
	}
	if c.Prove == nil {
		c.Prove = func(*file.Snapshot) file.Proof { return file.Proof{} }
	}
	return &Reconciler{Config: c, woken: make(chan struct{}, 1)}, nil
}

// Wake says that an operator has started, applied or cancelled a run, or ended a pause.
// Without a run under way the Reconciler asks nobody anything until it is woken or the
// next run of the schedule is due.
func (r *Reconciler) Wake() {
	select {
	case r.woken <- struct{}{}:
	default:
	}
}

// Run carries out runs as long as the turn lasts: until ctx is done or another turn has
// begun. It returns nil then. A run that is under way goes on where it was.
func (r *Reconciler) Run(ctx context.Context, turn int64) error {
	t := &tenure{Reconciler: r, turn: turn}
	backoff := r.growing()
	for ctx.Err() == nil {
		wait, err := t.round(ctx)
		switch {
		case errors.Is(err, event.ErrTurnMoved):
			return nil
		case err != nil && ctx.Err() == nil:
			r.Logger.WarnContext(ctx, "reconcile.interrupted", "error", err.Error())
			wait, _ = backoff.Next()
		default:
			backoff = r.growing()
		}
		r.pause(ctx, wait)
	}
	return nil
}

// growing waits longer each time, from Backoff to 64 times as much.
func (r *Reconciler) growing() retry.Backoff {
	return retry.WithCappedDuration(64*r.Backoff, retry.NewExponential(r.Backoff))
}

// Waits between rounds.
const (
	atOnce     time.Duration = 0
	untilWoken time.Duration = -1
)

// pause waits, and reports whether it was woken before.
func (r *Reconciler) pause(ctx context.Context, wait time.Duration) (woken bool) {
	if wait == atOnce {
		return false
	}
	var over <-chan time.Time
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-ctx.Done():
	case <-over:
	case <-r.woken:
		return true
	}
	return false
}

// tenure is one turn of the Reconciler.
type tenure struct {
	*Reconciler
	turn int64
	// scheduled: next is known.
	scheduled bool
	next      time.Time
}

// round carries the open run to its end, or begins one that is due, and says how long
// to wait before the next round.
func (t *tenure) round(ctx context.Context) (time.Duration, error) {
	open, ok, err := t.Runs.OpenRun(ctx)
	if err != nil {
		return 0, fmt.Errorf("read the open run: %w", err)
	}
	if !ok {
		return t.schedule(ctx)
	}
	t.scheduled = false
	if err := t.carry(ctx, open); err != nil {
		return 0, fmt.Errorf("run %s: %w", open.ID, err)
	}
	return atOnce, nil
}
