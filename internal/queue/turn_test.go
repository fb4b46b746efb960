package queue

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/event"
)

// hold runs HoldTurn until the test ends or the returned stop, and signals each
// time work begins and ends.
func hold(t testing.TB, q *Queue, work func(context.Context) error) (began chan struct{}, ended chan error, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(testContext(t))
	began, ended = make(chan struct{}, 16), make(chan error, 16)
	var done sync.WaitGroup
	done.Go(func() {
		_ = q.HoldTurn(ctx, func(ctx context.Context) error {
			began <- struct{}{}
			err := work(ctx)
			ended <- context.Cause(ctx)
			return err
		})
	})
	stop = func() { cancel(); done.Wait() }
	t.Cleanup(stop)
	return began, ended, stop
}

func untilCancelled(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

func wait[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}

func idle[T any](t testing.TB, what string, c <-chan T) {
	t.Helper()
	select {
	case v := <-c:
		t.Fatal(what, v)
	default:
	}
}

func TestTurn(t *testing.T) {
	t.Run("OneHoldsIt_TheOtherStandsBy_AndFollowsACleanReleaseWithoutATTL", func(t *testing.T) {
		// With a TTL of an hour only the release can hand it over.
		stoodBy := make(chan struct{}, 16)
		q := open(t, Config{TurnTTL: time.Hour, stoodBy: func() { stoodBy <- struct{}{} }})
		began1, _, stop1 := hold(t, q, untilCancelled)
		wait(t, "the first holder", began1)
		began2, _, _ := hold(t, q, untilCancelled)
		wait(t, "the second one's try", stoodBy)
		idle(t, "two hold the turn", began2)
		stop1()
		wait(t, "the second holder", began2)
	})

	t.Run("FollowsAKilledHolder", func(t *testing.T) {
		s := startNATS(t)
		q := open(t, s.external(t))
		holder := startPart(t, "holder", "PART_URL="+s.url())
		if got := holder.line(t); got != "holding" {
			t.Fatal(got)
		}
		began, _, _ := hold(t, q, untilCancelled)
		idle(t, "two hold the turn", began)
		holder.kill()
		wait(t, "the turn", began)
	})

	t.Run("IsKeptBeyondItsTTLByRenewal", func(t *testing.T) {
		q := open(t, Config{TurnTTL: 600 * time.Millisecond})
		began1, ended1, _ := hold(t, q, untilCancelled)
		wait(t, "the holder", began1)
		began2, _, _ := hold(t, q, untilCancelled)
		first, _, _ := (&lease{kv: q.state.Load().turn}).ours(testContext(t))
		eventually(t, "it was renewed five times", func() bool {
			now, _, err := (&lease{kv: q.state.Load().turn}).ours(testContext(t))
			return err == nil && now >= first+5
		})
		idle(t, "the holder lost its turn", ended1)
		idle(t, "two hold the turn", began2)
	})

	t.Run("IsLostWhenItCannotBeRenewed_AndWorkIsToldInTime", func(t *testing.T) {
		s := startNATS(t)
		c := s.external(t)
		p := startProxy(t, s.url())
		other := open(t, c)
		c.URL = p.url()
		frozen := open(t, c)

		finish := make(chan struct{})
		began1, ended1, _ := hold(t, frozen, func(ctx context.Context) error {
			<-ctx.Done()
			<-finish // it does not heed the end of its turn at once
			return nil
		})
		wait(t, "the first holder", began1)
		began2, _, stop2 := hold(t, other, untilCancelled)
		p.hold(true, true)
		wait(t, "the second holder", began2)
		close(finish)
		if cause := wait(t, "the first holder's end", ended1); !errors.Is(cause, errTurnLost) {
			t.Errorf("work ended because of %v", cause)
		}
		// It stands by again and gets the turn back when its connection does.
		p.cut()
		p.hold(false, false)
		idle(t, "two hold the turn", began1)
		stop2()
		wait(t, "the first holder's second turn", began1)
	})

	t.Run("SurvivesALostAnswer", func(t *testing.T) {
		q := open(t, Config{TurnTTL: time.Hour})
		l, err := q.newLease()
		if err != nil {
			t.Fatal(err)
		}
		defer l.end(nil)
		ctx := testContext(t)
		// The try to take it arrived, its answer did not.
		if _, err := l.kv.Create(ctx, turnKey, l.value); err != nil {
			t.Fatal(err)
		}
		if !l.take(ctx) {
			t.Fatal("our own entry keeps us out")
		}
		// So it was with a renewal.
		if _, err := l.kv.Update(ctx, turnKey, l.value, l.rev); err != nil {
			t.Fatal(err)
		}
		if l.extend() {
			t.Fatal("a renewal on an old revision was accepted")
		}
		if err := l.lost(); err != nil {
			t.Fatalf("it is still ours: %v", err)
		}
		if !l.extend() {
			t.Fatal("not renewed")
		}
	})

	t.Run("IsNotWrestledForWhenTheDatabaseSaysItMoved", func(t *testing.T) {
		q := open(t, Config{TurnTTL: 300 * time.Millisecond})
		first := true
		began, _, _ := hold(t, q, func(ctx context.Context) error {
			if first {
				first = false
				return event.ErrTurnMoved
			}
			return untilCancelled(ctx)
		})
		wait(t, "the first turn", began)
		wait(t, "the second turn", began)
	})

	t.Run("EndsWithWhatWorkReturned", func(t *testing.T) {
		q := open(t, Config{})
		broken := errors.New("broken")
		if err := q.HoldTurn(testContext(t), func(context.Context) error { return broken }); !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
		began, _, _ := hold(t, q, untilCancelled)
		wait(t, "the turn, at once", began)
	})

	t.Run("IsRenewedWhileWorkDrains", func(t *testing.T) {
		q := open(t, Config{TurnTTL: 300 * time.Millisecond})
		renewed := make(chan struct{})
		began1, _, stop1 := hold(t, q, func(ctx context.Context) error { <-ctx.Done(); <-renewed; return nil })
		wait(t, "the holder", began1)
		began2, _, _ := hold(t, q, untilCancelled)
		go stop1()
		first, _, _ := (&lease{kv: q.state.Load().turn}).ours(testContext(t))
		eventually(t, "it was renewed five times", func() bool {
			now, _, err := (&lease{kv: q.state.Load().turn}).ours(testContext(t))
			return err == nil && now >= first+5
		})
		idle(t, "two hold the turn", began2)
		close(renewed)
		wait(t, "the second holder", began2)
	})
}
