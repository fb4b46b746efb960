package conform

import (
	"fmt"
	"strings"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/run"
	"github.com/trueup/trueup/internal/store"
)

func runCases() map[string]func(*rows) {
	return map[string]func(*rows){
		"Run_OneAtATimeAndOnePerKey":        (*rows).runStarts,
		"Run_IsSavedAsFarAsItHasCome":       (*rows).runSaves,
		"Run_EndsOnceAndStaysEnded":         (*rows).runEnds,
		"Run_ApplyHasItsConditions":         (*rows).applies,
		"Run_ApplyReleasesTheFuseForItsOwn": (*rows).releases,
		"Run_ApplyReleasesNoMoreThanItsOwn": (*rows).releasesNoMore,
		"Run_AcceptedAccountNeedsNoCanary":  (*rows).accepts,
		"Run_APlanWritesNothingButItself":   (*rows).plans,
		"Local_InOrderWithItsFlags":         (*rows).locals,
		"Local_ARowThatCameAfterTheRun":     (*rows).localMoved,
	}
}

// started is a run under way that was drawn a fence.
func (r *rows) started(kind run.Kind, key string) run.Run {
	r.Helper()
	k, err := r.door.StartRun(r.Context(), run.Run{Kind: kind, StartedBy: "op", Note: "test", Key: key, Phase: run.PhaseAccount})
	r.must(err)
	k.Fence = r.fence().Number
	r.must(r.door.SaveRun(r.Context(), r.turn, k))
	return k
}

func (r *rows) run(id string) run.Run {
	r.Helper()
	k, err := r.door.Run(r.Context(), id)
	r.must(err)
	return k
}

func (r *rows) finish(k run.Run, state run.State) run.Run {
	r.Helper()
	k.State = state
	r.must(r.door.FinishRun(r.Context(), r.turn, k))
	return r.run(k.ID)
}

func (r *rows) runStarts() {
	_, ok, err := r.door.OpenRun(r.Context())
	r.must(err)
	r.same("none", ok, false)
	if _, err := r.door.StartRun(r.Context(), run.Run{Kind: "other"}); err == nil {
		r.Error("started a run of no kind")
	}
	k := r.started(run.Plan, "key")
	r.same("run", []any{k.Kind, k.State, k.StartedBy, k.Note, k.StartedAt.IsZero(), k.FinishedAt.IsZero()}, []any{run.Plan, run.Running, "op", "test", false, true})
	again, err := r.door.StartRun(r.Context(), run.Run{Kind: run.Plan, StartedBy: "op", Key: "key"})
	r.must(err)
	r.same("the same key", again.ID, k.ID)
	_, err = r.door.StartRun(r.Context(), run.Run{Kind: run.Full, StartedBy: "op", Key: "key"})
	r.fails(err, store.ErrKeyReused)
	other, err := r.door.StartRun(r.Context(), run.Run{Kind: run.Full, StartedBy: "schedule"})
	r.fails(err, run.ErrUnderWay)
	r.same("the one under way", other.ID, k.ID)
	open, ok, err := r.door.OpenRun(r.Context())
	r.must(err)
	r.same("open", []any{open.ID, ok}, []any{k.ID, true})
	r.finish(k, run.Planned)
	full := r.started(run.Full, "")
	r.finish(full, run.Complete)
	late := r.started(run.Full, "")
	r.finish(late, run.Partial)
	began, complete, err := r.door.LastRuns(r.Context())
	r.must(err)
	r.same("last", []string{began.ID, complete.ID}, []string{late.ID, full.ID})
	all, err := r.door.RunList(r.Context(), "", 2)
	r.must(err)
	r.same("youngest first", []string{all[0].ID, all[1].ID}, []string{late.ID, full.ID})
	all, err = r.door.RunList(r.Context(), full.ID, 5)
	r.must(err)
	r.same("older", []any{len(all), all[0].ID}, []any{1, k.ID})
	_, err = r.door.Run(r.Context(), "none")
	r.fails(err, event.ErrUnknown)
}

