package conform

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/store"
)

func turnCases() map[string]func(*rows) {
	return map[string]func(*rows){
		"Turn_TheNextOneEndsTheLast":        (*rows).turnMoves,
		"Turn_IsPausedByAnOperator":         (*rows).pauses,
		"Turn_KnowsTheNextDueRetry":         (*rows).turnKnowsDue,
		"Fence_GrowsAndSaysWhatIsKnown":     (*rows).fences,
		"Trials_CountCrashesAndEndWithIt":   (*rows).trials,
		"Call_OfNobodyWhoWaitsDoesNothing":  (*rows).cancelled,
		"LiveFiles_AreSoundOnes":            (*rows).liveFiles,
		"Report_IsForItsUserOnly":           (*rows).reports,
		"Preview_SaysItAndWritesNothing":    (*rows).previews,
		"KnownFiles_VerifiedOnesFirst":      (*rows).knownFiles,
		"Settle_KeepsEachEventOfAFile":      (*rows).eachWaits,
		"Settle_RefusesWhatCannotBeStored":  (*rows).unstorable,
		"Passport_TellsWhatWasWaitingAndBy": (*rows).passports,
	}
}

// Whatever writes in a turn is refused once another has begun, and writes nothing.
func (r *rows) turnMoves() {
	other := r.Open(store.Config{})
	p := r.report("f", "ann")
	o := r.look("f", snapshot("f", 0))
	next := r.begin(other)
	if next != r.turn+1 {
		r.Errorf("the turn after %d is %d", r.turn, next)
	}
	_, err := r.door.Settle(r.Context(), r.turn, []event.Pending{p}, []file.Observation{o}, table)
	r.fails(err, event.ErrTurnMoved)
	_, err = r.door.Mark(r.Context(), r.turn, []string{p.ID})
	r.fails(err, event.ErrTurnMoved)
	r.fails(r.door.Blame(r.Context(), r.turn, []string{p.ID}, "stack"), event.ErrTurnMoved)
	_, err = r.door.Repair(r.Context(), r.turn, "", 0, []file.Observation{r.hit(snapshot("f", 0))})
	r.fails(err, event.ErrTurnMoved)
	r.fails(r.door.SavePollPosition(r.Context(), r.turn, made()), event.ErrTurnMoved)
	_, err = r.door.TakeReplays(r.Context(), r.turn, "none", 1)
	r.fails(err, event.ErrTurnMoved)
	r.holds()
	r.same("marks", len(r.mustTrials(p)), 1)
	r.same("survived", r.mustTrials(p)[p.ID].Survived, 0)
	turn, err := r.door.Turn(r.Context())
	r.must(err)
	r.same("turn", turn.Number, next)
}

func (r *rows) mustTrials(all ...event.Pending) map[string]event.Mark {
	r.Helper()
	out, err := r.door.Trials(r.Context(), all)
	r.must(err)
	return out
}

func (r *rows) pauses() {
	act := store.Act{Who: "op", Note: "maintenance", Key: "k"}
	paused, err := r.door.SetPaused(r.Context(), true, act)
	r.must(err)
	r.same("paused", []any{paused.Paused, paused.By, paused.Note, paused.At.IsZero()}, []any{true, "op", "maintenance", false})
	p, o := r.report("f", "ann"), r.look("f", snapshot("f", 0))
	_, err = r.door.Settle(r.Context(), r.turn, []event.Pending{p}, []file.Observation{o}, table)
	r.fails(err, event.ErrPaused)
	_, err = r.door.Mark(r.Context(), r.turn, []string{p.ID})
	r.fails(err, event.ErrPaused)
	r.must(r.door.Blame(r.Context(), r.turn, []string{p.ID}, "stack")) // the process ends all the same
	r.holds()
	turn, err := r.Open(store.Config{}).BeginTurn(r.Context())
	r.must(err)
	r.turn = turn.Number
	r.same("turn", []any{turn.Paused, turn.PausedBy, turn.PausedNote}, []any{true, "op", "maintenance"})

	paused, err = r.door.SetPaused(r.Context(), false, store.Act{Who: "op", Key: "k2"})
	r.must(err)
	r.same("resumed", []any{paused.Paused, paused.By, paused.At.IsZero()}, []any{false, "", true})
	paused, err = r.door.SetPaused(r.Context(), true, act) // the same key again
	r.must(err)
	r.same("the same key again", paused.Paused, false)
	r.see(p, r.look("f", snapshot("f", 0)), file.Applied, file.ReasonAdded)
}

