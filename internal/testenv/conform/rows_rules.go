package conform

import (
	"fmt"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/run"
)

func orderCases() map[string]func(*rows) {
	return map[string]func(*rows){
		"Rule1_ALookUpAfterEverythingDecides":       (*rows).rule1,
		"Rule2_AnyOtherMayRaiseAndPutBack":          (*rows).rule2,
		"Rule4_OnlyALookUpLiftsATombstone":          (*rows).rule4,
		"Rule5_UnchangedIsJudgedByTheRow":           (*rows).rule5,
		"Rule6_AHitAnswersOnlyNews":                 (*rows).rule6,
		"Rule2_AnUnknownRowIsAdopted":               (*rows).adopts,
		"Rule7_OfTwoObservationsTheLookUpSpeaks":    (*rows).speaks,
		"Rule2_AChangedUserIsPutBack":               (*rows).putsUserBack,
		"Differences_AreShownAsPostgreSQLShowsThem": (*rows).differences,
	}
}

func (r *rows) rule1() {
	r.see(r.report("f", "ann"), r.look("f", snapshot("f", 5)), file.Applied, file.ReasonAdded)
	r.see(r.webhook("f"), r.look("f", snapshot("f", 9)), file.Applied, file.ReasonRaised)
	got := r.see(r.webhook("f"), r.look("f", snapshot("f", 1)), file.Applied, file.ReasonRegressed)
	r.same("asked once more", got.Wait, 5*time.Second)
	r.same("high", r.passport("f").State.High, made().Add(9*time.Minute))
	other := snapshot("f", 1)
	name := "other.jpg"
	other.Name = &name
	r.see(r.webhook("f"), r.look("f", other), file.Applied, file.ReasonRegressed)
	r.same("row", r.Rows()["f"], "ann other.jpg")
}

func (r *rows) rule2() {
	before := r.fence()
	r.see(r.report("f", "ann"), r.look("f", snapshot("f", 5)), file.Applied, file.ReasonAdded)
	r.see(r.webhook("f"), r.hit(snapshot("f", 9)), file.Applied, file.ReasonRaised)
	r.see(r.webhook("f"), r.hit(snapshot("f", 1)), file.LookAgain, file.ReasonStaleHit)
	r.see(r.webhook("f"), looked(before, "f", snapshot("f", 1)), file.LookAgain, file.ReasonStaleHit)
	r.see(r.webhook("f"), looked(before, "f", nil), file.LookAgain, file.ReasonStaleHit)
	r.SetName("f", "eve.jpg")
	r.see(r.updated("f", 9), r.hit(snapshot("f", 9)), file.Applied, file.ReasonRepaired)
	r.Delete("f")
	r.see(r.webhook("f"), r.hit(snapshot("f", 11)), file.LookAgain, file.ReasonStaleHit)
	r.see(r.updated("f", 9), r.hit(snapshot("f", 9)), file.Applied, file.ReasonRepaired)
	r.same("row", r.Rows()["f"], "ann f.jpg")
}

func (r *rows) rule4() {
	r.see(r.report("f", "ann"), r.look("f", snapshot("f", 0)), file.Applied, file.ReasonAdded)
	r.see(r.deleted("f"), r.look("f", nil), file.Tombstoned, file.ReasonAnnounced)
	r.holds()
	r.see(r.webhook("f"), r.look("f", nil), file.Unchanged, file.ReasonGone)
	r.see(r.webhook("f"), r.hit(snapshot("f", 7)), file.LookAgain, file.ReasonStaleHit)
	r.holds()
	r.see(r.webhook("f"), r.look("f", snapshot("f", 0)), file.Applied, file.ReasonRevived)
	r.holds("f=ann")
	r.see(r.webhook("never"), r.look("never", nil), file.Unchanged, file.ReasonNotFound)
	if r.passport("never").State != nil {
		r.Error("a file never seen is remembered")
	}
	p := r.deleted("never2")
	o := r.look("never2", nil)
	o.Canary = file.Canary{FileIDs: []string{"f"}}
	r.see(p, o, file.Tombstoned, file.ReasonAnnounced)
}

