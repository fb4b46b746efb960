package verify

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/imagekit"
)

// spend keeps n callers of a class busy until ctx ends; each call is answered by
// answer after 10 ms. It returns when all have stopped.
func spend(ctx context.Context, b *Budget, p Priority, n int, answer func(at time.Time) (file.Rate, *file.Fault)) *sync.WaitGroup {
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			for b.acquire(ctx, p) == nil {
				sent := time.Now()
				rate, fault := answer(sent)
				time.Sleep(10 * time.Millisecond) //nolint:forbidigo // the call takes time; the clock is synctest's
				b.heard("details", rate, fault, sent)
			}
		})
	}
	return &all
}

// seconds counts calls by the second in which they left.
type seconds struct {
	mu    sync.Mutex
	begin time.Time
	in    map[int]int
}

func newSeconds() *seconds { return &seconds{begin: time.Now(), in: map[int]int{}} }

func (s *seconds) note(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.in[int(at.Sub(s.begin)/time.Second)]++
}

func TestBudgetRate(t *testing.T) {
	t.Run("DoublesEachSecondWhileItHoldsUp", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b, s := newBudget(BudgetConfig{MaxRate: 200}), newSeconds()
			ctx, stop := context.WithTimeout(t.Context(), 8*time.Second)
			defer stop()
			spend(ctx, b, Live, 300, func(at time.Time) (file.Rate, *file.Fault) { s.note(at); return file.Rate{}, nil }).Wait()
			if s.in[0] > 20+5+1 {
				t.Errorf("%d calls in the first second, want the start rate and a burst", s.in[0])
			}
			if s.in[2] < s.in[0] || s.in[7] < 190 {
				t.Errorf("calls by second %v: it does not grow", s.in)
			}
			for second, n := range s.in {
				if n > 200+50+1 {
					t.Errorf("%d calls in second %d, above the maximum", n, second)
				}
			}
		})
	})
	t.Run("DoesNotGrowWhileNobodyWaits", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBudget(BudgetConfig{})
			ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
			defer stop()
			for b.acquire(ctx, Live) == nil {
				b.heard("details", file.Rate{}, nil, time.Now())
				time.Sleep(200 * time.Millisecond) //nolint:forbidigo // the clock is synctest's
			}
			if b.rate != 20 {
				t.Errorf("rate %v after ten idle seconds, want 20", b.rate)
			}
		})
	})
	t.Run("LearnsFromHeaders", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b, s := newBudget(BudgetConfig{}), newSeconds()
			said := file.Rate{Limit: 80, Interval: 2 * time.Second}
			ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
			defer stop()
			spend(ctx, b, Live, 50, func(at time.Time) (file.Rate, *file.Fault) { s.note(at); return said, nil }).Wait()
			for second := 1; second < 10; second++ {
				if n := s.in[second]; n < 36 || n > 40 {
					t.Errorf("%d calls in second %d, want 38 of the 40 allowed", n, second)
				}
			}
		})
	})
	t.Run("DoesNotStopForAHeaderBeyondReason", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBudget(BudgetConfig{})
			b.heard("details", file.Rate{Limit: 1, Interval: 24 * time.Hour}, nil, time.Now())
			if b.rate != minRate {
				t.Errorf("rate %v, want %v", b.rate, minRate)
			}
			b.heard("details", file.Rate{Limit: 40, Interval: time.Second}, nil, time.Now())
			if b.rate != 38 {
				t.Errorf("rate %v once the header is sane, want 38", b.rate)
			}
		})
	})
	t.Run("TheStrictestEndpointCounts", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBudget(BudgetConfig{})
			b.heard("search", file.Rate{Limit: 10, Interval: time.Second}, nil, time.Now())
			b.heard("details", file.Rate{Limit: 100, Interval: time.Second}, nil, time.Now())
			if s := b.status(); s.Rate != 9.5 || s.Ceiling != 9.5 || !s.Learned {
				t.Errorf("status %+v, want 9.5/s", s)
			}
		})
	})
	t.Run("IgnoresHeadersThatSayNothing", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBudget(BudgetConfig{})
			for _, said := range []file.Rate{{Limit: 5}, {Interval: time.Second}, {Limit: -1, Interval: time.Second}} {
				b.heard("details", said, nil, time.Now())
			}
			if b.rate != 20 || len(b.learned) != 0 {
				t.Errorf("rate %v, learned %v", b.rate, b.learned)
			}
		})
	})
	t.Run("HalvesOnceForAllCallsUnderWayAndGrowsBySteps", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBudget(BudgetConfig{StartRate: 80})
			sent := time.Now()
			for range 16 {
				b.heard("details", file.Rate{}, &file.Fault{Kind: file.Limited, Status: 429, Wait: time.Second}, sent)
			}
			if b.rate != 40 {
				t.Errorf("rate %v after one wave of 429s, want half of 80", b.rate)
			}
			halved := b.rate
			ctx, stop := context.WithTimeout(t.Context(), 6*time.Second)
			defer stop()
			spend(ctx, b, Live, 100, func(time.Time) (file.Rate, *file.Fault) { return file.Rate{}, nil }).Wait()
			if b.rate <= halved || b.rate > halved+6*8 {
				t.Errorf("rate %v, want steps of 8 up from %v", b.rate, halved)
			}
		})
	})
}

