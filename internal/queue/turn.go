package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/trueup/trueup/internal/event"
)

// turnKey is the one key of the turn's bucket, and the topic on which a holder
// tells the others that it let go.
const turnKey = "turn"

// HoldTurn runs work while this process holds the turn, of which there is one, and
// stands by while another process does. It returns when ctx is done, or with what
// work returned of its own accord; event.ErrTurnMoved only sends it back to stand
// by.
//
// When the turn is lost, or cannot be renewed in time, work's context is cancelled
// and HoldTurn waits for work to return. When ctx is done the same happens, but the
// turn is kept and renewed until work has returned, and then handed over at once.
//
// This is a convenience and no fence: a process that was frozen may still write
// after another has taken over. The turn's number in the database is the fence.
func (q *Queue) HoldTurn(ctx context.Context, work func(ctx context.Context) error) error {
	released := make(chan struct{}, 1)
	stop, err := q.Listen(turnKey, func([]byte) { signal(released) })
	if err != nil {
		return err
	}
	defer stop()
	for {
		l, err := q.standBy(ctx, released)
		if err != nil {
			return err
		}
		q.cfg.Logger.InfoContext(ctx, "turn.taken", "holder", l.holder)
		err = q.workWhile(ctx, l, work)
		// What was fetched ahead belongs to whoever works next.
		q.reader.rest()
		q.letGo(l) //nolint:contextcheck // ctx is done by now
		cause := l.cause()
		q.cfg.Logger.InfoContext(ctx, "turn.ended", "holder", l.holder, "cause", cause)
		lost := errors.Is(cause, errTurnLost) || errors.Is(err, event.ErrTurnMoved)
		if ctx.Err() != nil || !lost {
			return err
		}
		if errors.Is(err, event.ErrTurnMoved) {
			pause(ctx, jitter(l.ttl/3)) // the other one has its turn; do not wrestle
		}
	}
}

// lease is one holding of the turn.
type lease struct {
	holder string // names this holding, so that we recognise our own writes
	value  []byte
	kv     jetstream.KeyValue
	ttl    time.Duration
	rev    uint64
	// until is when we stop believing in it: a TTL after we began the last renewal
	// that succeeded, less a margin. Monotonic; no other clock matters.
	until time.Time
	held  context.Context //nolint:containedctx // done when the lease ended; its cause says how
	end   context.CancelCauseFunc
}

func (l *lease) cause() error { return context.Cause(l.held) }

var errTurnLost = errors.New("the turn was lost")

func (q *Queue) newLease() (*lease, error) {
	s := q.state.Load()
	if s.found == nil {
		return nil, errors.New(s.why)
	}
	host, _ := os.Hostname()
	l := &lease{holder: newID(), kv: s.turn, ttl: s.turnTTL}
	var err error
	l.value, err = json.Marshal(map[string]any{"holder": l.holder, "host": host, "pid": os.Getpid()})
	l.held, l.end = context.WithCancelCause(context.Background())
	return l, err
}

// standBy returns once we have the turn. It asks again when a holder says that it
// let go, and every fifth of a TTL for those that died and cannot say so.
func (q *Queue) standBy(ctx context.Context, released <-chan struct{}) (*lease, error) {
	for {
		wait := time.Second
		if l, err := q.newLease(); err == nil {
			if l.take(ctx) {
				return l, nil
			}
			l.end(nil)
			wait = l.ttl / 5
			q.cfg.stoodBy()
		}
		timer := time.NewTimer(jitter(wait))
		select {
		case <-released:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		}
		timer.Stop()
	}
}

// margin is what clocks may run apart within one TTL, and more.
func (l *lease) margin() time.Duration { return l.ttl / 10 }

func (l *lease) believe(began time.Time) { l.until = began.Add(l.ttl - l.margin()) }

// take tries once to get the turn. A try whose answer got lost is looked after:
// should the entry be ours, we have it.
func (l *lease) take(ctx context.Context) bool {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, l.ttl/3)
	defer cancel()
	rev, err := l.kv.Create(ctx, turnKey, l.value)
	if err != nil {
		var mine bool
		if rev, mine, err = l.ours(ctx); err != nil || !mine {
			return false
		}
	}
	l.rev = rev
	l.believe(began)
	return true
}

// ours says whether the entry that stands there is this lease's, and its revision.
func (l *lease) ours(ctx context.Context) (rev uint64, mine bool, err error) {
	entry, err := l.kv.Get(ctx, turnKey)
	if err != nil {
		return 0, false, fmt.Errorf("look at the turn: %w", err)
	}
	var v struct{ Holder string }
	mine = json.Unmarshal(entry.Value(), &v) == nil && v.Holder == l.holder
	return entry.Revision(), mine, nil
}

// workWhile runs work and renews the lease until work has returned.
func (q *Queue) workWhile(ctx context.Context, l *lease, work func(context.Context) error) error {
	workCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stopped := make(chan struct{})
	go func() { //nolint:contextcheck // the lease outlives ctx while work drains
		defer close(stopped)
		q.renew(l)
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
func (q *Queue) renew(l *lease) {
	tick := time.NewTicker(l.ttl / 3)
	defer tick.Stop()
	for {
		select {
		case <-l.held.Done():
			return
		case <-tick.C:
		}
		for l.held.Err() == nil && !l.extend() {
			if err := l.lost(); err != nil {
				l.end(err)
				return
			}
			pause(l.held, jitter(l.ttl/30))
		}
	}
}

// extend renews once. It never waits beyond the moment we stop believing.
func (l *lease) extend() bool {
	began := time.Now()
	ctx, cancel := context.WithDeadline(l.held, l.until)
	defer cancel()
	call, stop := context.WithTimeout(ctx, l.ttl/6)
	defer stop()
	rev, err := l.kv.Update(call, turnKey, l.value, l.rev)
	if err != nil {
		return false
	}
	l.rev = rev
	l.believe(began)
	return true
}

// lost looks after a failed renewal: nil while the lease may still be ours. A
// renewal whose answer got lost has moved the revision; the entry tells.
func (l *lease) lost() error {
	if !time.Now().Before(l.until) {
		return fmt.Errorf("%w: not renewed in time", errTurnLost)
	}
	ctx, cancel := context.WithDeadline(l.held, l.until)
	defer cancel()
	rev, mine, err := l.ours(ctx)
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound):
		return fmt.Errorf("%w: it expired", errTurnLost)
	case err != nil:
		return nil // nobody knows yet; until decides
	case !mine:
		return fmt.Errorf("%w: another process has it", errTurnLost)
	}
	l.rev = rev
	return nil
}

// letGo hands the turn over. It deletes only what is still ours; a release that
// fails costs the others a TTL.
func (q *Queue) letGo(l *lease) {
	ctx, cancel := context.WithTimeout(context.Background(), min(l.ttl/3, 2*time.Second))
	defer cancel()
	if errors.Is(l.cause(), errTurnLost) || !q.nc.IsConnected() {
		return
	}
	if err := l.kv.Delete(ctx, turnKey, jetstream.LastRevision(l.rev)); err != nil {
		q.cfg.Logger.Warn("turn.release", "error", err)
		return
	}
	_ = q.Tell(turnKey, nil) // the others ask again soon anyway
}
