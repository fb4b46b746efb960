package verify

import (
	"cmp"
	"context"
	"math"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trueup/trueup/internal/chance"
	"github.com/trueup/trueup/internal/file"
)

// BudgetConfig bounds the calls to ImageKit, of all endpoints together.
type BudgetConfig struct {
	// StartRate is the calls in a second to begin with, while ImageKit has not said
	// what it allows; zero means 20.
	StartRate float64
	// MaxRate is never exceeded, whatever ImageKit allows; zero means 1000.
	MaxRate float64
	// Random spreads what waits for a reset; nil means the runtime's own.
	Random chance.Source
}

// BudgetStatus is how the budget stands.
type BudgetStatus struct {
	// Rate is the calls in a second now, Ceiling what it may grow to.
	Rate    float64 `json:"rate"`
	Ceiling float64 `json:"ceiling"`
	// Learned: ImageKit's headers have said what it allows.
	Learned bool `json:"learned"`
	// BlockedUntil is the reset after the last 429; zero when calls may leave.
	BlockedUntil time.Time `json:"blockedUntil,omitzero"`
	// Waiting calls by class.
	Waiting map[string]int `json:"waiting"`
	// Limited counts the 429s so far.
	Limited int64 `json:"limited"`
}

const (
	minRate = 0.5
	// margin is how much of what ImageKit allows is used: somebody else may hold the
	// same account, and two clocks never run alike.
	margin = 0.95
	// firstPause and longestPause bound the wait after a 429 that names none.
	firstPause   = 250 * time.Millisecond
	longestPause = 30 * time.Second
)

// Budget is one token bucket for all calls. Its guarantee (I13): from the moment a
// 429 is known until its reset no call leaves, not even one that had its token.
//
// The rate adapts. Headers that state a limit set it. Without them it doubles each
// second in which it held somebody up, until the first 429; a 429 halves it, and
// from then on it grows by steps.
type Budget struct {
	config BudgetConfig

	mu      sync.Mutex
	rate    float64
	tokens  float64
	filled  time.Time // when tokens was last brought up to date
	blocked time.Time // no call leaves before
	pause   time.Duration
	cutAt   time.Time // when the rate was last halved: a 429 to an older call does not count again
	cut     bool      // a 429 was met: grow by steps from now on
	grown   time.Time // when the rate last grew
	scarce  bool      // somebody has waited for a token since
	learned map[string]float64
	limited int64
	waiting queue
	timer   *time.Timer
}

func newBudget(c BudgetConfig) *Budget {
	c.StartRate = cmp.Or(c.StartRate, 20)
	c.MaxRate = cmp.Or(c.MaxRate, 1000)
	now := time.Now()
	b := &Budget{config: c, rate: min(c.StartRate, c.MaxRate), filled: now, grown: now, learned: map[string]float64{}}
	b.tokens = b.burst()
	return b
}

// acquire waits until a call of this class may leave.
func (b *Budget) acquire(ctx context.Context, p Priority) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	w := &waiter{ready: make(chan struct{}), class: p}
	b.mu.Lock()
	b.waiting.push(w)
	b.pump(time.Now())
	b.mu.Unlock()
	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.waiting.remove(w) {
		b.tokens++ // it was granted meanwhile and will not be used
	}
	b.pump(time.Now())
	return context.Cause(ctx)
}

// pump grants what can be granted and sets the timer for the rest. The caller holds mu.
func (b *Budget) pump(now time.Time) {
	b.refill(now)
	for b.waiting.len() > 0 && !now.Before(b.blocked) && b.tokens >= 1 {
		b.tokens--
		close(b.waiting.pop().ready)
	}
	if b.waiting.len() == 0 {
		return
	}
	wait := time.Duration(math.Ceil((1 - b.tokens) / b.rate * float64(time.Second)))
	if now.Before(b.blocked) {
		wait = max(wait, b.blocked.Sub(now))
	} else {
		b.scarce = true
	}
	wait = max(wait, time.Microsecond)
	if b.timer == nil {
		b.timer = time.AfterFunc(wait, b.tick)
		return
	}
	b.timer.Reset(wait)
}

func (b *Budget) tick() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pump(time.Now())
}