func (r *rows) rule5() {
	r.see(r.report("f", "ann"), r.look("f", snapshot("f", 0)), file.Applied, file.ReasonAdded)
	seen := r.passport("f").State.Seen
	r.see(r.webhook("f"), r.look("f", snapshot("f", 0)), file.Unchanged, file.ReasonSame)
	r.same("seen", r.passport("f").State.Seen, seen)
	r.SetName("f", "eve.jpg")
	r.see(r.webhook("f"), r.look("f", snapshot("f", 0)), file.Applied, file.ReasonRepaired)
	r.Delete("f")
	r.see(r.webhook("f"), r.look("f", snapshot("f", 0)), file.Applied, file.ReasonRepaired)
	r.see(r.webhook("f"), r.look("f", nil), file.LookAgain, file.ReasonNominated)
	r.see(r.webhook("f"), r.look("f", snapshot("f", 0)), file.Applied, file.ReasonCleared)
	r.see(r.webhook("f"), r.look("f", snapshot("f", 0)), file.Unchanged, file.ReasonSame)
	r.holds("f=ann")
}

func (r *rows) rule6() {
	r.see(r.report("f", "ann"), r.hit(snapshot("f", 5)), file.Applied, file.ReasonAdded)
	r.holds("f=ann")
	r.see(r.report("f", "ann"), r.hit(snapshot("f", 5)), file.LookAgain, file.ReasonNotNews)
	at := r.webhook("f")
	at.UpdatedAt = made().Add(5 * time.Minute)
	r.see(at, r.hit(snapshot("f", 5)), file.Unchanged, file.ReasonSame)
	at = r.webhook("f")
	at.UpdatedAt = made().Add(6 * time.Minute)
	r.see(at, r.hit(snapshot("f", 5)), file.LookAgain, file.ReasonNotNews)
	for _, p := range []event.Pending{r.deleted("f"), r.event(event.Reconcile, event.KindRecheck, "f"), r.event(event.Replay, event.KindReport, "f")} {
		r.see(p, r.hit(snapshot("f", 7)), file.LookAgain, file.ReasonNotNews)
	}
}

func (r *rows) adopts() {
	r.Insert("app", "bob")
	r.Insert("nobody", "")
	r.see(r.report("app", "ann"), r.look("app", snapshot("app", 0)), file.Applied, file.ReasonAdopted)
	r.see(r.report("nobody", "ann"), r.hit(snapshot("nobody", 0)), file.LookAgain, file.ReasonNotNews) // adopted, which is no news
	r.holds("app=bob", "nobody=")
	r.same("owner", r.passport("app").State.OwnerKind, "adopted")
	r.same("flags", r.passport("app").State.Flags, []string{"claim_refused"})
	r.Insert("absent", "cat")
	got := r.see(r.webhook("absent"), r.absent("absent", "app"), file.LookAgain, file.ReasonNominated)
	r.same("wait", got.Wait, confirm)
	r.same("owner", r.passport("absent").State.Owner, "cat")
}

func (r *rows) speaks() {
	p := r.webhook("f")
	r.settle([]event.Pending{p}, r.hit(snapshot("f", 9)), r.look("f", snapshot("f", 5)), r.hit(snapshot("f", 11)))
	r.same("high", r.passport("f").State.High, made().Add(5*time.Minute))
}

func (r *rows) putsUserBack() {
	r.see(r.report("f", "ann"), r.look("f", snapshot("f", 0)), file.Applied, file.ReasonAdded)
	r.SetUser("f", "eve")
	r.see(r.updated("f", 0), r.hit(snapshot("f", 0)), file.Applied, file.ReasonRepaired)
	r.holds("f=ann")
	r.SetUser("f", "eve")
	r.see(r.webhook("f"), r.look("f", snapshot("f", 0)), file.Applied, file.ReasonRepaired)
	r.holds("f=ann")
}

