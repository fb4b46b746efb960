package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/trueup/trueup/internal/event"
)

// turnTopic is the notice on which a holder tells the others that it let go.
const turnTopic = "turn"

// turnEntry is the turn as the server keeps it: whose it is, and until when unless it is
// renewed.
type turnEntry struct {
	holder string
	role   string
	until  time.Time
}

var errTaken = errors.New("another process has the turn")

func (s *Stream) takeTurn(holder, role string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.reach(); err != nil {
		return err
	}
	if s.turn.holder != "" && time.Now().Before(s.turn.until) {
		return errTaken
	}
	s.turn = turnEntry{holder, role, time.Now().Add(s.TurnTTL)}
	return nil
}

func (s *Stream) lookTurn() (holder string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.reach(); err != nil {
		return "", err
	}
	if !time.Now().Before(s.turn.until) {
		return "", nil
	}
	return s.turn.holder, nil
}

func (s *Stream) renewTurn(holder string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.reach(); err != nil {
		return err
	}
	if s.turn.holder != holder || !time.Now().Before(s.turn.until) {
		return errTaken
	}
	s.turn.until = time.Now().Add(s.TurnTTL)
	return nil
}

func (s *Stream) endTurn(holder string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.reach(); err != nil {
		return err
	}
	if s.turn.holder != holder {
		return errTaken
	}
	s.turn = turnEntry{}
	return nil
}

// HoldTurn runs work while this process holds the turn, as internal/queue's does: work's
// context is cancelled when the turn is lost, or cannot be renewed in time; when ctx is
// done the turn is kept until work has returned, and then handed over.
func (d *Door) HoldTurn(ctx context.Context, work func(ctx context.Context) error) error {
	released := make(chan struct{}, 1)
	stop, err := d.Listen(turnTopic, func([]byte) { signal(released) })
	if err != nil {
		return err
	}
	defer stop()
	for {
		l, err := d.standBy(ctx, released)
		if err != nil {
			return err
		}
		err = l.workWhile(ctx, work)
		d.reader.rest()
		l.letGo()
		cause := context.Cause(l.held)
		lost := errors.Is(cause, errTurnLost) || errors.Is(err, event.ErrTurnMoved)
		if ctx.Err() != nil || !lost {
			return err
		}
		if errors.Is(err, event.ErrTurnMoved) {
			pause(ctx, d.spread(d.stream.TurnTTL/3)) // the other one has its turn; do not wrestle
		}
	}
}

// lease is one holding of the turn.
type lease struct {
	d      *Door
	holder string
	// until is when we stop believing in it.
	until time.Time
	held  context.Context //nolint:containedctx // done when the lease ended; its cause says how
	end   context.CancelCauseFunc
}

var errTurnLost = errors.New("the turn was lost")

// standBy returns once we have the turn. It asks again when a holder says that it let go,
// and every fifth of a TTL.
func (d *Door) standBy(ctx context.Context, released <-chan struct{}) (*lease, error) {
	for {
		d.awake(ctx)
		if err := d.gone(); err != nil {
			return nil, err
		}
		l := d.newLease()
		if l.take(ctx) {
			return l, nil
		}
		l.end(nil)
		timer := time.NewTimer(d.spread(d.stream.TurnTTL / 5))
		select {
		case <-released:
		case <-timer.C:
		case <-d.ctx.Done():
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		}
		timer.Stop()
	}
}

func (d *Door) newLease() *lease {
	l := &lease{d: d, holder: newID()}
	l.held, l.end = context.WithCancelCause(context.Background())
	return l
}

func (l *lease) ttl() time.Duration { return l.d.stream.TurnTTL }

func (l *lease) believe(began time.Time) { l.until = began.Add(l.ttl() - l.ttl()/10) }

// take tries once. A try whose answer got lost is looked after.
func (l *lease) take(ctx context.Context) bool {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, l.ttl()/3)
	defer cancel()
	err := l.d.call(ctx, "TakeTurn", l.d.Role, func() error { return l.d.stream.takeTurn(l.holder, l.d.Role) })
	if err != nil {
		if mine, err := l.ours(ctx); err != nil || !mine {
			return false
		}
	}
	l.believe(began)
	return true
}

func (l *lease) ours(ctx context.Context) (mine bool, err error) {
	err = l.d.call(ctx, "LookTurn", l.d.Role, func() error {
		holder, err := l.d.stream.lookTurn()
		mine = err == nil && holder == l.holder
		return err
	})
	return mine, err
}

// workWhile runs work and renews the lease until work has returned.
func (l *lease) workWhile(ctx context.Context, work func(context.Context) error) error {
	workCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stopped := make(chan struct{})
	go func() { //nolint:contextcheck // the lease outlives ctx while work drains
		defer close(stopped)
		l.renew()
		cancel(context.Cause(l.held))
	}()
	err := work(workCtx)
	l.end(nil)
	<-stopped
	if err != nil {
		return fmt.Errorf("while holding the turn: %w", err)
	}
	return nil
}

// renew keeps the lease alive until it ends, and ends it when it is lost.
func (l *lease) renew() {
	tick := time.NewTicker(l.ttl() / 3)
	defer tick.Stop()
	for {
		select {
		case <-l.held.Done():
			return
		case <-l.d.ctx.Done():
			l.end(context.Cause(l.d.ctx))
			return
		case <-tick.C:
		}
		l.d.awake(l.held)
		for l.held.Err() == nil && !l.extend() {
			if err := l.lost(); err != nil {
				l.end(err)
				return
			}
			pause(l.held, l.d.spread(l.ttl()/30))
		}
	}
}

// extend renews once. It never waits beyond the moment we stop believing.
func (l *lease) extend() bool {
	began := time.Now()
	ctx, cancel := context.WithDeadline(l.held, l.until)
	defer cancel()
	ctx, stop := context.WithTimeout(ctx, l.ttl()/6)
	defer stop()
	if ctx.Err() != nil || l.d.call(ctx, "RenewTurn", l.d.Role, func() error { return l.d.stream.renewTurn(l.holder) }) != nil {
		return false
	}
	l.believe(began)
	return true
}

// lost looks after a failed renewal: nil while the lease may still be ours.
func (l *lease) lost() error {
	if !time.Now().Before(l.until) {
		return fmt.Errorf("%w: not renewed in time", errTurnLost)
	}
	ctx, cancel := context.WithDeadline(l.held, l.until)
	defer cancel()
	mine, err := l.ours(ctx)
	switch {
	case l.d.gone() != nil:
		return context.Cause(l.d.ctx)
	case err != nil:
		return nil // nobody knows yet; until decides
	case !mine:
		return fmt.Errorf("%w: it expired, or another process has it", errTurnLost)
	}
	return nil
}

// letGo hands the turn over.
func (l *lease) letGo() {
	ctx, cancel := context.WithTimeout(l.d.ctx, min(l.ttl()/3, 2*time.Second))
	defer cancel()
	if errors.Is(context.Cause(l.held), errTurnLost) {
		return
	}
	if l.d.call(ctx, "EndTurn", l.d.Role, func() error { return l.d.stream.endTurn(l.holder) }) == nil {
		_ = l.d.Tell(turnTopic, nil)
	}
}
