package queue_test

import (
	"context"
	"errors"
	"fmt"
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
		"WhatAKilledProcessHeldComesAgainAfterTheAckWait": killed,
		"AKilledHoldersTurnIsFreeAfterItsTTL":             killedHolder,
		"AFrozenHolderWorksOnWhileAnotherHasBegun":        frozenHolder,
		"APublishThatFailedAfterIsStored":                 failedAfter,
		"AConfirmationThatIsLostIsAskedForAgain":          lostConfirmation,
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
	<-ended
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

func failedAfter(t *testing.T) {
	broken := errors.New("the reply got lost")
	s := queue.NewStream(queue.Server{})
	d := open(t, s, queue.Config{Hook: func(_ context.Context, c fault.Call, do func() error) error {
		if err := do(); err != nil || c.Method != "Publish" {
			return err
		}
		return broken
	}})
	err := d.Publish(t.Context(), []event.Event{ev("a")})
	if !errors.Is(err, event.ErrNotAccepted) || !errors.Is(err, broken) || len(s.Held()) != 1 {
		t.Errorf("%v, %d held", err, len(s.Held()))
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