func (r *rows) differences() {
	full := snapshot("f", 0)
	r.see(r.report("f", "ann"), r.look("f", full), file.Applied, file.ReasonAdded)
	bare := &file.Snapshot{ID: "f", URL: "https://ik.example/other", CreatedAt: made().Add(1500 * time.Microsecond), UpdatedAt: made().Add(time.Hour),
		Tags: []string{"plain", "Ünï"}, CustomMetadata: []byte(`{"z":1,"aa":"\u00fc<","z":2.0}`)}
	r.SetUser("f", "eve")
	got, err := r.door.Differences(r.Context(), []*file.Snapshot{bare, snapshot("none", 0)})
	r.must(err)
	text := func(s *string) string {
		if s == nil {
			return "NULL"
		}
		return *s
	}
	var lines []string
	for _, d := range got["f"] {
		lines = append(lines, fmt.Sprintf("%s: %s | %s", d.Column, text(d.Row), text(d.ImageKit)))
	}
	want := []string{
		`user_id: eve | ann`,
		`file_url: https://ik.example/f.jpg | https://ik.example/other`,
		`upload_timestamp: 2026-03-01 12:00:00+00 | 2026-03-01 12:00:00.0015+00`,
		`file_name: f.jpg | NULL`, `file_path: /f.jpg | NULL`, `file_type: image | NULL`, `mime: image/jpeg | NULL`,
		`size_bytes: 2048 | NULL`, `width: 640 | NULL`, `height: 640 | NULL`, `thumbnail_url: https://ik.example/t/f | NULL`,
		`tags: {"a \"b\"","c\\d","e,{f}","","null"} | {plain,Ünï}`,
		`custom_metadata: {"n": 1.50, "s": "x\n\"", "deep": {"a": {}, "b": [1, true, null]}} | {"z": 2.0, "aa": "ü<"}`,
		`version_id: f | NULL`, `is_private: false | NULL`, `remote_updated_at: 2026-03-01 12:00:00+00 | 2026-03-01 13:00:00+00`,
	}
	for i := range max(len(lines), len(want)) {
		if i >= len(lines) || i >= len(want) || lines[i] != want[i] {
			r.Errorf("difference %d:\ngot  %v\nwant %v", i, lines[min(i, len(lines)):], want[min(i, len(want)):])
			return
		}
	}
	r.same("others", len(got), 1)
	hashes, err := r.door.Hash(r.Context(), []*file.Snapshot{full, bare, snapshot("f", 0), snapshot("g", 0)})
	r.must(err)
	r.same("hashes", []bool{hashes[0] == hashes[2], hashes[0] == hashes[1], hashes[0] == hashes[3]}, []bool{true, false, false})
}

func absenceCases() map[string]func(*rows) {
	return map[string]func(*rows){
		"Rule3_TwoAbsencesApartRemove":          (*rows).confirms,
		"Rule3_TheFirstNeedsACanaryToo":         (*rows).unvouched,
		"Rule3_ShownBetweenTwoAbsences":         (*rows).shownBetween,
		"Rule3_NeedsACanary":                    (*rows).canaries,
		"Rule3_AnAnnouncedOneNeedsOne":          (*rows).announces,
		"Fuse_LatchesAboveItsFloor":             (*rows).fuses,
		"Fuse_BearsAShareOfManyRows":            (*rows).bears,
		"Account_InDoubtNothingUnvouchedIsGone": (*rows).doubts,
	}
}

// fill adds files of ann's.
func (r *rows) fill(ids ...string) {
	r.Helper()
	var pending []event.Pending
	var seen []file.Observation
	for _, id := range ids {
		pending, seen = append(pending, r.report(id, "ann")), append(seen, r.look(id, snapshot(id, 0)))
	}
	r.settle(pending, seen...)
}

// absent is a look-up that finds nothing, while another file answers.
func (r *rows) absent(id, canary string) file.Observation {
	r.Helper()
	o := r.look(id, nil)
	o.Canary = file.Canary{FileIDs: []string{canary}}
	return o
}

func (r *rows) confirms() {
	r.fill("f", "c", "d")
	r.see(r.webhook("f"), r.absent("f", "f"), file.LookAgain, file.ReasonNoCanary) // another account's, as far as anybody knows
	got := r.see(r.webhook("f"), r.absent("f", "c"), file.LookAgain, file.ReasonNominated)
	r.same("wait", got.Wait, confirm)
	nominated := r.passport("f").State
	got = r.see(r.webhook("f"), looked(file.Fence{Number: nominated.SuspectFence, At: nominated.SuspectAt.Add(time.Hour)}, "f", nil), file.LookAgain, file.ReasonStaleHit)
	r.same("wait", got.Wait, time.Duration(0))
	early := looked(file.Fence{Number: r.fence().Number, At: nominated.SuspectAt.Add(confirm - time.Microsecond)}, "f", nil)
	r.see(r.webhook("f"), early, file.LookAgain, file.ReasonTooSoon)
	r.Pass(confirm)
	r.see(r.webhook("f"), r.absent("f", "c"), file.Tombstoned, file.ReasonConfirmed)
	r.holds("c=ann", "d=ann")
	s := r.passport("f").State
	r.same("tombstone", []any{s.GoneAt.IsZero(), s.GoneWhy, s.SuspectAt.IsZero(), s.Owner}, []any{false, "confirmed", true, "ann"})

	r.see(r.webhook("c"), r.absent("c", "d"), file.LookAgain, file.ReasonNominated)
	r.Pass(10*confirm + time.Millisecond) // not the ten minutes more
	r.see(r.webhook("c"), r.absent("c", "f"), file.LookAgain, file.ReasonNoCanary)
}