func (r *rows) turnKnowsDue() {
	turn, err := r.door.BeginTurn(r.Context())
	r.must(err)
	r.turn = turn.Number
	if !turn.NextDue.IsZero() {
		r.Errorf("something is due: %s", turn.NextDue)
	}
	out := r.settled([]event.Pending{r.webhook("f")}, nil, always(event.End{Kind: event.Retry, Reason: "later", After: time.Hour}))
	turn, err = r.door.BeginTurn(r.Context())
	r.must(err)
	if turn.NextDue.IsZero() || !turn.NextDue.Equal(out.NextDue) {
		r.Errorf("due at %s, the settlement said %s", turn.NextDue, out.NextDue)
	}
}

// Events of one file that have to wait are kept one by one, and end one by one: each is
// somebody's.
func (r *rows) eachWaits() {
	all := []event.Pending{r.report("f", "ann"), r.report("f", "bob"), r.webhook("f"), r.webhook("g")}
	r.settled(all, nil, always(event.End{Kind: event.Retry, Reason: "later", After: time.Millisecond}))
	r.Pass(time.Millisecond)
	due := r.due(len(all))
	for _, p := range all {
		if !slices.ContainsFunc(due, func(q event.Pending) bool { return q.ID == p.ID && q.User == p.User }) {
			r.Errorf("the event of %q on %s does not wait: %+v", p.User, p.FileID, due)
		}
	}
	out := r.settled(due, nil, always(event.End{Kind: event.Rejected, Reason: "not_found"}))
	r.same("ends", len(out.Ends), len(all))
}

func (r *rows) fences() {
	f1, known, err := r.door.Fence(r.Context(), []string{"f", "g"})
	r.must(err)
	r.same("unknown", known, map[string]file.Known{"f": {}, "g": {}})
	r.see(r.report("f", "ann"), r.look("f", snapshot("f", 0)), file.Applied, file.ReasonAdded)
	r.Insert("g", "bob")
	f2, known, err := r.door.Fence(r.Context(), []string{"f", "g"})
	r.must(err)
	if f2.Number <= f1.Number+1 || f2.At.Before(f1.At) {
		r.Errorf("fence %d after %d and a write", f2.Number, f1.Number)
	}
	r.same("f", known["f"], file.Known{Seen: true, Live: true, High: made()})
	r.same("g", known["g"], file.Known{Seen: true, Live: true})
	r.see(r.webhook("f"), r.absent("f", "g"), file.LookAgain, file.ReasonNominated)
	r.Pass(time.Millisecond)
	_, known, err = r.door.Fence(r.Context(), []string{"f"})
	r.must(err)
	if k := known["f"]; !k.Suspect || k.SuspectFor < time.Millisecond || !k.Live || k.Gone {
		r.Errorf("a suspect: %+v", k)
	}
	r.see(r.deleted("f"), r.look("f", nil), file.LookAgain, file.ReasonNoCanary) // g stands
	r.Delete("g")
	r.see(r.deleted("f"), r.look("f", nil), file.Tombstoned, file.ReasonAnnounced)
	_, known, err = r.door.Fence(r.Context(), []string{"f"})
	r.must(err)
	r.same("gone", known["f"], file.Known{Seen: true, Gone: true, High: made()})
}

