package worker

import (
	"testing"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/worker/verify"
)

func testTable() Table {
	return Table{NotFoundGrace: 10 * time.Second, RetryMaxAge: time.Hour, Version: "test",
		Now: func() time.Time { return time.Unix(1767323045, 0) }}
}

func saw() verify.Answer {
	return verify.Answer{Observation: &file.Observation{FileID: "f", How: file.LookUp, Snapshot: &file.Snapshot{ID: "f"}}}
}

func missed() verify.Answer {
	return verify.Answer{Observation: &file.Observation{FileID: "f", How: file.LookUp}}
}

func failed(kind file.FaultKind) verify.Answer {
	return verify.Answer{Fault: &file.Fault{Kind: kind, Status: 503, RequestID: "r1", Excerpt: "<html>"}}
}

// pending of a kind: "report" comes from a client, "recheck" from an operator's
// run, everything else from a webhook.
func pending(kind string, waited time.Duration, tries int) event.Pending {
	p := event.Pending{Event: event.Event{ID: "e", FileID: "f", Kind: kind, Source: event.Webhook, Origin: event.Webhook}, Waited: waited, Tries: tries}
	switch kind {
	case event.KindReport:
		p.Source, p.Origin, p.User = event.Client, event.Client, "ann"
	case event.KindRecheck:
		p.Source, p.Origin = event.Reconcile, event.Reconcile
	}
	return p
}

// TestTable is the table: what becomes of an event, row by row.
func TestTable(t *testing.T) {
	const (
		report, created, deleted, recheck = event.KindReport, "file.created", event.KindDeleted, event.KindRecheck

		none  = 0 * time.Second
		grace = 10 * time.Second
		hour  = time.Hour
	)
	result := func(o file.Outcome, r file.Reason) file.Result { return file.Result{Outcome: o, Reason: r} }
	held := file.Result{Outcome: file.Unchanged, Reason: file.ReasonSame, Claim: file.ClaimHeld}
	refused := file.Result{Outcome: file.Applied, Reason: file.ReasonAdded, Claim: file.ClaimRefused}
	nominated := file.Result{Outcome: file.LookAgain, Reason: file.ReasonNominated, Wait: time.Minute}
	regressed := file.Result{Outcome: file.Applied, Reason: file.ReasonRegressed, Wait: 5 * time.Second}

	for _, row := range []struct {
		name   string
		kind   string
		waited time.Duration
		tries  int
		answer verify.Answer
		result file.Result

		end    event.EndKind
		reason string
		after  time.Duration
		class  event.Class
	}{
		{"FaultIsRetriedAndCounted", created, none, 0, failed(file.Unavailable), file.Result{}, event.Retry, "unavailable", 500 * time.Millisecond, "imagekit"},
		{"FaultBacksOff", created, none, 3, failed(file.Unavailable), file.Result{}, event.Retry, "unavailable", 4 * time.Second, "imagekit"},
		{"FaultBackOffIsCapped", created, none, 30, failed(file.TimedOut), file.Result{}, event.Retry, "timed_out", 5 * time.Minute, "imagekit"},
		{"FaultsLastLookIsAtMaxAge", created, hour - time.Second, 9, failed(file.TimedOut), file.Result{}, event.Retry, "timed_out", time.Second, "imagekit"},
		{"FaultPastMaxAgeIsParked", created, hour, 9, failed(file.Garbled), file.Result{}, event.Dead, "gave_up", 0, "imagekit"},
		{"RefusedQuestionIsTheCallers", created, hour, 9, failed(file.BadRequest), file.Result{}, event.Dead, "gave_up", 0, "caller"},

		{"NominatedWaitsForConfirmation", created, none, 0, missed(), nominated, event.Retry, "nominated", time.Minute, ""},
		{"StaleHitIsAskedAgainAtOnce", created, none, 0, saw(), result(file.LookAgain, file.ReasonStaleHit), event.Retry, "look_again", 0, ""},
		{"NotNewsIsAskedAgainAtOnce", report, none, 0, saw(), result(file.LookAgain, file.ReasonNotNews), event.Retry, "look_again", 0, ""},
		{"LookingAgainForEverBacksOff", created, none, 5, saw(), result(file.LookAgain, file.ReasonStaleHit), event.Retry, "look_again", 4 * time.Second, ""},
		{"NoCanaryWaits", deleted, none, 0, missed(), result(file.LookAgain, file.ReasonNoCanary), event.Retry, "no_canary", 500 * time.Millisecond, ""},
		{"NoCanaryEndsAsImageKits", deleted, hour, 0, missed(), result(file.LookAgain, file.ReasonNoCanary), event.Dead, "no_canary", 0, "imagekit"},
		{"LatchedFuseEndsAsOurs", recheck, hour, 0, missed(), result(file.LookAgain, file.ReasonFuseLatched), event.Dead, "fuse_latched", 0, "trueup"},

		{"MissingFileWaitsItsGrace", report, none, 0, missed(), result(file.Unchanged, file.ReasonNotFound), event.Retry, "not_found", 500 * time.Millisecond, ""},
		{"MissingFilesLastLookIsAtGrace", report, grace - time.Second, 8, missed(), result(file.Unchanged, file.ReasonNotFound), event.Retry, "not_found", time.Second, ""},
		{"MissingFileIsRejectedNotParked", report, grace, 8, missed(), result(file.Unchanged, file.ReasonNotFound), event.Rejected, "not_found", 0, ""},
		{"WebhookOnMissingFileWaitsToo", created, none, 0, missed(), result(file.Unchanged, file.ReasonNotFound), event.Retry, "not_found", 500 * time.Millisecond, ""},
		{"WebhookOnMissingFileIsRejected", created, grace, 8, missed(), result(file.Unchanged, file.ReasonNotFound), event.Rejected, "not_found", 0, ""},
		{"ReportOnGoneFileLooksLikeMissing", report, none, 0, missed(), result(file.Unchanged, file.ReasonGone), event.Retry, "not_found", 500 * time.Millisecond, ""},
		{"ReportOnGoneFileIsRejected", report, grace, 8, missed(), result(file.Unchanged, file.ReasonGone), event.Rejected, "not_found", 0, ""},
		{"ReportThatRemovesItsFileLooksLikeMissing", report, none, 0, missed(), result(file.Tombstoned, file.ReasonConfirmed), event.Retry, "not_found", 500 * time.Millisecond, ""},
		{"LateCreatedOnTombstoneIsSuperseded", created, none, 0, missed(), result(file.Unchanged, file.ReasonGone), event.Superseded, "gone", 0, ""},
		{"RepeatedDeletedIsDone", deleted, none, 0, missed(), result(file.Unchanged, file.ReasonGone), event.Done, "gone", 0, ""},
		{"AnnouncedDeletionIsDone", deleted, none, 0, missed(), result(file.Tombstoned, file.ReasonAnnounced), event.Done, "announced", 0, ""},
		{"ConfirmedAbsenceIsDone", recheck, none, 0, missed(), result(file.Tombstoned, file.ReasonConfirmed), event.Done, "confirmed", 0, ""},

		{"WentBackIsAskedOnceMore", created, none, 0, saw(), regressed, event.Retry, "regressed", 5 * time.Second, ""},
		{"HeldClaimIsDone", report, none, 0, saw(), held, event.Done, "same", 0, ""},
		{"RefusedClaimWaitsAsLongAsAMissingFile", report, none, 0, saw(), refused, event.Retry, "claim_refused", 500 * time.Millisecond, ""},
		{"RefusedClaimsLastLookIsAtGrace", report, grace - time.Second, 8, saw(), refused, event.Retry, "claim_refused", time.Second, ""},
		{"RefusedClaimIsRejected", report, grace, 8, saw(), refused, event.Rejected, "claim_refused", 0, ""},
		{"DeletedButPresentIsAskedAgain", deleted, none, 0, saw(), result(file.Unchanged, file.ReasonSame), event.Retry, "still_present", 500 * time.Millisecond, ""},
		{"DeletedButPresentIsSuperseded", deleted, grace, 8, saw(), result(file.Unchanged, file.ReasonSame), event.Superseded, "still_present", 0, ""},
		{"AppliedIsDone", created, none, 0, saw(), result(file.Applied, file.ReasonAdded), event.Done, "added", 0, ""},
		{"UnchangedIsDone", created, none, 0, saw(), result(file.Unchanged, file.ReasonSame), event.Done, "same", 0, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			end := testTable().End(pending(row.kind, row.waited, row.tries), row.answer, row.result)
			if end.Kind != row.end || end.Reason != row.reason || end.After != row.after {
				t.Errorf("end = %s %q after %v, want %s %q after %v", end.Kind, end.Reason, end.After, row.end, row.reason, row.after)
			}
			if got := classOf(end); got != row.class {
				t.Errorf("class = %q, want %q", got, row.class)
			}
			if end.Kind == event.Retry && row.answer.Fault != nil && (end.Attempt == nil || end.Attempt.RequestID != "r1") {
				t.Errorf("a counted retry keeps its attempt; got %+v", end.Attempt)
			}
		})
	}
}

