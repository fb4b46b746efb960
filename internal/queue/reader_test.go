package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/queue/envelope"
)

func TestNext(t *testing.T) {
	t.Run("BlocksUntilItsContextEnds", func(t *testing.T) {
		q := open(t, Config{})
		ctx, cancel := context.WithCancel(testContext(t))
		ended := make(chan error)
		go func() { _, err := q.Next(ctx); ended <- err }()
		eventually(t, "it waits at the server", func() bool {
			s, err := q.js.Consumer(ctx, q.names.stream, q.names.consumer)
			return err == nil && s.CachedInfo().NumWaiting == 1
		})
		cancel()
		if err := wait(t, "its end", ended); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		publish(t, q, ev("a")) // and nothing was lost on it
		ack(t, next(t, q))
	})

	t.Run("IsWokenByAnEvent", func(t *testing.T) {
		q := open(t, Config{})
		got := make(chan *event.Delivery)
		go func() { d, _ := q.Next(testContext(t)); got <- d }()
		publish(t, q, ev("a"))
		if d := wait(t, "the event", got); d == nil || d.Envelope.Events[0].ID != "a" {
			t.Errorf("got %+v", d)
		}
	})

	t.Run("SharesWorkAmongSeveralReaders_EachOnce", func(t *testing.T) {
		const n = 300
		q := open(t, Config{Buffer: 8})
		for i := range n {
			publish(t, q, ev(fmt.Sprint(i)))
		}
		got := make(chan string, n)
		ctx, cancel := context.WithCancel(testContext(t))
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() {
				for {
					d, err := q.Next(ctx)
					if err != nil {
						return
					}
					got <- d.Envelope.Events[0].ID
					_ = d.Ack()
				}
			})
		}
		seen := map[string]bool{}
		for range n {
			id := wait(t, "an event", got)
			if seen[id] {
				t.Errorf("%s came twice", id)
			}
			seen[id] = true
		}
		cancel()
		all.Wait()
	})

	t.Run("HandsOverWhatCannotBeRead", func(t *testing.T) {
		q := open(t, Config{})
		raw := []byte("tru\x63 from the future")
		if _, err := q.js.Publish(testContext(t), q.names.subject, raw); err != nil {
			t.Fatal(err)
		}
		d := next(t, q)
		if !errors.Is(d.Err, envelope.ErrVersion) || !bytes.Equal(d.Raw, raw) || len(d.Envelope.Events) > 0 {
			t.Errorf("got %+v", d)
		}
		ack(t, d)
	})
}