// acquitted: a turn takes back what it marked, and nothing that others did.
func (r *rows) acquitted() {
	a, b := r.webhook("f"), r.webhook("g")
	mark := func(ids ...string) {
		_, err := r.door.Mark(r.Context(), r.turn, ids)
		r.must(err)
	}
	acquit := func(turn int64) {
		for range 2 { // its answer may be lost
			r.must(r.door.Acquit(r.Context(), turn, []string{a.ID, "nobody's"}))
		}
	}
	mark(a.ID, b.ID)
	acquit(r.turn)
	r.same("acquitted", r.mustTrials(a, b), map[string]event.Mark{a.ID: {}, b.ID: {Survived: 1}})
	mark(a.ID)
	before := r.turn
	r.turn = r.begin(r.door)
	mark(a.ID)
	acquit(before) // too late: the next turn has marked it since
	r.same("not by the turn before", r.mustTrials(a), map[string]event.Mark{a.ID: {Survived: 2}})
	acquit(r.turn)
	r.same("the crash before it stands", r.mustTrials(a), map[string]event.Mark{a.ID: {Survived: 1}})
	now := r.turn
	r.turn = r.begin(r.door)
	acquit(now)
	r.same("once", r.mustTrials(a), map[string]event.Mark{a.ID: {Survived: 1}})
}

func (r *rows) trials() {
	p, q := r.webhook("f"), r.webhook("g")
	for want := range 3 {
		survived, err := r.door.Mark(r.Context(), r.turn, []string{p.ID, p.ID})
		r.must(err)
		r.same("survived", survived, map[string]event.Mark{p.ID: {Survived: want}})
		survived, err = r.door.Mark(r.Context(), r.turn, []string{p.ID}) // the answer was lost
		r.must(err)
		r.same("survived, asked again", survived, map[string]event.Mark{p.ID: {Survived: want}})
		if want < 2 {
			r.turn = r.begin(r.door)
		}
	}
	r.must(r.door.Blame(r.Context(), r.turn, []string{p.ID, q.ID}, "spinning")) // one crash counts once
	r.same("blamed", r.mustTrials(p, q), map[string]event.Mark{p.ID: {Survived: 3, Stack: "spinning"}, q.ID: {Survived: 1, Stack: "spinning"}})
	r.turn = r.begin(r.door)
	r.must(r.door.Blame(r.Context(), r.turn, []string{q.ID}, "again"))
	r.same("blamed in the next turn", r.mustTrials(q), map[string]event.Mark{q.ID: {Survived: 2, Stack: "again"}})
	r.settle([]event.Pending{p, q}, r.look("f", snapshot("f", 0)))
	r.same("over, and waiting", r.mustTrials(p, q), map[string]event.Mark{})
	q.Retried = true
	r.same("from the retries", r.mustTrials(q), map[string]event.Mark{q.ID: {}})
	r.acquitted()
}

func (r *rows) cancelled() {
	_, err := r.door.Settle(r.closed(), r.turn, []event.Pending{r.report("f", "ann")}, []file.Observation{r.look("f", snapshot("f", 0))}, table)
	if err == nil || errors.Is(err, event.ErrUnstorable) || errors.Is(err, event.ErrTurnMoved) {
		r.Errorf("settled for nobody: %v", err)
	}
	r.holds()
}

func (r *rows) liveFiles() {
	r.settle([]event.Pending{r.report("a", "ann"), r.report("b", "ann"), r.report("c", "ann"), r.report("d", "ann")},
		r.look("a", snapshot("a", 0)), r.look("b", snapshot("b", 0)), r.look("c", snapshot("c", 0)), r.look("d", snapshot("d", 0)))
	r.see(r.webhook("b"), r.absent("b", "a"), file.LookAgain, file.ReasonNominated)
	r.settled([]event.Pending{r.deleted("c")}, nil, always(event.End{Kind: event.Retry, Reason: "later", After: time.Hour}))
	all, err := r.door.LiveFiles(r.Context(), 10, []string{"d"})
	r.must(err)
	r.same("sound", all, []string{"a"})
	some, err := r.door.LiveFiles(r.Context(), 1, nil)
	r.must(err)
	r.same("one", len(some), 1)
}

