package worker

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestLanes(t *testing.T) {
	t.Run("NeverTwoBatchesOnOneFile", func(t *testing.T) {
		l, inside := newLanes(), [3]atomic.Int32{}
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				files := []string{string(rune('a' + i%3)), string(rune('a' + (i+1)%3))}
				leave, err := l.enter(context.Background(), files)
				if err != nil {
					t.Error(err)
					return
				}
				defer leave()
				for _, f := range files {
					if n := inside[f[0]-'a'].Add(1); n != 1 {
						t.Errorf("%d batches hold file %s", n, f)
					}
					defer inside[f[0]-'a'].Add(-1)
				}
			})
		}
		wg.Wait()
		if len(l.last) != 0 {
			t.Errorf("%d files are still held", len(l.last))
		}
	})

	t.Run("StrangersPassAtOnce", func(t *testing.T) {
		l := newLanes()
		if _, err := l.enter(t.Context(), []string{"a"}); err != nil {
			t.Fatal(err)
		}
		if _, err := l.enter(t.Context(), []string{"b"}); err != nil {
			t.Fatal(err)
		}
	})

	t.Run("GivingUpKeepsTheOrder", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := newLanes()
			first, err := l.enter(t.Context(), []string{"a"})
			if err != nil {
				t.Fatal(err)
			}
			impatient, cancel := context.WithCancelCause(t.Context())
			gaveUp := errors.New("gave up")
			go func() { time.Sleep(time.Second); cancel(gaveUp) }() //nolint:forbidigo // synctest's clock, not the wall's
			if _, err := l.enter(impatient, []string{"a"}); !errors.Is(err, gaveUp) {
				t.Fatalf("enter = %v, want the cause of the cancellation", err)
			}
			var third atomic.Bool
			go func() {
				leave, err := l.enter(t.Context(), []string{"a"})
				if err != nil {
					t.Error(err)
					return
				}
				third.Store(true)
				leave()
			}()
			synctest.Wait()
			if third.Load() {
				t.Error("the third batch overtook the first because the second gave up")
			}
			first()
			synctest.Wait()
			if !third.Load() {
				t.Error("the third batch still waits although both before it left")
			}
		})
	})
}