// refill brings the tokens up to date. Nothing accrues while calls are blocked, so
// that the reset is not followed by a burst.
func (b *Budget) refill(now time.Time) {
	from := b.filled
	if from.Before(b.blocked) {
		from = b.blocked
	}
	if passed := now.Sub(from); passed > 0 {
		b.tokens = min(b.burst(), b.tokens+passed.Seconds()*b.rate)
	}
	if now.After(b.filled) {
		b.filled = now
	}
}

// burst is how many calls may leave at once.
func (b *Budget) burst() float64 { return max(5, b.rate/4) }

// ceiling is what the rate may grow to: the least that any endpoint allows. A
// header that states less than minRate is not believed; where it is true, resets
// will say so.
func (b *Budget) ceiling() float64 {
	most := b.config.MaxRate
	for _, rate := range b.learned {
		most = min(most, max(rate, minRate))
	}
	return most
}

// heard learns from an answer to a call that was sent at sent.
func (b *Budget) heard(endpoint string, said file.Rate, fault *file.Fault, sent time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.refill(now)
	if said.Limit > 0 && said.Interval > 0 {
		b.learned[endpoint] = margin * float64(said.Limit) / said.Interval.Seconds()
	}
	switch {
	case fault != nil && fault.Kind == file.Limited:
		b.refused(now, fault.Wait, sent)
	case fault == nil || fault.Status != 0:
		b.accepted(now, sent)
	}
	b.rate = min(b.rate, b.ceiling())
	b.pump(now)
}

// refused blocks all calls until the reset, and halves the rate once for all calls
// that were under way.
func (b *Budget) refused(now time.Time, wait time.Duration, sent time.Time) {
	b.limited++
	if sent.After(b.cutAt) {
		b.rate = max(b.rate/2, min(minRate, b.ceiling()))
		b.cut, b.cutAt = true, now
		b.grown, b.scarce = now, false
		b.pause = min(max(2*b.pause, firstPause), longestPause)
	}
	if wait <= 0 {
		wait = b.pause
	}
	wait += b.config.Random.Below(min(wait/10, 250*time.Millisecond) + 2*time.Millisecond)
	if until := now.Add(wait); until.After(b.blocked) {
		b.blocked = until
	}
	b.tokens = min(b.tokens, 1)
}

// accepted lets the rate grow where it held somebody up.
func (b *Budget) accepted(now, sent time.Time) {
	if sent.After(b.blocked) {
		b.pause = 0
	}
	switch {
	case len(b.learned) > 0 && !b.cut:
		b.rate = b.ceiling()
	case !b.scarce || now.Sub(b.grown) < time.Second:
		return
	case b.cut:
		b.rate += b.step()
	default:
		b.rate *= 2
	}
	b.grown, b.scarce = now, false
}

// step is how much the rate grows in a second once a 429 was met.
func (b *Budget) step() float64 {
	if len(b.learned) > 0 {
		return max(0.05*b.ceiling(), 0.1)
	}
	return b.config.StartRate / 10
}

// gate returns a context in which a call stops at the last moment, when it has a
// connection and is about to write, if a 429 has become known since it was granted.
// held reports whether that happened: then it never left. done frees the context.
// It works for what sends with net/http over HTTP/1.
func (b *Budget) gate(ctx context.Context) (gated context.Context, held func() bool, done func()) {
	gated, cancel := context.WithCancel(ctx)
	var stopped atomic.Bool
	gated = httptrace.WithClientTrace(gated, &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) {
		if b.isBlocked() {
			stopped.Store(true)
			cancel()
			_ = got.Conn.Close() // cancelling alone would race with the write
		}
	}})
	return gated, stopped.Load, cancel
}

func (b *Budget) isBlocked() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return time.Now().Before(b.blocked)
}

func (b *Budget) status() BudgetStatus {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := BudgetStatus{Rate: b.rate, Ceiling: b.ceiling(), Learned: len(b.learned) > 0, Limited: b.limited, Waiting: map[string]int{}}
	if time.Now().Before(b.blocked) {
		s.BlockedUntil = b.blocked
	}
	for p := range classes {
		s.Waiting[p.String()] = len(b.waiting.of[p])
	}
	return s
}
