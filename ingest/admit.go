package ingest

import (
	"context"
	"time"
)

// Under overload an answer now is worth more than a place in a long line: so many
// requests are worked on at once, each of the others waits so long for one of them to end,
// and is told to come again. 256 is what fits one envelope; the wait takes in a burst.
const (
	atOnce      = 256
	admitWithin = 100 * time.Millisecond
)

// admission is taken between reading a body, which a sender can make last, and anything
// that costs. It is held for as long as the queue takes.
type admission struct{ places chan struct{} }

func newAdmission() *admission { return &admission{make(chan struct{}, atOnce)} }

// enter waits for a place; leave gives it back.
func (a *admission) enter(ctx context.Context) (leave func(), err error) {
	select {
	case a.places <- struct{}{}:
		return a.leave, nil
	default:
	}
	wait := time.NewTimer(admitWithin)
	defer wait.Stop()
	select {
	case a.places <- struct{}{}:
		return a.leave, nil
	case <-wait.C:
		return nil, unavailable("overloaded", "There are more requests than can be served at once; send it again.")
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (a *admission) leave() { <-a.places }
