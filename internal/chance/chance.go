// Package chance is where waits and schedules get their randomness: retries that are
// spread, a reset that not everybody meets at once, a run that does not begin on the
// hour.
//
// It is apart so that whoever runs a service may seed it, as one would bring another
// clock. Its one invariant: nothing that must not be guessed comes from here; ids and
// secrets are crypto/rand's.
package chance

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sethvargo/go-retry"
)

// Source gives numbers, each of its 64 bits as likely 0 as 1. It may be called at once
// from many goroutines. Nil is the runtime's own, which nobody can seed.
type Source func() uint64

// Seeded is a Source that gives the same numbers for the same seed.
func Seeded(seed uint64) Source {
	var mu sync.Mutex
	numbers := rand.NewPCG(seed, 0)
	return func() uint64 {
		mu.Lock()
		defer mu.Unlock()
		return numbers.Uint64()
	}
}

// Uint64 makes s a rand.Source.
func (s Source) Uint64() uint64 {
	if s == nil {
		return rand.Uint64() //nolint:gosec // see the package's invariant
	}
	return s()
}

// Float64 is a number in [0, 1).
func (s Source) Float64() float64 { return rand.New(s).Float64() } //nolint:gosec // see the package's invariant

// Below is a duration in [0, d); zero where d is.
func (s Source) Below(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return time.Duration(rand.New(s).Int64N(int64(d))) //nolint:gosec // see the package's invariant
}

// Spread lengthens or shortens each wait of b by up to percent of it. go-retry's own
// jitter would do the same with numbers that nobody can seed.
func (s Source) Spread(percent uint64, b retry.Backoff) retry.Backoff {
	return retry.BackoffFunc(func() (time.Duration, bool) {
		wait, stop := b.Next()
		if stop {
			return 0, true
		}
		most := time.Duration(float64(wait) * float64(min(percent, 100)) / 100)
		return wait - most + s.Below(2*most), false
	})
}
