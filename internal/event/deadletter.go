package event

import (
	"encoding/json"
	"errors"
	"time"
)

// ErrUnknown means that no dead letter, run or job of that id exists.
var ErrUnknown = errors.New("unknown id")

// DeadLetter is an event set aside with its reason and everything needed to
// understand it and to send it through again.
type DeadLetter struct {
	ID      string `json:"id"`
	EventID string `json:"eventId"`
	FileID  string `json:"fileId"`
	Source  Source `json:"source"`
	// Origin is the source of the event that a replay replayed.
	Origin     Source    `json:"origin"`
	Kind       string    `json:"kind"`
	User       string    `json:"user,omitempty"`
	AcceptedAt time.Time `json:"acceptedAt"`
	// UpdatedAt is data.updatedAt of a webhook.
	UpdatedAt time.Time `json:"updatedAt,omitzero"`
	WebhookID string    `json:"webhookId,omitempty"`

	Class  Class       `json:"class"`
	Reason string      `json:"reason"`
	Note   string      `json:"note,omitempty"`
	State  LetterState `json:"state"`
	// ReplayEvent is the event that sends, or last sent, it through again.
	ReplayEvent string `json:"replayEvent,omitempty"`

	// Headers are the allow-listed ones; Body is as received, byte for byte, but for
	// spans that held one of our own secrets: those are masked and named in Masked.
	Headers map[string]string `json:"headers,omitempty"`
	Body    []byte            `json:"body,omitempty"`
	Masked  []Span            `json:"masked,omitempty"`

	// Attempts are all tries, oldest first, over all replays.
	Attempts []Attempt `json:"attempts,omitempty"`
	// History is one entry per replay that ended, oldest first.
	History json.RawMessage `json:"history,omitempty"`

	CreatedAt time.Time `json:"createdAt"`
	ChangedAt time.Time `json:"changedAt"`
}

// LetterState is where a dead letter stands.
type LetterState string

const (
	LetterDead      LetterState = "dead"
	LetterReplaying LetterState = "replaying" // until the transaction that settles its replay
	LetterResolved  LetterState = "resolved"
	LetterDiscarded LetterState = "discarded"
)

// Span is part of a body, in bytes.
type Span struct {
	From int `json:"from"`
	To   int `json:"to"`
}

// Filter selects dead letters; a zero field selects all. Everything set must match.
type Filter struct {
	IDs    []string    `json:"ids,omitempty"`
	Reason string      `json:"reason,omitempty"`
	Class  Class       `json:"class,omitempty"`
	Source Source      `json:"source,omitempty"` // matches the origin, too
	FileID string      `json:"file,omitempty"`
	Since  time.Time   `json:"since,omitzero"` // created at or after
	Until  time.Time   `json:"until,omitzero"` // created before
	State  LetterState `json:"state,omitempty"`
	Import string      `json:"import,omitempty"` // came with this import
}

// Empty reports whether the filter selects everything: bulk verbs want that said.
func (f Filter) Empty() bool {
	return len(f.IDs) == 0 && f.Reason == "" && f.Class == "" && f.Source == "" && f.FileID == "" &&
		f.Since.IsZero() && f.Until.IsZero() && f.State == "" && f.Import == ""
}

// DeadCount is how many dead letters a filter matches.
type DeadCount struct {
	Total   int64            `json:"total"`
	Classes map[Class]int64  `json:"classes"`
	Reasons map[string]int64 `json:"reasons,omitempty"`
}

// Job is one operator verb at work on many items, in the active worker. It survives
// restarts: what it has done is in the rows.
type Job struct {
	ID   string  `json:"id"`
	Verb JobVerb `json:"verb"`
	// Filter of replay and discard; Files of recheck.
	Filter Filter   `json:"filter"`
	Files  []string `json:"files,omitempty"`
	Who    string   `json:"who"`
	Note   string   `json:"note,omitempty"`
	// Key is the caller's Idempotency-Key: the same caller with the same key gets the
	// same job back.
	Key   string   `json:"-"`
	State JobState `json:"state"`
	// Total was counted when the job began; letters that come later are not its own.
	Total int64 `json:"total"`
	// Done items were published (replay, recheck) or marked (discard); Skipped ones
	// were somebody else's by then.
	Done    int64 `json:"done"`
	Skipped int64 `json:"skipped"`
	// Waiting says in one sentence what the job waits for; empty while it moves.
	Waiting    string    `json:"waiting,omitempty"`
	Error      string    `json:"error,omitempty"`
	CreatedAt  time.Time `json:"createdAt"`
	ChangedAt  time.Time `json:"changedAt"`
	FinishedAt time.Time `json:"finishedAt,omitzero"`
	// Outcomes of what a replay or recheck published, as far as they are settled:
	// "resolved", "dead", "replaying" for letters; ends for rechecks.
	Outcomes map[string]int64 `json:"outcomes,omitempty"`
	// Reasons of those that died again, or were rejected.
	Reasons map[string]int64 `json:"reasons,omitempty"`
}

// JobVerb is what a job does.
type JobVerb string

const (
	JobReplay  JobVerb = "replay"
	JobDiscard JobVerb = "discard"
	JobRecheck JobVerb = "recheck"
)

// JobState is where a job stands.
type JobState string

const (
	JobRunning   JobState = "running"
	JobDone      JobState = "done"
	JobCancelled JobState = "cancelled"
	JobFailed    JobState = "failed"
)
