package verify

import (
	"context"
	"errors"
	"testing"
)

func TestAloneIsWaitedForNoLongerThanTheContextLasts(t *testing.T) {
	a := newAlone()
	if err := a.lock(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	got := make(chan error)
	go func() { got <- a.lock(ctx) }()
	cancel(stop)
	if err := <-got; !errors.Is(err, stop) {
		t.Errorf("got %v, want %v", err, stop)
	}
	a.unlock()
	if err := a.lock(t.Context()); err != nil {
		t.Errorf("free again: %v", err)
	}
}