func (r *rows) reports() {
	mine, late := r.report("f", "ann"), r.report("f", "eve")
	r.same("pending", r.reported(mine, "ann"), store.Report{State: "pending"})
	r.see(mine, r.look("f", snapshot("f", 0)), file.Applied, file.ReasonAdded)
	r.see(late, r.look("f", snapshot("f", 0)), file.Unchanged, file.ReasonSame)
	got := r.reported(mine, "ann")
	if got.State != "verified" || got.File == nil {
		r.Fatalf("ann's report: %+v", got)
	}
	want := snapshot("f", 0)
	r.same("file", []any{got.File.ID, got.File.URL, *got.File.Name, *got.File.SizeBytes, got.File.Tags, got.File.CreatedAt, got.File.UpdatedAt, got.File.VersionID},
		[]any{want.ID, want.URL, *want.Name, *want.SizeBytes, want.Tags, want.CreatedAt, want.UpdatedAt, (*string)(nil)})
	r.same("eve's", r.reported(late, "eve"), store.Report{State: "rejected", Reason: "not_claimable"})
	r.same("eve asks for ann's", r.reported(mine, "eve"), store.Report{State: "pending"})
	r.same("nobody asks", r.reported(r.webhook("f"), ""), store.Report{State: "pending"})
}

func (r *rows) reported(p event.Pending, user string) store.Report {
	r.Helper()
	got, err := r.door.Report(r.Context(), p.ID, user)
	r.must(err)
	return got
}

func (r *rows) previews() {
	p, q := r.report("f", "ann"), r.webhook("gone")
	seen := []file.Observation{r.look("f", snapshot("f", 0)), r.look("gone", nil)}
	before := r.fence()
	got, err := r.door.Preview(r.Context(), []event.Pending{p, q}, seen, table)
	r.must(err)
	r.same("f", got[p.ID], store.Previewed{Verdict: "present", End: event.End{Kind: event.Done, Reason: "added"},
		Result: file.Result{Outcome: file.Applied, Reason: file.ReasonAdded, Claim: file.ClaimHeld, Live: true}})
	r.same("gone", []any{got[q.ID].Verdict, got[q.ID].Result.Reason, got[q.ID].End.Kind}, []any{"absent", file.ReasonNotFound, event.Retry})
	r.holds()
	r.same("ledger", r.story("f"), []string(nil))
	if after := r.fence(); after.Number <= before.Number {
		r.Errorf("fence %d after %d", after.Number, before.Number)
	}
	r.see(p, r.look("f", snapshot("f", 0)), file.Applied, file.ReasonAdded)
	got, err = r.door.Preview(r.Context(), []event.Pending{p}, seen, table)
	r.must(err)
	r.same("over already", got, map[string]store.Previewed{})
}

func (r *rows) knownFiles() {
	none, err := r.door.KnownFiles(r.Context(), 5)
	r.must(err)
	r.same("of an empty database", len(none), 0)
	r.settle([]event.Pending{r.report("sure", "ann"), r.report("doubt", "ann"), r.report("gone", "ann"), r.report("announced", "ann")},
		r.look("sure", snapshot("sure", 0)), r.look("doubt", snapshot("doubt", 0)), r.look("announced", snapshot("announced", 0)))
	r.Insert("app", "bob")
	r.see(r.webhook("doubt"), r.absent("doubt", "sure"), file.LookAgain, file.ReasonNominated)
	r.settled([]event.Pending{r.deleted("announced")}, nil, always(event.End{Kind: event.Retry, Reason: "later", After: time.Hour}))
	all, err := r.door.KnownFiles(r.Context(), 10)
	r.must(err)
	var ids []string
	for _, k := range all {
		ids = append(ids, k.FileID)
		r.same(k.FileID+" has a time", !k.CreatedAt.IsZero(), k.FileID == "sure")
	}
	r.same("in order", ids, []string{"sure", "app", "doubt"})
	for _, id := range []string{"sure", "app", "doubt", "announced"} {
		r.Delete(id)
	}
	all, err = r.door.KnownFiles(r.Context(), 1)
	r.must(err)
	if len(all) != 1 || all[0].FileID != "sure" || !all[0].CreatedAt.IsZero() {
		r.Errorf("remembered: %+v", all)
	}
}

