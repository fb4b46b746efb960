package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trueup/trueup/internal/chance"
	carrier "github.com/trueup/trueup/internal/queue"
	"github.com/trueup/trueup/internal/simulate/fault"
)

// Config of one Door. The zero value is what service gives the real one.
type Config struct {
	// Role names the process, for Stream.Holder.
	Role string
	// Hook stands around every call that goes to the server: Publish for each caller and
	// Store for each envelope, Next for each message that is fetched, Ack, Extend, Release,
	// TakeTurn, LookTurn, RenewTurn, EndTurn, Depth and Tell. An Ack or a Tell that the
	// hook answers with nil without doing it is one that got lost.
	Hook fault.Hook
	// Random spreads what must not go in step; nil: the runtime's own.
	Random chance.Source
	// AckTimeout is how long an envelope may wait for its confirmation, one repeat
	// included; zero means 5 s.
	AckTimeout time.Duration
	// Buffer is how many envelopes are fetched ahead of Next; zero means 8.
	Buffer int
}

// Door is one process's queue: a service.Queue.
type Door struct {
	Config
	stream *Stream

	ctx      context.Context //nolint:containedctx // of the process: done when it was killed or has closed its queue
	end      context.CancelCauseFunc
	done     sync.WaitGroup
	packer   *packer
	reader   *reader
	full     atomic.Bool // the last envelope was refused for want of room
	listener listeners

	mu     sync.Mutex // guards the rest
	closed bool
	frozen chan struct{} // closed when the process goes on; nil while it does
}

var (
	errClosed = errors.New("queue: closed")
	errKilled = errors.New("queue: the process was killed")
)

// Open opens s for one process. Where s is not Shared, its former Door must be closed or
// killed.
func Open(s *Stream, c Config) (*Door, error) {
	c.AckTimeout = cmp.Or(c.AckTimeout, 5*time.Second)
	c.Buffer = cmp.Or(c.Buffer, 8)
	d := &Door{Config: c, stream: s}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.Shared && len(s.doors) > 0 {
		return nil, errors.New("queue: another process holds the directory")
	}
	if !s.Shared {
		s.turn = turnEntry{}
		s.reclaim()
	}
	s.doors = append(s.doors, d)
	d.ctx, d.end = context.WithCancelCause(context.Background())
	d.packer, d.reader = newPacker(d), newReader(d)
	d.done.Go(d.packer.run)
	return d, nil
}

// Close is what a process does that stops: it publishes what waits, hands back what was
// fetched and not delivered, and ends. Deliveries not ended come again. After Kill it only
// waits for what is left of the process.
func (d *Door) Close() error {
	d.mu.Lock()
	again := d.closed
	d.closed = true
	d.mu.Unlock()
	if !again && d.ctx.Err() == nil {
		d.packer.close()
		d.reader.close()
	}
	<-d.packer.ended
	d.leave(errClosed)
	d.done.Wait()
	return nil
}

// Kill ends the process at once: from here on none of its calls does anything, what it
// held comes again after the stream's AckWait, and the turn after its TTL. It waits for
// nothing; Close does.
func (d *Door) Kill() { d.leave(errKilled) }

func (d *Door) leave(why error) {
	d.end(why)
	d.listener.stopAll()
	d.stream.mu.Lock()
	defer d.stream.mu.Unlock()
	d.stream.doors = slices.DeleteFunc(d.stream.doors, func(o *Door) bool { return o == d })
}

// Freeze stops what the Door does by itself: it renews no turn, extends and fetches
// nothing, as in a process that the system does not let run. What the process does is for
// the Hook to hold up.
func (d *Door) Freeze() (thaw func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.frozen != nil {
		return func() {}
	}
	frozen := make(chan struct{})
	d.frozen = frozen
	return sync.OnceFunc(func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.frozen = nil
		close(frozen)
	})
}

// awake returns once the process may run, or ctx is done.
func (d *Door) awake(ctx context.Context) {
	d.mu.Lock()
	frozen := d.frozen
	d.mu.Unlock()
	if frozen == nil {
		return
	}
	select {
	case <-frozen:
	case <-ctx.Done():
	case <-d.ctx.Done():
	}
}

// call does something at the server, through the hook.
func (d *Door) call(ctx context.Context, method, key string, do func() error) error {
	if err := d.gone(); err != nil {
		return err
	}
	return d.Hook.Do(ctx, fault.Call{Door: fault.Queue, Method: method, Key: key}, func() error {
		if err := d.gone(); err != nil {
			return err
		}
		return do()
	})
}

func (d *Door) gone() error {
	if d.ctx.Err() != nil {
		return context.Cause(d.ctx)
	}
	return nil
}

// Depth asks the server.
func (d *Door) Depth(ctx context.Context) (depth carrier.Depth, err error) {
	err = d.call(ctx, "Depth", "", func() (err error) {
		depth, err = d.stream.depth()
		return err
	})
	if err != nil {
		return carrier.Depth{}, fmt.Errorf("queue: depth: %w", err)
	}
	return depth, nil
}

// Ready tells what is known and asks nobody.
func (d *Door) Ready() carrier.Readiness {
	r := carrier.Readiness{Durability: d.stream.Durability, Why: d.refusal()}
	if r.Why == "" && d.full.Load() {
		if d.stream.nearlyFull() {
			r.Why = "the queue is full"
		} else {
			d.full.Store(false)
		}
	}
	r.Accepting = r.Why == ""
	return r
}

// refusal says why nothing can be published now; "" when it can be tried.
func (d *Door) refusal() string {
	if d.gone() != nil {
		return "the queue is closed"
	}
	d.stream.mu.Lock()
	defer d.stream.mu.Unlock()
	return d.stream.away
}

// spread lengthens or shortens d by a fifth, so that processes do not go in step.
func (d *Door) spread(t time.Duration) time.Duration { return t - t/5 + d.Random.Below(2*t/5+1) }

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
