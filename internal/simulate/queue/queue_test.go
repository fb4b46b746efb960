package queue_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/service"
	"github.com/trueup/trueup/internal/simulate/fault"
	"github.com/trueup/trueup/internal/simulate/queue"
)

var _ service.Queue = (*queue.Door)(nil)

func TestASimulatedQueue(t *testing.T) {
	for name, run := range map[string]func(*testing.T){
		"WhatAKilledProcessHeldComesAgainAfterTheAckWait":      killed,
		"AKilledHoldersTurnIsFreeAfterItsTTL":                  killedHolder,
		"AFrozenHolderWorksOnWhileAnotherHasBegun":             frozenHolder,
		"AnAckThatFailedBeforeComesAgain_AfterDoesNot":         lostAck,
		"AFetchThatFailedBeforeIsRepeated_AfterComesAgainLate": lostFetch,
		"ATurnWhoseTakingWasLostIsHeld":                        lostTurn,
		"ATurnThatCannotBeRenewedIsLost":                       notRenewed,
		"AServerThatIsAwayRefusesAndKeeps":                     away,
		"APublishThatFailedBeforeIsNotStored_AfterItIs":        failedPublish,
		"AnEnvelopeThatFailedIsRefusedToAllWhoShareIt":         failedStore,
		"AConfirmationThatIsLostIsAskedForAgain":               lostConfirmation,
	} {
		t.Run(name, func(t *testing.T) { synctest.Test(t, run) })
	}
}

func ev(id string) event.Event {
	return event.Event{ID: id, Source: event.Client, Origin: event.Client, Kind: event.KindReport, FileID: "f_" + id, User: "u", AcceptedAt: time.Now().UTC(), Body: []byte(`{}`)}
}

