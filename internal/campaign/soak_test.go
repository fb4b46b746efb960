package campaign

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/trueup/trueup/internal/check"
)

var rateFlag = flag.Float64("rate", 0, "events a second, for campaigns that are measured in time")

// TestSoak sends -rate events a second for -duration, come what may, breaks something
// every half minute, and counts once a minute: every event that was acknowledged is in
// exactly one place, as integers, while all of it runs. A process that was never killed
// holds no more in the end than in the beginning: memory, descriptors, goroutines.
//
//	go test ./internal/campaign -run 'TestSoak$' -timeout 0 -v -args -duration 30m -rate 500
func TestSoak(t *testing.T) {
	t.Parallel() // with CI's rate it mostly waits
	s := &soak{t: t, lasts: lasting(20 * time.Second), rate: *rateFlag, every: 30 * time.Second, looks: time.Minute, begun: time.Now(),
		counts: map[string]int64{}, held: map[string][]vitals{}}
	if *durationFlag == 0 { // what CI runs
		s.every, s.looks = 6*time.Second, 5*time.Second
	}
	if s.rate == 0 {
		s.rate = 100
	}
	defer s.record()
	for _, do := range []func(context.Context) error{s.start, s.run, s.settle, s.judge} {
		if err := do(t.Context()); err != nil {
			s.wrong = append(s.wrong, err.Error())
			return
		}
	}
}

// soak is one run.
type soak struct {
	t            *testing.T
	lasts        time.Duration
	rate         float64
	every, looks time.Duration // between faults, between audits
	begun, loud  time.Time     // the load began at loud

	rig     *rig
	shelf   *shelf
	load    *load
	actor   *actor
	account *accountant
	idle    map[string]vitals // before the load, by process

	mu     sync.Mutex          // guards the rest while the load runs
	held   map[string][]vitals // during it
	counts map[string]int64
	told   []sums
	wrong  []string
}

func (s *soak) count(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[name]++
}

// spared are never killed, so that what they hold can be followed from beginning to end;
// everything else befalls them, too.
var spared = []string{"ingest1", "worker1"}

func (s *soak) start(ctx context.Context) error {
	s.rig = start(s.t, Options{Links: true, PgBouncer: true, Env: map[string]string{
		"TRUEUP_RECONCILE_EVERY": "2m", "TRUEUP_POLL_EVERY": "10s", "TRUEUP_CLAIM_WINDOW": "24h", "TRUEUP_API_RATE_MAX": "100000", "TRUEUP_LOG_LEVEL": "warn",
	}, Settings: map[string]any{"seed": *seedFlag, "rateLimit": map[string]any{"perSecond": 1_000_000, "burst": 1_000_000}}})
	s.shelf = newShelf(s.rig.direct, s.rig.keys.private)
	s.t.Cleanup(s.shelf.close)
	p := newPlan(*seedFlag, 100_000)
	if *durationFlag == 0 {
		p = newPlan(*seedFlag, 2_000)
	}
	files, err := p.makeLibrary(ctx, s.shelf)
	if err != nil {
		return err
	}
	s.account = &accountant{r: s.rig}
	s.load = &load{plan: p, files: files, keys: s.rig.keys, doors: doorsOf(s.rig), rate: s.rate, acked: s.account.note, answers: map[int]int64{},
		client: &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 128, IdleConnTimeout: 10 * time.Second}}}
	for user := range p.users {
		token, err := s.rig.keys.token(userName(user), s.lasts+time.Hour)
		if err != nil {
			return err
		}
		s.load.tokens = append(s.load.tokens, token)
	}
	s.actor = &actor{plan: p, files: files, shelf: s.shelf, rng: rand.New(rand.NewPCG(*seedFlag, 4)), every: 200 * time.Millisecond,
		mature: func() bool { return time.Since(s.loud) > s.lasts/5 }, moved: map[int]history{}, cells: map[string]int64{}}
	if err := s.worker1(ctx); err != nil {
		return err
	}
	s.idle, err = s.look(ctx)
	return err
}

// worker1 gets the turn to begin with: it is the one that is followed.
func (s *soak) worker1(ctx context.Context) error {
	js, end, err := s.rig.jetStream()
	if err != nil {
		return err
	}
	defer end()
	turns, err := js.KeyValue(ctx, streamPrefix+"_turn")
	if err != nil {
		return err
	}
	return until(ctx, func() error {
		switch active, err := s.rig.active(ctx, turns); {
		case err != nil:
			return err
		case active != "worker1":
			return errors.Join(s.rig.Kill9(active), s.rig.Restart(active), errors.New("worker1 stands by"))
		}
		return nil
	})
}