func TestDelivery(t *testing.T) {
	t.Run("ReleasedComesAgain_AndCounts", func(t *testing.T) {
		q := open(t, Config{})
		publish(t, q, ev("a"))
		for want := range uint64(3) {
			d := next(t, q)
			if d.Delivered != want+1 {
				t.Errorf("delivered %d times, want %d", d.Delivered, want+1)
			}
			if err := d.Release(time.Duration(want) * time.Millisecond); err != nil {
				t.Fatal(err)
			}
		}
	})

	t.Run("SilentComesAgainAfterAckWait", func(t *testing.T) {
		q := open(t, Config{AckWait: 300 * time.Millisecond})
		publish(t, q, ev("a"))
		next(t, q)
		if d := next(t, q); d.Delivered != 2 {
			t.Errorf("delivered %d times", d.Delivered)
		}
	})

	t.Run("ExtendedStaysOurs", func(t *testing.T) {
		q := open(t, Config{AckWait: 600 * time.Millisecond})
		publish(t, q, ev("a"))
		d := next(t, q)
		publish(t, q, ev("b"))
		// b is silent and comes again three times; a is extended meanwhile and does not.
		for times := uint64(0); times < 3; {
			ctx, cancel := context.WithTimeout(testContext(t), 100*time.Millisecond)
			other, err := q.Next(ctx)
			cancel()
			if err == nil {
				if other.Envelope.Events[0].ID == "a" {
					t.Fatal("the extended one came again")
				}
				times = other.Delivered
			}
			if err := d.Extend(); err != nil {
				t.Fatal(err)
			}
		}
	})

	t.Run("FetchedAheadStaysOursHoweverSlowWeAre", func(t *testing.T) {
		q := open(t, Config{AckWait: 300 * time.Millisecond, Buffer: 4})
		for _, id := range []string{"a", "b", "c", "d", "silent"} {
			publish(t, q, ev(id))
		}
		ack(t, next(t, q))
		probe := func() bool { // somebody else's look at the same time
			d, err := q.Depth(testContext(t))
			if err != nil {
				t.Fatal(err)
			}
			return d.Redelivered > 0
		}
		for end := time.Now().Add(1500 * time.Millisecond); time.Now().Before(end); {
			if probe() {
				t.Fatal("what was fetched ahead was delivered again")
			}
			pause(testContext(t), 20*time.Millisecond)
		}
		for _, want := range []string{"b", "c", "d", "silent"} {
			d := next(t, q)
			if d.Envelope.Events[0].ID != want || d.Delivered != 1 {
				t.Errorf("got %s for the time %d, want %s", d.Envelope.Events[0].ID, d.Delivered, want)
			}
			ack(t, d)
		}
	})

	t.Run("FetchedAheadIsReleasedWhenTheTurnEnds", func(t *testing.T) {
		// AckWait is an hour: only a release lets the other one have them.
		s := startNATS(t)
		c := s.external(t)
		c.AckWait = time.Hour
		if err := Migrate(testContext(t), c); err != nil {
			t.Fatal(err)
		}
		first, second := open(t, c), open(t, c)
		for i := range 10 {
			publish(t, first, ev(fmt.Sprint(i)))
		}
		began, _, stop := hold(t, first, func(ctx context.Context) error {
			d, err := first.Next(ctx)
			if err == nil {
				err = d.Ack()
			}
			<-ctx.Done()
			return err
		})
		wait(t, "the turn", began)
		eventually(t, "all are fetched", func() bool {
			d, err := second.Depth(testContext(t))
			return err == nil && d.Unacked == 9 && d.Waiting == 0
		})
		stop()
		for range 9 {
			ack(t, next(t, second))
		}
	})
}

func TestNotices(t *testing.T) {
	s := startNATS(t)
	c := s.external(t)
	here, there := open(t, c), open(t, c)
	got := make(chan string, 10)
	stop, err := there.Listen("settled", func(p []byte) { got <- string(p) })
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "a notice arrives", func() bool {
		if err := here.Tell("settled", []byte("hello")); err != nil {
			t.Fatal(err)
		}
		select {
		case s := <-got:
			return s == "hello"
		default:
			return false
		}
	})
	stop()
	for _, topic := range []string{"", "a.b", "*", ">", "A"} {
		if here.Tell(topic, nil) == nil {
			t.Errorf("topic %q was taken", topic)
		}
		if _, err := here.Listen(topic, nil); err == nil {
			t.Errorf("topic %q was taken", topic)
		}
	}
}

func TestDepth(t *testing.T) {
	q := open(t, Config{MaxBytes: 1 << 20})
	depth := func() Depth {
		t.Helper()
		d, err := q.Depth(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	if d := depth(); d != (Depth{MaxBytes: 1 << 20}) {
		t.Errorf("empty: %+v", d)
	}
	publish(t, q, ev("a"))
	publish(t, q, ev("b"))
	if d := depth(); d.Stored != 2 || d.Waiting != 2 || d.Unacked != 0 || d.Bytes == 0 || d.Oldest.IsZero() {
		t.Errorf("two wait: %+v", d)
	}
	next(t, q)
	eventually(t, "both are fetched", func() bool { d := depth(); return d.Waiting == 0 && d.Unacked == 2 })
}
