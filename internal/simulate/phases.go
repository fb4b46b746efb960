package simulate

import (
	"context"
	"net/http"
	"time"

	"github.com/trueup/trueup/internal/check"
)

// safety is the first phase: everybody acts, everything goes wrong.
func (w *world) safety() {
	for _, s := range w.slots {
		w.later(time.Duration(w.lot("start "+s.name)%uint64(3*time.Second)), func() { w.start(s) })
	}
	w.errands.Go(func() { w.misfortune(w.ctx) })
	for _, a := range w.Acts {
		w.later(a.At, func() { w.perform(a) })
	}
	step := max(w.Shape.Safety/snapshots, time.Second)
	for w.elapsed() < w.Shape.Safety {
		_ = sleep(w.ctx, step)
		w.snapshot()
	}
}

// snapshots is about how many states of the database a run is judged by, beside the last.
const snapshots = 16

func (w *world) snapshot() {
	d := w.dump()
	w.record.mu.Lock()
	defer w.record.mu.Unlock()
	w.record.series = append(w.record.series, d)
}

// heal ends all faults: from now on everything works, and what is down comes up.
func (w *world) heal() {
	w.trace.say("world", "heals")
	w.healed.Store(true)
	w.stream.Resize(roomy)
	w.unhide()
	for _, s := range w.slots {
		s.skew(0)
		if p := s.living(); p != nil {
			p.until.Store(0)
			p.unfreeze()
		}
		w.start(s)
	}
}

// liveness is the second phase: with nothing going wrong any more, the table has a bounded
// time to be what ImageKit holds.
func (w *world) liveness() {
	w.errands.Wait() // what is still under way arrives
	w.snapshot()
	d := newDraw(w.Seed, 8)
	w.insist(func() bool {
		return w.people.operator(d, http.MethodPost, "/api/resume", map[string]any{"note": "all is well"}, nil)
	})
	bound := w.bound()
	w.trace.say("world", "has %s to settle", bound)
	began := time.Now()
	for range 4 {
		w.settle(began.Add(bound))
		if latched, doubted := w.people.braked(d); !latched && !doubted {
			break
		}
		w.reached.Hit("fuse/latched")
		w.snapshot()
		w.people.release(d, false)
		began = time.Now()
	}
	w.settle(time.Now().Add(bound))
	w.snapshot()
	w.again(d)
	w.snapshot()
}

// bound is how long convergence may take: two reconcile periods with their jitter, the
// runs themselves, and the patience with which absences and missing files are looked at.
func (w *world) bound() time.Duration {
	s := w.Shape
	return 2*s.ReconcileEvery*11/10 + 15*time.Minute /* a 429's longest reset */ + s.NotFoundGrace + 3*s.AbsentConfirm + 15*time.Minute
}

// insist repeats what must work now.
func (w *world) insist(do func() bool) {
	for range 50 {
		if do() || sleep(w.ctx, time.Second) != nil {
			return
		}
	}
	w.record.wrong("operator", "what an operator asks is not done though everything works")
}

// settle waits until nothing is under way and the table is what ImageKit holds, but not
// beyond the bound: what is wrong by then is for the checker to say.
func (w *world) settle(until time.Time) {
	for time.Now().Before(until) && w.ctx.Err() == nil {
		_ = sleep(w.ctx, time.Minute)
		if w.quiet() && w.even() {
			return
		}
	}
}

// quiet: no event waits, no retry, no run is open.
func (w *world) quiet() bool {
	if len(w.stream.Held()) > 0 {
		return false
	}
	retries, running := w.database.UnderWay()
	return retries == 0 && !running
}

// even asks the checker whether table and library agree, owners and all.
func (w *world) even() bool {
	if d, truth := w.database.FileIDs(), w.truth(); len(d) != len(truth) {
		return false
	}
	e := w.evidence()
	e.Series, e.Requests, e.Acks = []check.Dump{}, []check.Request{}, []check.Ack{}
	e.Without = []check.Invariant{check.I1, check.I3, check.I5, check.I6, check.I7, check.I8, check.I9, check.I12, check.I13, check.I14, check.I15, check.I16}
	verdict := check.Run(&e, check.Settled)
	return verdict.OK()
}