// TestBudgetFindsALimitNobodyStates: a bucket of 40/s with a burst of 100 that
// answers 429 and says nothing else. Most of it is used, little is refused.
func TestBudgetFindsALimitNobodyStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(BudgetConfig{})
		var mu sync.Mutex
		bucket, filled, taken, refused := 100.0, time.Now(), 0, 0
		ctx, stop := context.WithTimeout(t.Context(), 3*time.Minute)
		defer stop()
		spend(ctx, b, Live, 64, func(at time.Time) (file.Rate, *file.Fault) {
			mu.Lock()
			defer mu.Unlock()
			bucket = min(100, bucket+at.Sub(filled).Seconds()*40)
			filled = at
			if bucket < 1 {
				refused++
				return file.Rate{}, &file.Fault{Kind: file.Limited, Status: 429}
			}
			bucket--
			taken++
			return file.Rate{}, nil
		}).Wait()
		t.Logf("%d taken, %d refused in three minutes at 40/s", taken, refused)
		if taken < 25*180 || refused == 0 || refused > taken/50 {
			t.Errorf("%d taken, %d refused in three minutes at 40/s", taken, refused)
		}
	})
}

// TestBudgetBacksOff: a 429 blocks everything until its reset; one that names none
// blocks for longer and longer.
func TestBudgetBacksOff(t *testing.T) {
	limited := func(wait time.Duration) *file.Fault {
		return &file.Fault{Kind: file.Limited, Status: 429, Wait: wait}
	}
	for _, wait := range []time.Duration{time.Millisecond, time.Second, time.Minute, 15 * time.Minute} {
		t.Run("For"+wait.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBudget(BudgetConfig{})
				begin := time.Now()
				b.heard("details", file.Rate{}, limited(wait), begin)
				b.heard("details", file.Rate{}, limited(time.Microsecond), begin) // a later, shorter one shortens nothing
				if err := b.acquire(t.Context(), Live); err != nil {
					t.Fatal(err)
				}
				if passed := time.Since(begin); passed < wait || passed > wait+wait/10+time.Second {
					t.Errorf("left after %v, want %v and a little", passed, wait)
				}
			})
		})
	}
	t.Run("LongerEachTimeWhenNotTold", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBudget(BudgetConfig{StartRate: 100})
			last := time.Duration(0)
			for i := range 10 {
				begin := time.Now()
				b.heard("details", file.Rate{}, limited(0), begin)
				time.Sleep(time.Nanosecond) //nolint:forbidigo // the next call is sent after this cut; the clock is synctest's
				if err := b.acquire(t.Context(), Live); err != nil {
					t.Fatal(err)
				}
				passed := time.Since(begin)
				if want := min(firstPause<<i, longestPause); passed < want || passed < last-last/4 {
					t.Errorf("the %d. left after %v, want %v", i+1, passed, want)
				}
				last = passed
			}
		})
	})
	t.Run("HoldsThoseWhoHadWaited", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBudget(BudgetConfig{StartRate: 1})
			for range 5 { // the burst
				_ = b.acquire(t.Context(), Live)
			}
			begin := time.Now()
			var left atomic.Int64
			var all sync.WaitGroup
			for range 3 {
				all.Go(func() {
					_ = b.acquire(t.Context(), Live)
					left.Store(max(left.Load(), 1))
					if time.Since(begin) < 20*time.Second {
						t.Errorf("left after %v, before the reset", time.Since(begin))
					}
				})
			}
			synctest.Wait()
			b.heard("details", file.Rate{}, limited(20*time.Second), begin)
			if b.status().BlockedUntil.Before(begin.Add(20*time.Second)) || b.status().Waiting["live"] != 3 {
				t.Errorf("status %+v", b.status())
			}
			all.Wait()
		})
	})
	t.Run("AGivenUpWaitCostsNothing", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBudget(BudgetConfig{StartRate: 1})
			for range 5 {
				_ = b.acquire(t.Context(), Live)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			if b.acquire(ctx, Live) == nil {
				t.Error("it was granted")
			}
			begin := time.Now()
			_ = b.acquire(t.Context(), Run)
			if passed := time.Since(begin); passed > 501*time.Millisecond {
				t.Errorf("the next one waited %v", passed)
			}
		})
	})
}

