package worker

import (
	"context"
	"sync"
	"time"

	"github.com/trueup/trueup/internal/event"
)

// gatherWithin is how long a batch waits for what the queue says it has: a call of
// ImageKit's budget is dearer than that. It runs out only where the queue does not hand
// over what it has, such as to a worker that holds as much as it may.
const gatherWithin = 100 * time.Millisecond

// inbox is where envelopes wait for a slot; one goroutine puts, one takes. What fits is
// counted in events, because an envelope holds one of them or hundreds.
type inbox struct {
	envelopes, events int // at most; one envelope always fits

	mu      sync.Mutex // guards what follows
	waiting []*event.Delivery
	held    int  // their events
	full    bool // another one did not fit
	more    bool // the queue has more that it did not hand over yet

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
		i.full = true
		signal(i.came)
		return false
	}
	i.waiting, i.held, i.more = append(i.waiting, d), i.held+n, d.More
	return true
}

// take waits for an envelope, and for those that the queue says are behind it, and
// returns all that have gathered: a batch.
func (i *inbox) take(ctx context.Context) ([]*event.Delivery, error) {
	var late <-chan time.Time
	for enough := false; ; {
		batch, begun := i.all(enough)
		if batch != nil {
			signal(i.left)
			return batch, nil
		}
		if begun && late == nil {
			timer := time.NewTimer(gatherWithin)
			defer timer.Stop()
			late = timer.C
		}
		select {
		case <-i.came:
		case <-late:
			enough = true
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// all is the batch where it is complete, or what there is where that is enough; begun
// says whether there is any.
func (i *inbox) all(enough bool) (batch []*event.Delivery, begun bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.waiting) == 0 {
		return nil, false
	}
	if i.more && !i.full && !enough {
		return nil, true
	}
	batch = i.waiting
	i.waiting, i.held, i.full = nil, 0, false
	return batch, true
}

// signal tells one who waits on c, now or next, that there is something new to look at;
// c is buffered for one.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