func open(t *testing.T, s *queue.Stream, c queue.Config) *queue.Door {
	t.Helper()
	d, err := queue.Open(s, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func publish(t *testing.T, d *queue.Door, events ...event.Event) {
	t.Helper()
	if err := d.Publish(t.Context(), events); err != nil {
		t.Fatal(err)
	}
}

func next(t *testing.T, d *queue.Door) *event.Delivery {
	t.Helper()
	got, err := d.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func killed(t *testing.T) {
	s := queue.NewStream(queue.Server{Shared: true})
	first, second := open(t, s, queue.Config{}), open(t, s, queue.Config{})
	publish(t, first, ev("a"))
	d := next(t, first)
	first.Kill()
	if err := d.Ack(); err == nil {
		t.Error("a dead process acked")
	}
	died := time.Now()
	again := next(t, second)
	if again.Delivered != 2 || again.Envelope.Events[0].ID != "a" || time.Since(died) != 20*time.Second {
		t.Errorf("delivery %d of %v after %v", again.Delivered, again.Envelope.Events, time.Since(died))
	}
	if err := again.Ack(); err != nil || len(s.Held()) != 0 || len(s.Ever()) != 1 {
		t.Errorf("ack: %v, %d held", err, len(s.Held()))
	}
}

func killedHolder(t *testing.T) {
	s := queue.NewStream(queue.Server{Shared: true})
	first, second := open(t, s, queue.Config{Role: "one"}), open(t, s, queue.Config{Role: "two"})
	ctx, cancel := context.WithCancel(t.Context())
	begun := make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- first.HoldTurn(ctx, func(ctx context.Context) error { close(begun); <-ctx.Done(); return ctx.Err() })
	}()
	<-begun
	time.Sleep(time.Minute) //nolint:forbidigo // virtual time
	first.Kill()
	died := time.Now()
	stop := errors.New("enough")
	if err := second.HoldTurn(ctx, func(context.Context) error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
	if waited := time.Since(died); waited < 5*time.Second || waited > 20*time.Second {
		t.Errorf("the turn of the dead was free after %v", waited)
	}
	cancel()
	if err := <-ended; err == nil {
		t.Error("the dead ended well")
	}
}

func frozenHolder(t *testing.T) {
	s := queue.NewStream(queue.Server{Shared: true})
	first, second := open(t, s, queue.Config{Role: "one"}), open(t, s, queue.Config{Role: "two"})
	begun, lost := make(chan struct{}), make(chan struct{})
	enough := errors.New("enough")
	go func() {
		_ = first.HoldTurn(t.Context(), func(ctx context.Context) error { close(begun); <-ctx.Done(); close(lost); return enough })
	}()
	<-begun
	thaw := first.Freeze()
	taken, over := make(chan struct{}), make(chan struct{})
	go func() {
		_ = second.HoldTurn(t.Context(), func(context.Context) error { close(taken); <-over; return enough })
	}()
	<-taken
	select {
	case <-lost:
		t.Error("a frozen process noticed that its turn was lost")
	default:
	}
	if s.Holder() != "two" {
		t.Errorf("%q holds the turn", s.Holder())
	}
	thaw()
	<-lost
	close(over)
}

// failing fails calls of one method, n of them, before or after they were done.
func failing(method string, n int, after bool) fault.Hook {
	return func(_ context.Context, c fault.Call, do func() error) error {
		if c.Method != method || n == 0 {
			return do()
		}
		n--
		if after {
			if err := do(); err != nil {
				return err
			}
		}
		return errLost
	}
}

var errLost = errors.New("the connection is lost")

func failedPublish(t *testing.T) {
	for _, method := range []string{"Publish", "Store"} {
		for held, after := range []bool{false, true} {
			s := queue.NewStream(queue.Server{})
			d := open(t, s, queue.Config{Hook: failing(method, 1, after)})
			err := d.Publish(t.Context(), []event.Event{ev("a")})
			if !errors.Is(err, event.ErrNotAccepted) || !errors.Is(err, errLost) || len(s.Held()) != held {
				t.Errorf("%s, after %v: %v, %d held", method, after, err, len(s.Held()))
			}
			publish(t, d, ev("b"))
		}
	}
}

func failedStore(t *testing.T) {
	var calls sync.WaitGroup
	s := queue.NewStream(queue.Server{})
	d := open(t, s, queue.Config{Hook: func(_ context.Context, c fault.Call, do func() error) error {
		if c.Method == "Store" {
			time.Sleep(time.Millisecond) //nolint:forbidigo // virtual time
			if len(s.Ever()) == 1 {
				return errLost
			}
		}
		return do()
	}})
	var refused atomic.Int64
	for i := range 11 {
		calls.Go(func() {
			time.Sleep(time.Duration(i) * time.Microsecond) //nolint:forbidigo // virtual time
			if err := d.Publish(t.Context(), []event.Event{ev(fmt.Sprint(i))}); errors.Is(err, errLost) {
				refused.Add(1)
			}
		})
	}
	calls.Wait()
	if refused.Load() != 10 || len(s.Held()) != 1 {
		t.Errorf("%d refused, %d held", refused.Load(), len(s.Held()))
	}
}

func lostAck(t *testing.T) {
	for _, after := range []bool{false, true} {
		s := queue.NewStream(queue.Server{})
		d := open(t, s, queue.Config{Hook: failing("Ack", 1, after)})
		publish(t, d, ev("a"))
		if err := next(t, d).Ack(); !errors.Is(err, errLost) {
			t.Errorf("ack: %v", err)
		}
		if after {
			if len(s.Held()) != 0 {
				t.Error("what was acked is held")
			}
			continue
		}
		if again := next(t, d); again.Delivered != 2 || again.Ack() != nil || len(s.Held()) != 0 {
			t.Errorf("%+v", again)
		}
	}
}

func lostFetch(t *testing.T) {
	for _, after := range []bool{false, true} {
		s := queue.NewStream(queue.Server{})
		d := open(t, s, queue.Config{Hook: failing("Next", 1, after)})
		publish(t, d, ev("a"))
		began := time.Now()
		again := next(t, d)
		if late := time.Since(began) >= 20*time.Second; late != after || (again.Delivered == 2) != after {
			t.Errorf("after %v: delivery %d after %v", after, again.Delivered, time.Since(began))
		}
	}
}

func lostTurn(t *testing.T) {
	for _, after := range []bool{false, true} {
		s := queue.NewStream(queue.Server{Shared: true})
		d := open(t, s, queue.Config{Role: "one", Hook: failing("TakeTurn", 1, after)})
		began := time.Now()
		enough := errors.New("enough")
		err := d.HoldTurn(t.Context(), func(context.Context) error {
			if s.Holder() != "one" {
				t.Error("it works without the turn")
			}
			return enough
		})
		if waited := time.Since(began); !errors.Is(err, enough) || (waited == 0) != after {
			t.Errorf("after %v: %v after %v", after, err, waited)
		}
	}
}

func notRenewed(t *testing.T) {
	s := queue.NewStream(queue.Server{Shared: true})
	d := open(t, s, queue.Config{Role: "one", Hook: failing("RenewTurn", -1, false)})
	other := open(t, s, queue.Config{Role: "two"})
	began := time.Now()
	ctx, cancel := context.WithCancel(t.Context())
	var ended time.Time
	var both sync.WaitGroup
	both.Go(func() {
		_ = d.HoldTurn(ctx, func(ctx context.Context) error { <-ctx.Done(); ended = time.Now(); cancel(); return nil })
	})
	enough := errors.New("enough")
	time.Sleep(time.Second) //nolint:forbidigo // virtual time
	both.Go(func() {
		_ = other.HoldTurn(t.Context(), func(context.Context) error {
			if ended.IsZero() || time.Since(began) < 15*time.Second {
				t.Errorf("two work at once, after %v", time.Since(began))
			}
			return enough
		})
	})
	both.Wait()
	if held := ended.Sub(began); held > 15*time.Second || held < 5*time.Second {
		t.Errorf("it believed in its turn for %v", held)
	}
}

func away(t *testing.T) {
	s := queue.NewStream(queue.Server{})
	d := open(t, s, queue.Config{})
	publish(t, d, ev("a"))
	s.Away("the cable is cut")
	if r := d.Ready(); r.Accepting || r.Why != "the cable is cut" {
		t.Errorf("%+v", r)
	}
	if err := d.Publish(t.Context(), []event.Event{ev("b")}); !errors.Is(err, event.ErrNotAccepted) {
		t.Error(err)
	}
	if _, err := d.Depth(t.Context()); err == nil {
		t.Error("a server that is away tells its depth")
	}
	go func() {
		time.Sleep(time.Hour) //nolint:forbidigo // virtual time
		s.Away("")
	}()
	if got := next(t, d); got.Envelope.Events[0].ID != "a" || got.Ack() != nil {
		t.Errorf("%+v", got)
	}
}

func lostConfirmation(t *testing.T) {
	tries := 0
	s := queue.NewStream(queue.Server{})
	d := open(t, s, queue.Config{Hook: func(ctx context.Context, c fault.Call, do func() error) error {
		err := do()
		if c.Method == "Store" {
			if tries++; tries == 1 {
				<-ctx.Done()
				return fmt.Errorf("no answer: %w", ctx.Err())
			}
		}
		return err
	}})
	publish(t, d, ev("a"))
	if tries != 2 || len(s.Ever()) != 1 {
		t.Errorf("%d tries, %d stored", tries, len(s.Ever()))
	}
}