func (r *rows) unstorable() {
	for name, spoil := range map[string]func(*file.Snapshot){
		"NUL":      func(s *file.Snapshot) { bad := "a\x00b"; s.Name = &bad },
		"NotUTF8":  func(s *file.Snapshot) { s.Tags = []string{"\xff"} },
		"NULInTag": func(s *file.Snapshot) { s.Tags = []string{"\x00"} },
		"NotJSON":  func(s *file.Snapshot) { s.CustomMetadata = []byte(`{"a":`) },
		"JSONNUL":  func(s *file.Snapshot) { s.CustomMetadata = []byte(`{"a": "\u0000"}`) },
	} {
		bad := snapshot("bad", 0)
		spoil(bad)
		pending := []event.Pending{r.report("good", "ann"), r.report("bad", "ann")}
		_, err := r.door.Settle(r.Context(), r.turn, pending, []file.Observation{r.look("good", snapshot("good", 0)), r.look("bad", bad)}, table)
		if !errors.Is(err, event.ErrUnstorable) {
			r.Errorf("%s: settled with %v", name, err)
		}
		r.holds()
		hashes, err := r.door.Hash(r.Context(), []*file.Snapshot{snapshot("good", 0), bad})
		r.must(err)
		if hashes[0] == 0 || hashes[1] != 0 {
			r.Errorf("%s: hashes %v", name, hashes)
		}
		did, err := r.door.Repair(r.Context(), r.turn, "", 0, []file.Observation{r.hit(bad)})
		r.must(err)
		r.same(name, did["bad"], "ask")
		got, err := r.door.Preview(r.Context(), pending[1:], []file.Observation{r.look("bad", bad)}, table)
		r.must(err)
		r.same(name, got[pending[1].ID].End.Reason, "unstorable")
	}
}

func (r *rows) passports() {
	p := r.report("f", "ann")
	p.Attempts = []event.Attempt{{At: made(), Class: event.ClassImageKit, Reason: "unavailable", Status: 503, Version: "test"}}
	r.settled([]event.Pending{p}, nil, always(event.End{Kind: event.Retry, Reason: "throttled", After: time.Hour}))
	r.settled([]event.Pending{r.webhook("f")}, nil, dead())
	r.see(r.webhook("f"), r.look("f", snapshot("f", 0)), file.Applied, file.ReasonAdded)
	r.must(r.door.Assign(r.Context(), "f", "cat", store.Act{Who: "op", Note: "by mail"}))
	got := r.passport("f")
	r.same("state", []any{got.State.Owner, got.State.OwnerKind, got.State.High, got.State.GoneAt.IsZero(), len(got.State.Flags)},
		[]any{"cat", "assigned", made(), true, 0})
	r.same("ledger", r.story("f"), []string{"assign//applied/owner", "file.created/dead//gave_up", "file.created/done/applied/added"})
	r.same("retry", []any{got.Retries[0].EventID, got.Retries[0].Tries, got.Retries[0].Waited, got.Retries[0].Reason}, []any{p.ID, 1, time.Hour, "throttled"})
	r.same("letter", []any{got.DeadLetters[0].Reason, got.DeadLetters[0].State, got.DeadLetters[0].Attempts, string(got.DeadLetters[0].History)},
		[]any{"gave_up", "dead", 1, "[]"})
	r.same("acts", []any{len(got.Acts), got.Acts[0].Verb, got.Acts[0].Who, got.Acts[0].Note}, []any{1, "assign", "op", "by mail"})
	r.same("empty", []any{len(got.Jobs), len(got.Findings), got.Cut}, []any{0, 0, false})
	r.same("of a file never seen", r.passport("none").State == nil && r.passport("none").Row == nil, true)
}