// TestFloors counts: under load of all classes every tenth call is a replay's and
// every tenth a run's; without live work the runs keep their floor.
func TestFloors(t *testing.T) {
	tests := []struct {
		name  string
		load  map[Priority]int
		least map[Priority]float64
	}{
		{"All", map[Priority]int{Live: 200, Replay: 200, Run: 200}, map[Priority]float64{Live: 0.79, Replay: 0.09, Run: 0.09}},
		{"ReplaysAndRuns", map[Priority]int{Replay: 200, Run: 200}, map[Priority]float64{Replay: 0.89, Run: 0.09}},
		{"OneRunAtATime", map[Priority]int{Live: 200, Run: 1}, map[Priority]float64{Live: 0.85, Run: 0.04}},
		{"RunsAlone", map[Priority]int{Run: 200}, map[Priority]float64{Run: 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBudget(BudgetConfig{StartRate: 50, MaxRate: 50})
				ctx, stop := context.WithTimeout(t.Context(), 60*time.Second)
				defer stop()
				var count [classes]atomic.Int64
				var groups []*sync.WaitGroup
				for p, n := range tt.load {
					groups = append(groups, spend(ctx, b, p, n, func(time.Time) (file.Rate, *file.Fault) {
						count[p].Add(1)
						return file.Rate{}, nil
					}))
				}
				for _, g := range groups {
					g.Wait()
				}
				total := count[Live].Load() + count[Replay].Load() + count[Run].Load()
				for p, least := range tt.least {
					if share := float64(count[p].Load()) / float64(total); share < least {
						t.Errorf("%s had %.3f of %d calls, want %.2f", p, share, total, least)
					}
				}
				if total < 2900 {
					t.Errorf("only %d calls in a minute at 50/s", total)
				}
			})
		})
	}
}

// TestNoRequestLeavesBeforeTheReset is I13, judged by the server's own log: from
// the moment a 429 has surely arrived until its reset, nothing comes in.
func TestNoRequestLeavesBeforeTheReset(t *testing.T) {
	const reset = 600 * time.Millisecond
	var mu sync.Mutex
	var arrivals, refusals []time.Time
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		now := time.Now()
		arrivals = append(arrivals, now)
		last := time.Time{}
		if len(refusals) > 0 {
			last = refusals[len(refusals)-1]
		}
		if len(arrivals)%40 == 0 && now.Sub(last) > reset || now.Sub(last) < reset {
			if now.Sub(last) >= reset {
				refusals = append(refusals, now)
				last = now
			}
			w.Header().Set("X-RateLimit-Reset", strconv.FormatInt((reset-now.Sub(last)).Milliseconds()+1, 10))
			say(w, 429, "slow down")
			return
		}
		say(w, 404, "The requested file does not exist.")
	}))
	defer server.Close()
	client, err := imagekit.New(imagekit.Config{BaseURL: server.URL, PrivateKey: "k"})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	v, err := New(Config{Library: client, Fences: newRows(), Parallel: 32, SearchAt: 1 << 30, Budget: BudgetConfig{StartRate: 2000, MaxRate: 2000}})
	if err != nil {
		t.Fatal(err)
	}
	look(t, v, asksFor(names("f", 200))...)

	mu.Lock()
	defer mu.Unlock()
	if len(refusals) < 3 {
		t.Fatalf("only %d refusals fired in %d calls", len(refusals), len(arrivals))
	}
	// What was under way when the 429 was written may still arrive, late on a loaded
	// machine. A build that does not block has arrivals all the time.
	const underWay = 250 * time.Millisecond
	for _, refused := range refusals {
		for _, arrived := range arrivals {
			if after := arrived.Sub(refused); after > underWay && after < reset {
				t.Errorf("a request arrived %v after a 429 with a reset of %v", after, reset)
			}
		}
	}
}

