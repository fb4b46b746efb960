package queue

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/queue/envelope"
)

// Next returns the next envelope, blocking until there is one or ctx is done.
func (d *Door) Next(ctx context.Context) (*event.Delivery, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("queue: next envelope: %w", err)
		}
		got, done, err := d.reader.take()
		if err != nil {
			return nil, err
		}
		if got != nil {
			return d.delivery(got), nil
		}
		select {
		case <-d.reader.arrived:
		case <-done:
		case <-ctx.Done():
		case <-d.ctx.Done():
		}
	}
}

// fetched is one delivery of a message.
type fetched struct {
	m      *message
	number uint64 // how often it had been delivered by then
	more   bool   // others were still to be delivered for the first time
}

func (d *Door) delivery(f *fetched) *event.Delivery {
	id := f.m.Header[headerID]
	out := &event.Delivery{
		Sequence: f.m.Sequence, Delivered: f.number, StoredAt: f.m.StoredAt, More: f.more,
		Ack: func() error {
			return d.call(d.ctx, "Ack", id, func() error { return d.stream.ack(f.m) })
		},
		Extend: func() error {
			return d.call(d.ctx, "Extend", id, func() error { return d.stream.extend(f.m) })
		},
		Release: func(after time.Duration) error {
			return d.call(d.ctx, "Release", id, func() error { return d.stream.release(f.m, after) })
		},
	}
	var err error
	if out.Envelope, err = envelope.Decode(f.m.Data); err != nil {
		out.Raw, out.Err = f.m.Data, fmt.Errorf("queue: message %d: %w", f.m.Sequence, err)
	}
	return out
}

// reader fetches envelopes ahead of Next. What it holds it extends; what it still holds
// when reading ends it releases.
type reader struct {
	d       *Door
	arrived chan struct{} // buffered: something is held
	room    chan struct{} // buffered: half of the room is free

	mu     sync.Mutex // guards the rest
	held   []*fetched
	closed bool
	stop   context.CancelFunc // of the goroutines that read; nil while resting
	done   chan struct{}      // closed when they have ended
}

func newReader(d *Door) *reader {
	return &reader{d: d, arrived: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

// take returns the oldest held one, or nil; it starts reading where nobody does.
func (r *reader) take() (*fetched, <-chan struct{}, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.d.gone(); err != nil {
		return nil, nil, err
	}
	if r.closed {
		return nil, nil, errClosed
	}
	if r.stop == nil {
		r.start()
	}
	if len(r.held) == 0 {
		return nil, r.done, nil
	}
	f := r.held[0]
	r.held = r.held[1:]
	if len(r.held) > 0 {
		signal(r.arrived)
	}
	if len(r.held) <= r.d.Buffer/2 {
		signal(r.room)
	}
	return f, r.done, nil
}

func (r *reader) start() {
	ctx, stop := context.WithCancel(r.d.ctx)
	done := make(chan struct{})
	r.stop, r.done = stop, done
	var both sync.WaitGroup
	both.Go(func() { r.pump(ctx) })
	both.Go(func() { r.keep(ctx) })
	r.d.done.Go(func() { both.Wait(); close(done) })
}

// rest ends reading and releases what is held. The next call of Next begins anew.
func (r *reader) rest() {
	r.mu.Lock()
	stop, done := r.stop, r.done
	r.mu.Unlock()
	if stop == nil {
		return
	}
	stop()
	<-done
	r.mu.Lock()
	held := r.held
	if r.done == done {
		r.held, r.stop, r.done = nil, nil, nil
	}
	r.mu.Unlock()
	for _, f := range held {
		_ = r.d.call(r.d.ctx, "Release", f.m.Header[headerID], func() error { return r.d.stream.release(f.m, 0) })
	}
}

func (r *reader) close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.rest()
}

// pump fetches while half of the room is free.
func (r *reader) pump(ctx context.Context) {
	for ctx.Err() == nil {
		r.d.awake(ctx)
		n := r.free()
		if n < (r.d.Buffer+1)/2 {
			select {
			case <-r.room:
			case <-ctx.Done():
			}
			continue
		}
		for range n {
			if !r.fetch(ctx) {
				break
			}
		}
	}
}

func (r *reader) free() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.d.Buffer - len(r.held)
}

// fetch holds one message, after waiting for it, and says whether it does. A fetch that
// fails is repeated after a moment; what it was given comes again after the AckWait.
func (r *reader) fetch(ctx context.Context) bool {
	if !r.await(ctx) {
		return false
	}
	var f *fetched
	err := r.d.call(ctx, "Next", "", func() error {
		f = r.d.stream.take()
		return nil
	})
	switch {
	case err != nil:
		pause(ctx, r.d.spread(100*time.Millisecond))
	case f != nil:
		r.hold(f)
		return true
	}
	return false
}

// await returns when a message can be had; false when reading ends first.
func (r *reader) await(ctx context.Context) bool {
	for ctx.Err() == nil {
		r.d.awake(ctx)
		now, wait, changed := r.d.stream.outlook()
		if now {
			return ctx.Err() == nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-changed:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	return false
}

func (r *reader) hold(f *fetched) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = append(r.held, f)
	signal(r.arrived)
}

// keep extends what is held.
func (r *reader) keep(ctx context.Context) {
	tick := time.NewTicker(r.d.stream.AckWait / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		r.d.awake(ctx)
		r.mu.Lock()
		held := append([]*fetched(nil), r.held...)
		r.mu.Unlock()
		for _, f := range held {
			_ = r.d.call(ctx, "Extend", f.m.Header[headerID], func() error { return r.d.stream.extend(f.m) })
		}
	}
}
