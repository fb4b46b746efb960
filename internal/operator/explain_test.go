package operator

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/run"
)

func TestExplain(t *testing.T) {
	at := func(minute int) time.Time { return time.Date(2026, 5, 1, 10, minute, 0, 0, time.UTC) }
	ptr := func(t time.Time) *time.Time { return &t }
	webhook := Line{ID: "E1", At: at(1), Source: "webhook", Origin: "webhook", Kind: "file.created", Verdict: "present", Outcome: "applied", Reason: "added", End: "done", Status: 200, RequestID: "rq"}
	report := Line{ID: "E2", At: at(2), Source: "client", Origin: "client", Kind: "report", User: "ann", Verdict: "present", Outcome: "applied", Reason: "owner", End: "done"}
	refused := Line{ID: "E3", At: at(3), Source: "client", Origin: "client", Kind: "report", User: "bob", Verdict: "present", Outcome: "unchanged", Reason: "claim_refused", End: "rejected"}
	deleted := Line{ID: "E4", At: at(4), Source: "webhook", Origin: "webhook", Kind: "file.deleted", Verdict: "absent", Outcome: "tombstoned", Reason: "announced", End: "done"}
	unfound := Line{ID: "E5", At: at(5), Source: "client", Origin: "client", Kind: "report", User: "ann", Verdict: "absent", Outcome: "unchanged", Reason: "not_found", End: "rejected"}
	row := &Row{URL: "https://x/y", User: "ann", Synced: ptr(at(2))}
	claimed := &State{Owner: "ann", OwnerKind: "claimed", OwnerAt: ptr(at(0)), OwnerEvent: "E2"}
	text := func(s string) *string { return &s }
	found := func(id string, f run.Finding) FileFinding { return FileFinding{Run: id, Finding: f} }
	with := func(s State, change func(*State)) *State { change(&s); return &s }

	tests := []struct {
		name string
		p    Passport
		last string   // part of the conclusion
		told []string // parts that must occur, in this order
	}{
		{"NeverHeardOf", Passport{}, "There is no row: trueup has never settled anything", nil},
		{"WebhookThenReport", Passport{Row: row, State: claimed, Lines: []Line{webhook, report}},
			`The row stands as ImageKit showed the file at 2026-05-01 10:02:00.000Z, and belongs to "ann", whose report was the earliest (accepted 2026-05-01 10:00:00.000Z, event E2).`,
			[]string{"10:01:00.000Z: ImageKit's webhook file.created came (event E1)", "answered 200, request rq", "the file was new", `10:02:00.000Z: "ann" reported the file`}},
		{"Proven", Passport{Row: row, State: &State{Owner: "ann", OwnerKind: "proven"}}, "by the ticket sealed into the upload", nil},
		{"Adopted", Passport{Row: row, State: &State{Owner: "ann", OwnerKind: "adopted"}}, "when trueup first saw it", nil},
		{"Assigned", Passport{Row: row, State: &State{Owner: "ann", OwnerKind: "assigned"}}, "by an operator's act", nil},
		{"Unowned", Passport{Row: &Row{}, State: &State{Flags: []string{"ticket_conflict"}}}, "belongs to nobody", []string{"Flagged: a different ticket"}},
		{"OwnerChangedBySQL", Passport{Row: &Row{User: "eve"}, State: claimed}, `the row says "eve", which the next look puts right`, nil},
		{"ClaimRefused", Passport{Row: row, State: claimed, Lines: []Line{webhook, report, refused}},
			`The claim of "bob" was refused: the row belongs to "ann", whose report was the earliest`, []string{`"bob" reported`}},
		{"RefusalThenNews", Passport{Row: row, State: claimed, Lines: []Line{refused, {ID: "E9", At: at(9), Source: "webhook", Kind: "file.updated", End: "done"}}},
			"The row stands", nil},
		{"Deleted", Passport{State: &State{GoneAt: ptr(at(4)), GoneWhy: "announced"}, Lines: []Line{webhook, deleted}},
			"There is no row, because the file is gone from ImageKit since 2026-05-01 10:04:00.000Z: ImageKit announced the deletion", []string{"removed and remembered as gone"}},
		{"Suspect", Passport{Row: row, State: with(*claimed, func(s *State) { s.SuspectAt = ptr(at(6)) })}, "a look at 2026-05-01 10:06:00.000Z found nothing", nil},
		{"RowWithoutState", Passport{Row: row}, "the next look adopts it", nil},
		{"StateWithoutRow", Passport{State: claimed}, "somebody removed the row by SQL", nil},
		{"Rejected", Passport{Lines: []Line{unfound}}, "event E5 was rejected: ImageKit does not know such a file", nil},
		{"Waiting", Passport{Retries: []Retry{{EventID: "E7", DueAt: at(9), Tries: 2, Reason: "not_found"}, {EventID: "E6", DueAt: at(8), Tries: 1}}},
			"There is no row yet: event E6 waits until 2026-05-01 10:08:00.000Z", []string{"Event E7", "after 2 looks", "Event E6", "after 1 look"}},
		{"Parked", Passport{DeadLetters: []DeadLetter{{ID: "D1", EventID: "E8", Class: "imagekit", Reason: "gave_up", State: "dead", CreatedAt: at(7), Attempts: 3}}},
			"event E8 could not be settled and is dead letter D1", []string{"after 3 counted attempts, whoever looks after the ImageKit account must act"}},
		{"ReplayedTwice", Passport{Row: row, State: claimed,
			DeadLetters: []DeadLetter{{ID: "D1", EventID: "E8", Class: "imagekit", Reason: "gave_up", State: "resolved", CreatedAt: at(3), Attempts: 2,
				Tries: []event.Attempt{{At: at(1), Reason: "timed_out"}, {At: at(2), Reason: "unavailable", Status: 500, RequestID: "rq"}}}},
			Jobs: []FileJob{{JobID: "J1", Verb: "replay", Who: "bob", At: at(4), Letter: "D1", Event: "E9", PublishedAt: ptr(at(4)), End: "dead", Reason: "gave_up"},
				{JobID: "J2", Verb: "replay", Who: "bob", Note: "healed", At: at(6), Letter: "D1", Event: "E10", PublishedAt: ptr(at(6)), End: "done", Reason: "added"}},
			Lines: []Line{{ID: "E10", At: at(7), Source: "replay", Origin: "webhook", Kind: "file.created", Verdict: "present", Outcome: "applied", Reason: "added", End: "done"}}},
			"The row stands", []string{"10:01:00.000Z: an attempt for what became dead letter D1 failed: ImageKit did not answer in time", "ImageKit answered 500, request rq", "parked as dead letter D1",
				"10:04:00.000Z: operator bob replayed dead letter D1 as event E9 (job J1); it was parked again", "as event E10 (job J2: healed).", "10:07:00.000Z: a replay of a webhook event came"}},
		{"ManyAttempts", Passport{DeadLetters: []DeadLetter{{ID: "D1", EventID: "E8", Class: "imagekit", State: "dead", CreatedAt: at(59), Tries: slices.Repeat([]event.Attempt{{At: at(1), Reason: "timed_out"}}, 40)}}},
			"is dead letter D1", []string{"failed", "failed", "failed", "34 more attempts", "failed", "failed", "failed", "parked"}},
		{"Discarded", Passport{Row: row, State: claimed, Lines: []Line{{ID: "A1", At: at(1), Source: "operator", Origin: "webhook", Kind: "discard", End: "discarded", Reason: "gave_up",
			Detail: []byte(`{"who":"bob","note":"not worth it","deadLetter":"D1"}`)}}}, "The row stands", []string{"operator bob discarded dead letter D1", "(not worth it)"}},
		{"RecheckUnderWay", Passport{Row: row, State: claimed, Jobs: []FileJob{{JobID: "J1", Verb: "recheck", Who: "bob", At: at(4), Event: "E9", PublishedAt: ptr(at(4))}},
			Acts: []FileAct{{ID: "A1", At: at(4), Who: "bob", Verb: "recheck", JobID: "J1"}, {ID: "A2", At: at(5), Who: "eve", Verb: "discard", JobID: "J2", Note: "tidy."}}},
			"The row stands", []string{"operator bob asked for another look, by event E9 (job J1); it is under way.", "operator eve asked for discard (job J2): tidy."}},
		{"AssignedByAnOperator", Passport{Row: row, State: &State{Owner: "ann", OwnerKind: "assigned"}, Lines: []Line{{ID: "A1", At: at(1), Source: "operator", Origin: "operator", Kind: "assign",
			User: "ann", Outcome: "applied", Reason: "owner", Detail: []byte(`{"who":"bob","note":"ticket 12","before":""}`)}}},
			"by an operator's act", []string{`operator bob assigned the file to "ann"`, "(ticket 12)"}},
		{"Drifted", Passport{Row: row, State: claimed, Findings: []FileFinding{found("R1", run.Finding{Kind: run.Drifted, Status: run.Repaired, FoundAt: at(1), ChangedAt: at(2),
			Columns: []run.Difference{{Column: "file_name", Row: text("x"), ImageKit: text("y")}, {Column: "format", ImageKit: text("jpg")}}})}},
			"The row stands", []string{`10:01:00.000Z: reconciliation run R1 found that the row differed from the file (the row's file_name said "x" while ImageKit said "y", the row's format said nothing while ImageKit said "jpg"); repaired at 2026-05-01 10:02:00.000Z.`}},
		{"Missing", Passport{Row: row, State: claimed, Findings: []FileFinding{found("R1", run.Finding{Kind: run.Missing, Status: run.Repaired, Event: "E9", FoundAt: at(1), ChangedAt: at(2)})}},
			"The row stands", []string{"there was no row of it; repaired at 2026-05-01 10:02:00.000Z by event E9."}},
		{"MissingAndPlanned", Passport{Findings: []FileFinding{found("R1", run.Finding{Kind: run.Missing, Status: run.Found, FoundAt: at(1)})}},
			"There is no row: run R1 found that ImageKit has the file and there was no row of it, and nothing was done about it so far.", nil},
		{"MissingAndAsked", Passport{Findings: []FileFinding{found("R1", run.Finding{Kind: run.Missing, Status: run.Found, Event: "E1", FoundAt: at(1)})}}, "and event E1 has yet to tell more.", nil},
		{"MissingAndUnreadable", Passport{Findings: []FileFinding{found("R1", run.Finding{Kind: run.Missing, Status: run.Skipped, Reason: run.ReasonUnreadable, FoundAt: at(1), ChangedAt: at(1)})}},
			"it was skipped: ImageKit lists the file in a form that cannot be believed.", nil},
		{"OrphanedAndGone", Passport{State: &State{GoneAt: ptr(at(4)), GoneWhy: "confirmed"}, Findings: []FileFinding{found("R1", run.Finding{Kind: run.Orphaned, Status: run.Repaired, Event: "E9", FoundAt: at(1), ChangedAt: at(4),
			Evidence: []string{"it is not in the whole listing of 940 files.", "a look-up at 10:03 answered 404 (request rq)"}})}},
			"two look-ups, far enough apart", []string{"no such file in ImageKit's whole listing; it is not in the whole listing of 940 files; a look-up at 10:03 answered 404 (request rq); repaired"}},
		{"OrphanKeptByTheFuse", Passport{Row: row, State: claimed, Findings: []FileFinding{found("R1", run.Finding{Kind: run.Orphaned, Status: run.Refused, Reason: run.ReasonFuse, FoundAt: at(5), ChangedAt: at(6)})}},
			"; but run R1 did not see the file in ImageKit's listing, and the row was kept: the fuse is latched", []string{"it was refused at 2026-05-01 10:06:00.000Z: the fuse is latched"}},
		{"OrphanAskedAbout", Passport{Row: row, State: claimed, Findings: []FileFinding{found("R1", run.Finding{Kind: run.Orphaned, Status: run.Found, Event: "E9", FoundAt: at(5), ChangedAt: at(5)})}},
			"and a look-up by id has yet to tell whether it is gone.", []string{"event E9 asks about the file by id."}},
		{"OrphanSeenSince", Passport{Row: &Row{URL: "u", User: "ann", Synced: ptr(at(7))}, State: claimed, Findings: []FileFinding{
			found("R1", run.Finding{Kind: run.Orphaned, Status: run.Refused, Reason: run.ReasonFuse, FoundAt: at(5), ChangedAt: at(6)})}}, "event E2).", nil},
		{"OrphanThatWasThere", Passport{Row: row, State: claimed, Findings: []FileFinding{found("R1", run.Finding{Kind: run.Orphaned, Status: run.Skipped, Reason: run.ReasonPresent, FoundAt: at(5), ChangedAt: at(6)})}},
			"event E2).", []string{"it was skipped at 2026-05-01 10:06:00.000Z: a look-up by id found the file"}},
		{"AdoptedAndUnowned", Passport{Row: row, State: claimed, Findings: []FileFinding{found("R1", run.Finding{Kind: run.Adopted, Status: run.Found, FoundAt: at(1)}),
			found("R2", run.Finding{Kind: run.Unowned, Status: run.Skipped, Reason: run.ReasonNobody, FoundAt: at(2), ChangedAt: at(2)})}},
			"The row stands", []string{"run R1 found that there was a row that trueup had not looked at before; nothing was done about it so far.", "run R2 found that the row belonged to nobody; it was skipped"}},
		{"NobodysInEveryRun", Passport{Row: row, State: claimed, Findings: []FileFinding{found("R1", run.Finding{Kind: run.Unowned, Status: run.Skipped, Reason: run.ReasonNobody, FoundAt: at(1)}),
			found("R2", run.Finding{Kind: run.Drifted, Status: run.Repaired, FoundAt: at(2), ChangedAt: at(2)}),
			found("R3", run.Finding{Kind: run.Unowned, Status: run.Skipped, Reason: run.ReasonNobody, FoundAt: at(3), ChangedAt: at(3)})}},
			"The row stands", []string{"10:02:00.000Z: reconciliation run R2 found", "10:03:00.000Z: reconciliation run R3, like 1 run before it, found that the row belonged to nobody"}},
		{"WordsOfANewerRun", Passport{Row: row, State: claimed, Findings: []FileFinding{found("R1", run.Finding{Kind: "bent", Status: "straightened", Reason: "unheard_of", FoundAt: at(1), ChangedAt: at(1)})}},
			"The row stands", []string{"bent", "straightened", "unheard_of"}},
		{"SecurityNote", Passport{Row: row, State: claimed, Lines: []Line{{ID: "S1", At: at(1), Source: "trueup", Kind: "security", Reason: "ticket_reused", Verdict: "present", Detail: []byte(`{"events":["E1"]}`)}}},
			"The row stands", []string{"security note: the same ticket is on another file too."}},
		{"WriteForWaitingEvents", Passport{Row: row, State: claimed, Lines: []Line{{ID: "W1", At: at(1), Source: "trueup", Kind: "write", Verdict: "absent", Outcome: "look_again", Reason: "nominated", Detail: []byte(`{"events":["E1"],"how":"look-up"}`)}}},
			"The row stands", []string{"for events that go on waiting", "found no such file", "a second look must confirm"}},
		{"WriteOfARun", Passport{Row: row, State: claimed, Lines: []Line{{ID: "W1", At: at(1), Source: "trueup", Kind: "write", Verdict: "present", Outcome: "applied", Reason: "repaired", Detail: []byte(`{"how":"hit","run":"R1"}`)},
			{ID: "E1", At: at(2), Source: "reconcile", Origin: "reconcile", Kind: "recheck", Outcome: "unchanged", End: "done", Detail: []byte(`{"run":"R1"}`)}}},
			"The row stands", []string{"reconciliation run R1 saw the file in ImageKit's listing; the row or its owner changed", "somebody had changed or deleted the row", "reconciliation run R1 asked for a look, kind recheck (event E1)"}},
		{"WriteOfPolling", Passport{Row: row, State: claimed, Lines: []Line{{ID: "W1", At: at(1), Source: "trueup", Kind: "write", Verdict: "present", Outcome: "applied", Reason: "raised", Detail: []byte(`{"how":"hit"}`)}}},
			"The row stands", []string{"polling saw the file among those that changed lately"}},
		{"WordsOfANewerVersion", Passport{Row: row, State: claimed, Lines: []Line{{ID: "E1", At: at(1), Source: "poll", Kind: "hit", Outcome: "mended", Reason: "unheard_of", End: "done"}}},
			"The row stands", []string{"poll hit", "mended", "unheard_of"}},
		{"Cut", Passport{Cut: true, Row: row, State: claimed}, "The row stands", []string{"Older lines exist"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			why := Explain(tt.p)
			if last := why[len(why)-1]; !strings.Contains(last, tt.last) {
				t.Errorf("concludes %q, want %q in it", last, tt.last)
			}
			rest := strings.Join(why, "\n")
			for _, part := range tt.told {
				i := strings.Index(rest, part)
				if i < 0 {
					t.Fatalf("%q is missing or out of order in:\n%s", part, strings.Join(why, "\n"))
				}
				rest = rest[i:]
			}
			for _, s := range why {
				if !strings.HasSuffix(s, ".") && !strings.HasSuffix(s, ").") || strings.Contains(s, "..") {
					t.Errorf("%q is no sentence", s)
				}
			}
		})
	}
}

func TestDeadLettersAndLinesAreToldInOrderOfTime(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	why := Explain(Passport{
		Lines:       []Line{{ID: "L1", At: at(1), Source: "webhook"}, {ID: "L3", At: at(3), Source: "webhook"}},
		DeadLetters: []DeadLetter{{ID: "D2", CreatedAt: at(2), State: "resolved"}},
	})
	if got := strings.Join(why, "\n"); strings.Index(got, "L1") > strings.Index(got, "D2") || strings.Index(got, "D2") > strings.Index(got, "L3") {
		t.Error(got)
	}
}
