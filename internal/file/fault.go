package file

import (
	"fmt"
	"time"
)

// FaultKind names how a look-up failed. The list is closed: it labels metrics.
type FaultKind string

const (
	NotFound     FaultKind = "not_found"    // 404
	InvalidID    FaultKind = "invalid_id"   // 400 for the id itself
	BadRequest   FaultKind = "bad_request"  // any other 400, 414: our request, not the file
	Unauthorized FaultKind = "unauthorized" // 401
	Forbidden    FaultKind = "forbidden"    // 403
	Limited      FaultKind = "limited"      // 429
	Unavailable  FaultKind = "unavailable"  // 5xx
	Unreachable  FaultKind = "unreachable"  // no connection, cut connection
	TimedOut     FaultKind = "timed_out"    // no whole answer in time
	Garbled      FaultKind = "garbled"      // an answer that is not what it should be: HTML, cut JSON, wrong types, a redirect
	Panicked     FaultKind = "panicked"     // no fault of ImageKit's: our own code panicked over this file
)

// Fault is a look-up that gave no observation, or one that says the file is not
// there. It keeps what an operator needs to ask ImageKit's support about it and
// never holds a key.
type Fault struct {
	Kind      FaultKind
	Status    int    // HTTP status; 0 when there was no answer
	RequestID string // ImageKit's x-ik-requestId
	Excerpt   string // the first bytes of the answer, at most 200, printable
	// Wait is X-RateLimit-Reset of a 429; zero when not said.
	Wait time.Duration
	// Stack is where the code panicked, for Panicked.
	Stack string
	Err   error // the cause, when there is one
}

func (f *Fault) Error() string {
	s := "imagekit: " + string(f.Kind)
	if f.Status != 0 {
		s += fmt.Sprintf(" (status %d)", f.Status)
	}
	if f.RequestID != "" {
		s += " request " + f.RequestID
	}
	if f.Err != nil {
		s += ": " + f.Err.Error()
	}
	return s
}

func (f *Fault) Unwrap() error { return f.Err }

// Absent reports whether ImageKit said that there is no such file.
func (f *Fault) Absent() bool { return f.Kind == NotFound || f.Kind == InvalidID }

// Transient reports whether the same question may well be answered a moment later.
func (f *Fault) Transient() bool {
	switch f.Kind {
	case Limited, Unavailable, Unreachable, TimedOut, Garbled:
		return true
	}
	return false
}