// again replays every dead letter, and then once more: the second time may change nothing.
func (w *world) again(d draw) {
	var ids []string
	for _, l := range w.dump().DeadLetters {
		ids = append(ids, l.ID)
	}
	if len(ids) == 0 {
		return
	}
	w.reached.Hit("dead-letter/written")
	replay := func() {
		ask := map[string]any{"filter": map[string]any{"ids": ids}, "note": "once more"}
		if w.people.operator(d, http.MethodPost, "/api/dead/replay", ask, nil) {
			w.reached.Hit("operator/replay")
		}
		w.settle(time.Now().Add(w.bound()))
	}
	replay()
	before := w.evidence()
	replay()
	after := w.evidence()
	w.record.count("replayed twice", 1)
	verdict := check.Unmoved(&before, &after)
	w.record.mu.Lock()
	defer w.record.mu.Unlock()
	w.record.wrongs = append(w.record.wrongs, verdict.Violations...)
}

// end stops every process as SIGTERM would, and waits for all that goes on.
func (w *world) end() {
	for _, s := range w.slots {
		s.lay()
		if p := s.living(); p != nil {
			p.cancel()
			<-p.ended
		}
	}
	w.errands.Wait()
	w.lives.Wait()
}

// perform does one act.
func (w *world) perform(a Act) {
	d := newDraw(a.Chance, 9)
	w.trace.say("people", "%s", a.Kind)
	if do := w.deeds()[a.Kind]; do != nil {
		do(d)
		return
	}
	panic("simulate: nobody knows how to " + string(a.Kind))
}

func (w *world) deeds() map[ActKind]func(draw) {
	p, c := w.people, w.post
	return map[ActKind]func(draw){
		UploadV1: func(d draw) { p.uploadV1(d, nil) }, UploadV2: p.uploadV2,
		UploadServer: func(d draw) {
			if p.uploadServer(d) != nil {
				w.reached.Hit("upload/server")
			}
		},
		Overwrite: p.overwrite, SamePath: p.samePath, Move: p.move, Rename: p.rename, Edit: p.edit,
		Delete: func(d draw) {
			if u := p.one(d); u != nil {
				p.remove(u)
			}
		},
		DeleteMany: p.removeMany, ForgeTicket: p.forgeTicket, CopyTicket: p.copyTicket,
		Report: p.reportOne, ReportTwice: p.reportTwice, ReportEarly: p.reportEarly, ReportForeign: p.reportForeign, ReportForged: p.reportForged,
		ReportMany: p.reportMany, ReportRivals: p.reportRivals, BadToken: p.badToken,
		UnknownHook: func(d draw) { c.unknownKind(d, p) }, ReplayHook: c.replay, BadSignature: func(d draw) { c.badSignature(d, p) },
		HintHook:   func(d draw) { c.hint(d, p) },
		RowDeleted: p.deleteRow, RowCorrupted: p.corruptRow, RowInserted: p.insertRow, TableEmptied: p.emptyTable,
		ReplayDead: p.replayDead, Recheck: p.recheck, PauseResume: p.pauseResume, Assign: p.assign, RunNow: p.runNow, PlanApply: p.planApply,
		CancelRun: p.cancelRun, ReleaseFuse: p.releaseFuse,
	}
}

// Run carries a plan out. It must be called inside a bubble of testing/synctest, and
// returns when nothing of the run goes on any more.
func Run(ctx context.Context, p Plan, o Options, reached *Reached) (*Result, error) {
	w, err := build(ctx, p, o, reached)
	if err != nil {
		return nil, err
	}
	w.safety()
	w.heal()
	w.liveness()
	w.end()
	r := w.result()
	w.shut()
	return r, nil
}
