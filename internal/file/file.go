// Package file holds what trueup says about one file in ImageKit's media
// library: the snapshot ImageKit gave of it, the observation that snapshot came
// with, what our rows already know, and what a write did.
//
// It is a noun: it imports nothing of ours, does no I/O and reads no clock. Its
// one invariant is that a Snapshot never holds anything a client or a webhook
// said; only answers of ImageKit's management API become one.
package file

import (
	"encoding/json"
	"time"
)

// MaxIDLength is the longest fileId that is ever asked about or stored.
const MaxIDLength = 64

// ValidID reports whether id is in the alphabet of fileIds,
// ^[A-Za-z0-9_-]{1,64}$. ImageKit does not document its ids; the alphabet is ours
// and keeps an id from becoming a path, a query or a search expression.
func ValidID(id string) bool {
	if len(id) == 0 || len(id) > MaxIDLength {
		return false
	}
	for i := 0; i < len(id); i++ {
		switch c := id[i]; {
		case c >= '0' && c <= '9', c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}

// Snapshot is one file as ImageKit's management API described it, reduced to the
// columns of imagekit_files. A pointer is nil, and a slice or RawMessage empty,
// where ImageKit said nothing.
type Snapshot struct {
	ID           string
	URL          string // as ImageKit gave it, without its query
	Name         *string
	Path         *string
	Type         *string // "image" or "non-image"
	MIME         *string
	SizeBytes    *int64
	Width        *int32
	Height       *int32
	ThumbnailURL *string
	// Tags without ownership tickets; nil when there are none.
	Tags []string
	// CustomMetadata is a JSON object without the ticket field; nil when empty.
	CustomMetadata json.RawMessage
	VersionID      *string
	// FirstVersion is true only when ImageKit said so: versionInfo.id equals the
	// fileId, or versionInfo.name is "Version 1".
	FirstVersion bool
	IsPrivate    *bool
	CreatedAt    time.Time
	UpdatedAt    time.Time
	// Tickets are the tag or metadata values that look like ownership tickets, as
	// found, unopened. They are stripped from Tags and CustomMetadata.
	Tickets []string
}

// Fence is one value of the database's fence sequence, drawn before asking
// ImageKit, with the database's clock when it was drawn.
type Fence struct {
	Number int64
	At     time.Time
}

// How an observation was made.
type How string

const (
	// LookUp is asking about the file by id: the only oracle of existence.
	LookUp How = "look-up"
	// Hit is the file seen in a search or a listing: it proves presence at its
	// UpdatedAt and nothing more.
	Hit How = "hit"
)

// Observation is what one look-up or hit said about one file.
type Observation struct {
	FileID string
	How    How
	Fence  Fence
	// Snapshot is nil when a look-up said that there is no such file (404, or 400
	// for an id that cannot be one). A Hit always has one.
	Snapshot *Snapshot
	// Owner is what the snapshot's tickets prove; see Proof.
	Proof Proof
	// Status and RequestID are of ImageKit's answer, for the ledger.
	Status    int
	RequestID string
	// Canary is proof that the key in use still sees our library, needed only for
	// absences that may remove a row.
	Canary Canary
}

// Present reports whether the observation saw the file.
func (o *Observation) Present() bool { return o.Snapshot != nil }

// Proof is what the tickets inside a snapshot prove about its owner.
type Proof struct {
	// User is the ticket's user when exactly one user's valid ticket was found.
	User string
	// Ticket names that ticket without revealing it, so that a copy is recognised.
	Ticket string
	// Conflict: valid tickets of two different kinds were found; User is empty.
	Conflict bool
	// Invalid: something looked like a ticket of ours and did not open.
	Invalid bool
}

// Canary says which files answered 200 by id lately with the key in use; a
// tombstone is written only while one of them is a live row that is neither
// suspect nor announced deleted.
type Canary struct {
	// FileIDs answered 200 by id at most 60 s ago.
	FileIDs []string
	// EmptyLibrary: GET /v1/files?limit=1 answered a JSON array at most 60 s ago. It
	// stands in only where no other live row exists.
	EmptyLibrary bool
}

// Known is what the rows know of a file before it is looked up: it decides how
// to ask, never what to write.
type Known struct {
	Seen    bool // there is a live row or a line in file_state
	Live    bool // there is a row in imagekit_files
	Gone    bool // there is a tombstone
	Suspect bool // a first 404 has nominated it
	// SuspectFor is how long ago, by the database's clock.
	SuspectFor time.Duration
	High       time.Time
}

// Outcome is what the write did with an observation.
type Outcome string

const (
	Applied    Outcome = "applied"    // row, tombstone or owner changed
	Unchanged  Outcome = "unchanged"  // it agreed with what stands there
	Superseded Outcome = "superseded" // what stands there is newer
	Tombstoned Outcome = "tombstoned" // the row was removed and remembered as gone
	LookAgain  Outcome = "look_again" // it may not decide; ask by id with a fresh fence
)

// Reason says why, in one stable word. The list is closed.
type Reason string

const (
	ReasonNone Reason = ""

	// Why an outcome is what it is.
	ReasonAdded       Reason = "added"        // a file never seen
	ReasonRaised      Reason = "raised"       // newer content
	ReasonRepaired    Reason = "repaired"     // a person had changed or deleted the row
	ReasonRevived     Reason = "revived"      // a tombstone was lifted by a look-up
	ReasonRegressed   Reason = "regressed"    // updatedAt went back; asked once more
	ReasonAdopted     Reason = "adopted"      // a row file_state did not know
	ReasonOwner       Reason = "owner"        // only the owner changed
	ReasonCleared     Reason = "cleared"      // a 200 ended a suspicion
	ReasonSame        Reason = "same"         // nothing differed
	ReasonStaleHit    Reason = "stale_hit"    // a hit, or an overlapping look-up, that may not decide
	ReasonNotNews     Reason = "not_news"     // a hit that says nothing new may not answer this event
	ReasonNominated   Reason = "nominated"    // first 404 on a live file
	ReasonTooSoon     Reason = "too_soon"     // second 404 before ABSENT_CONFIRM
	ReasonConfirmed   Reason = "confirmed"    // second 404, late enough
	ReasonAnnounced   Reason = "announced"    // one 404 after a signed file.deleted
	ReasonNotFound    Reason = "not_found"    // 404 on a file never seen
	ReasonGone        Reason = "gone"         // 404 on a tombstone
	ReasonNoCanary    Reason = "no_canary"    // nothing proves that the key still sees our library
	ReasonFuseLatched Reason = "fuse_latched" // too many deletions

	// Why a claim ended as it did.
	ReasonClaimRefused Reason = "claim_refused"

	// What a person or the caller is told, whatever the reason was.
	ReasonNotClaimable Reason = "not_claimable"
)

// OwnerKind is the evidence an owner rests on; stronger kinds first. See design
// section "Who owns a file" in the README.
type OwnerKind string

const (
	Unowned  OwnerKind = ""
	Proven   OwnerKind = "proven"
	Assigned OwnerKind = "assigned"
	Adopted  OwnerKind = "adopted"
	Claimed  OwnerKind = "claimed"
)

// Owner is the user a file belongs to. User is empty exactly when Kind is Unowned.
type Owner struct {
	User string
	Kind OwnerKind
}

// Claim is what became of one client report's claim on a file.
type Claim string

const (
	ClaimNone    Claim = ""        // the event was no report
	ClaimHeld    Claim = "held"    // the reporter is the owner
	ClaimRefused Claim = "refused" // somebody else is, or nobody can be
)

// Result is what one settling transaction did for one event.
type Result struct {
	Outcome Outcome
	Reason  Reason
	Claim   Claim
	// Live is whether a row stands in imagekit_files now.
	Live bool
	// Wait is how long to wait before a look-up can decide (a nominated absence);
	// zero when any time is good.
	Wait time.Duration
}

// Answer is what one call of ImageKit's management API said.
type Answer struct {
	// Snapshots: exactly one for a look-up by id; 0..n for a search, in no order
	// that means anything.
	Snapshots []Snapshot
	Status    int
	RequestID string
	// Rate is what the answer said about the rate limit; zero when it said nothing.
	Rate Rate
	// Date is the answer's Date header; zero when absent.
	Date time.Time
	// Rows is how many rows a search or listing had, believed or not.
	Rows int
	// Unreadable are the ids of rows that name a file and cannot be believed otherwise;
	// Nameless counts those of which not even the id can. Rows of folders and file
	// versions are neither.
	Unreadable []string
	Nameless   int
}

// Rate is ImageKit's rate limit as its headers state it: Limit calls in each
// Interval, and Reset until the next call is welcome (429 only).
type Rate struct {
	Limit    int
	Interval time.Duration
	Reset    time.Duration
}
