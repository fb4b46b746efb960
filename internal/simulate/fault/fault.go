// Package fault is where a simulated door can go wrong: every call of a door runs
// through a Hook, and only the driver of the simulation knows what the hook does.
//
// It stands apart so that the doors (rows, queue, library) know nothing of schedules, and
// the driver nothing of their methods. Its one invariant: a door does all its work inside
// do, so that a call either happened whole or did not happen, whatever its caller is told.
package fault

import "context"

// Door names one of the service's outsides.
type Door string

const (
	Rows     Door = "rows"
	Queue    Door = "queue"
	ImageKit Door = "imagekit"
)

// Call is one use of a door.
type Call struct {
	Door   Door
	Method string // as the interface has it
	Key    string // what it is about: a file, an event, a run; empty where nothing names it
}

// Hook stands around every call. It may wait, return an error instead of calling do, call
// do and return an error all the same, or call do and pass on what it says. It must return
// when ctx is done. A nil Hook calls do.
type Hook func(ctx context.Context, c Call, do func() error) error

// Do runs do through h.
func (h Hook) Do(ctx context.Context, c Call, do func() error) error {
	if h == nil {
		return do()
	}
	return h(ctx, c, do)
}
