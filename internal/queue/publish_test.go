package queue

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/queue/envelope"
)

func TestDeliversWhatWasPublished(t *testing.T) {
	q := open(t, Config{})
	want := []event.Event{ev("a"), ev("b")}
	want[1].Body = []byte("\x00\xff not JSON, not UTF-8 \r\n")
	publish(t, q, want...)

	d := next(t, q)
	if !reflect.DeepEqual(d.Envelope.Events, want) {
		t.Errorf("got %+v\nwant %+v", d.Envelope.Events, want)
	}
	if d.Sequence != 1 || d.Delivered != 1 || d.StoredAt.IsZero() || d.Err != nil {
		t.Errorf("delivery %+v", d)
	}
	ack(t, d)
	eventually(t, "the acked envelope is gone", func() bool {
		depth, err := q.Depth(testContext(t))
		return err == nil && depth.Stored == 0
	})
}

func TestPacks(t *testing.T) {
	const calls = 1000
	q := open(t, Config{})
	gate := make(chan struct{})
	var all sync.WaitGroup
	errs := make(chan error, calls)
	for i := range calls {
		all.Go(func() {
			<-gate
			var events []event.Event
			for j := range 1 + i%5 {
				events = append(events, ev(fmt.Sprintf("%d-%d", i, j)))
			}
			errs <- q.Publish(testContext(t), events)
		})
	}
	close(gate)
	all.Wait()
	for range calls {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}

	envelopes := drain(t, q)
	if len(envelopes) > calls/5 {
		t.Errorf("%d calls went into %d envelopes", calls, len(envelopes))
	}
	t.Logf("%d calls with %d events went into %d envelopes", calls, calls*3, len(envelopes))
	seen, home := map[string]int{}, map[string]string{}
	for _, env := range envelopes {
		if len(env.Events) > MaxEvents {
			t.Errorf("%d events in one envelope", len(env.Events))
		}
		for _, e := range env.Events {
			seen[e.ID]++
			call, _, _ := strings.Cut(e.ID, "-")
			if was, ok := home[call]; ok && was != env.ID {
				t.Errorf("the events of call %s were split", call)
			}
			home[call] = env.ID
		}
	}
	if len(seen) != calls*3 {
		t.Errorf("%d events stored, want %d", len(seen), calls*3)
	}
	for id, n := range seen {
		if n != 1 {
			t.Errorf("event %s is stored %d times", id, n)
		}
	}
}

