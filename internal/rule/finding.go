package rule

import (
	"fmt"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/run"
)

// FindingLine is the finding that an event of a run asks about, with what an operator has
// said of that run.
type FindingLine struct {
	RunID, FileID string
	Kind          run.FindingKind
	// Expected: its absence is one of the number that `apply --expect-deletions` named.
	Expected bool
	// Accepted: `apply --accept-account` has vouched for the account.
	Accepted bool
}

// Becomes is the status of a finding of this kind after what was decided of its event.
func Becomes(kind run.FindingKind, e *Ended) (run.Status, string) {
	present := e.Obs != nil && e.Obs.Present()
	wrote := e.Result.Outcome == file.Applied || e.Result.Outcome == file.Tombstoned
	switch {
	case e.End.Kind == event.Retry && present && wrote && kind != run.Orphaned:
		return run.Repaired, string(e.Result.Reason)
	case e.End.Kind == event.Retry:
		return run.Found, ""
	case e.End.Kind == event.Dead || e.Obs == nil:
		return run.Refused, e.End.Reason
	case present && kind == run.Orphaned:
		return run.Skipped, run.ReasonPresent
	case wrote, !present && !e.Result.Live:
		return run.Repaired, e.End.Reason
	case e.End.Kind == event.Done && kind == run.Unowned:
		return run.Skipped, run.ReasonNobody
	case e.End.Kind == event.Done:
		return run.Skipped, run.ReasonSameByNow
	default:
		return run.Refused, e.End.Reason
	}
}

// EvidenceKept is how many sentences a finding keeps of look-ups that did not end its
// event.
const EvidenceKept = 20

// Sentence is what this look adds to the finding's evidence; empty where ImageKit was not
// heard.
func (e *Ended) Sentence() string {
	if e.Obs != nil {
		by := "looked up by id"
		if e.Obs.How == file.Hit {
			by = "found by a search"
		}
		s := fmt.Sprintf("%s, %s: ImageKit answered %d", e.Obs.Fence.At.UTC().Format(time.RFC3339), by, e.Obs.Status)
		if e.Obs.RequestID != "" {
			s += " (request " + e.Obs.RequestID + ")"
		}
		return s
	}
	if e.End.Kind == event.Dead {
		return "given up: " + e.End.Reason
	}
	return ""
}

// Repaired is what was done, in the run's words. Content that went back is confirmed once
// more, which takes an event.
func (f *FilePlan) Repaired() run.Repair {
	switch {
	case f.Moved:
		return run.RepairMoved
	case f.Do.Outcome == file.LookAgain || f.Do.Wait > 0:
		return run.RepairAsk
	case f.Do.Outcome == file.Unchanged:
		return run.RepairSame
	default:
		return run.RepairDone
	}
}

// Closes is what the repair makes of the file's finding, where it was decided at all. The
// owner of an unowned row was looked for in the hit, and is not there.
func (f *FilePlan) Closes(kind run.FindingKind) (run.Status, string) {
	switch r := f.Repaired(); {
	case r == run.RepairMoved:
		return run.Skipped, run.ReasonMoved
	case r == run.RepairSame && kind == run.Unowned:
		return run.Skipped, run.ReasonNobody
	case r == run.RepairSame:
		return run.Skipped, run.ReasonSameByNow
	default:
		return run.Repaired, string(f.Do.Reason)
	}
}
