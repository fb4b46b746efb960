package worker

import (
	"context"
	"maps"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/trueup/trueup/internal/event"
)

// retries settles what has become due, up to InFlight batches at once: one that hangs
// holds no other back, and no event is under way twice.
func (t *turn) retries(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return t.takeDue(ctx, g) })
	return g.Wait()
}

func (t *turn) takeDue(ctx context.Context, g *errgroup.Group) error {
	slots, under := make(chan struct{}, t.InFlight), &underWay{}
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		pending, err := t.nextDue(ctx, under)
		if err != nil {
			return err
		}
		g.Go(func() error {
			defer func() { <-slots }()
			defer func() {
				if under.remove(pending) {
					t.due.suggest(t.Now())
				}
			}()
			// The queue counts deliveries of an envelope; nobody counts those of a retry.
			return t.trial(ctx, pending)
		})
	}
}

// nextDue waits for retries that are due and not under way.
func (t *turn) nextDue(ctx context.Context, under *underWay) ([]event.Pending, error) {
	for {
		if err := t.due.wait(ctx); err != nil {
			return nil, err
		}
		if err := t.gate.pass(ctx); err != nil {
			return nil, err
		}
		// Those under way still stand in the rows, or did when the rows were read: they
		// come on top of the limit and are left out.
		before := under.copy()
		t.due.reading()
		pending, next, err := t.Rows.Due(ctx, t.BatchEvents+len(before))
		if err != nil {
			if err := t.survive(ctx, err); err != nil {
				return nil, err
			}
			continue
		}
		t.gate.worked()
		pending, more := under.add(pending, before, t.BatchEvents)
		if more {
			t.due.suggest(t.Now())
		}
		t.due.set(next, len(pending) == 0)
		if len(pending) > 0 {
			return pending, nil
		}
	}
}

// underWay are the retries that some batch is working on, by event id. The value says
// that the event was left out of a reading meanwhile: it may have become due again.
type underWay struct {
	mu  sync.Mutex
	ids map[string]bool
}

func (u *underWay) copy() map[string]bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return maps.Clone(u.ids)
}

// add takes up to limit of those that were not under way before they were read; more
// says that others are due as well.
func (u *underWay) add(due []event.Pending, before map[string]bool, limit int) (mine []event.Pending, more bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ids == nil {
		u.ids = map[string]bool{}
	}
	for _, p := range due {
		_, was := before[p.ID]
		_, is := u.ids[p.ID]
		switch {
		case is:
			u.ids[p.ID] = true
		case was || len(mine) == limit:
			more = true // what was read of it may be old
		default:
			u.ids[p.ID] = false
			mine = append(mine, p)
		}
	}
	return mine, more
}

// remove says whether one of them was left out meanwhile.
func (u *underWay) remove(pending []event.Pending) (again bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, p := range pending {
		again = again || u.ids[p.ID]
		delete(u.ids, p.ID)
	}
	return again
}

// due is the next due time, kept in memory so that an idle database is left alone.
type due struct {
	now  func() time.Time
	wake chan struct{}

	mu   sync.Mutex
	next time.Time // zero: nothing is due
	// heard is the earliest suggestion since the rows were last read: what was read may
	// not know of it.
	heard time.Time
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
	if d.heard.IsZero() || at.Before(d.heard) {
		d.heard = at
	}
	d.mu.Unlock()
	if sooner {
		signal(d.wake)
	}
}

// reading says that the rows are about to be read.
func (d *due) reading() {
	d.mu.Lock()
	d.heard = time.Time{}
	d.mu.Unlock()
}

// set replaces the next due time by what the database says, or by what was suggested
// since it was asked. Where it had nothing to
// give although our clock thought so (idle), the clocks differ: look again a little
// later rather than at once.
func (d *due) set(next time.Time, idle bool) {
	if earliest := d.now().Add(100 * time.Millisecond); idle && !next.IsZero() && next.Before(earliest) {
		next = earliest
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.next = next; !d.heard.IsZero() && (next.IsZero() || d.heard.Before(next)) {
		d.next = d.heard
	}
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
