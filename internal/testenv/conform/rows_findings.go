package conform

import (
	"strings"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/run"
	"github.com/trueup/trueup/internal/store"
)

func findingCases() map[string]func(*rows) {
	return map[string]func(*rows){
		"Findings_AreSavedOnceAndFiltered":        (*rows).findingsSaved,
		"Findings_AreTakenConfirmedAndSettled":    (*rows).findingsTaken,
		"Findings_ACancelledRunExemptsNothing":    (*rows).findingsCancelled,
		"Repair_ClosesWhatItDecided":              (*rows).repairs,
		"Repair_JudgesNothingThatIsNewer":         (*rows).repairMoved,
		"Findings_ARepairThatWentBackIsConfirmed": (*rows).findingsBack,
	}
}

func (r *rows) found(k run.Run, kind run.FindingKind, ids ...string) {
	r.Helper()
	var all []run.Finding
	for _, id := range ids {
		all = append(all, run.Finding{FileID: id, Kind: kind, Status: run.Found, Evidence: []string{"the listing"}})
	}
	r.must(r.door.SaveFindings(r.Context(), r.turn, k.ID, all))
}

func (r *rows) take(k run.Run, limit int, kinds ...run.FindingKind) []event.Event {
	r.Helper()
	out, err := r.door.TakeFindings(r.Context(), r.turn, k.ID, kinds, limit)
	r.must(err)
	return out
}

func (r *rows) findings(k run.Run, f run.FindingFilter) map[string]run.Finding {
	r.Helper()
	all, err := r.door.Findings(r.Context(), k.ID, f, "", 100)
	r.must(err)
	out := map[string]run.Finding{}
	for _, found := range all {
		out[found.FileID] = found
	}
	return out
}

func (r *rows) finding(k run.Run, id, want string) {
	r.Helper()
	f := r.findings(k, run.FindingFilter{})[id]
	r.same("finding of "+id, string(f.Status)+"/"+f.Reason, want)
}

func (r *rows) evidence(k run.Run, id string) []string {
	r.Helper()
	return r.findings(k, run.FindingFilter{})[id].Evidence
}

func (r *rows) findingsSaved() {
	k := r.started(run.Full, "")
	ours := "a"
	r.must(r.door.SaveFindings(r.Context(), r.turn, k.ID, []run.Finding{{FileID: "b", Kind: run.Drifted, Columns: []run.Difference{{Column: "mime", Row: &ours}}},
		{FileID: "a", Kind: run.Missing, Evidence: []string{"listed"}}, {FileID: "_", Kind: run.Unowned, Status: run.Skipped, Reason: "nobody"}}))
	r.found(k, run.Orphaned, "b") // stays as it is
	all, err := r.door.Findings(r.Context(), k.ID, run.FindingFilter{}, "", 2)
	r.must(err)
	r.same("in order", []string{all[0].FileID, all[1].FileID}, []string{"_", "a"})
	all, err = r.door.Findings(r.Context(), k.ID, run.FindingFilter{}, "a", 5)
	r.must(err)
	r.same("after", []any{len(all), all[0].Kind, all[0].Status, all[0].Columns[0].Column, *all[0].Columns[0].Row, all[0].Columns[0].ImageKit == nil, len(all[0].Evidence)},
		[]any{1, run.Drifted, run.Found, "mime", "a", true, 0})
	r.same("filtered", []int{len(r.findings(k, run.FindingFilter{Kind: run.Missing})), len(r.findings(k, run.FindingFilter{Status: run.Skipped})),
		len(r.findings(k, run.FindingFilter{Kind: run.Missing, Status: run.Skipped}))}, []int{1, 1, 0})
	open, err := r.door.OpenFindings(r.Context(), k.ID, []run.FindingKind{run.Missing, run.Drifted, run.Unowned}, "", 5)
	r.must(err)
	r.same("open", []any{len(open), open[0].FileID, open[1].FileID}, []any{2, "a", "b"})
	open, err = r.door.OpenFindings(r.Context(), k.ID, []run.FindingKind{run.Missing, run.Drifted}, "a", 5)
	r.must(err)
	r.same("open after", []any{len(open), open[0].FileID}, []any{1, "b"})
	r.same("counted", r.run(k.ID).Found, map[run.FindingKind]map[run.Status]int64{run.Drifted: {run.Found: 1}, run.Missing: {run.Found: 1}, run.Unowned: {run.Skipped: 1}})
	_, err = r.door.Findings(r.Context(), "none", run.FindingFilter{}, "", 1)
	r.fails(err, event.ErrUnknown)
}