func settleCases() map[string]func(*rows) {
	return map[string]func(*rows){
		"Settle_EveryKindOfEnd":              (*rows).ends,
		"Settle_TwiceIsOnce":                 (*rows).twice,
		"Settle_SharesOneLook":               (*rows).shares,
		"Settle_KeepsEachDeadLetterAsItWas":  (*rows).letterAsItWas,
		"Settle_MasksSecrets":                (*rows).masks,
		"Settle_TellsOfAWriteWithoutAnEvent": (*rows).poll,
	}
}

func (r *rows) ends() {
	kinds := map[event.EndKind]string{event.Done: "done", event.Superseded: "newer", event.Rejected: "not_found", event.Retry: "later", event.Dead: "gave_up"}
	for kind, reason := range kinds {
		p := r.webhook("f")
		out := r.settled([]event.Pending{p}, nil, always(event.End{Kind: kind, Reason: reason, After: time.Hour, Class: event.ClassCaller}))
		r.same(reason, []any{out.Ends[p.ID].Kind, out.Already, len(out.Security)}, []any{kind, 0, 0})
		if kind == event.Retry && out.NextDue.IsZero() {
			r.Error("a retry, and nothing due")
		}
	}
	got := r.passport("f")
	var lines []string
	for _, l := range got.Lines {
		lines = append(lines, l.End+" "+l.Reason+" "+l.Verdict)
	}
	slices.Sort(lines)
	r.same("ledger", lines, []string{"dead gave_up undecided", "done done undecided", "rejected not_found undecided", "superseded newer undecided"})
	r.same("waiting, parked", []any{len(got.Retries), len(got.DeadLetters)}, []any{1, 1})
}

func (r *rows) twice() {
	p := r.report("f", "ann")
	o := r.look("f", snapshot("f", 0))
	first := r.settled([]event.Pending{p, p}, []file.Observation{o}, table)
	r.same("first", []any{len(first.Ends), first.Already}, []any{1, 1})
	again := r.settled([]event.Pending{p}, []file.Observation{r.look("f", snapshot("f", 0))}, table)
	r.same("again", []any{len(again.Ends), again.Already}, []any{0, 1})
	seen := r.passport("f").State.Seen
	r.see(r.webhook("f"), r.look("f", snapshot("f", 0)), file.Unchanged, file.ReasonSame)
	r.same("seen", r.passport("f").State.Seen, seen)

	// One that waits is settled from the retries only.
	w := r.webhook("g")
	later := always(event.End{Kind: event.Retry, Reason: "later", After: time.Millisecond})
	r.settled([]event.Pending{w}, nil, later)
	out := r.settled([]event.Pending{w}, nil, always(event.End{Kind: event.Done}))
	r.same("its envelope came again", out.Already, 1)
	w.Retried = true
	out = r.settled([]event.Pending{w}, nil, always(event.End{Kind: event.Done}))
	r.same("from the retries", out.Already, 0)
	out = r.settled([]event.Pending{w}, nil, always(event.End{Kind: event.Done}))
	r.same("and once more", out.Already, 1)
}

func (r *rows) shares() {
	early, late, hook := r.report("f", "eve"), r.report("f", "ann"), r.webhook("f")
	late.AcceptedAt = late.AcceptedAt.Add(-time.Second)
	told := r.settle([]event.Pending{early, late, hook}, r.look("f", snapshot("f", 0)), r.hit(snapshot("f", 0)))
	r.same("claims", []any{told[early.ID].Claim, told[late.ID].Claim, told[hook.ID].Claim}, []any{file.ClaimRefused, file.ClaimHeld, file.ClaimNone})
	r.holds("f=ann")
	r.same("ends", len(slices.Collect(maps.Keys(told))), 3)
}