// TestTheGateStopsACallThatHadItsToken: the 429 becomes known while another call is
// still connecting.
func TestTheGateStopsACallThatHadItsToken(t *testing.T) {
	l := newLibrary(t, "a")
	v := verifier(t, l, newRows())
	first := true
	blockedAt := time.Now()
	answer, err := v.Do(t.Context(), Live, "details", func(ctx context.Context) (file.Answer, error) {
		if first { // granted, and now somebody else meets a 429
			first = false
			blockedAt = time.Now()
			v.budget.heard("list", file.Rate{}, &file.Fault{Kind: file.Limited, Status: 429, Wait: 200 * time.Millisecond}, blockedAt)
		}
		return v.Library.Details(ctx, "a")
	})
	if err != nil || len(answer.Snapshots) != 1 {
		t.Fatalf("answer %+v, error %v", answer, err)
	}
	calls := l.calls("details")
	if len(calls) != 1 {
		t.Fatalf("%d calls arrived, want only the one after the reset", len(calls))
	}
	if after := calls[0].at.Sub(blockedAt); after < 200*time.Millisecond {
		t.Errorf("it arrived %v after the 429", after)
	}
}

// TestLimitedForGood: a 429 that never ends is an outage when all calls meet it,
// and the file's own trouble when only one does.
func TestLimitedForGood(t *testing.T) {
	t.Run("OneFile", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			v := fakeVerifier(t, func(id string) *file.Fault {
				if id == "bad" {
					return &file.Fault{Kind: file.Limited, Status: 429, Wait: time.Second}
				}
				return nil
			})
			got := look(t, v, Ask{FileID: "bad"})[0]
			if got.Fault == nil || got.Fault.Kind != file.Limited {
				t.Errorf("answer %+v", got)
			}
		})
	})
	t.Run("All", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			v := fakeVerifier(t, func(string) *file.Fault {
				return &file.Fault{Kind: file.Limited, Status: 429}
			})
			if _, err := v.Look(t.Context(), []Ask{{FileID: "a"}}); err == nil {
				t.Error("no outage")
			}
		})
	})
}

// TestPatience: all tries together end within the patience, budget waits apart.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		v := fakeVerifier(t, func(id string) *file.Fault {
			if id != "slow" {
				return nil
			}
			tries++
			time.Sleep(900 * time.Millisecond) //nolint:forbidigo // the call takes time; the clock is synctest's
			return &file.Fault{Kind: file.Unavailable, Status: 503}
		})
		begin := time.Now()
		got := look(t, v, Ask{FileID: "slow"})[0]
		if got.Fault == nil || tries != 3 || time.Since(begin) > 3500*time.Millisecond {
			t.Errorf("answer %+v after %d tries and %v", got, tries, time.Since(begin))
		}
	})
}

// fakeLibrary answers without a network, for synctest's clock.
type fakeLibrary func(id string) *file.Fault

func (f fakeLibrary) Details(_ context.Context, id string) (file.Answer, error) {
	if fault := f(id); fault != nil {
		return file.Answer{Status: fault.Status}, fault
	}
	return file.Answer{Status: 200, Snapshots: []file.Snapshot{{ID: id, CreatedAt: epoch, UpdatedAt: epoch}}}, nil
}

func (f fakeLibrary) Search(_ context.Context, ids []string) (file.Answer, error) {
	return file.Answer{}, &file.Fault{Kind: file.BadRequest, Status: 400}
}

func (f fakeLibrary) ListOne(context.Context) (file.Answer, error) {
	if fault := f(""); fault != nil {
		return file.Answer{}, fault
	}
	return file.Answer{Status: 200}, nil
}

func fakeVerifier(t testing.TB, f fakeLibrary) *Verifier {
	t.Helper()
	r := newRows().live(epoch, "good")
	v, err := New(Config{Library: f, Fences: r, LiveFiles: r.liveFiles})
	if err != nil {
		t.Fatal(err)
	}
	return v
}
