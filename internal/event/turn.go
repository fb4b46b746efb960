package event

import "time"

// Turn is one worker's time of being the active one. Its number is the fencing
// token of every settling transaction.
type Turn struct {
	Number int64
	// NextDue is when the earliest retry is due; zero when there is none.
	NextDue time.Time
	// Paused, PausedBy and PausedNote: an operator's pause outlives turns and
	// restarts.
	Paused     bool
	PausedBy   string
	PausedNote string
}

// Settled is what one settling transaction did.
type Settled struct {
	// NextDue is the earliest due time among the retries it knows of; zero when there
	// is none.
	NextDue time.Time
	// Ends holds, by event id, the end of every event that this call settled. Events
	// that had reached an end before are not in it.
	Ends map[string]End
	// Already counts the events that had reached an end before.
	Already int
	// Security counts the security notes written, by flag.
	Security map[string]int
}