// shownBetween: what was shown beside all events, of a suspect file, ends the suspicion,
// even when it was asked before the nomination.
func (r *rows) shownBetween() {
	r.fill("f", "c")
	before := r.fence()
	r.see(r.webhook("f"), r.absent("f", "c"), file.LookAgain, file.ReasonNominated)
	told := func(o file.Observation) run.Repair {
		r.Helper()
		did, err := r.door.Repair(r.Context(), r.turn, "", 0, []file.Observation{o})
		r.must(err)
		return did["f"]
	}
	r.same("told", told(looked(before, "f", snapshot("f", 0))), run.RepairDone)
	r.Pass(confirm)
	r.see(r.webhook("f"), r.absent("f", "c"), file.LookAgain, file.ReasonNominated)
	r.same("told", told(r.look("f", snapshot("f", 0))), run.RepairDone)
	r.same("told again", told(r.look("f", snapshot("f", 0))), run.RepairSame)
	r.Pass(confirm)
	r.see(r.webhook("f"), r.absent("f", "c"), file.LookAgain, file.ReasonNominated)
	r.Pass(confirm)
	r.see(r.webhook("f"), r.absent("f", "c"), file.Tombstoned, file.ReasonConfirmed)
	r.holds("c=ann")
}

// unvouched: a 404 that nothing vouched for makes a file suspect, so that it vouches for no
// other, and is not the first of two.
func (r *rows) unvouched() {
	r.fill("f", "g", "c")
	r.see(r.webhook("f"), r.absent("f", "nobody"), file.LookAgain, file.ReasonNoCanary)
	doubted := r.passport("f").State
	r.same("doubted", []any{doubted.SuspectAt.IsZero(), doubted.SuspectFence}, []any{false, int64(0)})
	r.braked(false, 0, 3)
	r.see(r.webhook("g"), r.absent("g", "f"), file.LookAgain, file.ReasonNoCanary)
	sound, err := r.door.LiveFiles(r.Context(), 5, nil)
	r.must(err)
	r.same("sound", sound, []string{"c"})
	r.Pass(confirm)
	r.see(r.webhook("f"), r.absent("f", "nobody"), file.LookAgain, file.ReasonNoCanary)
	r.same("doubted once", r.passport("f").State, doubted)
	r.see(r.webhook("f"), r.absent("f", "c"), file.LookAgain, file.ReasonNominated)
	r.braked(false, 1, 3)
	r.see(r.webhook("g"), r.look("g", snapshot("g", 0)), file.Applied, file.ReasonCleared)
	r.Pass(confirm)
	r.see(r.webhook("f"), r.absent("f", "c"), file.Tombstoned, file.ReasonConfirmed)
	r.holds("c=ann", "g=ann")
}

func (r *rows) canaries() {
	r.fill("f", "c", "d")
	r.see(r.webhook("f"), r.absent("f", "c"), file.LookAgain, file.ReasonNominated)
	r.see(r.webhook("d"), r.absent("d", "c"), file.LookAgain, file.ReasonNominated)
	r.Pass(confirm)
	r.see(r.webhook("f"), r.look("f", nil), file.LookAgain, file.ReasonNoCanary)        // others stand: the listing does not stand in
	r.see(r.webhook("f"), r.absent("f", "d"), file.LookAgain, file.ReasonNoCanary)      // suspect itself
	r.see(r.webhook("f"), r.absent("f", "f"), file.LookAgain, file.ReasonNoCanary)      // the file itself
	r.see(r.webhook("f"), r.absent("f", "nobody"), file.LookAgain, file.ReasonNoCanary) // no row
	waits := r.deleted("c")
	r.settled([]event.Pending{waits}, nil, always(event.End{Kind: event.Retry, Reason: "later", After: time.Hour}))
	r.see(r.webhook("f"), r.absent("f", "c"), file.LookAgain, file.ReasonNoCanary) // announced deleted
	waits.Retried = true
	r.settled([]event.Pending{waits}, nil, always(event.End{Kind: event.Done}))
	r.see(r.webhook("f"), r.absent("f", "c"), file.Tombstoned, file.ReasonConfirmed)
	r.holds("c=ann", "d=ann")
}