func (r *rows) runSaves() {
	k := r.started(run.Full, "")
	n := int64(99)
	k.Phase, k.Spool, k.Slices, k.Listed, k.Calls, k.Whole, k.Rows, k.Same, k.Moved, k.Unowned = run.PhaseList, "spool", 3, 10, 4, true, 9, 7, 1, 2
	k.Candidates, k.Fuse, k.Account, k.Notes, k.Waiting, k.Error = 5, "why", run.Account{Key: "k", Endpoint: "e", Asked: 5, Answered: 1, Confirmed: true},
		[]string{"a page came twice (2×)"}, "for ImageKit", "none"
	k.Kind, k.State, k.StartedBy, k.Note, k.ExpectedDeletions, k.AccountAcceptedBy = run.Plan, run.Complete, "eve", "other", &n, "eve"
	r.must(r.door.SaveRun(r.Context(), r.turn, k))
	got := r.run(k.ID)
	r.same("saved", []any{got.Phase, got.Spool, got.Slices, got.Listed, got.Calls, got.Whole, got.Rows, got.Same, got.Moved, got.Unowned, got.Fence},
		[]any{run.PhaseList, "spool", 3, 10, 4, true, 9, 7, 1, 2, k.Fence})
	r.same("and", []any{got.Candidates, got.Fuse, got.Account, got.Notes, got.Waiting, got.Error}, []any{5, "why", k.Account, k.Notes, "for ImageKit", "none"})
	r.same("kept", []any{got.Kind, got.State, got.StartedBy, got.Note, got.ExpectedDeletions == nil, got.AccountAcceptedBy}, []any{run.Full, run.Running, "op", "test", true, ""})
	r.fails(r.door.SaveRun(r.Context(), r.turn, run.Run{ID: "none"}), run.ErrEnded)
}

func (r *rows) runEnds() {
	k := r.started(run.Full, "")
	if err := r.door.FinishRun(r.Context(), r.turn, k); err == nil {
		r.Error("finished as running")
	}
	k.Waiting = "for something"
	got := r.finish(k, run.Partial)
	r.same("ended", []any{got.State, got.Waiting, got.FinishedAt.IsZero()}, []any{run.Partial, "", false})
	k.Listed, k.State = 77, run.Partial
	r.must(r.door.FinishRun(r.Context(), r.turn, k)) // again
	r.same("nothing changed", r.run(k.ID).Listed, 0)
	k.State = run.Complete
	r.fails(r.door.FinishRun(r.Context(), r.turn, k), run.ErrEnded)
	r.fails(r.door.SaveRun(r.Context(), r.turn, k), run.ErrEnded)
	r.fails(r.door.SaveFindings(r.Context(), r.turn, k.ID, []run.Finding{{FileID: "f", Kind: run.Missing}}), run.ErrEnded)
	r.fails(r.door.LatchFuse(r.Context(), r.turn, k.ID, "why"), run.ErrEnded)
	_, err := r.door.Repair(r.Context(), r.turn, k.ID, k.Fence, []file.Observation{r.hit(snapshot("f", 0))})
	r.fails(err, run.ErrEnded)
	r.holds()
	p := r.started(run.Plan, "")
	got, err = r.door.CancelRun(r.Context(), p.ID, store.Act{Who: "op"})
	r.must(err)
	r.same("cancelled", []any{got.State, got.FinishedAt.IsZero()}, []any{run.Cancelled, false})
	got, err = r.door.CancelRun(r.Context(), k.ID, store.Act{Who: "op"})
	r.must(err)
	r.same("one that is over stays", got.State, run.Partial)
	_, err = r.door.CancelRun(r.Context(), "none", store.Act{Who: "op"})
	r.fails(err, event.ErrUnknown)
}

func (r *rows) applies() {
	five, six := int64(5), int64(6)
	k := r.started(run.Plan, "")
	order := func(id string, a run.Apply) error {
		a.Who = "op"
		_, err := r.door.ApplyRun(r.Context(), id, a)
		return err
	}
	r.fails(order("none", run.Apply{}), event.ErrUnknown)
	r.fails(order(k.ID, run.Apply{}), run.ErrUnderWay)
	k.Candidates = 5
	r.finish(k, run.Planned)
	r.fails(order(k.ID, run.Apply{ExpectDeletions: &six}), run.ErrOtherCount)
	r.must(order(k.ID, run.Apply{ExpectDeletions: &five, Key: "k"}))
	r.fails(order(k.ID, run.Apply{ExpectDeletions: &six, Key: "k"}), store.ErrKeyReused)
	r.must(order(k.ID, run.Apply{ExpectDeletions: &five, Key: "k"})) // the same order
	got := r.run(k.ID)
	r.same("applying", []any{got.State, *got.ExpectedDeletions, got.FinishedAt.IsZero()}, []any{run.Applying, 5, true})
	got.Candidates = 4
	r.must(r.door.SaveRun(r.Context(), r.turn, got))
	r.same("fewer keep the number", *r.run(k.ID).ExpectedDeletions, 5)
	got.Candidates = 6
	r.must(r.door.SaveRun(r.Context(), r.turn, got))
	r.same("more end it", r.run(k.ID).ExpectedDeletions == nil, true)
	r.finish(got, run.Complete)
	r.fails(order(k.ID, run.Apply{}), run.ErrEnded)

	failed := r.started(run.Full, "")
	r.finish(failed, run.Failed)
	r.fails(order(failed.ID, run.Apply{}), run.ErrAccount)
	r.fails(order(failed.ID, run.Apply{AcceptAccount: true, ExpectDeletions: &five}), run.ErrOtherCount)
	r.must(order(failed.ID, run.Apply{AcceptAccount: true}))
	got = r.run(failed.ID)
	r.same("accepted", []any{got.AccountAcceptedBy, got.Account.Confirmed, got.State}, []any{"op", true, run.Applying})
}