// classOf is the class of a dead letter, or of the attempt that a retry counts.
func classOf(end event.End) event.Class {
	if end.Class != "" {
		return end.Class
	}
	if end.Attempt != nil {
		return end.Attempt.Class
	}
	return ""
}

// A missing file and a refused claim must not be told apart by when they end.
func TestMissingAndRefusedWaitAlike(t *testing.T) {
	table := testTable()
	schedule := func(a verify.Answer, r file.Result) (waits []time.Duration) {
		p := pending(event.KindReport, 0, 0)
		for {
			end := table.End(p, a, r)
			if end.Kind != event.Retry {
				return waits
			}
			waits = append(waits, end.After)
			p.Waited += end.After
			p.Tries++
		}
	}
	missing := schedule(missed(), file.Result{Outcome: file.Unchanged, Reason: file.ReasonNotFound})
	refused := schedule(saw(), file.Result{Outcome: file.Unchanged, Claim: file.ClaimRefused})
	var sum time.Duration
	if len(missing) != len(refused) {
		t.Fatalf("%d waits for a missing file, %d for a refused claim", len(missing), len(refused))
	}
	for i := range missing {
		sum += missing[i]
		if missing[i] != refused[i] {
			t.Errorf("wait %d: %v for a missing file, %v for a refused claim", i, missing[i], refused[i])
		}
	}
	if sum != table.NotFoundGrace {
		t.Errorf("the waits add up to %v, want exactly the grace %v", sum, table.NotFoundGrace)
	}
}
