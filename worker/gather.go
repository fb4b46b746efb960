package worker

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/trueup/trueup/internal/event"
)

// prefetch is how many envelopes wait in memory for a free slot. They are ours
// (and extended) while they wait, so the number stays small: after a crash they
// are what comes again.
const prefetch = 8

// envelopes takes from the queue and keeps up to InFlight batches under way. While
// all slots are taken, what arrives gathers into the next batch: batches grow with
// the backlog and nothing ever waits for a timer.
func (t *turn) envelopes(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	arrived := make(chan *event.Delivery, prefetch)
	g.Go(func() error { return t.fetch(ctx, arrived) })
	g.Go(func() error { return t.dispatch(ctx, g, arrived) })
	return g.Wait()
}

func (t *turn) fetch(ctx context.Context, arrived chan<- *event.Delivery) error {
	for {
		if err := t.gate.pass(ctx); err != nil {
			return err
		}
		d, err := t.Queue.Next(ctx)
		if err != nil {
			return err
		}
		t.held.add(d)
		select {
		case arrived <- d:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (t *turn) dispatch(ctx context.Context, g *errgroup.Group, arrived <-chan *event.Delivery) error {
	for {
		select {
		case t.slots <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		var batch []*event.Delivery
		select {
		case d := <-arrived:
			batch = t.gather(d, arrived)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		g.Go(func() error {
			defer func() { <-t.slots }()
			return t.handle(ctx, batch)
		})
	}
}

// gather adds to the first envelope what has already arrived, up to BatchEvents.
func (t *turn) gather(first *event.Delivery, arrived <-chan *event.Delivery) []*event.Delivery {
	batch, n := []*event.Delivery{first}, len(first.Envelope.Events)
	for n < t.BatchEvents {
		select {
		case d := <-arrived:
			batch = append(batch, d)
			n += len(d.Envelope.Events)
		default:
			return batch
		}
	}
	return batch
}

// handle settles a batch of envelopes and acks them. An envelope that came before
// and was not acked is a suspect and is settled apart from the others.
func (t *turn) handle(stop context.Context, batch []*event.Delivery) error {
	var clean []*event.Delivery
	for _, d := range batch {
		if d.Err == nil && d.Delivered <= 1 {
			clean = append(clean, d)
			continue
		}
		if err := t.suspect(stop, d); err != nil {
			return err
		}
		t.held.ack(d)
	}
	if len(clean) == 0 {
		return nil
	}
	if err := t.settle(stop, pendingOf(clean)); err != nil {
		return err
	}
	for _, d := range clean {
		t.held.ack(d)
	}
	return nil
}

// pendingOf lists the events of the envelopes, each once.
func pendingOf(batch []*event.Delivery) []event.Pending {
	var pending []event.Pending
	known := map[string]bool{}
	for _, d := range batch {
		for _, e := range d.Envelope.Events {
			if !known[e.ID] {
				known[e.ID] = true
				pending = append(pending, event.Pending{Event: e})
			}
		}
	}
	return pending
}

// retries settles what has become due, one batch at a time, so that no retry is
// taken twice.
func (t *turn) retries(ctx context.Context) error {
	for {
		if err := t.due.wait(ctx); err != nil {
			return err
		}
		if err := t.gate.pass(ctx); err != nil {
			return err
		}
		pending, next, err := t.Rows.Due(ctx, t.BatchEvents)
		if err != nil {
			if err := t.survive(ctx, err); err != nil {
				return err
			}
			continue
		}
		t.gate.worked()
		t.due.set(next, len(pending) == 0)
		if len(pending) == 0 {
			continue
		}
		if err := t.settle(ctx, pending); err != nil {
			return err
		}
	}
}

// due is the next due time, kept in memory so that an idle database is left alone.
type due struct {
	now  func() time.Time
	wake chan struct{}

	mu   sync.Mutex
	next time.Time // zero: nothing is due
}

func newDue(next time.Time, now func() time.Time) *due {
	return &due{now: now, wake: make(chan struct{}, 1), next: next}
}

// suggest brings the next due time forward; later or zero times change nothing.
func (d *due) suggest(at time.Time) {
	if at.IsZero() {
		return
	}
	d.mu.Lock()
	sooner := d.next.IsZero() || at.Before(d.next)
	if sooner {
		d.next = at
	}
	d.mu.Unlock()
	if sooner {
		select {
		case d.wake <- struct{}{}:
		default:
		}
	}
}

// set replaces the next due time by what the database says. Where it had nothing to
// give although our clock thought so (idle), the clocks differ: look again a little
// later rather than at once.
func (d *due) set(next time.Time, idle bool) {
	if earliest := d.now().Add(100 * time.Millisecond); idle && !next.IsZero() && next.Before(earliest) {
		next = earliest
	}
	d.mu.Lock()
	d.next = next
	d.mu.Unlock()
}

func (d *due) wait(ctx context.Context) error {
	for {
		d.mu.Lock()
		next := d.next
		d.mu.Unlock()
		var timer <-chan time.Time
		if !next.IsZero() {
			left := next.Sub(d.now())
			if left <= 0 {
				return context.Cause(ctx)
			}
			timer = time.After(left)
		}
		select {
		case <-timer:
		case <-d.wake:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// held are the envelopes this process has been handed and has neither acked nor
// given back. Each is acked once, or given back once.
type held struct {
	log *slog.Logger
	mu  sync.Mutex
	set map[*event.Delivery]struct{}
}

func (h *held) add(d *event.Delivery) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.set == nil {
		h.set = map[*event.Delivery]struct{}{}
	}
	h.set[d] = struct{}{}
}

// ack ends an envelope whose events are all settled. A lost ack only brings the
// envelope again, and settling it again is a no-op.
func (h *held) ack(d *event.Delivery) {
	h.mu.Lock()
	delete(h.set, d)
	h.mu.Unlock()
	if err := d.Ack(); err != nil {
		h.log.Warn("envelope.ack_failed", "sequence", d.Sequence, "error", err.Error())
	}
}

// extend keeps the queue from handing held envelopes to somebody else: a look-up
// may be slow and a pause may be long.
func (h *held) extend(ctx context.Context, every time.Duration) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
		for _, d := range h.list() {
			if err := d.Extend(); err != nil {
				h.log.WarnContext(ctx, "envelope.extend_failed", "sequence", d.Sequence, "error", err.Error())
			}
		}
	}
}

func (h *held) list() []*event.Delivery {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make([]*event.Delivery, 0, len(h.set))
	for d := range h.set {
		out = append(out, d)
	}
	return out
}

// releaseAll gives back what is still held when a turn ends, for the next one.
func (h *held) releaseAll() {
	for _, d := range h.list() {
		h.mu.Lock()
		delete(h.set, d)
		h.mu.Unlock()
		if err := d.Release(0); err != nil {
			h.log.Warn("envelope.release_failed", "sequence", d.Sequence, "error", err.Error())
		}
	}
}