func (r *rows) releases() {
	r.fill("f", "g", "c")
	k := r.started(run.Full, "")
	r.found(k, run.Orphaned, "f", "g")
	k.Candidates = 2
	r.must(r.door.SaveRun(r.Context(), r.turn, k))
	r.must(r.door.LatchFuse(r.Context(), r.turn, k.ID, "too many"))
	r.must(r.door.LatchFuse(r.Context(), r.turn, k.ID, "another reason"))
	status, err := r.door.Status(r.Context())
	r.must(err)
	r.same("fuse", []any{status.Fuse.Latched, status.Fuse.Why, status.Fuse.Run, status.Run.ID}, []any{true, "too many", k.ID, k.ID})
	n, err := r.door.CloseFindings(r.Context(), r.turn, k.ID, []run.FindingKind{run.Orphaned}, run.Refused, run.ReasonFuse)
	r.must(err)
	r.same("refused", n, 2)
	r.same("none to take", len(r.take(k, 5, run.Orphaned)), 0)
	r.finish(k, run.Partial)

	two := int64(2)
	k, err = r.door.ApplyRun(r.Context(), k.ID, run.Apply{Who: "op", ExpectDeletions: &two})
	r.must(err)
	r.braked(false, 0, 3)
	events := r.take(k, 5, run.Orphaned)
	r.same("reopened", []any{len(events), events[0].FileID, events[1].FileID}, []any{2, "f", "g"})
	p := event.Pending{Event: events[0]}
	r.see(p, r.absent("f", "c"), file.LookAgain, file.ReasonNominated)
	r.braked(false, 0, 3) // expected: it does not count
	r.see(r.event(event.Reconcile, event.KindRecheck, "g"), r.absent("g", "c"), file.LookAgain, file.ReasonNominated)
	r.braked(false, 0, 3) // g is among the number, too, whoever asks about it
	r.Pass(confirm)
	p.Retried = true
	r.see(p, r.absent("f", "c"), file.Tombstoned, file.ReasonConfirmed)
	r.finding(k, "f", "repaired/confirmed")
	r.same("evidence", len(r.evidence(k, "f")), 3) // the listing, and two looks
}

// releasesNoMore: what was nominated before a release, and is not among its number, begins
// anew.
func (r *rows) releasesNoMore() {
	r.fill("f", "g", "c")
	p := r.event(event.Reconcile, event.KindRecheck, "f")
	r.see(p, r.absent("f", "c"), file.LookAgain, file.ReasonNominated)
	r.braked(false, 1, 3)
	k := r.started(run.Full, "")
	r.must(r.door.LatchFuse(r.Context(), r.turn, k.ID, "by hand"))
	r.finish(k, run.Partial)
	none := int64(0)
	_, err := r.door.ApplyRun(r.Context(), k.ID, run.Apply{Who: "op", ExpectDeletions: &none})
	r.must(err)
	r.braked(false, 0, 3)
	r.Pass(confirm)
	p.Retried = true
	r.see(p, r.absent("f", "c"), file.LookAgain, file.ReasonNominated)
	r.braked(false, 1, 3)
	r.Pass(confirm)
	r.see(p, r.absent("f", "c"), file.Tombstoned, file.ReasonConfirmed)
}

