package emulator

import (
	"net/http"
	"strconv"
	"sync"
	"time"
)

// rates holds one bucket per endpoint, as ImageKit limits per account and endpoint.
type rates struct {
	mu      sync.Mutex // guards buckets and what they hold
	buckets map[string]*bucket
}

// bucket is empty at the moment full, less one call for each interval before it:
// whole nanoseconds instead of fractions of a call, so that waiting as told suffices.
type bucket struct {
	full  time.Time // when the whole burst is there again
	until time.Time // when the last 429 said to come back
}

func newRates() *rates { return &rates{buckets: map[string]*bucket{}} }

// take uses one call of an endpoint's allowance. When there is none it says how
// long to wait; early is true when the caller had been told and did not wait.
func (r *rates) take(name string, l RateLimit, now time.Time) (wait time.Duration, early bool) {
	if l.PerSecond == 0 {
		return 0, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.buckets[name]
	if b == nil {
		b = &bucket{}
		r.buckets[name] = b
	}
	early = now.Before(b.until)
	if b.full.Before(now) {
		b.full = now
	}
	each := time.Duration(float64(time.Second) / l.PerSecond)
	wait = b.full.Add(-time.Duration(l.Burst-1) * each).Sub(now)
	if wait <= 0 {
		b.full = b.full.Add(each)
		return 0, early
	}
	// The header says whole milliseconds: round up.
	wait = (wait + time.Millisecond - 1).Truncate(time.Millisecond)
	b.until = now.Add(wait)
	return wait, early
}

func (r *rates) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.buckets)
}

// limit applies the endpoint's limit and writes the three headers.
func (e *Emulator) limit(ep endpoint, h http.Header) (answer, bool) {
	s := e.settings.Load()
	var l RateLimit
	switch ep.class {
	case read:
		l = s.RateLimit
	case write:
		l = s.WriteRateLimit
	default:
		return answer{}, false
	}
	wait, early := e.rates.take(ep.name, l, e.Now())
	if early {
		e.stats.early.Add(1)
	}
	if l.PerSecond > 0 && (s.RateHeaders || wait > 0) {
		interval := time.Second
		if l.PerSecond < 1 {
			interval = time.Duration(float64(time.Second) / l.PerSecond)
		}
		h.Set("X-RateLimit-Limit", strconv.Itoa(int(max(1, l.PerSecond))))
		h.Set("X-RateLimit-Reset", strconv.FormatInt(wait.Milliseconds(), 10))
		h.Set("X-RateLimit-Interval", strconv.FormatInt(interval.Milliseconds(), 10))
	}
	if wait == 0 {
		return answer{}, false
	}
	e.stats.limited.Add(1)
	return refuse(http.StatusTooManyRequests, "Your account has sent too many requests to this endpoint. Please wait as long as X-RateLimit-Reset says."), true
}
