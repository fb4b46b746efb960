package worker

import (
	"context"
	"sync"

	"github.com/trueup/trueup/internal/event"
)

// inbox is where envelopes wait for a slot; one goroutine puts, one takes. What fits is
// counted in events, because an envelope holds one of them or hundreds.
type inbox struct {
	envelopes, events int // at most; one envelope always fits

	mu      sync.Mutex // guards what follows
	waiting []*event.Delivery
	held    int // their events

	came, left chan struct{} // buffered: there is something new to look at
}

func newInbox(envelopes, events int) *inbox {
	return &inbox{envelopes: envelopes, events: events, came: make(chan struct{}, 1), left: make(chan struct{}, 1)}
}

// put waits until d fits.
func (i *inbox) put(ctx context.Context, d *event.Delivery) error {
	for !i.offer(d) {
		select {
		case <-i.left:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	signal(i.came)
	return nil
}

func (i *inbox) offer(d *event.Delivery) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	n := len(d.Envelope.Events)
	if len(i.waiting) > 0 && (len(i.waiting) >= i.envelopes || i.held+n > i.events) {
		return false
	}
	i.waiting, i.held = append(i.waiting, d), i.held+n
	return true
}

// take waits for an envelope and returns all that have gathered: a batch.
func (i *inbox) take(ctx context.Context) ([]*event.Delivery, error) {
	for {
		if batch := i.all(); batch != nil {
			signal(i.left)
			return batch, nil
		}
		select {
		case <-i.came:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (i *inbox) all() []*event.Delivery {
	i.mu.Lock()
	defer i.mu.Unlock()
	batch := i.waiting
	i.waiting, i.held = nil, 0
	return batch
}

// signal tells one who waits on c, now or next, that there is something new to look at;
// c is buffered for one.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