func (r *rows) accepts() {
	r.fill("f", "g")
	k := r.started(run.Full, "")
	r.found(k, run.Orphaned, "f")
	r.must(r.door.DoubtAccount(r.Context(), r.turn, k.ID, "none answered"))
	r.finish(k, run.Failed)
	k, err := r.door.ApplyRun(r.Context(), k.ID, run.Apply{Who: "op", AcceptAccount: true})
	r.must(err)
	p := event.Pending{Event: r.take(k, 5, run.Orphaned)[0]}
	bare := r.look("f", nil)
	bare.Canary = file.Canary{}
	r.see(p, bare, file.LookAgain, file.ReasonNominated)
	r.braked(false, 1, 2) // accepted is not expected
	r.Pass(confirm)
	p.Retried = true
	again := r.look("f", nil)
	again.Canary = file.Canary{}
	r.see(p, again, file.Tombstoned, file.ReasonConfirmed)
	r.holds("g=ann")
}

func (r *rows) plans() {
	r.fill("f")
	k := r.started(run.Plan, "")
	plan, _, err := r.door.ForPlan(r.Context())
	r.must(err)
	r.must(plan.SaveFindings(r.Context(), r.turn, k.ID, []run.Finding{{FileID: "f", Kind: run.Drifted}}))
	k.Phase = run.PhaseBrake
	r.must(plan.SaveRun(r.Context(), r.turn, k))
	var seen []string
	r.must(plan.Local(r.Context(), k.ID, k.Fence, func(l run.Local) error { seen = append(seen, l.FileID); return nil }))
	r.same("seen", seen, []string{"f"})
	if _, err := plan.Repair(r.Context(), r.turn, "", 0, []file.Observation{r.hit(snapshot("g", 0))}); err == nil {
		r.Error("a plan has written a row")
	}
	r.holds("f=ann")
	k.State = run.Planned
	r.must(plan.FinishRun(r.Context(), r.turn, k))
}

func (r *rows) local(runID string, fence int64) map[string]run.Local {
	r.Helper()
	out, last := map[string]run.Local{}, ""
	r.must(r.door.Local(r.Context(), runID, fence, func(l run.Local) error {
		if l.FileID <= last {
			r.Errorf("%s comes after %s", l.FileID, last)
		}
		last, out[l.FileID] = l.FileID, l
		return nil
	}))
	return out
}

func (r *rows) locals() {
	r.fill("A", "b", "_u", "a-", "gone", "doubt")
	r.see(r.deleted("gone"), r.absent("gone", "A"), file.Tombstoned, file.ReasonAnnounced)
	r.see(r.webhook("doubt"), r.absent("doubt", "A"), file.LookAgain, file.ReasonNominated)
	r.see(r.webhook("nobody"), r.look("nobody", snapshot("nobody", 0)), file.Applied, file.ReasonAdded)
	fence := r.fence().Number
	r.SetUser("b", "eve")
	r.SetName("a-", "other")
	r.Insert("app", "")
	r.see(r.webhook("late"), r.look("late", snapshot("late", 0)), file.Applied, file.ReasonAdded)
	hashes, err := r.door.Hash(r.Context(), []*file.Snapshot{snapshot("A", 0), snapshot("a-", 0)})
	r.must(err)
	var lines []string
	for id, l := range r.local("", fence) {
		flags := ""
		for _, f := range []struct {
			is  bool
			say string
		}{{l.Live, "live "}, {l.Known, "known "}, {l.Gone, "gone "}, {l.Moved, "moved "}, {l.Suspect, "suspect "}, {l.Followed, "followed "}, {l.Unowned, "unowned "}} {
			if f.is {
				flags += f.say
			}
		}
		lines = append(lines, id+": "+strings.TrimSpace(flags))
	}
	r.same("flags", sortedLines(lines), sortedLines([]string{
		"A: live known followed", "b: live known", "_u: live known followed", "a-: live known followed", "gone: known gone", "doubt: live known suspect followed",
		"nobody: live known followed unowned", "app: live followed unowned", "late: live known moved followed unowned",
	}))
	all := r.local("", fence)
	r.same("hashes", []bool{all["A"].Hash == hashes[0], all["a-"].Hash == hashes[1], all["gone"].Hash == 0}, []bool{true, false, true})
	stop := fmt.Errorf("enough")
	r.fails(r.door.Local(r.Context(), "", fence, func(run.Local) error { return stop }), stop)
}

func (r *rows) localMoved() {
	r.Insert("before", "ann")
	k := r.started(run.Full, "")
	r.Insert("after", "ann")
	all := r.local(k.ID, k.Fence)
	r.same("moved", []bool{all["before"].Moved, all["after"].Moved}, []bool{false, true})
	r.SetName("before", "touched")
	r.same("touched", r.local(k.ID, k.Fence)["before"].Moved, true)
	r.same("without a run", r.local("", k.Fence)["after"].Moved, false)
}
