// Package event holds what trueup carries: an event is one hint that a file may
// have changed, an envelope is one durable message of 1..N events.
//
// It is a noun: it imports nothing of ours and does no I/O. Its one invariant is
// that an event names a file and says who said so, and never says what is true of
// the file: whatever else the sender wrote stays in Body, as bytes, as evidence.
package event

import (
	"errors"
	"time"
)

// Source says which door an event came through.
type Source string

const (
	Client    Source = "client"
	Webhook   Source = "webhook"
	Replay    Source = "replay"
	Reconcile Source = "reconcile"
)

// Kinds that trueup itself tells apart. A webhook's kind is its type as ImageKit
// wrote it; every other value is a hint like any other.
const (
	KindReport  = "report"       // a client says it uploaded
	KindDeleted = "file.deleted" // ImageKit says it is gone
	KindRecheck = "recheck"      // an operator, or a run, wants it looked up by id
)

// Event is one hint.
type Event struct {
	// ID is a ULID drawn at acceptance; it names the event for ever.
	ID     string
	Source Source
	// Origin is the source of the event that this one replays; equal to Source for
	// everything that is not a replay.
	Origin Source
	Kind   string
	// FileID is inside the alphabet of file.ValidID.
	FileID string
	// User is the signed-in caller of a report; empty for every other source.
	User string
	// AcceptedAt is when ingest accepted it, by ingest's clock, in UTC with
	// microseconds. A replay keeps that of its dead letter.
	AcceptedAt time.Time
	// UpdatedAt is data.updatedAt of a webhook; zero where there was none.
	UpdatedAt time.Time
	// WebhookID is the sender's id of a webhook (body id, else webhook-id).
	WebhookID string
	// DeadLetter is the id of the dead letter that a replay sends through again.
	DeadLetter string
	// Headers are the allow-listed request headers, lower-case names. No secret, no
	// signature, no cookie, no token is on the list.
	Headers map[string]string
	// Body is the request body as received. For an array of reports it is the one
	// element, as received.
	Body []byte
}

// Signed reports whether ImageKit's signature stood behind the event (or behind
// the one it replays), so that a file.deleted of it may announce a deletion.
func (e *Event) Signed() bool { return e.Origin == Webhook }

// Envelope is one message of the queue: the unit of durable acceptance.
type Envelope struct {
	// ID is a ULID; also the message's deduplication id.
	ID     string
	Events []Event
}

// ErrNotAccepted means that the queue did not confirm durable storage in time, is
// full, or cannot be reached. The events may be stored all the same. Ingest
// answers 503 with Retry-After; the sender repeats and nothing is doubled that
// matters.
var ErrNotAccepted = errors.New("event not accepted: the queue did not confirm it")

// ErrTooLarge means that the events of one request do not fit one message.
var ErrTooLarge = errors.New("event too large for the queue")

// ErrOutage means that the database as a whole did not answer: nothing was
// settled, or it was and the reply got lost. The worker pauses and settles again;
// settling twice is a no-op.
var ErrOutage = errors.New("event not settled: the database did not answer")

// ErrUnstorable means that the database refuses the data of this batch (a value
// out of range, a broken constraint): the same batch will be refused again, while
// others go through.
var ErrUnstorable = errors.New("event not settled: the database refuses its data")

// ErrTurnMoved means that another worker's turn has begun: nothing was written and
// this worker must stop.
var ErrTurnMoved = errors.New("event not settled: another worker has taken its turn")

// ErrPaused means that an operator has paused the worker: nothing was written and
// nothing may be until the pause ends.
var ErrPaused = errors.New("event not settled: an operator has paused the worker")

// Attempt is one failed or undecided try at an event, kept for its dead letter.
type Attempt struct {
	At        time.Time `json:"at"`
	Class     Class     `json:"class"`
	Reason    string    `json:"reason"`
	Status    int       `json:"status,omitempty"`
	RequestID string    `json:"requestId,omitempty"`
	Excerpt   string    `json:"excerpt,omitempty"`
	Version   string    `json:"version"` // of trueup
}

// Class says who must act on an attempt or a dead letter.
type Class string

const (
	ClassCaller   Class = "caller"
	ClassImageKit Class = "imagekit"
	ClassDatabase Class = "database"
	ClassTrueup   Class = "trueup"
)

// Pending is an event on its way to its end, with its history so far.
type Pending struct {
	Event
	// Attempts are the counted tries so far, oldest first.
	Attempts []Attempt
	// Tries counts the times it was looked at without reaching an end, counted or
	// not; it only grows the back-off.
	Tries int
	// Waited is the sum of the waits we asked for since the first look-up that did
	// not settle the event. Pauses and downtime are not in it, so grace and give-up
	// never run out while nobody was asking.
	Waited time.Duration
	// Retried is true when it comes from the retries table rather than from an
	// envelope.
	Retried bool
	// Poison is true when it is parked without being judged: it gets its end and says
	// nothing of its file.
	Poison bool
}

// EndKind is where an event's way ends in one settling transaction.
type EndKind string

const (
	Done       EndKind = "done"
	Superseded EndKind = "superseded"
	Rejected   EndKind = "rejected"
	Discarded  EndKind = "discarded" // by an operator
	Expired    EndKind = "expired"   // a dead letter past its retention
	Retry      EndKind = "retry"     // a row with a due time; not an end for I1 but for the envelope
	Dead       EndKind = "dead"      // a dead letter
)

// End is what the settle table decided for one event.
type End struct {
	Kind EndKind
	// Reason is one stable word; it becomes the ledger's reason.
	Reason string
	// After is how long to wait before the next look, for Retry.
	After time.Duration
	// Attempt is added to the history, for Retry where the try counted and for Dead.
	Attempt *Attempt
	// Class says who must act, for Dead.
	Class Class
	// Note is one plain sentence for people, without secrets; may be empty.
	Note string
}

// Delivery is one envelope as the queue handed it over. Exactly one of Ack and
// Release ends it; Extend keeps it ours meanwhile.
type Delivery struct {
	Envelope Envelope
	// Raw and Err are set instead of Envelope when the message could not be decoded.
	Raw []byte
	Err error
	// Sequence is the message's place in the stream.
	Sequence uint64
	// Delivered counts deliveries of this message, 1 for the first.
	Delivered uint64
	// StoredAt is when the queue stored it, by the queue's clock.
	StoredAt time.Time
	// More: others that were never delivered waited behind it when the queue gave it out.
	More bool

	Ack     func() error
	Extend  func() error
	Release func(after time.Duration) error
}

// Mark is the trial mark of an event that may have ended a process.
type Mark struct {
	// Survived is how many crashes the event's mark has survived.
	Survived int
	// Stack is what it was doing when the watchdog ended the process; empty where it did
	// not.
	Stack string
}