func (r *rows) findingsTaken() {
	r.fill("same")
	k := r.started(run.Full, "")
	r.found(k, run.Missing, "new", "same", "late")
	r.found(k, run.Drifted, "other")
	events := r.take(k, 2, run.Missing)
	r.same("two", []any{len(events), events[0].FileID, events[1].FileID, events[0].Source, events[0].Kind}, []any{2, "late", "new", event.Reconcile, event.KindRecheck})
	again := r.take(k, 5, run.Drifted) // not confirmed: the same again, whatever their kind
	r.same("the same again", []any{len(again), again[0].ID, again[1].ID, again[0].AcceptedAt}, []any{2, events[0].ID, events[1].ID, events[0].AcceptedAt})
	r.must(r.door.ConfirmFindings(r.Context(), r.turn, k.ID, []string{events[0].ID, events[1].ID}))
	more := r.take(k, 5, run.Missing)
	r.same("the rest", []any{len(more), more[0].FileID}, []any{1, "same"})
	r.must(r.door.ConfirmFindings(r.Context(), r.turn, k.ID, []string{more[0].ID}))
	r.same("nothing left", len(r.take(k, 5, run.Missing)), 0)
	r.unsettled(k, 3)
	r.see(event.Pending{Event: events[1]}, r.look("new", snapshot("new", 0)), file.Applied, file.ReasonAdded)
	r.see(event.Pending{Event: more[0]}, r.look("same", snapshot("same", 0)), file.Unchanged, file.ReasonSame)
	r.unsettled(k, 1)
	r.settled([]event.Pending{{Event: events[0]}}, nil, always(event.End{Kind: event.Retry, Reason: "throttled", After: time.Hour}))
	r.unsettled(k, 1)
	late := event.Pending{Event: events[0], Retried: true}
	r.settled([]event.Pending{late}, nil, dead())
	r.unsettled(k, 0)
	r.finding(k, "new", "repaired/added")
	r.finding(k, "same", "skipped/same_by_now")
	r.finding(k, "late", "refused/gave_up")
	r.finding(k, "other", "found/")
	r.same("evidence", []int{len(r.evidence(k, "new")), len(r.evidence(k, "late"))}, []int{2, 2})
	if say := r.evidence(k, "new")[1]; !strings.HasSuffix(say, "looked up by id: ImageKit answered 200 (request req-new)") {
		r.Errorf("evidence %q", say)
	}
	got := r.passport("new")
	r.same("passport", []any{len(got.Findings), got.Findings[0].Run, got.Findings[0].Status}, []any{1, k.ID, run.Repaired})
	if d := string(got.Lines[0].Detail); !strings.Contains(d, k.ID) {
		r.Errorf("ledger of the run: %s", d)
	}
}

func (r *rows) unsettled(k run.Run, want int64) {
	r.Helper()
	n, err := r.door.Unsettled(r.Context(), k.ID)
	r.must(err)
	r.same("unsettled", []int64{n, r.run(k.ID).Unsettled}, []int64{want, want})
}

func (r *rows) findingsCancelled() {
	r.fill("f", "g")
	k := r.started(run.Full, "")
	r.found(k, run.Orphaned, "f")
	one := int64(1)
	k.Candidates = 1
	r.finish(k, run.Partial)
	k, err := r.door.ApplyRun(r.Context(), k.ID, run.Apply{Who: "op", ExpectDeletions: &one, AcceptAccount: true})
	r.must(err)
	p := event.Pending{Event: r.take(k, 1, run.Orphaned)[0]}
	_, err = r.door.CancelRun(r.Context(), k.ID, store.Act{Who: "op"})
	r.must(err)
	_, err = r.door.TakeFindings(r.Context(), r.turn, k.ID, []run.FindingKind{run.Orphaned}, 1)
	r.fails(err, run.ErrEnded)
	r.see(p, r.absent("f", "g"), file.LookAgain, file.ReasonNominated)
	r.braked(false, 1, 2) // what was allowed ended with the run
	r.finding(k, "f", "found/")
}

