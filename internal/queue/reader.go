package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/queue/envelope"
)

// Next returns the next envelope, blocking until there is one or ctx is done. It
// waits through restarts of the server. An envelope comes again when its delivery
// stays silent for AckWait, so Delivered > 1 means a crash, a hand-over or a slow
// worker, and nothing more precise.
func (q *Queue) Next(ctx context.Context) (*event.Delivery, error) {
	for {
		msg, err := q.reader.next(ctx)
		if err != nil {
			return nil, err
		}
		d, failed := delivery(msg)
		if failed != nil {
			return nil, failed
		}
		if d.Err != nil || len(d.Envelope.Events) > 0 {
			return d, nil //nolint:nilerr // an envelope that cannot be read is a delivery too
		}
		_ = d.Ack() // a probe; see Queue.probe
	}
}

// delivery wraps a message. One that cannot be read is delivered as it is: it is
// somebody's event, and the worker makes a dead letter of it.
func delivery(msg jetstream.Msg) (*event.Delivery, error) {
	meta, err := msg.Metadata()
	if err != nil {
		return nil, fmt.Errorf("queue: message without metadata: %w", err)
	}
	d := &event.Delivery{
		Sequence: meta.Sequence.Stream, Delivered: meta.NumDelivered, StoredAt: meta.Timestamp.UTC(), More: meta.NumPending > 0,
		// A plain ack: should it get lost, the envelope comes again and settles as
		// a no-op. Waiting for the server to confirm it halves the rate.
		Ack:     msg.Ack,
		Extend:  msg.InProgress,
		Release: func(after time.Duration) error { return release(msg, after) },
	}
	if d.Envelope, err = envelope.Decode(msg.Data()); err != nil {
		d.Raw, d.Err = msg.Data(), fmt.Errorf("queue: message %d: %w", d.Sequence, err)
	}
	return d, nil
}

func release(msg jetstream.Msg, after time.Duration) error {
	if after <= 0 {
		return msg.Nak()
	}
	return msg.NakWithDelay(after)
}

// reader fetches envelopes ahead of Next. What it holds is kept alive by extending
// it, however slow the worker or long its pause; what it still holds when reading
// ends is released, so that the next worker gets it at once.
//
// It fetches in rounds of as many as it has room for. The client library's own
// buffer could not be extended or handed back, so none is used.
type reader struct {
	consumer func() (jetstream.Consumer, error)
	size     int
	extend   time.Duration // how often held messages are extended
	strays   *strays
	log      *slog.Logger

	mu      sync.Mutex // guards the rest
	held    []jetstream.Msg
	closed  bool
	stop    context.CancelFunc // of the goroutines that read; nil while resting
	done    chan struct{}      // closed when they have ended
	arrived chan struct{}      // buffered: something is held
	room    chan struct{}      // buffered: half of the room is free
}

var errClosed = errors.New("queue: closed")

func newReader(consumer func() (jetstream.Consumer, error), size int, extend time.Duration, s *strays, log *slog.Logger) *reader {
	return &reader{
		consumer: consumer, size: size, extend: extend, strays: s, log: log,
		arrived: make(chan struct{}, 1), room: make(chan struct{}, 1),
	}
}

func (r *reader) next(ctx context.Context) (jetstream.Msg, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("queue: next envelope: %w", err)
		}
		msg, done, err := r.take() //nolint:contextcheck // reading goes on between two calls
		if msg != nil || err != nil {
			return msg, err
		}
		select {
		case <-r.arrived:
		case <-done:
		case <-ctx.Done():
		}
	}
}

// take returns the oldest held message, or nil; it starts reading where nobody does.
func (r *reader) take() (jetstream.Msg, <-chan struct{}, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, nil, errClosed
	}
	if r.stop == nil {
		r.start()
	}
	if len(r.held) == 0 {
		return nil, r.done, nil
	}
	msg := r.held[0]
	r.held[0] = nil
	r.held = r.held[1:]
	if len(r.held) > 0 {
		signal(r.arrived)
	}
	if len(r.held) <= r.size/2 {
		signal(r.room)
	}
	return msg, r.done, nil
}

