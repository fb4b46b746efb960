package campaign

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// vitals is what a trueup process holds at a moment, by the kernel and by its own
// runtime.
type vitals struct {
	At          time.Time
	PID         int
	RSS         float64 // bytes
	Live        float64 // bytes of heap that the last collection found in use
	Descriptors float64
	Goroutines  float64
	Batches     float64 // that it has settled so far; an ingest settles none
}

// vitalsOf looks at a process, which answers /metrics at ops.
func vitalsOf(ctx context.Context, pid int, ops string) (vitals, error) {
	v := vitals{At: time.Now(), PID: pid}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return v, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			v.RSS = kb * 1024
		}
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return v, err
	}
	v.Descriptors = float64(len(fds))
	metrics, err := metricsOf(ctx, ops)
	if err != nil {
		return v, err
	}
	v.Goroutines, v.Batches = metrics["go_goroutines"], metrics["trueup_batch_events_count"]
	// The next collection begins when the heap has grown by GOGC percent over what the
	// last one left. That is a calmer measure than the heap at a moment, which is mostly
	// what has not been collected yet.
	v.Live = metrics["go_memstats_next_gc_bytes"] / (1 + metrics["go_gc_gogc_percent"]/100)
	if v.RSS == 0 || v.Goroutines == 0 || v.Live == 0 {
		return v, fmt.Errorf("process %d does not tell what it holds: %+v", pid, v)
	}
	return v, nil
}

// metricsOf reads the gauges and counters that have no labels.
func metricsOf(ctx context.Context, ops string) (map[string]float64, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, ops+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := probes.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s: %s", r.URL, resp.Status)
	}
	all := map[string]float64{}
	lines := bufio.NewScanner(io.LimitReader(resp.Body, 8<<20))
	for lines.Scan() {
		name, text, ok := strings.Cut(lines.Text(), " ")
		if n, err := strconv.ParseFloat(text, 64); ok && err == nil && !strings.ContainsRune(name, '{') {
			all[name] = n
		}
	}
	return all, lines.Err()
}

// trend is the straight line through some points by least squares.
type trend struct {
	perHour float64
	// sure is the standard error of perHour: what noise alone makes of it.
	sure float64
}

func trendOf(at []time.Time, value []float64) trend {
	n := float64(len(at))
	if n < 3 {
		return trend{sure: math.Inf(1)}
	}
	x := make([]float64, len(at))
	var meanX, meanY float64
	for i := range at {
		x[i] = at[i].Sub(at[0]).Hours()
		meanX += x[i] / n
		meanY += value[i] / n
	}
	var xx, xy float64
	for i := range x {
		xx += (x[i] - meanX) * (x[i] - meanX)
		xy += (x[i] - meanX) * (value[i] - meanY)
	}
	t := trend{perHour: xy / xx}
	var rest float64
	for i := range x {
		off := value[i] - meanY - t.perHour*(x[i]-meanX)
		rest += off * off
	}
	t.sure = math.Sqrt(rest / (n - 2) / xx)
	return t
}

// grows says whether the slope is above bound beyond doubt: by more than three of its
// standard errors.
func (t trend) grows(bound float64) bool { return t.perHour-3*t.sure > bound }

// median of what f reads in all of them.
func median(all []vitals, f func(vitals) float64) float64 {
	values := make([]float64, len(all))
	for i, v := range all {
		values[i] = f(v)
	}
	slices.Sort(values)
	if len(values) == 0 {
		return 0
	}
	return values[len(values)/2]
}

// leastPerMinute keeps of each minute the sample with the least live heap: what a minute
// never falls below is held, the rest is work under way.
func leastPerMinute(all []vitals) (least []vitals) {
	for _, v := range all {
		if n := len(least); n > 0 && v.At.Sub(all[0].At)/time.Minute == least[n-1].At.Sub(all[0].At)/time.Minute {
			if v.Live < least[n-1].Live {
				least[n-1] = v
			}
			continue
		}
		least = append(least, v)
	}
	return least
}

