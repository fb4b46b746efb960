package worker

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/trueup/trueup/internal/event"
)

const (
	// survived is how many crashes an event's own mark must survive to be poison: the last
	// of them while it was alone in the process, so that it was no other event's. Where the
	// watchdog has seen which event it was, one crash less is enough.
	survived = 3
	// everybody is the whole of turn.company: more than there are batches.
	everybody = 1 << 20
)

// killerError is an event that was on trial whenever a process ended.
type killerError struct {
	crashes int
	stack   string
}

func (e *killerError) Error() string {
	return fmt.Sprintf("the process ended %d times while this event was on trial", e.crashes)
}

// suspect settles an envelope that was handed out before and not acked: a process may
// have died of it. Redelivery alone condemns nobody.
func (t *turn) suspect(stop context.Context, d *event.Delivery) error {
	if d.Err != nil {
		p := undecodable(d)
		return t.settleKnowing(stop, []event.Pending{p}, map[string]error{p.ID: fmt.Errorf("%w: %w", errUndecodable, d.Err)})
	}
	pending := pendingOf([]*event.Delivery{d})
	t.Logger.WarnContext(stop, "envelope.suspect", "envelope", d.Envelope.ID, "delivered", d.Delivered, "events", len(pending))
	return t.trial(stop, pending)
}

// trial settles events of which one may have ended a process. Those that have reached an
// end before are left alone: one that was parked must not do its work again. All that have
// no mark are marked durably and run together, apart from everybody else; those whose mark
// has survived a crash run by themselves, one at a time, after one more mark; one whose mark
// has survived two runs while nobody else does. Settling removes the mark.
func (t *turn) trial(stop context.Context, pending []event.Pending) error {
	marks, err := t.marks(stop, func(ctx context.Context) (map[string]event.Mark, error) { return t.Rows.Trials(ctx, pending) })
	if err != nil {
		return err
	}
	poison := map[string]error{}
	var together, parked, alone, last []event.Pending
	for _, p := range pending {
		switch m, unsettled := marks[p.ID]; {
		case !unsettled:
		case m.Survived >= survived, m.Survived == survived-1 && m.Stack != "":
			poison[p.ID] = &killerError{m.Survived, m.Stack}
			parked = append(parked, p)
		case m.Survived == survived-1:
			last = append(last, p)
		case m.Survived > 0:
			alone = append(alone, p)
		default:
			together = append(together, p)
		}
	}
	if len(parked) > 0 {
		if err := t.settleKnowing(stop, parked, poison); err != nil {
			return err
		}
	}
	if err := t.try(stop, together); err != nil {
		return err
	}
	for _, p := range alone {
		if err := t.tryAlone(stop, p); err != nil {
			return err
		}
	}
	for _, p := range last {
		if err := t.tryWithoutCompany(stop, p); err != nil {
			return err
		}
	}
	return nil
}

// tryAlone tries an event that has survived a crash, while no other such event is tried in
// this process: of two at once the one that ends it would have the other parked, too.
func (t *turn) tryAlone(stop context.Context, p event.Pending) error {
	select {
	case t.alone <- struct{}{}:
	case <-stop.Done():
		return context.Cause(stop)
	}
	defer func() { <-t.alone }()
	return t.try(stop, []event.Pending{p})
}

// tryWithoutCompany tries an event that has survived two crashes while no other event is
// at work in this process: should it end now, it was this one.
func (t *turn) tryWithoutCompany(stop context.Context, p event.Pending) error {
	if err := t.company.Acquire(stop, everybody); err != nil {
		return context.Cause(stop)
	}
	defer t.company.Release(everybody)
	return t.mark(stop, []event.Pending{p}, func() error { return t.settleInside(stop, []event.Pending{p}, nil) })
}

// try tries the events together.
func (t *turn) try(stop context.Context, pending []event.Pending) error {
	if len(pending) == 0 {
		return nil
	}
	return t.mark(stop, pending, func() error { return t.settle(stop, pending) })
}

// mark marks the events and settles them. Where that ends without an end (the turn was
// lost, a stop), the marks are taken back: no process ended over these events, and the
// next turn must not hold it against them.
func (t *turn) mark(stop context.Context, pending []event.Pending, settle func() error) error {
	_, err := t.marks(stop, func(ctx context.Context) (map[string]event.Mark, error) {
		return t.Rows.Mark(ctx, t.number, idsOf(pending))
	})
	if err == nil {
		defer t.trials.begin(idsOf(pending))()
		err = settle()
	}
	if err != nil {
		t.acquit(idsOf(pending))
	}
	return err
}

// trials are the events on trial now, in all batches.
type trials struct {
	mu  sync.Mutex
	ids map[string]struct{}
}

func (l *trials) begin(ids []string) (end func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ids == nil {
		l.ids = map[string]struct{}{}
	}
	for _, id := range ids {
		l.ids[id] = struct{}{}
	}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, id := range ids {
			delete(l.ids, id)
		}
	}
}

// but is all of them except these.
func (l *trials) but(ids []string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var others []string
	for id := range l.ids {
		if !slices.Contains(ids, id) {
			others = append(others, id)
		}
	}
	return others
}

// marks repeats a reading or writing of marks until no outage is in the way.
func (t *turn) marks(stop context.Context, f func(context.Context) (map[string]event.Mark, error)) (map[string]event.Mark, error) {
	for {
		marks, err := f(t.running)
		if err == nil {
			return marks, nil
		}
		if err := t.survive(stop, err); err != nil {
			return nil, err
		}
	}
}

func idsOf(pending []event.Pending) []string {
	ids := make([]string, len(pending))
	for i, p := range pending {
		ids[i] = p.ID
	}
	return ids
}
