package bench

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/trueup/trueup/internal/bench/load"
)

// What overload offers, and what it may cost.
const (
	overloadTimes       = 5
	overloadConnections = 1000
	overloadPatience    = time.Second
	healthyWithin       = 10 * time.Second
	acceptedWithin      = 250.0 // ms, p99
)

// overload offers a serve five times what it can take, by a schedule, and looks whether
// it answers only 2xx and 503, keeps its memory, answers what it accepts in time, and
// is well soon after.
func (s *stage) overload(ctx context.Context) error {
	during := time.Minute
	if s.Slice < 2*time.Second {
		during = 10 * s.Slice
	}
	library, err := s.account(ctx)
	if err != nil {
		return err
	}
	defer func() { s.check(library.close()) }()
	database, err := s.database(ctx)
	if err != nil {
		return err
	}
	dir, err := s.folder("serve")
	if err != nil {
		return err
	}
	p, _, err := s.serve(ctx, database, library, dir)
	if err != nil {
		return err
	}
	defer func() { s.check(p.stop()) }()
	calm, err := s.closedLoop(ctx, load.Job{Kind: load.Webhook, Address: p.public, Secret: benchSecret, Seed: s.Seed})
	if err != nil {
		return err
	}
	s.say("  capacity: %s requests/s", number(calm.value))
	before, err := residentMB(p.cmd.Process.Pid)
	if err != nil {
		return absentf("what a process uses cannot be read here: %v", err)
	}
	watch := watchMemory(ctx, p.cmd.Process.Pid)
	r, err := s.load(ctx, load.Job{
		Kind: load.Webhook, Address: p.public, Secret: benchSecret, Seed: s.Seed + 1, Connections: overloadConnections,
		Rate: overloadTimes * calm.value, For: during, Patience: overloadPatience,
	})
	most := watch()
	if err != nil {
		return err
	}
	well, err := s.wellAgain(ctx, p.public)
	if err != nil {
		return err
	}
	s.overloadFigures(r, calm, before, most, well)
	return nil
}

func (s *stage) overloadFigures(r *load.Result, calm sample, before, most float64, well time.Duration) {
	var answers, odd int64
	for status, n := range r.Status {
		answers += n
		if status/100 != 2 && status != http.StatusServiceUnavailable {
			odd += n
		}
	}
	seconds := r.Seconds
	s.add(alone("overload, answers other than 2xx and 503", "answers", []float64{float64(odd)}, valueAtMost(0)))
	s.add(compared("overload, accepted, against the same unhurried", "requests/s", []float64{r.PerSecond()}, []float64{calm.value}, target{}))
	s.add(compared("overload, accepted, p99 since due, against the same unhurried", "ms", []float64{milliseconds(r.Took.Quantile(0.99))}, []float64{milliseconds(calm.latency.Quantile(0.99))}, valueAtMost(acceptedWithin)))
	s.add(compared("overload, accepted, p99 since sent, against the same unhurried", "ms", []float64{milliseconds(r.Sent.Quantile(0.99))}, []float64{milliseconds(calm.latency.Quantile(0.99))}, target{}))
	s.add(compared("overload, most resident memory, against before", "MB", []float64{most}, []float64{before}, target{}))
	s.add(alone("overload, healthy again after", "s", []float64{well.Seconds()}, valueAtMost(healthyWithin.Seconds())))
	s.note("overload: offered %s requests/s for %.0f s over %d connections; answered %s/s (%s), %s/s found no free connection within %s and were not sent; the bound of memory is the waiting room's 64 MiB, JetStream's caches and %d connections' buffers",
		number(overloadTimes*calm.value), seconds, overloadConnections, number(float64(answers)/seconds), statuses(r), number(float64(r.GivenUp)/seconds), overloadPatience, overloadConnections)
}

func statuses(r *load.Result) string {
	text := ""
	for _, status := range []int{200, 202, 503, 429, 0} {
		if n := r.Status[status]; n > 0 {
			text += strconv.Itoa(status) + ": " + thousands(n) + " "
		}
	}
	if text == "" {
		return "none"
	}
	return text[:len(text)-1]
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1000 }

// watchMemory looks at a process's memory ten times a second; the function it returns
// ends that and says what was most.
func watchMemory(ctx context.Context, pid int) func() float64 {
	ctx, cancel := context.WithCancel(ctx)
	most := make(chan float64)
	go func() {
		top := 0.0
		for pause(ctx, 100*time.Millisecond) == nil {
			if mb, err := residentMB(pid); err == nil {
				top = max(top, mb)
			}
		}
		most <- top
	}()
	return func() float64 { cancel(); return <-most }
}

// wellAgain waits until twenty requests in a row were accepted within a tenth of a
// second each, and returns how long that took from now.
func (s *stage) wellAgain(ctx context.Context, address string) (time.Duration, error) {
	began := time.Now()
	for time.Since(began) < 6*healthyWithin {
		r, err := s.load(ctx, load.Job{Kind: load.Webhook, Address: address, Secret: benchSecret, Seed: s.Seed + 2, Connections: 4, Rate: 50, For: 400 * time.Millisecond})
		if err != nil {
			return 0, err
		}
		if r.Only(http.StatusOK) == nil && r.Took.Count() > 0 && r.Took.Max() < 100*time.Millisecond {
			return time.Since(began), nil
		}
	}
	return 0, fmt.Errorf("not healthy %s after the overload", 6*healthyWithin)
}