func (r *rows) announces() {
	r.fill("f", "g", "c")
	r.see(r.deleted("f"), r.look("f", nil), file.LookAgain, file.ReasonNoCanary)
	all := []event.Pending{r.deleted("f"), r.deleted("g"), r.deleted("c")}
	told := r.settle(all, r.absent("f", "g"), r.absent("g", "c"), r.look("c", nil))
	r.same("each announced in one call", []any{told[all[0].ID].Reason, told[all[1].ID].Reason, told[all[2].ID].Reason},
		[]any{file.ReasonNoCanary, file.ReasonNoCanary, file.ReasonAnnounced})
	r.fill("d")
	unsigned := r.event(event.Reconcile, event.KindDeleted, "f")
	r.see(unsigned, r.absent("f", "d"), file.LookAgain, file.ReasonNominated)
}

func (r *rows) fuses() {
	var ids []string
	for i := range 12 {
		ids = append(ids, fmt.Sprintf("f%02d", i))
	}
	r.fill(append(ids, "c")...)
	for i, id := range ids[:10] {
		r.see(r.webhook(id), r.absent(id, "c"), file.LookAgain, file.ReasonNominated)
		r.braked(false, int64(i+1), 13)
	}
	r.see(r.webhook(ids[0]), r.look(ids[0], snapshot(ids[0], 0)), file.Applied, file.ReasonCleared)
	r.see(r.webhook(ids[0]), r.absent(ids[0], "c"), file.LookAgain, file.ReasonNominated) // counted once a day
	r.braked(false, 10, 13)
	r.see(r.webhook(ids[10]), r.absent(ids[10], "c"), file.LookAgain, file.ReasonNominated)
	r.braked(true, 11, 13)
	r.Pass(confirm)
	r.see(r.webhook(ids[1]), r.absent(ids[1], "c"), file.LookAgain, file.ReasonFuseLatched)
	r.see(r.deleted(ids[2]), r.absent(ids[2], "c"), file.Tombstoned, file.ReasonAnnounced)
	status, err := r.door.Status(r.Context())
	r.must(err)
	r.same("why", []any{status.Fuse.Latched, status.Fuse.Why, status.Fuse.Candidates, status.LiveRows},
		[]any{true, "11 files without a signed deletion answered 404 within a day", 11, 12})
}

func (r *rows) braked(latched bool, today, live int64) {
	r.Helper()
	l, n, rows, err := r.door.Fuse(r.Context())
	r.must(err)
	r.same("fuse", []any{l, n, rows}, []any{latched, today, live})
}

func (r *rows) bears() {
	var ids []string
	for i := range 239 {
		ids = append(ids, fmt.Sprintf("f%03d", i))
	}
	r.fill(append(ids, "c")...) // 240: eleven in 220 are one in twenty
	var seen []file.Observation
	var pending []event.Pending
	for _, id := range ids[:12] {
		pending, seen = append(pending, r.webhook(id)), append(seen, r.absent(id, "c"))
	}
	r.settle(pending, seen...)
	r.braked(false, 12, 240)
	r.see(r.webhook(ids[12]), r.absent(ids[12], "c"), file.LookAgain, file.ReasonNominated)
	r.braked(true, 13, 240)
}

func (r *rows) doubts() {
	r.fill("f", "c")
	r.see(r.webhook("f"), r.absent("f", "c"), file.LookAgain, file.ReasonNominated)
	k := r.started("run", "")
	k.Account.Key, k.Account.Asked = "k1", 5
	r.must(r.door.SaveRun(r.Context(), r.turn, k))
	r.must(r.door.DoubtAccount(r.Context(), r.turn, k.ID, "none of 5 known files answered"))
	r.must(r.door.DoubtAccount(r.Context(), r.turn, k.ID, "still none"))
	last, doubt, err := r.door.Account(r.Context())
	r.must(err)
	r.same("account", []any{last.Key, doubt}, []any{"", "still none"})
	r.Pass(confirm)
	r.see(r.webhook("f"), r.absent("f", "c"), file.LookAgain, file.ReasonNoCanary)
	r.see(r.deleted("f"), r.absent("f", "c"), file.LookAgain, file.ReasonNoCanary)
	r.must(r.door.DoubtAccount(r.Context(), r.turn, k.ID, ""))
	last, doubt, err = r.door.Account(r.Context())
	r.must(err)
	r.same("not confirmed by the run", []any{last.Key, doubt}, []any{"", ""})
	k.Account.Confirmed = true
	r.must(r.door.SaveRun(r.Context(), r.turn, k))
	r.must(r.door.DoubtAccount(r.Context(), r.turn, k.ID, ""))
	last, _, err = r.door.Account(r.Context())
	r.must(err)
	r.same("confirmed", []any{last.Key, last.Confirmed, last.Asked}, []any{"k1", true, 5})
	r.see(r.webhook("f"), r.absent("f", "c"), file.Tombstoned, file.ReasonConfirmed)
}