// opsOf is the operator listener of a trueup process of the rig.
func (r *rig) opsOf(name string) string {
	if p, ok := r.units[name].(*program); ok {
		for _, kv := range p.env {
			if addr, ok := strings.CutPrefix(kv, "TRUEUP_OPS_ADDR="); ok {
				return "http://" + addr
			}
		}
	}
	return ""
}

// TestVitals: the looks at a process agree with what is known of this one, and the line
// through noise tells a leak from none.
func TestVitals(t *testing.T) {
	t.Parallel()
	begun := time.Unix(1_800_000_000, 0)
	var at []time.Time
	var flat, leaking []float64
	for i := range 30 {
		at = append(at, begun.Add(time.Duration(i)*time.Minute))
		noise := float64(mix(uint64(i))%1000)/1000 - 0.5 // MB
		flat = append(flat, 40+noise)
		leaking = append(leaking, 40+noise+float64(i)/60*5) // 5 MB an hour
	}
	if f := trendOf(at, flat); f.grows(1) || math.Abs(f.perHour) > 3*f.sure+0.5 {
		t.Errorf("noise has the trend %+v", f)
	}
	if l := trendOf(at, leaking); !l.grows(1) || math.Abs(l.perHour-5) > 3*l.sure {
		t.Errorf("a leak of 5 MB an hour has the trend %+v", l)
	}
	if fds, err := filepath.Glob("/proc/self/fd/*"); err != nil || len(fds) == 0 {
		t.Errorf("this system does not show what a process holds: %v", err)
	}
}

// TestGrowthIsOfTheSameWork: a worker that was the standby first holds more when it has
// the turn, and nothing of it is a leak.
func TestGrowthIsOfTheSameWork(t *testing.T) {
	t.Parallel()
	s := &soak{t: t, lasts: 30 * time.Minute, loud: time.Unix(1_800_000_000, 0), counts: map[string]int64{}, held: map[string][]vitals{}}
	for i := range 360 {
		v := vitals{At: s.loud.Add(time.Duration(i) * 5 * time.Second), PID: 7, RSS: 50e6, Live: 6e6, Descriptors: 90, Goroutines: 120}
		s.held["ingest1"] = append(s.held["ingest1"], v)
		if v.Batches = max(0, float64(i-200)); i <= 200 {
			v.RSS, v.Live, v.Descriptors, v.Goroutines = 25e6, 2e6, 11, 21
		}
		s.held["worker1"] = append(s.held["worker1"], v)
	}
	if found := s.growth(); len(found) > 0 {
		t.Errorf("nothing leaks, and it says: %q", found)
	}
}

// TestGrowth: of two processes that worked alike for half an hour, the one that kept a
// little of everything is found, and the other is not.
func TestGrowth(t *testing.T) {
	t.Parallel()
	for leak, want := range map[float64][]string{
		0:   nil,
		100: {"live heap grows", "descriptors went", "goroutines went"}, // bytes of each of 500 events a second; a descriptor and a goroutine every 15 s
	} {
		s := &soak{t: t, lasts: 30 * time.Minute, loud: time.Unix(1_800_000_000, 0), counts: map[string]int64{}, held: map[string][]vitals{}}
		for i := range 360 {
			after := time.Duration(i) * 5 * time.Second
			noise := float64(mix(uint64(i))%1000)/1000 - 0.5
			v := vitals{At: s.loud.Add(after), PID: 7, RSS: 50e6 + 4e6*noise, Live: 6e6 + 1.5e6*noise, Descriptors: 90 + 10*noise, Goroutines: 120 + 30*noise, Batches: float64(i)}
			v.Live += leak * 500 * after.Seconds() / 2 // two ingests share it
			v.Descriptors += leak / 1500 * after.Seconds()
			v.Goroutines += leak / 1500 * after.Seconds()
			s.held["ingest1"], s.held["worker1"] = append(s.held["ingest1"], v), append(s.held["worker1"], v)
		}
		found := strings.Join(s.growth(), "; ")
		if len(want) == 0 && found != "" {
			t.Errorf("nothing leaks, and it says: %s", found)
		}
		for _, w := range want {
			if strings.Count(found, w) != len(spared) {
				t.Errorf("a leak of %g bytes an event: %q is not among %s", leak, w, found)
			}
		}
	}
}
