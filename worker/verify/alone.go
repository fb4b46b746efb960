package verify

import "context"

// alone is a lock to be held while ImageKit is asked. It is no sync.Mutex because whoever
// waits for it must be able to give up: an answer may be long in coming.
type alone chan struct{}

func newAlone() alone { return make(alone, 1) }

func (a alone) lock(ctx context.Context) error {
	select {
	case a <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (a alone) unlock() { <-a }
