package rule

import (
	"testing"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/run"
)

// What a finding becomes when its event is settled, or set aside, by what the look-up saw.
func TestAFindingFollowsItsEvent(t *testing.T) {
	here, gone := &file.Observation{How: file.LookUp, Snapshot: &file.Snapshot{}}, &file.Observation{How: file.LookUp}
	applied := func(r file.Reason) file.Result {
		return file.Result{Outcome: file.Applied, Reason: r, Live: true}
	}
	same := file.Result{Outcome: file.Unchanged, Reason: file.ReasonSame, Live: true}
	again := func(r file.Reason) file.Result {
		return file.Result{Outcome: file.LookAgain, Reason: r, Live: true}
	}
	removed := file.Result{Outcome: file.Tombstoned, Reason: file.ReasonConfirmed}
	end := func(k event.EndKind, reason string) event.End { return event.End{Kind: k, Reason: reason} }
	for _, c := range []struct {
		name   string
		kind   run.FindingKind
		saw    *file.Observation
		result file.Result
		end    event.End
		status run.Status
		reason string
	}{
		{"AnOrphanThatIsConfirmed", run.Orphaned, gone, removed, end(event.Done, "confirmed"), run.Repaired, "confirmed"},
		{"AnOrphanThatIsNominated", run.Orphaned, gone, again(file.ReasonNominated), end(event.Retry, "nominated"), run.Found, ""},
		{"AnOrphanThatABrakeKeeps", run.Orphaned, gone, again(file.ReasonFuseLatched), end(event.Retry, "fuse_latched"), run.Found, ""},
		{"AnOrphanThatABrakeKeptTooLong", run.Orphaned, gone, again(file.ReasonNoCanary), end(event.Dead, "no_canary"), run.Refused, "no_canary"},
		{"AnOrphanThatIsThere", run.Orphaned, here, same, end(event.Done, "same"), run.Skipped, run.ReasonPresent},
		{"AnOrphanThatIsThereAfterA404", run.Orphaned, here, applied(file.ReasonCleared), end(event.Done, "cleared"), run.Skipped, run.ReasonPresent},
		{"AnOrphanThatIsThereAndChanged", run.Orphaned, here, applied(file.ReasonRaised), end(event.Done, "raised"), run.Skipped, run.ReasonPresent},
		{"AnOrphanThatIsThereAndWentBack", run.Orphaned, here, applied(file.ReasonRegressed), end(event.Retry, "regressed"), run.Found, ""},
		{"AnOrphanThatSomebodyRemoved", run.Orphaned, gone, file.Result{Outcome: file.Unchanged, Reason: file.ReasonGone}, end(event.Superseded, "gone"), run.Repaired, "gone"},
		{"AnOrphanThatNobodyKnows", run.Orphaned, gone, file.Result{Outcome: file.Unchanged, Reason: file.ReasonNotFound}, end(event.Rejected, "not_found"), run.Repaired, "not_found"},
		{"AnOrphanThatCouldNotBeAskedAbout", run.Orphaned, nil, file.Result{}, end(event.Dead, "gave_up"), run.Refused, "gave_up"},
		{"AnOrphanThatIsNotAskedAboutYet", run.Orphaned, nil, file.Result{}, end(event.Retry, "throttled"), run.Found, ""},

		{"AMissingFileThatIsAdded", run.Missing, here, applied(file.ReasonAdded), end(event.Done, "added"), run.Repaired, "added"},
		{"AMissingFileThatIsThereByNow", run.Missing, here, same, end(event.Done, "same"), run.Skipped, run.ReasonSameByNow},
		{"AMissingFileThatIsGoneByNow", run.Missing, gone, file.Result{Outcome: file.Unchanged, Reason: file.ReasonGone}, end(event.Superseded, "gone"), run.Repaired, "gone"},
		{"AMissingFileThatCannotBeStored", run.Missing, nil, file.Result{}, end(event.Dead, "unstorable"), run.Refused, "unstorable"},
		{"ADriftedRowThatIsPutBack", run.Drifted, here, applied(file.ReasonRepaired), end(event.Done, "repaired"), run.Repaired, "repaired"},
		{"ADriftedRowThatWentBack", run.Drifted, here, applied(file.ReasonRegressed), end(event.Retry, "regressed"), run.Repaired, "regressed"},
		{"ADriftedRowThatIsGone", run.Drifted, gone, removed, end(event.Done, "announced"), run.Repaired, "announced"},
		{"ADriftedRowThatAnotherLookKeeps", run.Drifted, here, again(file.ReasonStaleHit), end(event.Retry, "look_again"), run.Found, ""},
		{"ADriftedRowUnderANewerWrite", run.Drifted, here, file.Result{Outcome: file.Superseded, Live: true}, end(event.Superseded, "newer"), run.Refused, "newer"},
		{"AnUnownedRowThatGetsItsOwner", run.Unowned, here, applied(file.ReasonOwner), end(event.Done, "owner"), run.Repaired, "owner"},
		{"AnUnownedRowThatNobodyOwns", run.Unowned, here, same, end(event.Done, "same"), run.Skipped, run.ReasonNobody},
		{"AnAdoptedRow", run.Adopted, here, applied(file.ReasonAdopted), end(event.Done, "adopted"), run.Repaired, "adopted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, reason := Becomes(c.kind, &Ended{Obs: c.saw, Result: c.result, End: c.end})
			if status != c.status || reason != c.reason {
				t.Errorf("got %s/%s, want %s/%s", status, reason, c.status, c.reason)
			}
		})
	}
}

