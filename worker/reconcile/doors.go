package reconcile

import (
	"context"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/run"
)

// Library is ImageKit's listing, within the budget. Errors are *file.Fault or the
// context's; transient faults were tried again before they come here.
type Library interface {
	// ListCreated is one page, at most 1,000 files with createdAt >= from (to the second;
	// zero means all), oldest first, less the first skip.
	ListCreated(ctx context.Context, from time.Time, skip int) (file.Answer, error)
	// ListUpdated is the same by updatedAt.
	ListUpdated(ctx context.Context, from time.Time, skip int) (file.Answer, error)
	// Newest is the file that was updated last: no snapshot when the library is empty.
	Newest(ctx context.Context) (file.Answer, error)
	// Details looks one file up by id.
	Details(ctx context.Context, id string) (file.Answer, error)
	// Healthy asks ImageKit one harmless question.
	Healthy(ctx context.Context) error
}

// Runs is what a run keeps in the database. Methods with a turn wrap
// event.ErrTurnMoved, event.ErrPaused, and run.ErrEnded when the run was cancelled; all
// wrap event.ErrOutage when the database does not answer. What a method has done is
// durable, and all of them may be called again.
type Runs interface {
	// StartRun stores a run that is to begin, with its audit line. It wraps
	// run.ErrUnderWay when one is. The same caller with the same key gets the run that is
	// there.
	StartRun(ctx context.Context, r run.Run) (run.Run, error)
	// OpenRun is the run under way; ok is false when there is none.
	OpenRun(ctx context.Context) (r run.Run, ok bool, err error)
	// LastRuns are the youngest run that was to repair, whatever became of it, and the
	// youngest complete one; a zero ID means none.
	LastRuns(ctx context.Context) (began, complete run.Run, err error)
	// SaveRun stores how far the run has come: everything of r but its kind, its state and
	// what operators decide.
	SaveRun(ctx context.Context, turn int64, r run.Run) error
	// FinishRun stores r with its final state.
	FinishRun(ctx context.Context, turn int64, r run.Run) error
}

// Rows is our side of the comparison, and the write path.
type Rows interface {
	// Fence draws one fence.
	Fence(ctx context.Context, ids []string) (file.Fence, map[string]file.Known, error)
	// KnownFiles are up to n live files that answered before, chosen at random, those
	// that we have verified first.
	KnownFiles(ctx context.Context, n int) ([]run.KnownFile, error)
	// Hash is the hash that a row with exactly this content would have.
	Hash(ctx context.Context, snapshots []*file.Snapshot) ([]int64, error)
	// Local yields our side of every file, in the byte order of the ids, from one read-only
	// transaction; an error of yield ends it and comes back. The run's own row says when it
	// began; without one (an empty runID) no row that file_state does not know has moved.
	Local(ctx context.Context, runID string, fence int64, yield func(run.Local) error) error
	// Differences says by file which columns of a live row disagree.
	Differences(ctx context.Context, snapshots []*file.Snapshot) (map[string][]run.Difference, error)

	// SaveFindings stores findings; those of files that the run has one of already are
	// left as they are.
	SaveFindings(ctx context.Context, turn int64, runID string, findings []run.Finding) error
	// OpenFindings are findings of these kinds with status found and without an event, in
	// the byte order of the ids, after one of them.
	OpenFindings(ctx context.Context, runID string, kinds []run.FindingKind, after string, limit int) ([]run.Finding, error)
	// CloseFindings gives all findings of these kinds that are open and without an event
	// this status, and says how many.
	CloseFindings(ctx context.Context, turn int64, runID string, kinds []run.FindingKind, status run.Status, reason string) (int64, error)

	// Repair writes what was seen of files that are there, by the order rule, and the
	// findings' status with it; nothing of a file that is newer than fence. Without a run
	// (an empty runID) there are no findings and no fence to keep to.
	Repair(ctx context.Context, turn int64, runID string, fence int64, seen []file.Observation) (map[string]run.Repair, error)
	// TakeFindings draws event ids for up to limit open findings of these kinds and returns
	// the events to publish, first those drawn before and never confirmed. None means that
	// nothing is left.
	TakeFindings(ctx context.Context, turn int64, runID string, kinds []run.FindingKind, limit int) ([]event.Event, error)
	ConfirmFindings(ctx context.Context, turn int64, runID string, eventIDs []string) error
	// Unsettled is how many of the run's events have not come to their end.
	Unsettled(ctx context.Context, runID string) (int64, error)
}

// Brakes are what keeps runs, and everybody, from deleting too much.
type Brakes interface {
	// LatchFuse latches the fuse, naming the run.
	LatchFuse(ctx context.Context, turn int64, runID, why string) error
	// Fuse says whether it is latched, how many candidates the last day had, and how many
	// live rows there are.
	Fuse(ctx context.Context) (latched bool, today, live int64, err error)
	// DoubtAccount notes that the account is not confirmed; an empty why ends the doubt.
	DoubtAccount(ctx context.Context, turn int64, runID, why string) error
	// Account is the account that was confirmed last, and why it is doubted now; empty
	// when it is not.
	Account(ctx context.Context) (last run.Account, doubt string, err error)
}

// Positions is how far polling has come.
type Positions interface {
	// PollPosition is the highest updatedAt that was polled; zero when none was.
	PollPosition(ctx context.Context) (time.Time, error)
	SavePollPosition(ctx context.Context, turn int64, at time.Time) error
}

// Publisher is the queue: nil means durably and freshly stored.
type Publisher interface {
	Publish(ctx context.Context, events []event.Event) error
}