func (r *rows) letterAsItWas() {
	p := r.report("f", "ann")
	p.Body, p.UpdatedAt, p.WebhookID = []byte("\x00\xff raw"), made().Add(1234567*time.Nanosecond), "w1"
	p.Headers = map[string]string{"user-agent": "x\x00y", "content-type": "text/plain"}
	p.Attempts = []event.Attempt{{At: made(), Class: event.ClassImageKit, Reason: "timed_out", Version: "v1", Excerpt: "…"}}
	r.settled([]event.Pending{p}, nil, dead())
	all, err := r.door.DeadLetters(r.Context(), event.Filter{}, "", 10)
	r.must(err)
	if len(all) != 1 || all[0].Body != nil || all[0].Headers != nil {
		r.Fatalf("listed: %+v", all)
	}
	got, err := r.door.DeadLetter(r.Context(), all[0].ID)
	r.must(err)
	r.same("body", []any{string(got.Body), got.Headers["content-type"], len(got.Masked)}, []any{"\x00\xff raw", "text/plain", 0})
	r.same("event", []any{got.EventID, got.FileID, got.Source, got.Origin, got.Kind, got.User, got.AcceptedAt, got.UpdatedAt, got.WebhookID},
		[]any{p.ID, "f", event.Client, event.Client, event.KindReport, "ann", p.AcceptedAt, made().Add(1234 * time.Microsecond), "w1"})
	r.same("end", []any{got.Class, got.Reason, got.Note, got.State, got.History == nil}, []any{event.ClassImageKit, "gave_up", "It did not answer.", event.LetterDead, true})
	r.same("attempts", []any{len(got.Attempts), got.Attempts[0].Reason, got.Attempts[1].Status}, []any{2, "timed_out", 503})
	_, err = r.door.DeadLetter(r.Context(), "none")
	r.fails(err, event.ErrUnknown)
}

func (r *rows) masks() {
	r.reopened(store.Config{Secrets: [][]byte{[]byte("canary_secret_1"), []byte("short")}})
	p := r.webhook("f")
	p.Body, p.Headers = []byte(`{"key":"canary_secret_1","short":1}`), map[string]string{"x": "a canary_secret_1"}
	r.settled([]event.Pending{p}, nil, always(event.End{Kind: event.Dead, Reason: "refused", Class: event.ClassTrueup, Note: "said canary_secret_1",
		Attempt: &event.Attempt{Reason: "refused", Excerpt: "canary_secret_1"}}))
	all, err := r.door.DeadLetters(r.Context(), event.Filter{}, "", 1)
	r.must(err)
	got, err := r.door.DeadLetter(r.Context(), all[0].ID)
	r.must(err)
	r.same("masked", []any{string(got.Body), got.Headers["x"], got.Note, got.Attempts[0].Excerpt, got.Masked},
		[]any{`{"key":"***************","short":1}`, "a ***************", "said ***************", "***************", []event.Span{{From: 8, To: 23}}})
}

func (r *rows) poll() {
	did, err := r.door.Repair(r.Context(), r.turn, "", 0, []file.Observation{r.hit(snapshot("f", 0))})
	r.must(err)
	r.same("did", did["f"], "repaired")
	r.same("story", r.story("f"), []string{"write//applied/added"})
	did, err = r.door.Repair(r.Context(), r.turn, "", 0, []file.Observation{r.hit(snapshot("f", 0))})
	r.must(err)
	r.same("again", did["f"], "same")
	r.same("story", r.story("f"), []string{"write//applied/added"})
	at, err := r.door.PollPosition(r.Context())
	r.must(err)
	r.same("no position yet", at.IsZero(), true)
	r.must(r.door.SavePollPosition(r.Context(), r.turn, made().Add(1500*time.Nanosecond)))
	at, err = r.door.PollPosition(r.Context())
	r.must(err)
	r.same("position", at, made().Add(time.Microsecond))
}
