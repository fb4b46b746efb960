package chance_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/sethvargo/go-retry"

	"github.com/trueup/trueup/internal/chance"
)

func TestSource(t *testing.T) {
	t.Run("TheSameSeedGivesTheSameWaits", func(t *testing.T) {
		waits := func(s chance.Source) (out [64]time.Duration) {
			b := s.Spread(25, retry.NewConstant(time.Second))
			for i := range out {
				out[i], _ = b.Next()
			}
			return out
		}
		first, again, other := waits(chance.Seeded(7)), waits(chance.Seeded(7)), waits(chance.Seeded(8))
		if first != again {
			t.Error("two runs of one seed differ")
		}
		if own, next := waits(nil), waits(nil); first == other || own == next {
			t.Error("two sources give the same")
		}
	})
	t.Run("KeepsItsBounds", func(t *testing.T) {
		for _, s := range []chance.Source{nil, chance.Seeded(1)} {
			b, low, high := s.Spread(20, retry.NewConstant(time.Second)), time.Hour, time.Duration(0)
			for range 2000 {
				wait, stop := b.Next()
				low, high = min(low, wait), max(high, wait)
				if f := s.Float64(); stop || wait < 800*time.Millisecond || wait >= 1200*time.Millisecond || f < 0 || f >= 1 {
					t.Fatalf("wait %v, stop %v, float %v", wait, stop, f)
				}
			}
			if low > 820*time.Millisecond || high < 1180*time.Millisecond {
				t.Errorf("2000 waits lie between %v and %v, not all over [0.8 s, 1.2 s)", low, high)
			}
		}
		if d := chance.Source(nil).Below(0); d != 0 {
			t.Errorf("below nothing is %v", d)
		}
	})
	t.Run("StopsWhenTheBackoffStops", func(t *testing.T) {
		calls := 0
		err := retry.Do(t.Context(), chance.Seeded(1).Spread(50, retry.WithMaxRetries(2, retry.NewConstant(time.Nanosecond))), func(context.Context) error {
			calls++
			return retry.RetryableError(errVain)
		})
		if calls != 3 || !errors.Is(err, errVain) {
			t.Errorf("%d calls, %v", calls, err)
		}
	})
}

var errVain = errors.New("in vain")