// run lets everybody do his part for as long as the soak lasts.
func (s *soak) run(ctx context.Context) error {
	s.loud = time.Now()
	ctx, stop := context.WithTimeout(ctx, s.lasts)
	defer stop()
	var all errgroup.Group
	all.Go(func() error { return s.load.run(ctx) })
	all.Go(func() error { return s.actor.run(ctx) })
	all.Go(func() error { return s.strikes(ctx) })
	all.Go(func() error { return s.audits(ctx) })
	all.Go(func() error { return s.samples(ctx) })
	return all.Wait()
}

// strikes breaks something now and then: what the campaign of processes breaks, drawn by
// the same dice.
func (s *soak) strikes(ctx context.Context) error {
	d := &dice{rand.New(rand.NewPCG(*seedFlag, 0x736f616b))}
	cells := slices.DeleteFunc(faultCells(1), func(c string) bool { return strings.HasSuffix(c, "/404-flicker") })
	tick := time.NewTicker(s.every)
	defer tick.Stop()
	for comes(ctx, tick.C) {
		group := pick(d, []string{"process/", "process/", "link/", "link/", "imagekit/"})
		some := slices.DeleteFunc(slices.Clone(cells), func(c string) bool { return !strings.HasPrefix(c, group) })
		f := d.fault(pick(d, some), &schedule{Nodes: 1, Lasts: time.Second})
		if strings.HasSuffix(f.Cell, "/kill9") && slices.Contains(spared, f.Part) {
			f.Part = strings.TrimSuffix(f.Part, "1") + "2"
		}
		if err := s.strike(ctx, f); err != nil {
			return fmt.Errorf("%s: %w", f, err)
		}
	}
	return nil
}

func (s *soak) strike(ctx context.Context, f drawnFault) error {
	parts := strings.Split(f.Cell, "/")
	var undo func() error
	var err error
	switch parts[0] {
	case "process":
		undo, err = s.rig.breakPart(f.Part, parts[2])
	case "link":
		undo, err = s.rig.Toxic(f.Part, f.toxicOf())
	case "imagekit":
		fault := f.imagekitFault("")
		fault["times"] = 100 // under this load a few answers are nothing
		var id int
		id, err = s.rig.Fault(fault)
		undo = func() error {
			fired, err := s.rig.Fired()
			if fired[id] > 0 {
				s.rig.hit(f.Cell)
			}
			return errors.Join(err, s.rig.Unplant(id))
		}
	}
	if parts[0] != "imagekit" {
		s.rig.hit(f.Cell)
	}
	s.count("faults")
	if err != nil {
		return err
	}
	hold := time.NewTimer(f.Hold)
	comes(ctx, hold.C)
	hold.Stop()
	return undo()
}