func (r *rows) repairs() {
	r.fill("deleted", "corrupted", "old", "same")
	r.Delete("deleted")
	r.SetName("corrupted", "eve")
	r.Insert("app", "bob")
	r.see(r.webhook("nobody"), r.look("nobody", snapshot("nobody", 0)), file.Applied, file.ReasonAdded)
	k := r.started(run.Full, "")
	r.found(k, run.Missing, "new", "deleted")
	r.found(k, run.Drifted, "corrupted", "old", "same", "back")
	r.found(k, run.Adopted, "app")
	r.found(k, run.Unowned, "nobody")
	r.see(r.webhook("back"), looked(file.Fence{Number: 1}, "back", snapshot("back", 9)), file.Applied, file.ReasonAdded)
	k.Fence = r.fence().Number
	hit := func(s *file.Snapshot) file.Observation {
		return file.Observation{FileID: s.ID, How: file.Hit, Fence: file.Fence{Number: k.Fence}, Snapshot: s, Status: 200}
	}
	did, err := r.door.Repair(r.Context(), r.turn, k.ID, k.Fence, []file.Observation{hit(snapshot("new", 0)), hit(snapshot("deleted", 0)), hit(snapshot("corrupted", 0)),
		hit(snapshot("old", 7)), hit(snapshot("same", 0)), hit(snapshot("back", 1)), hit(snapshot("app", 0)), hit(snapshot("nobody", 0))})
	r.must(err)
	r.same("did", did, map[string]run.Repair{"new": run.RepairDone, "deleted": run.RepairDone, "corrupted": run.RepairDone, "old": run.RepairDone, "same": run.RepairSame,
		"back": run.RepairAsk, "app": run.RepairDone, "nobody": run.RepairSame})
	for id, want := range map[string]string{"new": "repaired/added", "deleted": "repaired/repaired", "corrupted": "repaired/repaired", "old": "repaired/raised",
		"same": "skipped/same_by_now", "back": "found/", "app": "repaired/adopted", "nobody": "skipped/nobody"} {
		r.finding(k, id, want)
	}
	r.holds("app=bob", "back=", "corrupted=ann", "deleted=ann", "new=", "nobody=", "old=ann", "same=ann")
	r.same("story", r.story("new"), []string{"write//applied/added"})
}

func (r *rows) repairMoved() {
	k := r.started(run.Full, "")
	r.found(k, run.Missing, "f")
	r.fill("f")
	did, err := r.door.Repair(r.Context(), r.turn, k.ID, k.Fence, []file.Observation{{FileID: "f", How: file.Hit, Fence: file.Fence{Number: k.Fence}, Snapshot: snapshot("f", 9)}})
	r.must(err)
	r.same("did", did, map[string]run.Repair{"f": run.RepairMoved})
	r.finding(k, "f", "skipped/changed_since")
	r.same("high", r.passport("f").State.High, made())
}

func (r *rows) findingsBack() {
	r.see(r.report("f", "ann"), r.look("f", snapshot("f", 9)), file.Applied, file.ReasonAdded)
	k := r.started(run.Full, "")
	r.found(k, run.Drifted, "f")
	p := event.Pending{Event: r.take(k, 1, run.Drifted)[0]}
	r.see(p, r.look("f", snapshot("f", 1)), file.Applied, file.ReasonRegressed)
	r.finding(k, "f", "repaired/regressed")
	r.unsettled(k, 1)
	p.Retried = true
	r.see(p, r.look("f", snapshot("f", 1)), file.Unchanged, file.ReasonSame)
	r.finding(k, "f", "repaired/regressed") // repaired stays repaired
	r.unsettled(k, 0)
}
