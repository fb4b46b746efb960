package worker

import (
	"context"
	"sync"
)

// lanes keep two batches from looking up the same file at once: a batch waits for
// every earlier batch that holds one of its files. Look-ups of one file in one
// process therefore never overlap, and what a look-up says is settled before the
// next one is sent. (Between processes the fence decides.)
//
// Batches enter one at a time and wait only for earlier ones, so they cannot wait
// for each other in a circle.
type lanes struct {
	mu   sync.Mutex
	last map[string]chan struct{} // closed when the latest batch holding the file leaves
}

func newLanes() *lanes { return &lanes{last: map[string]chan struct{}{}} }

// enter waits for the earlier batches and returns the function that lets the later
// ones in. On a cancelled context nothing is held.
func (l *lanes) enter(ctx context.Context, files []string) (func(), error) {
	mine := make(chan struct{})
	var before []chan struct{}
	l.mu.Lock()
	for _, f := range files {
		if c, ok := l.last[f]; ok {
			before = append(before, c)
		}
		l.last[f] = mine
	}
	l.mu.Unlock()
	leave := func() {
		l.mu.Lock()
		for _, f := range files {
			if l.last[f] == mine {
				delete(l.last, f)
			}
		}
		l.mu.Unlock()
		close(mine)
	}
	for _, c := range before {
		select {
		case <-c:
		case <-ctx.Done():
			// Those behind us wait for us, so we may leave only after those before us.
			go func() {
				for _, c := range before {
					<-c
				}
				leave()
			}()
			return nil, context.Cause(ctx)
		}
	}
	return leave, nil
}
