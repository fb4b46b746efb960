// Package run holds what trueup says about a reconciliation run: one full comparison
// of ImageKit's library with our rows, the findings it made and what became of them.
//
// It is a noun: it imports no door and no step, does no I/O and reads no clock. Its one
// invariant: a run says complete only when everything was examined and every finding
// has its answer; whatever was cut short, guessed or refused is named.
package run

import (
	"errors"
	"time"
)

// Run is one reconciliation run, as far as it has come.
type Run struct {
	ID    string `json:"id"`
	Kind  Kind   `json:"kind"`
	State State  `json:"state"`
	Phase Phase  `json:"phase,omitempty"` // while it is under way
	// StartedBy is the operator's token, or "schedule".
	StartedBy string `json:"startedBy"`
	Note      string `json:"note,omitempty"`
	// Key is the caller's Idempotency-Key: the same caller with the same key gets the
	// same run back.
	Key        string    `json:"-"`
	StartedAt  time.Time `json:"startedAt"`
	ChangedAt  time.Time `json:"changedAt"`
	FinishedAt time.Time `json:"finishedAt,omitzero"`

	// Fence was drawn before anything was asked: a row with a later `seen` is newer than
	// this run and never judged by it.
	Fence int64 `json:"fence,omitempty"`

	// Spool names what the listing was written to, Slices how many pages of it are known
	// to be there; resuming needs both.
	Spool  string `json:"-"`
	Slices int64  `json:"-"`

	// Listed files so far, in Calls list calls. Whole: the listing came to its end and
	// nothing in it was doubtful.
	Listed int64 `json:"listed"`
	Calls  int64 `json:"calls"`
	Whole  bool  `json:"whole"`
	// Rows is how many live rows were compared. Same files needed nothing; Moved ones
	// were created or changed during the run and are left to the next.
	Rows  int64 `json:"rows"`
	Same  int64 `json:"same"`
	Moved int64 `json:"moved"`
	// Unowned is how many rows nobody owns; only some of them are kept as findings.
	Unowned int64 `json:"unowned"`
	// Found counts the findings by kind, then by status.
	Found map[FindingKind]map[Status]int64 `json:"found,omitempty"`

	// Candidates is how many rows ImageKit's listing does not show: what the fuse counts,
	// and what `apply --expect-deletions` must name.
	Candidates int64 `json:"candidates"`
	// Unsettled events of this run are published and have not come to their end.
	Unsettled int64 `json:"unsettled"`

	// Fuse says in a sentence why this run latched the fuse, or for a plan, why applying
	// it would; empty where nothing did.
	Fuse string `json:"fuse,omitempty"`
	// Account is how ImageKit's account was recognised.
	Account Account `json:"account"`
	// ExpectedDeletions is the number with which an operator has released the fuse for
	// this run's candidates; nil: nobody has.
	ExpectedDeletions *int64 `json:"expectedDeletions,omitempty"`
	AccountAcceptedBy string `json:"accountAcceptedBy,omitempty"`

	// Notes are sentences on everything that was not as it should be, each once, with its
	// count: "a page came twice (2×)".
	Notes []string `json:"notes,omitempty"`
	// Waiting says what the run waits for now; empty while it moves.
	Waiting string `json:"waiting,omitempty"`
	// Error says why it is partial or failed.
	Error string `json:"error,omitempty"`
}

// Kind is what was asked for.
type Kind string

const (
	Plan Kind = "plan" // find, and change nothing
	Full Kind = "run"  // find and repair
)

// State is where a run stands.
type State string

const (
	Running   State = "running"
	Planned   State = "planned"
	Applying  State = "applying"
	Complete  State = "complete"
	Partial   State = "partial"
	Failed    State = "failed"
	Cancelled State = "cancelled"
)

// Open reports whether the run is under way.
func (s State) Open() bool { return s == Running || s == Applying }

// Phase is what a run under way is doing, in this order.
type Phase string

const (
	PhaseAccount Phase = "account" // is it still our account?
	PhaseList    Phase = "list"    // reading ImageKit's listing into the spool
	PhaseCompare Phase = "compare" // sorting, and merging it with the rows
	PhaseBrake   Phase = "brake"   // may it delete that many? A plan ends here, an applied one goes on here
	PhaseRepair  Phase = "repair"  // writing what a hit may write, publishing the rest
	PhaseSettle  Phase = "settle"  // waiting for the published events
)

