package queue

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"

	"github.com/oklog/ulid/v2"

	"github.com/trueup/trueup/internal/event"
	carrier "github.com/trueup/trueup/internal/queue"
	"github.com/trueup/trueup/internal/queue/envelope"
)

const (
	maxWaiting = 8192    // events in front of the packer
	headerRoom = 1 << 10 // of the largest message, for what is not events
)

// Publish stores the events of one call in one envelope, together with those of other
// calls that wait at the same time.
func (d *Door) Publish(ctx context.Context, events []event.Event) error {
	if len(events) == 0 {
		return nil
	}
	if why := d.refusal(); why != "" {
		return fmt.Errorf("%w: %s", event.ErrNotAccepted, why)
	}
	if len(events) > carrier.MaxEvents {
		return fmt.Errorf("%w: %d events in one call, at most %d", event.ErrTooLarge, len(events), carrier.MaxEvents)
	}
	wire, err := envelope.Encode(&event.Envelope{Events: events})
	if err != nil {
		return err
	}
	if limit := d.stream.Payload - headerRoom; len(wire) > limit {
		return fmt.Errorf("%w: %d bytes, at most %d", event.ErrTooLarge, len(wire), limit)
	}
	err = d.call(ctx, "Publish", events[0].ID, func() error { return d.packer.publish(ctx, events, len(wire)) })
	if err != nil && !errors.Is(err, event.ErrNotAccepted) {
		return fmt.Errorf("%w: %w", event.ErrNotAccepted, err)
	}
	return err
}

// waiting is one call of Publish on its way through the packer.
type waiting struct {
	ctx    context.Context //nolint:containedctx // of the caller who waits for done
	events []event.Event
	bytes  int
	done   chan error // buffered: the packer waits for no caller
}

// packer gathers calls into envelopes: whatever waits while the one before is being
// stored.
type packer struct {
	d     *Door
	wake  chan struct{} // buffered
	ended chan struct{} // closed when run has returned

	mu     sync.Mutex // guards the rest
	calls  []*waiting
	events int
	closed bool
}

func newPacker(d *Door) *packer {
	return &packer{d: d, wake: make(chan struct{}, 1), ended: make(chan struct{})}
}

func (p *packer) publish(ctx context.Context, events []event.Event, bytes int) error {
	w := &waiting{ctx: ctx, events: events, bytes: bytes, done: make(chan error, 1)}
	if err := p.add(w); err != nil {
		return err
	}
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", event.ErrNotAccepted, context.Cause(ctx))
	case <-p.d.ctx.Done():
		return fmt.Errorf("%w: %w", event.ErrNotAccepted, context.Cause(p.d.ctx))
	}
}

func (p *packer) add(w *waiting) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return fmt.Errorf("%w: the queue is closed", event.ErrNotAccepted)
	case len(p.calls) > 0 && p.events+len(w.events) > maxWaiting:
		return fmt.Errorf("%w: too many events are waiting to be stored", event.ErrNotAccepted)
	}
	p.calls = append(p.calls, w)
	p.events += len(w.events)
	signal(p.wake)
	return nil
}

// close refuses new calls and lets run finish with those that wait.
func (p *packer) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	signal(p.wake)
}

func (p *packer) run() {
	defer close(p.ended)
	for p.d.gone() == nil {
		calls, closed := p.take()
		if len(calls) > 0 {
			p.pack(calls)
			continue
		}
		if closed {
			return
		}
		select {
		case <-p.wake:
		case <-p.d.ctx.Done():
		}
	}
}

// take removes from the waiting room what fits the next envelope, oldest first.
func (p *packer) take() (calls []*waiting, closed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	share, events, bytes, n := (p.d.stream.Payload-headerRoom)/2, 0, 0, 0
	for _, w := range p.calls {
		gone := w.ctx.Err() != nil
		if !gone && len(calls) > 0 && (events+len(w.events) > carrier.MaxEvents || bytes+w.bytes > share) {
			break
		}
		n++
		p.events -= len(w.events)
		if gone {
			continue
		}
		calls = append(calls, w)
		events += len(w.events)
		bytes += w.bytes
	}
	p.calls = p.calls[n:]
	return calls, p.closed
}

func (p *packer) pack(calls []*waiting) {
	env := event.Envelope{ID: newID()}
	for _, w := range calls {
		env.Events = append(env.Events, w.events...)
	}
	data, err := envelope.Encode(&env)
	if err == nil {
		err = p.store(env.ID, data, len(env.Events))
	}
	for _, w := range calls {
		w.done <- err
	}
}

// newID draws an envelope's id.
func newID() string { return ulid.MustNew(ulid.Now(), rand.Reader).String() }

// store publishes one envelope and waits for its confirmation; where none comes in half
// the time, it asks once more under the same id.
func (p *packer) store(id string, data []byte, events int) error {
	duplicate, err := p.send(id, data, events)
	switch {
	case err == nil && duplicate:
		err = errors.New("the server has an envelope of this id already, and it is not this one")
	case errors.Is(err, context.DeadlineExceeded) && p.d.gone() == nil:
		_, err = p.send(id, data, events)
	}
	p.d.full.Store(errors.Is(err, errFull))
	if err != nil {
		return fmt.Errorf("%w: envelope %s: %w", event.ErrNotAccepted, id, err)
	}
	return nil
}

func (p *packer) send(id string, data []byte, events int) (duplicate bool, err error) {
	ctx, cancel := context.WithTimeout(p.d.ctx, p.d.AckTimeout/2)
	defer cancel()
	err = p.d.call(ctx, "Store", id, func() (err error) {
		duplicate, err = p.d.stream.store(id, data, events)
		return err
	})
	return duplicate, err
}