func retryCases() map[string]func(*rows) {
	return map[string]func(*rows){
		"Due_OldestFirstAndWhole":    (*rows).dueOrder,
		"Due_TriesAndWaitsAddUp":     (*rows).dueGrows,
		"Due_OneRowPerEventNotFile":  (*rows).duePerEvent,
		"Due_NothingBeforeItsMoment": (*rows).dueLater,
	}
}

func (r *rows) wait(p event.Pending, d time.Duration) event.Settled {
	r.Helper()
	return r.settled([]event.Pending{p}, nil, always(event.End{Kind: event.Retry, Reason: "later", After: d,
		Attempt: &event.Attempt{At: made(), Class: event.ClassImageKit, Reason: "limited", Status: 429, Version: "test"}}))
}

func (r *rows) dueOrder() {
	a, b, c := r.report("f", "ann"), r.webhook("g"), r.deleted("h")
	b.UpdatedAt, b.WebhookID, b.DeadLetter = made().Add(time.Minute), "w1", "none"
	after := map[string]time.Duration{c.ID: 3 * time.Millisecond, a.ID: time.Millisecond, b.ID: 1500 * time.Microsecond}
	r.settled([]event.Pending{a, b, c}, nil, func(p event.Pending, _ file.Result) event.End {
		return event.End{Kind: event.Retry, Reason: "later", After: after[p.ID], Attempt: &event.Attempt{At: made(), Reason: "limited", Status: 429}}
	})
	all := r.due(3)
	r.same("order", []string{all[0].ID, all[1].ID, all[2].ID}, []string{a.ID, b.ID, c.ID})
	got := all[1]
	r.same("whole", []any{got.Retried, got.Source, got.Origin, got.Kind, got.FileID, got.AcceptedAt, got.UpdatedAt, got.WebhookID, got.DeadLetter, got.Headers, string(got.Body)},
		[]any{true, b.Source, b.Origin, b.Kind, "g", b.AcceptedAt, b.UpdatedAt, "w1", "none", b.Headers, string(b.Body)})
	r.same("attempts", []any{len(got.Attempts), got.Attempts[0].Status, all[0].User}, []any{1, 429, "ann"})
	two, next, err := r.door.Due(r.Context(), 2)
	r.must(err)
	r.same("two", []any{len(two), next.IsZero()}, []any{2, false})
	r.same("they stay", len(r.due(3)), 3)
}

func (r *rows) dueGrows() {
	r.wait(r.webhook("f"), 1500*time.Microsecond)
	p := r.due(1)[0]
	r.same("first", []any{p.Tries, p.Waited}, []any{1, time.Millisecond})
	r.wait(p, 2*time.Millisecond)
	p = r.due(1)[0]
	r.same("second", []any{p.Tries, p.Waited, len(p.Attempts)}, []any{2, 3 * time.Millisecond, 2})
	r.settled([]event.Pending{p}, nil, dead())
	all, next, err := r.door.Due(r.Context(), 5)
	r.must(err)
	r.same("over", []any{len(all), next.IsZero()}, []any{0, true})
	got := r.passport("f")
	r.same("parked", []any{got.DeadLetters[0].Attempts, len(got.Retries)}, []any{3, 0})
}

func (r *rows) duePerEvent() {
	a, b := r.webhook("f"), r.webhook("f")
	r.wait(a, time.Millisecond)
	r.wait(b, time.Millisecond)
	r.same("two", len(r.due(2)), 2)
}

func (r *rows) dueLater() {
	out := r.wait(r.webhook("f"), time.Hour)
	all, next, err := r.door.Due(r.Context(), 5)
	r.must(err)
	r.same("nothing", []any{len(all), next.Equal(out.NextDue), next.IsZero()}, []any{0, true, false})
}