// What an operator has approved changes the counting of the run's own lines and nothing
// else, whatever else is true of the file.
func TestWhatIsApproved(t *testing.T) {
	now := time.Date(2026, 5, 1, 10, 0, 0, 0, time.UTC)
	ours := int64(1)
	line := func(expected, accepted bool) FindingLine {
		return FindingLine{RunID: "r", FileID: "f", Kind: run.Orphaned, Expected: expected, Accepted: accepted}
	}
	for _, c := range []struct {
		name            string
		line            FindingLine
		eventID         string
		latched, second bool
		vouched         bool // by what answered after the look
		counts          bool
		reason          file.Reason
	}{
		{"NothingCounts", FindingLine{}, "e", false, false, true, true, file.ReasonNominated},
		{"ExpectedDoesNotCount", line(true, false), "e", false, false, true, false, file.ReasonNominated},
		{"AcceptedCounts", line(false, true), "e", false, false, false, true, file.ReasonNominated},
		{"AnotherEventOfTheFileCounts", line(true, true), "other", false, false, true, true, file.ReasonNominated},
		{"TheLineOfAnotherFileCounts", FindingLine{RunID: "r", FileID: "g", Expected: true, Accepted: true}, "e", false, false, true, true, file.ReasonNominated},
		{"ExpectedNeedsACanary", line(true, false), "e", false, true, false, false, file.ReasonNoCanary},
		{"AcceptedNeedsNone", line(false, true), "e", false, true, false, false, file.ReasonConfirmed},
		{"ALatchedFuseStopsBoth", line(true, true), "e", true, true, false, false, file.ReasonFuseLatched},
		{"TheFirstNeedsACanaryToo", line(true, false), "e", false, false, false, false, file.ReasonNoCanary},
		{"NotAcceptedNeedsACanary", FindingLine{}, "e", false, true, false, false, file.ReasonNoCanary},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &Standing{FileID: "f", Known: true, Seen: 10, Hash: &ours, Live: true, LiveHash: 1, Proposed: 1, Now: now}
			if c.second {
				s.Suspect, s.SuspectAt, s.SuspectFence = true, now.Add(-2*time.Minute), 9
			}
			g := NewFacts()
			g.Standings["f"], g.Lines["e"], g.Latched = s, c.line, c.latched
			p := event.Pending{Event: event.Event{ID: c.eventID, FileID: "f", Source: event.Reconcile, Kind: event.KindRecheck}}
			o := file.Observation{FileID: "f", How: file.LookUp, Fence: file.Fence{Number: 11, At: now}, Status: 404, Canary: file.Canary{EmptyLibrary: c.vouched}}
			files := Plan(NewCall([]event.Pending{p}, []file.Observation{o}, nil), Settings{AbsentConfirm: time.Minute, ClaimWindow: time.Hour, Ownership: ByClaim}, g)
			if f := files[0]; f.Counts != c.counts || f.Do.Reason != c.reason {
				t.Errorf("counts %v, %s; want %v, %s", f.Counts, f.Do.Reason, c.counts, c.reason)
			}
		})
	}
}
