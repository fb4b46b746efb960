package worker

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/trueup/trueup/internal/event"
)

// prefetch is how many envelopes wait in memory for a free slot, as long as their events
// fit one batch. They are ours (and extended) while they wait, so the number is bounded:
// after a crash they are what comes again, to be settled one by one.
const prefetch = 64

// envelopes takes from the queue and keeps up to InFlight batches under way. While
// all slots are taken, what arrives gathers into the next batch: batches grow with
// the backlog, and what comes alone goes at once.
func (t *turn) envelopes(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	arrived := newInbox(prefetch, t.BatchEvents)
	g.Go(func() error { return t.fetch(ctx, arrived) })
	g.Go(func() error { return t.dispatch(ctx, g, arrived) })
	return g.Wait()
}

func (t *turn) fetch(ctx context.Context, arrived *inbox) error {
	for {
		if err := t.gate.pass(ctx); err != nil {
			return err
		}
		d, err := t.Queue.Next(ctx)
		if err != nil {
			return err
		}
		t.held.add(d)
		if err := arrived.put(ctx, d); err != nil {
			return err
		}
	}
}

func (t *turn) dispatch(ctx context.Context, g *errgroup.Group, arrived *inbox) error {
	for {
		select {
		case t.slots <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		batch, err := arrived.take(ctx)
		if err != nil {
			return err
		}
		g.Go(func() error {
			defer func() { <-t.slots }()
			return t.handle(ctx, batch)
		})
	}
}

// handle settles a batch of envelopes and acks them. An envelope that came before
// and was not acked is a suspect, and is settled apart from the others and after them.
func (t *turn) handle(stop context.Context, batch []*event.Delivery) error {
	var clean, suspects []*event.Delivery
	for _, d := range batch {
		if d.Err == nil && d.Delivered <= 1 {
			clean = append(clean, d)
		} else {
			suspects = append(suspects, d)
		}
	}
	if len(clean) > 0 {
		if err := t.settle(stop, pendingOf(clean)); err != nil {
			return err
		}
	}
	for _, d := range clean {
		t.held.ack(d)
	}
	for _, d := range suspects {
		if err := t.suspect(stop, d); err != nil {
			return err
		}
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

// list is what is held, the oldest first: it has been silent the longest.
func (h *held) list() []*event.Delivery {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make([]*event.Delivery, 0, len(h.set))
	for d := range h.set {
		out = append(out, d)
	}
	slices.SortFunc(out, func(a, b *event.Delivery) int { return cmp.Compare(a.Sequence, b.Sequence) })
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
