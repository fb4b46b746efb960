package operator

import "time"

// Status is the state of the whole, as far as it could be asked.
type Status struct {
	At      time.Time `json:"at"`
	Role    string    `json:"role"`
	Version string    `json:"version"`
	// Worker is the active worker's turn; nil when unknown.
	Worker *WorkerStatus `json:"worker,omitempty"`
	Queue  *QueueStatus  `json:"queue,omitempty"`
	// Retries waiting, dead letters not yet resolved by who must act, live rows (an
	// estimate), the fuse: from the database.
	Retries     *RetryStatus     `json:"retries,omitempty"`
	DeadLetters map[string]int64 `json:"deadLetters,omitempty"`
	Rows        *int64           `json:"rows,omitempty"`
	Fuse        *FuseStatus      `json:"fuse,omitempty"`
	// Run is the youngest reconciliation run, nil where there was none; Account is nil
	// unless ImageKit's account is doubted. Both are from the database, too.
	Run     *RunStatus     `json:"run,omitempty"`
	Account *AccountStatus `json:"account,omitempty"`
	// API is this process's budget of calls to ImageKit; nil where it makes none.
	API *APIStatus `json:"api,omitempty"`
	// Security counts security events since the start of this process, by flag.
	Security map[string]int64 `json:"security,omitempty"`
	// Unavailable names what could not be asked ("database", "queue") and why.
	Unavailable map[string]string `json:"unavailable,omitempty"`
}

// WorkerStatus is what is known of the active worker and of this process's part.
type WorkerStatus struct {
	// Here is whether the active worker is this process; Standby that it waits.
	Here bool  `json:"here"`
	Turn int64 `json:"turn,omitempty"`
	Paused
	// Outage says what the worker is waiting for: empty, "database" or "imagekit".
	Outage string `json:"outage,omitempty"`
}

// Paused is whether an operator has stopped the worker.
type Paused struct {
	Paused     bool       `json:"paused"`
	PausedBy   string     `json:"pausedBy,omitempty"`
	PausedNote string     `json:"pausedNote,omitempty"`
	PausedAt   *time.Time `json:"pausedAt,omitempty"`
}

// QueueStatus is the queue's depth and whether it takes more.
type QueueStatus struct {
	Accepting  bool       `json:"accepting"`
	Durability string     `json:"durability"`
	Why        string     `json:"why,omitempty"`
	Waiting    int64      `json:"waiting"` // envelopes not delivered
	Unacked    int64      `json:"unacked"` // envelopes delivered and not settled
	Bytes      int64      `json:"bytes"`
	Oldest     *time.Time `json:"oldest,omitempty"`
}

// RetryStatus is how many events wait for another look.
type RetryStatus struct {
	Count   int64      `json:"count"`
	NextDue *time.Time `json:"nextDue,omitempty"`
}

// FuseStatus is the brake on deletions.
type FuseStatus struct {
	Latched   bool       `json:"latched"`
	LatchedAt *time.Time `json:"latchedAt,omitempty"`
	Why       string     `json:"why,omitempty"`
	// Candidates are the unsigned absences counted in the last day.
	Candidates int64 `json:"candidates"`
	// Run is the one that latched it; empty where that was the worker. Release is the
	// command that releases it; it is filled in here.
	Run     string `json:"run,omitempty"`
	Release string `json:"release,omitempty"`
}

// APIStatus is the budget of calls to ImageKit.
type APIStatus struct {
	PerSecond    float64        `json:"perSecond"`
	BlockedUntil *time.Time     `json:"blockedUntil,omitempty"`
	Waiting      map[string]int `json:"waiting,omitempty"` // look-ups, by class
}