// audits holds the account once a minute; one that cannot be held, because the stream or
// the database is being broken, is held a moment later.
func (s *soak) audits(ctx context.Context) error {
	tick := time.NewTicker(s.looks)
	defer tick.Stop()
	for comes(ctx, tick.C) {
		err := until(ctx, func() error { return s.audit(ctx) })
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

func (s *soak) audit(ctx context.Context) error {
	asking, cancel := context.WithTimeout(ctx, time.Minute) // a long backlog is read message by message
	defer cancel()
	a, err := s.account.audit(asking)
	if err != nil {
		return err
	}
	a.At = time.Since(s.loud).Round(time.Second)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = append(s.told, a)
	s.wrong = append(s.wrong, a.Violations...)
	s.t.Logf("%6s acknowledged %d of stored %d = done %d + superseded %d + rejected %d + dead %d + pending %d (%d retries, %d messages); lost %d; %s", a.At,
		a.Acknowledged, a.Stored, a.Done, a.Superseded, a.Rejected, a.Dead, a.Pending, a.Retries, a.Messages, a.Lost, s.holding())
	return nil
}

// holding is what the spared processes held last.
func (s *soak) holding() string {
	var b strings.Builder
	for _, name := range spared {
		if all := s.held[name]; len(all) > 0 {
			v := all[len(all)-1]
			fmt.Fprintf(&b, "%s: %.1f MB, live %.1f MB, %.0f descriptors, %.0f goroutines; ", name, v.RSS/1e6, v.Live/1e6, v.Descriptors, v.Goroutines)
		}
	}
	return b.String()
}

// samples looks at the spared processes every few seconds. One that is frozen does not
// answer, and is left out.
func (s *soak) samples(ctx context.Context) error {
	tick := time.NewTicker(min(5*time.Second, s.looks))
	defer tick.Stop()
	for comes(ctx, tick.C) {
		now, err := s.look(ctx)
		if err != nil {
			s.count("looks_in_vain")
		}
		s.mu.Lock()
		for name, v := range now {
			s.held[name] = append(s.held[name], v)
		}
		s.mu.Unlock()
	}
	return nil
}

func (s *soak) look(ctx context.Context) (map[string]vitals, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	var errs []error
	all := map[string]vitals{}
	for _, name := range spared {
		v, err := vitalsOf(ctx, s.rig.units[name].pid(), s.rig.opsOf(name))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all[name] = v
	}
	return all, errors.Join(errs...)
}

// settle heals everything and waits until nothing is under way.
func (s *soak) settle(ctx context.Context) error {
	if err := s.rig.Heal(2 * time.Minute); err != nil {
		return err
	}
	begun := time.Now()
	err := s.rig.Settle(5 * time.Minute)
	s.counts["ms_to_settle"] = time.Since(begun).Milliseconds()
	return errors.Join(err, s.rig.Fell())
}

func (s *soak) judge(ctx context.Context) error {
	if err := s.audit(ctx); err != nil {
		return err
	}
	if n := s.account.left(); n > 0 {
		s.wrong = append(s.wrong, fmt.Sprintf("I1: %d acknowledged events are not over although all is quiet", n))
	}
	e, err := s.rig.quietEvidence(ctx, s.shelf)
	if err != nil {
		return err
	}
	// What senders were told was held against the books while it ran; here it is the rest.
	e.Without, e.Acks = append(e.Without, check.I9), []check.Ack{}
	j := &judge{counts: map[string]int64{}}
	j.check(e)
	maps.Copy(s.counts, j.counts)
	s.wrong = append(s.wrong, j.wrong...)
	s.wrong = append(s.wrong, s.load.wrong...)
	if *durationFlag == 0 { // too short for anything to grow
		return nil
	}
	grown := s.growth()
	if s.lasts >= steady {
		s.wrong = append(s.wrong, grown...)
	} else {
		s.t.Logf("not judged, because a soak below %s is mostly warming up: %q", steady, grown)
	}
	return s.calm(ctx)
}

// Bounds of what a process may grow by, beyond what noise explains.
const (
	liveBound = 1e6 // bytes of live heap an hour
	rssShare  = 1.15
	rssRoom   = 12e6
	restRoom  = 25 // descriptors, goroutines
	idleRoom  = 6e6
	// steady is how long a soak must last for a line through it to mean something: the
	// table, the pools and the backlog of a few minutes all grow.
	steady = 10 * time.Minute
)

// growth compares the beginning with the end, the first fifth left out as warming up.
//
//   - Live heap: the line by least squares through each minute's least; growing when it
//     rises by more than 1 MB an hour and more than three of its own standard errors. A
//     soak of 30 minutes cannot tell smaller slopes from noise; the record says how small.
//   - RSS, descriptors, goroutines: the median of the last third against that of the first.
func (s *soak) growth() (wrong []string) {
	for _, name := range spared {
		all := slices.DeleteFunc(atWork(s.held[name]), func(v vitals) bool { return v.At.Sub(s.loud) < s.lasts/5 })
		if len(all) < 9 {
			wrong = append(wrong, fmt.Sprintf("%s was seen %d times only", name, len(all)))
			continue
		}
		if all[0].PID != all[len(all)-1].PID {
			wrong = append(wrong, name+" is another process than in the beginning")
		}
		first, last := all[:len(all)/3], all[len(all)*2/3:]
		least := leastPerMinute(all)
		at, live := make([]time.Time, len(least)), make([]float64, len(least))
		for i, v := range least {
			at[i], live[i] = v.At, v.Live
		}
		line := trendOf(at, live)
		s.counts[name+"_live_bytes_per_hour"], s.counts[name+"_live_noise_bytes_per_hour"] = int64(line.perHour), int64(min(line.sure, 1e15))
		if line.grows(liveBound) {
			wrong = append(wrong, fmt.Sprintf("%s: live heap grows by %.1f MB an hour (± %.1f)", name, line.perHour/1e6, line.sure/1e6))
		}
		for _, m := range []struct {
			what       string
			read       func(vitals) float64
			share, add float64
		}{
			{"rss_bytes", func(v vitals) float64 { return v.RSS }, rssShare, rssRoom},
			{"live_bytes", func(v vitals) float64 { return v.Live }, math.Inf(1), 0}, // judged above; here for the record
			{"descriptors", func(v vitals) float64 { return v.Descriptors }, 1.2, restRoom},
			{"goroutines", func(v vitals) float64 { return v.Goroutines }, 1.2, restRoom},
		} {
			before, after := median(first, m.read), median(last, m.read)
			s.counts[name+"_"+m.what+"_first_third"], s.counts[name+"_"+m.what+"_last_third"] = int64(before), int64(after)
			if after > before*m.share+m.add {
				wrong = append(wrong, fmt.Sprintf("%s: %s went from %.0f to %.0f", name, m.what, before, after))
			}
		}
	}
	return wrong
}

// atWork leaves out what a worker held while another one had the turn: a standby holds
// next to nothing, and one that takes over has not leaked. An ingest has no turns.
func atWork(all []vitals) []vitals {
	var out []vitals
	for i, v := range all {
		if v.Batches == 0 && all[len(all)-1].Batches == 0 || i > 0 && v.Batches > all[i-1].Batches {
			out = append(out, v)
		}
	}
	return out
}

// calm: with the load gone a process holds what it held before it, whatever the load had
// it hold meanwhile. Go collects an idle process every two minutes.
func (s *soak) calm(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 6*time.Minute)
	defer cancel()
	s.load.client.CloseIdleConnections()
	return until(ctx, func() error {
		now, err := s.look(ctx)
		if err != nil {
			return err
		}
		for name, v := range now {
			was := s.idle[name]
			s.counts[name+"_live_bytes_before"], s.counts[name+"_live_bytes_after"] = int64(was.Live), int64(v.Live)
			if v.Live > was.Live+idleRoom {
				return fmt.Errorf("%s: %.1f MB of live heap are left; there were %.1f before the load", name, v.Live/1e6, was.Live/1e6)
			}
			if v.Descriptors > was.Descriptors+restRoom || v.Goroutines > was.Goroutines+restRoom {
				return fmt.Errorf("%s: %.0f descriptors and %.0f goroutines are left; there were %.0f and %.0f before the load", name, v.Descriptors, v.Goroutines, was.Descriptors, was.Goroutines)
			}
		}
		return nil
	})
}

func (s *soak) record() {
	cells := map[string]int64{}
	if s.load != nil {
		for status, n := range s.load.answers {
			s.counts[fmt.Sprintf("answers_%d", status)] = n
			s.counts["events"] += n
		}
		s.counts["given_up"], s.counts["audits"] = s.load.givenUp, int64(len(s.told))
		s.counts["us_ack_p50"], s.counts["us_ack_p99"] = s.load.took.Quantile(0.5).Microseconds(), s.load.took.Quantile(0.99).Microseconds()
		maps.Copy(cells, s.rig.cells)
		maps.Copy(cells, s.actor.cells)
		if n := len(s.told); n > 0 {
			last := s.told[n-1]
			s.counts["acknowledged"], s.counts["stored"] = last.Acknowledged, last.Stored
			s.counts["done"], s.counts["superseded"], s.counts["rejected"], s.counts["dead"], s.counts["pending"] = last.Done, last.Superseded, last.Rejected, last.Dead, last.Pending
		}
	}
	if want := int(s.lasts/s.looks) / 2; len(s.told) <= want {
		s.wrong = append(s.wrong, fmt.Sprintf("only %d audits were held", len(s.told)))
	}
	if s.counts["faults"] < int64(s.lasts/s.every)/2 {
		s.wrong = append(s.wrong, fmt.Sprintf("only %d faults befell anybody", s.counts["faults"]))
	}
	for i, w := range s.wrong {
		if i < maxWrong {
			s.t.Errorf("%s", w)
		}
	}
	if s.t.Failed() {
		s.t.Logf("repeat: go test ./internal/campaign -run 'TestSoak$' -timeout 0 -v -args -seed %d -duration %s -rate %g", *seedFlag, s.lasts, s.rate)
	}
	record{Campaign: "soak", Seed: *seedFlag, N: int(s.counts["events"]), Counts: s.counts, Violations: s.wrong[:min(len(s.wrong), maxWrong)], Cells: cells, Took: time.Since(s.begun).Round(time.Millisecond).String()}.write(s.t)
}