func (r *reader) start() {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	r.stop, r.done = stop, done
	var all sync.WaitGroup
	all.Go(func() { r.pump(ctx) })
	all.Go(func() { r.keep(ctx) })
	all.Go(func() { r.gatherStrays(ctx) })
	go func() { all.Wait(); close(done) }()
}

// rest ends reading and releases what is held. The next call of next begins anew.
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
	for _, msg := range held {
		if err := msg.Nak(); err != nil {
			r.log.Warn("queue.release", "error", err) // it comes again after AckWait
		}
	}
}

func (r *reader) close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.rest()
}

// pump fetches, round after round, whenever half of the room is free.
func (r *reader) pump(ctx context.Context) {
	failures := 0
	for ctx.Err() == nil {
		n := r.free()
		if n < (r.size+1)/2 {
			select {
			case <-r.room:
			case <-ctx.Done():
			}
			continue
		}
		if err := r.round(ctx, n); err == nil {
			failures = 0
			continue
		} else if failures++; failures == 1 {
			r.log.WarnContext(ctx, "queue.fetch", "error", err)
		}
		pause(ctx, jitter(min(100*time.Millisecond<<min(failures, 6), 5*time.Second)))
	}
}

func (r *reader) free() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.size - len(r.held)
}

// round takes n messages and holds them as they come.
func (r *reader) round(ctx context.Context, n int) error {
	consumer, err := r.consumer()
	if err != nil {
		return err
	}
	it, err := consumer.Messages(jetstream.PullMaxMessages(n), jetstream.StopAfter(n),
		jetstream.PullExpiry(30*time.Second), jetstream.PullHeartbeat(5*time.Second),
		jetstream.WithMessagesErrOnMissingHeartbeat(false))
	if err != nil {
		return fmt.Errorf("fetch: %w", err)
	}
	for {
		msg, err := it.Next(jetstream.NextContext(ctx))
		switch {
		case err == nil:
			r.hold(msg)
		case ctx.Err() != nil:
			r.drain(it)
			return nil //nolint:nilerr // it was told to end
		case errors.Is(err, jetstream.ErrMsgIteratorClosed) && !errors.Is(err, jetstream.ErrConnectionClosed):
			return nil // n have come
		default:
			it.Stop()
			return fmt.Errorf("fetch: %w", err)
		}
	}
}

// drain ends a round early and holds what was on its way, to be released with the
// rest.
func (r *reader) drain(it jetstream.MessagesContext) {
	it.Drain()
	for {
		msg, err := it.Next(jetstream.NextMaxWait(2 * time.Second))
		if err != nil {
			it.Stop()
			return
		}
		r.hold(msg)
	}
}

func (r *reader) hold(msg jetstream.Msg) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = append(r.held, msg)
	signal(r.arrived)
}

// gatherStrays holds strays, as many as one round would bring, beside what is delivered.
func (r *reader) gatherStrays(ctx context.Context) {
	for {
		found, err := r.strays.look(ctx, r.size)
		if err != nil && ctx.Err() == nil {
			r.log.InfoContext(ctx, "queue.strays", "error", err) // the next look may do better
		}
		for _, s := range found {
			r.log.WarnContext(ctx, "queue.stray", "sequence", s.raw.Sequence, "stored", s.raw.Time)
			r.hold(s)
		}
		if pause(ctx, jitter(r.strays.every)); ctx.Err() != nil {
			return
		}
	}
}

// keep extends what is held.
func (r *reader) keep(ctx context.Context) {
	tick := time.NewTicker(r.extend)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		r.mu.Lock()
		for _, msg := range r.held {
			_ = msg.InProgress() // when it fails the message comes again, as after a crash
		}
		r.mu.Unlock()
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
