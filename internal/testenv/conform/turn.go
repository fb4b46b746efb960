package conform

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/trueup/trueup/internal/event"
)

// hold lets a process hold the turn until its work is told to end; it returns once the
// work has begun.
func (q *queues) hold(d QueueDoor) (end func()) {
	q.Helper()
	ctx, cancel := context.WithCancel(q.Context())
	begun := make(chan struct{})
	var holding sync.WaitGroup
	holding.Go(func() {
		err := d.HoldTurn(ctx, func(ctx context.Context) error {
			close(begun)
			<-ctx.Done()
			return ctx.Err()
		})
		if !errors.Is(err, context.Canceled) {
			q.Errorf("the turn ended with %v", err)
		}
	})
	end = func() { cancel(); holding.Wait() }
	q.Cleanup(end)
	q.wait(begun)
	return end
}

func (q *queues) wait(c <-chan struct{}) {
	q.Helper()
	select {
	case <-c:
	case <-q.context().Done():
		q.Fatal("waited in vain")
	}
}

// handOver: a TTL of an hour proves that nobody waits for it.
func (q *queues) handOver() {
	open := q.Server(q, QueueConfig{TurnTTL: time.Hour})
	first := open()
	second := q.another(open, first)
	end := q.hold(first)
	taken := make(chan struct{})
	stop := errors.New("enough")
	var waiting sync.WaitGroup
	waiting.Go(func() {
		if err := second.HoldTurn(q.context(), func(context.Context) error { close(taken); return stop }); !errors.Is(err, stop) {
			q.Error(err)
		}
	})
	// Something else that goes over the same connection has been answered by now.
	q.depthOf(second)
	select {
	case <-taken:
		q.Error("two hold the turn")
	default:
	}
	end()
	q.wait(taken)
	waiting.Wait()
}

// kept: a stop does not free the turn before the work has let go of everything.
func (q *queues) kept() {
	open := q.Server(q, QueueConfig{TurnTTL: time.Second})
	first := open()
	second := q.another(open, first)
	ctx, cancel := context.WithCancel(q.Context())
	defer cancel()
	begun, draining, drained := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var both sync.WaitGroup
	both.Go(func() {
		_ = first.HoldTurn(ctx, func(ctx context.Context) error {
			close(begun)
			<-ctx.Done()
			close(draining)
			<-drained
			return nil
		})
	})
	q.wait(begun)
	cancel()
	q.wait(draining)
	stop := errors.New("enough")
	var early bool
	both.Go(func() {
		_ = second.HoldTurn(q.context(), func(context.Context) error {
			select {
			case <-drained:
			default:
				early = true
			}
			return stop
		})
	})
	over := time.NewTimer(2500 * time.Millisecond) // the TTL, twice and a half
	defer over.Stop()
	<-over.C
	close(drained)
	both.Wait()
	if early {
		q.Error("another began while the first was draining")
	}
}

func (q *queues) moved() {
	d := q.one(QueueConfig{TurnTTL: time.Second})
	times := 0
	stop := errors.New("enough")
	err := d.HoldTurn(q.context(), func(context.Context) error {
		if times++; times < 3 {
			return event.ErrTurnMoved
		}
		return stop
	})
	if times != 3 || !errors.Is(err, stop) {
		q.Errorf("work began %d times; %v", times, err)
	}
}

func (q *queues) says() {
	d := q.one(QueueConfig{})
	said := errors.New("said")
	if err := d.HoldTurn(q.context(), func(context.Context) error { return said }); !errors.Is(err, said) {
		q.Error(err)
	}
	if err := d.HoldTurn(q.context(), func(context.Context) error { return nil }); err != nil {
		q.Error(err)
	}
}

// fetchedAhead: an AckWait of an hour proves that it was handed back.
func (q *queues) fetchedAhead() {
	open := q.Server(q, QueueConfig{AckWait: time.Hour})
	first := open()
	second := q.another(open, first)
	want := []string{"a", "b", "c", "d", "e", "f"}
	for _, id := range want {
		q.publish(first, id)
	}
	var got []string
	for _, d := range []QueueDoor{first, second} {
		err := d.HoldTurn(q.context(), func(context.Context) error {
			one := q.next(d)
			got = append(got, idsOf(one)...)
			q.ack(one)
			return nil
		})
		if err != nil {
			q.Fatal(err)
		}
	}
	for range want[2:] {
		one := q.next(second)
		got = append(got, idsOf(one)...)
		q.ack(one)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		q.Errorf("got %v", got)
	}
}

func (q *queues) notices() {
	open := q.Server(q, QueueConfig{})
	first := open()
	second := q.another(open, first)
	heard := make(chan string, 100)
	var stops []func()
	for _, d := range []QueueDoor{first, second} {
		stop, err := d.Listen("settled", func(payload []byte) { heard <- string(payload) })
		if err != nil {
			q.Fatal(err)
		}
		stops = append(stops, stop)
	}
	// A listener may begin a moment after Listen has returned, and a notice may get lost:
	// whoever tells often enough is heard by both.
	got := map[string]int{}
	q.eventually("both have heard", func() bool {
		if err := first.Tell("settled", []byte("a b")); err != nil {
			q.Fatal(err)
		}
		if err := first.Tell("other", []byte("nobody's")); err != nil {
			q.Fatal(err)
		}
		for {
			select {
			case said := <-heard:
				got[said]++
				continue
			default:
			}
			return got["a b"] >= 2
		}
	})
	for _, stop := range stops {
		stop()
		stop()
	}
	if len(got) != 1 {
		q.Errorf("heard %v", got)
	}
}

func (q *queues) badTopic() {
	d := q.one(QueueConfig{})
	for _, topic := range []string{"", "A", "a.b", "a*", ">", "a b"} {
		if err := d.Tell(topic, nil); err == nil {
			q.Errorf("told %q", topic)
		}
		if _, err := d.Listen(topic, func([]byte) {}); err == nil {
			q.Errorf("listens to %q", topic)
		}
	}
}

func (q *queues) share() {
	open := q.Server(q, QueueConfig{AckWait: time.Hour})
	first := open()
	second := q.another(open, first)
	const all = 40
	for i := range all {
		q.publish(first, string(rune('A'+i)))
	}
	ctx, cancel := context.WithCancel(q.context())
	defer cancel()
	var mu sync.Mutex
	got := map[string]int{}
	var both sync.WaitGroup
	for _, d := range []QueueDoor{first, second} {
		both.Go(func() {
			for {
				one, err := d.Next(ctx)
				if err != nil {
					return
				}
				mu.Lock()
				got[idsOf(one)[0]]++
				if len(got) == all {
					cancel()
				}
				mu.Unlock()
				q.ack(one)
			}
		})
	}
	both.Wait()
	for id, n := range got {
		if n != 1 {
			q.Errorf("%s came %d times", id, n)
		}
	}
	if len(got) != all {
		q.Errorf("%d of %d came", len(got), all)
	}
}