// TestI1CallersWhoLeaveTakeNothingAlong publishes from callers of which some give up at
// once: what they leave in the packer must not turn into anybody else's event or answer.
func TestI1CallersWhoLeaveTakeNothingAlong(t *testing.T) {
	const callers, each = 32, 100
	q := open(t, Config{})
	text := func(id string) string { return strings.Repeat(id+" ", 20) }
	var all sync.WaitGroup
	var mu sync.Mutex
	accepted, left := map[string]bool{}, 0
	for i := range callers {
		all.Go(func() {
			for j := range each {
				e := ev(fmt.Sprintf("%d-%d", i, j))
				e.Body = []byte(text(e.ID))
				ctx, leave := context.WithCancel(testContext(t))
				if j%3 == 0 {
					go leave()
				}
				err := q.Publish(ctx, []event.Event{e})
				leave()
				mu.Lock()
				if err == nil {
					accepted[e.ID] = true
				} else {
					left++
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if left == 0 {
		t.Fatal("nobody left")
	}
	stored := map[string]int{}
	for _, env := range drain(t, q) {
		for _, e := range env.Events {
			stored[e.ID]++
			if string(e.Body) != text(e.ID) {
				t.Errorf("event %s carries %q", e.ID, e.Body)
			}
		}
	}
	for id := range accepted {
		if stored[id] != 1 {
			t.Errorf("accepted event %s is stored %d times", id, stored[id])
		}
	}
	for id, n := range stored {
		if n > 1 {
			t.Errorf("event %s is stored %d times", id, n)
		}
	}
	t.Logf("%d accepted, %d left, %d stored", len(accepted), left, len(stored))
}

// TestPackerTake is the packer alone: what goes into the next envelope.
func TestPackerTake(t *testing.T) {
	gone, leave := context.WithCancel(context.Background())
	leave()
	type c struct {
		events, bytes int
		gone          bool
	}
	for name, tt := range map[string]struct {
		waiting []c
		taken   int // calls taken
		left    int // calls left
	}{
		"NothingWaits":                 {nil, 0, 0},
		"OneAlone":                     {[]c{{events: 1, bytes: 1}}, 1, 0},
		"AllThatWait":                  {[]c{{events: 1, bytes: 1}, {events: 2, bytes: 1}, {events: 3, bytes: 1}}, 3, 0},
		"UpToTheMostEvents":            {[]c{{events: 200, bytes: 1}, {events: 56, bytes: 1}, {events: 1, bytes: 1}}, 2, 1},
		"ACallIsNotSplit":              {[]c{{events: 200, bytes: 1}, {events: 57, bytes: 1}}, 1, 1},
		"AndNotOvertaken":              {[]c{{events: 200, bytes: 1}, {events: 57, bytes: 1}, {events: 1, bytes: 1}}, 1, 2},
		"UpToItsShareOfBytes":          {[]c{{events: 1, bytes: 60}, {events: 1, bytes: 40}, {events: 1, bytes: 1}}, 2, 1},
		"ALargeOneAlone":               {[]c{{events: 1, bytes: 900}, {events: 1, bytes: 1}}, 1, 1},
		"WithoutThoseWhoLeft":          {[]c{{events: 1, bytes: 1, gone: true}, {events: 1, bytes: 1}}, 1, 0},
		"NotEvenALargeOneWhoLeft":      {[]c{{events: 256, bytes: 1}, {events: 256, bytes: 900, gone: true}, {events: 1, bytes: 1}}, 1, 1},
		"NobodyWhenAllHaveLeft":        {[]c{{events: 1, bytes: 1, gone: true}}, 0, 0},
		"ALargeOneWaitsForItsOwnPlace": {[]c{{events: 1, bytes: 1}, {events: 1, bytes: 900}}, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPacker(Config{MaxWaitingEvents: 1 << 20, MaxWaitingBytes: 1 << 20}, func() int { return 100 }, nil)
			for _, w := range tt.waiting {
				ctx := context.Background()
				if w.gone {
					ctx = gone
				}
				if err := p.add(&call{ctx: ctx, events: w.events, wire: make([]byte, w.bytes)}); err != nil {
					t.Fatal(err)
				}
			}
			calls, _ := p.take()
			if len(calls) != tt.taken || len(p.waiting) != tt.left {
				t.Errorf("took %d and left %d, want %d and %d", len(calls), len(p.waiting), tt.taken, tt.left)
			}
			events, bytes := 0, 0
			for _, c := range p.waiting {
				events, bytes = events+c.events, bytes+len(c.wire)
			}
			if p.events != events || p.bytes != bytes {
				t.Errorf("counts %d events and %d bytes waiting, there are %d and %d", p.events, p.bytes, events, bytes)
			}
		})
	}
}

func TestRefuses(t *testing.T) {
	t.Run("MoreEventsThanAnEnvelopeHolds", func(t *testing.T) {
		q := open(t, Config{})
		err := q.Publish(testContext(t), make([]event.Event, MaxEvents+1))
		if !errors.Is(err, event.ErrTooLarge) {
			t.Errorf("got %v", err)
		}
		if err := q.Publish(testContext(t), nil); err != nil {
			t.Errorf("nothing at all: %v", err)
		}
	})

	t.Run("MoreBytesThanAMessageHolds_AndTakesWhatJustFits", func(t *testing.T) {
		q := open(t, Config{payload: 64 << 10})
		e := ev("x")
		e.Body = make([]byte, 64<<10)
		if err := q.Publish(testContext(t), []event.Event{e}); !errors.Is(err, event.ErrTooLarge) {
			t.Errorf("got %v", err)
		}
		e.Body = nil
		wire, err := envelope.AppendEvent(nil, &e)
		if err != nil {
			t.Fatal(err)
		}
		e.Body = make([]byte, q.payloadLimit()-len(wire)-2) // its length takes two bytes more
		publish(t, q, e)
		if got := next(t, q).Envelope.Events[0]; len(got.Body) != len(e.Body) {
			t.Errorf("%d bytes came back of %d", len(got.Body), len(e.Body))
		}
	})

	t.Run("AtOnceWhenTooManyWait", func(t *testing.T) {
		store, free := make(chan struct{}), make(chan struct{})
		p := newPacker(Config{MaxWaitingEvents: 3, MaxWaitingBytes: 100}, func() int { return 100 },
			func(string, []byte, int) error { store <- struct{}{}; <-free; return nil })
		var done sync.WaitGroup
		done.Go(p.run)
		add := func(events, bytes int) error {
			return p.add(&call{ctx: t.Context(), events: events, wire: make([]byte, bytes), done: make(chan error, 1)})
		}
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		must(add(1, 1))
		<-store // it is in flight, and waits no more
		must(add(2, 50))
		must(add(1, 50))
		if err := add(1, 0); !errors.Is(err, event.ErrNotAccepted) {
			t.Errorf("one event too many: %v", err)
		}
		if err := add(0, 1); !errors.Is(err, event.ErrNotAccepted) {
			t.Errorf("one byte too many: %v", err)
		}
		go func() { // let all go on
			for range store {
			}
		}()
		close(free)
		eventually(t, "there is room again", func() bool { return add(3, 0) == nil })
		p.close()
		done.Wait()
		close(store)
		if err := add(1, 1); !errors.Is(err, event.ErrNotAccepted) {
			t.Errorf("after close: %v", err)
		}
	})

	t.Run("WhenFull_AndTakesAgainAfterADrain", func(t *testing.T) {
		q := open(t, Config{MaxBytes: 256 << 10, payload: 64 << 10})
		stored := 0
		var err error
		for ; err == nil && stored < 1000; stored++ {
			e := ev(fmt.Sprint(stored))
			e.Body = make([]byte, 8<<10)
			err = q.Publish(testContext(t), []event.Event{e})
		}
		stored--
		if !errors.Is(err, event.ErrNotAccepted) {
			t.Fatalf("after %d: %v", stored, err)
		}
		if r := q.Ready(); r.Accepting || r.Why != "the queue is full" {
			t.Errorf("ready says %+v", r)
		}
		if got := len(drain(t, q)); got != stored {
			t.Errorf("%d accepted, %d stored", stored, got)
		}
		eventually(t, "it is ready by itself", func() bool { return q.Ready().Accepting })
		publish(t, q, ev("again"))
	})

	t.Run("WhenItsCallerLeaves_ButMayHaveStored", func(t *testing.T) {
		q := open(t, Config{})
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		err := q.Publish(ctx, []event.Event{ev("a")})
		if err != nil && (!errors.Is(err, event.ErrNotAccepted) || !errors.Is(err, context.Canceled)) {
			t.Errorf("got %v", err)
		}
	})

	t.Run("AfterClose", func(t *testing.T) {
		q := open(t, Config{})
		closeQueue(t, q)
		if err := q.Publish(testContext(t), []event.Event{ev("a")}); !errors.Is(err, event.ErrNotAccepted) {
			t.Errorf("publish: %v", err)
		}
		if _, err := q.Next(testContext(t)); !errors.Is(err, errClosed) {
			t.Errorf("next: %v", err)
		}
		if r := q.Ready(); r.Accepting {
			t.Errorf("ready says %+v", r)
		}
	})

	t.Run("AFreshEnvelopeThatTheServerCallsADuplicate", func(t *testing.T) {
		q := open(t, Config{})
		if err := q.storeEnvelope("same", envelope.AppendPreamble(nil, "same", 0), 0); err != nil {
			t.Fatal(err)
		}
		if err := q.storeEnvelope("same", envelope.AppendPreamble(nil, "same", 0), 0); !errors.Is(err, event.ErrNotAccepted) {
			t.Errorf("got %v", err)
		}
	})

	t.Run("WhenTheStreamIsGone_AndSaysSo", func(t *testing.T) {
		s := startNATS(t)
		c := s.external(t)
		q := open(t, c)
		if err := q.js.DeleteStream(testContext(t), q.names.stream); err != nil {
			t.Fatal(err)
		}
		if err := q.Publish(testContext(t), []event.Event{ev("a")}); !errors.Is(err, event.ErrNotAccepted) {
			t.Errorf("got %v", err)
		}
		eventually(t, "it says that the stream is missing", func() bool {
			return strings.Contains(q.Ready().Why, "stream TRUEUP_EVENTS is missing; run: trueup migrate up")
		})
		if err := Migrate(testContext(t), c); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it has noticed the new one", func() bool { return q.Ready().Accepting })
		publish(t, q, ev("a"))
	})
}

// TestLostConfirmation is every fault twice: nothing was stored, or it was.
func TestLostConfirmation(t *testing.T) {
	setup := func(t *testing.T) (*Queue, *proxy, func() int) {
		s := startNATS(t)
		c := s.external(t)
		direct := open(t, c)
		p := startProxy(t, s.url())
		c.URL = p.url()
		c.AckTimeout = time.Second
		return open(t, c), p, func() (events int) {
			for _, env := range drain(t, direct) {
				events += len(env.Events)
			}
			return events
		}
	}

	t.Run("NothingStored_IsNotAccepted", func(t *testing.T) {
		q, p, stored := setup(t)
		p.hold(true, false)
		err := q.Publish(testContext(t), []event.Event{ev("a")})
		if !errors.Is(err, event.ErrNotAccepted) || !unknown(err) {
			t.Errorf("got %v", err)
		}
		p.cut()
		if n := stored(); n != 0 {
			t.Errorf("%d stored", n)
		}
		if p.heldBack() == 0 {
			t.Error("the fault did not fire: nothing was held back")
		}
		p.hold(false, false)
		eventually(t, "it has recovered", func() bool { return q.Publish(testContext(t), []event.Event{ev("a")}) == nil })
	})

	t.Run("StoredAnyway_IsNotAcceptedEither_AndStoredOnce", func(t *testing.T) {
		q, p, stored := setup(t)
		p.hold(false, true)
		err := q.Publish(testContext(t), []event.Event{ev("a")})
		if !errors.Is(err, event.ErrNotAccepted) || !unknown(err) {
			t.Errorf("got %v", err)
		}
		if n := p.published(); n != 2 {
			t.Errorf("it was sent %d times, want once and once more", n)
		}
		if n := stored(); n != 1 {
			t.Errorf("%d stored", n)
		}
		p.cut()
		p.hold(false, false)
		eventually(t, "it has recovered", func() bool { return q.Publish(testContext(t), []event.Event{ev("b")}) == nil })
	})

	t.Run("StoredAnyway_AndTheRepeatIsConfirmed_IsAccepted", func(t *testing.T) {
		q, p, stored := setup(t)
		p.hold(false, true)
		done := make(chan error)
		go func() { done <- q.Publish(testContext(t), []event.Event{ev("a")}) }()
		eventually(t, "the repeat is sent", func() bool { return p.published() == 2 })
		p.hold(false, false)
		if err := wait(t, "the answer", done); err != nil {
			t.Errorf("got %v", err)
		}
		if n := stored(); n != 1 {
			t.Errorf("%d stored", n)
		}
	})

	t.Run("NoConnection_IsRefusedAtOnce", func(t *testing.T) {
		q, p, stored := setup(t)
		_ = p.l.Close()
		p.cut()
		eventually(t, "it has noticed", func() bool { return !q.Ready().Accepting })
		if err := q.Publish(testContext(t), []event.Event{ev("a")}); !errors.Is(err, event.ErrNotAccepted) {
			t.Errorf("got %v", err)
		}
		if n := stored(); n != 0 {
			t.Errorf("%d stored", n)
		}
	})
}

func TestUnknown(t *testing.T) {
	refused := &jetstream.APIError{ErrorCode: codeStoreFailed}
	for _, err := range []error{nil, refused, jetstream.ErrNoStreamResponse, errors.New("other")} {
		if unknown(err) {
			t.Errorf("%v leaves nothing open", err)
		}
	}
}
