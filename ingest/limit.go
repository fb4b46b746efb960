package ingest

import (
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
)

// maxLimited bounds how many users or addresses are told apart at once. Beyond, the
// one not seen for longest starts afresh, which lets it do no more than its burst.
const maxLimited = 16 << 10

// limiter gives each key its own rate. A nil limiter allows everything.
type limiter struct {
	rate  rate.Limit
	burst int
	now   func() time.Time
	known *lru.Cache[string, *rate.Limiter]
}

func newLimiter(perSecond float64, burst int, now func() time.Time) *limiter {
	if perSecond < 0 {
		return nil
	}
	known, err := lru.New[string, *rate.Limiter](maxLimited)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return &limiter{rate: rate.Limit(perSecond), burst: burst, now: now, known: known}
}

// allow takes one from key's budget, or says how long to wait for one.
func (l *limiter) allow(key string) (time.Duration, bool) { return l.allowN(key, 1) }

// allowN takes n at once, or as many as the budget ever holds beside one.
func (l *limiter) allowN(key string, n int) (time.Duration, bool) {
	if l == nil || n <= 0 {
		return 0, true
	}
	bucket, ok := l.known.Get(key)
	if !ok {
		bucket = rate.NewLimiter(l.rate, l.burst)
		// Of two requests that both found none, one bucket stays for both.
		if first, found, _ := l.known.PeekOrAdd(key, bucket); found {
			bucket = first
		}
	}
	now := l.now()
	reservation := bucket.ReserveN(now, min(n, max(l.burst-1, 1)))
	if wait := reservation.DelayFrom(now); wait > 0 || !reservation.OK() {
		reservation.CancelAt(now)
		return min(wait, time.Minute), false
	}
	return 0, true
}