// Account is how a run recognised ImageKit's account.
type Account struct {
	// Key is a fingerprint of the private key, Endpoint the account's stable name.
	Key      string `json:"key,omitempty"`
	Endpoint string `json:"endpoint,omitempty"`
	// Asked files were looked up, Answered ones are there and as old as we know them.
	Asked    int `json:"asked"`
	Answered int `json:"answered"`
	// Confirmed: at least one answered, or there was none to ask, or an operator has
	// accepted it.
	Confirmed bool `json:"confirmed"`
}

// FindingKind is what a run saw of one file.
type FindingKind string

const (
	Missing  FindingKind = "missing"  // ImageKit has it, no row does
	Drifted  FindingKind = "drifted"  // the row says something else than ImageKit
	Orphaned FindingKind = "orphaned" // a row, and no file in a whole listing: a candidate
	Unowned  FindingKind = "unowned"  // a row that nobody owns
	Adopted  FindingKind = "adopted"  // a row that came by itself: an application's own
)

// Status is what became of a finding.
type Status string

const (
	Found    Status = "found"    // nothing yet, or its event is under way
	Repaired Status = "repaired" // the row agrees with ImageKit now
	Skipped  Status = "skipped"  // nothing had to be done, or not by this run; Reason says why
	Refused  Status = "refused"  // a brake, or ImageKit, kept it from being repaired
)

// Reasons of findings beside those of package file. Stable words.
const (
	ReasonMoved      = "changed_since" // the row is newer than the run
	ReasonSameByNow  = "same_by_now"   // somebody else has repaired it
	ReasonUnreadable = "unreadable"    // ImageKit lists it in a form that cannot be believed
	ReasonNobody     = "nobody"        // no ticket and no claim says whose it is
	ReasonPresent    = "present"       // a look-up by id found the file: it is no orphan
	ReasonFuse       = "fuse_latched"
	ReasonNotJudged  = "not_judged" // the account is not confirmed
)

// Finding is one file that a run has something to say of.
type Finding struct {
	FileID string      `json:"fileId"`
	Kind   FindingKind `json:"kind"`
	Status Status      `json:"status"`
	Reason string      `json:"reason,omitempty"`
	// Columns say how row and ImageKit differ; for drifted and adopted rows.
	Columns []Difference `json:"columns,omitempty"`
	// Evidence is what speaks for the finding, in sentences: the listing, then each
	// look-up with its status and request id.
	Evidence []string `json:"evidence,omitempty"`
	// Event is the one that asks about the file by id; empty where none was needed.
	Event     string    `json:"event,omitempty"`
	FoundAt   time.Time `json:"foundAt"`
	ChangedAt time.Time `json:"changedAt"`
}

// Difference is one column of a row that disagrees with ImageKit. Nil is NULL. Values
// are cut to 200 characters.
type Difference struct {
	Column   string  `json:"column"`
	Row      *string `json:"row"`
	ImageKit *string `json:"imagekit"`
}

// Local is our side of one file in the comparison.
type Local struct {
	FileID string
	Live   bool // a row stands in imagekit_files
	Known  bool // file_state has a line
	Gone   bool // a tombstone
	// Moved: written after the run's own fence (for a row that file_state does not know,
	// after the run began).
	Moved   bool
	Suspect bool
	Hash    int64 // of the row's content columns, as PostgreSQL computes it
	// Followed: user_id is the owner that file_state holds; true where it holds none yet.
	Followed bool
	Unowned  bool // user_id is empty
}

// KnownFile is a file that answered 200 before.
type KnownFile struct {
	FileID string
	// CreatedAt is when ImageKit said it was made; zero where that is not known, as for
	// rows that were never verified.
	CreatedAt time.Time
}

// Repair is what a write did with one observation of a run.
type Repair string

const (
	RepairDone  Repair = "repaired"
	RepairSame  Repair = "same"  // the row agreed already
	RepairMoved Repair = "moved" // the row is newer than the run: nothing was judged
	RepairAsk   Repair = "ask"   // a hit may not decide: look it up by id
)

// Apply is an operator's order to carry out what a run has found.
type Apply struct {
	Who, Note, Key string
	// ExpectDeletions releases the fuse; it must be the run's Candidates.
	ExpectDeletions *int64
	// AcceptAccount says that the account is ours, whatever the known files answered.
	AcceptAccount bool
}

// ErrUnderWay means that another run is running or being applied.
var ErrUnderWay = errors.New("another reconciliation run is under way")

// ErrEnded means that the run is not, or no longer, one that can do this: cancelled, or
// applied already.
var ErrEnded = errors.New("the run has ended")

// ErrOtherCount means that the number of expected deletions is not the run's.
var ErrOtherCount = errors.New("the run has another number of candidates")
