package campaign

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/trueup/trueup/internal/check/collect"
)

var (
	replicasFlag = flag.Int("replicas", 1, "power cut: stores of the queue, 1 or 3")
	controlFlag  = flag.String("control", "", "power cut: queue or database: do without its fsync, and have to lose events")
)

// cutPlan is all that a seed decides.
type cutPlan struct {
	Seed    uint64
	Layout  layout
	Senders int
	Files   int
	Think   time.Duration // of a sender between two messages
	Latency time.Duration // of ImageKit
	Moments []moment      // of the cuts
}

// moment is when the power goes.
type moment struct {
	After time.Duration
	// Early counts from power on, while everything is still coming up, rather than from
	// the first acknowledgement.
	Early bool
	// Node is the nats-server that goes alone; 0: everything goes.
	Node int
}

func (m moment) String() string {
	text := m.After.String()
	if m.Early {
		text += " after power on"
	}
	if m.Node > 0 {
		text += fmt.Sprintf(" node %d alone", m.Node)
	}
	return text
}

func (p cutPlan) String() string {
	return fmt.Sprintf("seed %d: %s, %d senders, %d files, think %s, ImageKit takes %s, cuts %v", p.Seed, p.Layout, p.Senders, p.Files, p.Think, p.Latency, p.Moments)
}

// planCut derives a trial from its seed. With one replica most trials are of `trueup
// serve`; the others, with a nats-server apart, are those that a control is compared with.
func planCut(seed uint64, replicas int, control string) cutPlan {
	rng := rand.New(rand.NewPCG(seed, 0x9077e4))
	p := cutPlan{Seed: seed, Layout: layout{database: durable, forgetful: control == "queue"}}
	apart, loose := rng.IntN(3) == 0, rng.IntN(3) == 0
	switch {
	case replicas == 3:
		p.Layout.nodes = 3
	case control == "queue" || apart:
		p.Layout.nodes = 1
	}
	switch {
	case control == "database":
		p.Layout.database = reckless
	case control == "" && loose:
		p.Layout.database = careless
	}
	p.Senders = 4 << rng.IntN(4)
	p.Files = p.Senders * (4 + rng.IntN(12))
	p.Think = time.Duration(rng.IntN(4)) * time.Millisecond
	p.Latency = []time.Duration{0, 20 * time.Millisecond, 150 * time.Millisecond}[rng.IntN(3)]
	p.Moments = []moment{{After: between(rng, 300*time.Millisecond, 2500*time.Millisecond)}}
	if control == "database" {
		// It loses what it has settled, so there has to be some, and no time to flush it.
		p.Latency, p.Moments[0].After = 0, between(rng, 3*time.Second, 5*time.Second)
	}
	for control == "" && len(p.Moments) < 3 && rng.IntN(4) == 0 {
		m := moment{After: between(rng, 100*time.Millisecond, 1500*time.Millisecond), Early: rng.IntN(2) == 0}
		p.Moments = append(p.Moments, m)
	}
	if control == "" && replicas == 3 && rng.IntN(2) == 0 {
		alone := moment{After: between(rng, 300*time.Millisecond, 1500*time.Millisecond), Node: 1 + rng.IntN(3)}
		p.Moments = append([]moment{alone}, p.Moments...)
	}
	return p
}

func between(rng *rand.Rand, from, to time.Duration) time.Duration {
	return from + time.Duration(rng.Int64N(int64(to-from)))
}

// cutResult is what a trial found.
type cutResult struct {
	acked, judged int
	lost, twice   []string
	wrong         []string
	outages       []outage
	down          error            // it did not come up again
	checked       map[string]int64 // how many things the checker looked at
	story         []string         // when what was done
	said          string           // last, by each part
	took          time.Duration
}

func (r *cutResult) tell(begun time.Time, what string) {
	r.story = append(r.story, fmt.Sprintf("%s %.1f s", what, time.Since(begun).Seconds()))
}

// grace is how long after the last process has stopped an answer may still arrive that
// it had sent before.
const grace = 20 * time.Millisecond

// trial runs one plan from the mould to the comparison.
func trial(t testing.TB, p cutPlan, dir string, lib *library, m *mould) (r cutResult) {
	t.Helper()
	begun := time.Now()
	defer func() { r.took = time.Since(begun) }()
	s, err := raise(t, filepath.Join(dir, "trial-"+strconv.FormatUint(p.Seed, 10)), lib, p.Layout, m)
	defer func() {
		if s == nil {
			return
		}
		r.said = s.said()
		if err := errors.Join(s.off(), os.RemoveAll(s.dir)); err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}()
	if err != nil {
		t.Fatalf("%s: %v\n%s", p, err, s.said())
	}
	r.tell(begun, "up")
	ids, err := lib.fill(t.Context(), p.Files, p.Latency)
	if err != nil {
		t.Fatalf("%s: %v", p, err)
	}
	senders, err := makeSenders(p, lib, ids)
	if err != nil {
		t.Fatalf("%s: %v", p, err)
	}
	for _, at := range p.Moments {
		err := r.strike(t.Context(), s, senders, at)
		r.tell(begun, "cut")
		if err != nil {
			if r.down != nil {
				break
			}
			t.Fatalf("%s: %v", p, err)
		}
	}
	if err := r.judge(t.Context(), s, senders, begun); err != nil {
		r.down = err
	}
	return r
}

// strike lets the senders work and cuts the power at the moment.
func (r *cutResult) strike(ctx context.Context, s *site, senders []*sender, at moment) error {
	if !at.Early {
		if err := s.ready(ctx); err != nil {
			r.down = err
			return err
		}
	}
	sending, stop := context.WithCancel(ctx)
	defer stop()
	acknowledged := make(chan struct{})
	first := sync.OnceFunc(func() { close(acknowledged) })
	for _, sender := range senders {
		sender.heard = first
	}
	ended := make(chan error, 1)
	go func() { ended <- sendAll(sending, senders, s.at(portPublic)) }()
	if !at.Early {
		select {
		case <-acknowledged:
		case <-time.After(time.Minute):
		}
	}
	waitFor(ctx, at.After)
	what, stopped := s.all(), func() {
		waitFor(ctx, grace)
		stop()
	}
	if at.Node > 0 {
		what, stopped = s.node(at.Node-1), func() {} // the others go on
	}
	o, err := what.cut(stopped)
	r.outages = append(r.outages, o)
	err = errors.Join(err, s.power())
	if at.Node > 0 {
		waitFor(ctx, at.After)
	}
	stop()
	return errors.Join(err, <-ended)
}

// judge compares what came back, twice: as soon as it is quiet, with what had been
// acknowledged, and after the senders have sent the rest again, with everything.
func (r *cutResult) judge(ctx context.Context, s *site, senders []*sender, begun time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	promised := gather(senders)
	r.acked = promised.len()
	if err := errors.Join(s.library.hurry(ctx), s.ready(ctx)); err != nil {
		return err
	}
	r.tell(begun, "ready")
	if err := s.quiet(ctx); err != nil {
		return err
	}
	r.tell(begun, "quiet")
	dump, err := collect.Database(ctx, s.databaseURL())
	if err != nil {
		return err
	}
	truth, err := s.library.truth(ctx)
	if err != nil {
		return err
	}
	r.lost, r.twice = promised.compare(ends(dump))
	r.wrong, r.judged = staleRows(senders, truth, dump)
	if len(r.lost) > 0 {
		return nil // the checker would only repeat it
	}
	if err := s.finish(ctx, senders); err != nil {
		return err
	}
	v, err := s.verdict(ctx, senders)
	r.checked = v.Counts
	for _, x := range v.Violations {
		r.wrong = append(r.wrong, x.String())
	}
	r.tell(begun, "checked")
	return err
}

// finish has the senders send the rest and waits until all of it is settled.
func (s *site) finish(ctx context.Context, senders []*sender) error {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: len(senders)}}
	defer client.CloseIdleConnections()
	g, sending := errgroup.WithContext(ctx)
	for _, sender := range senders {
		g.Go(func() error { return sender.finish(sending, client, "http://"+s.at(portPublic)) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return s.quiet(ctx)
}

// violations are what must not be, each with the seed.
func (r *cutResult) violations(p cutPlan) (all []string) {
	say := func(what string, list []string) {
		if len(list) > 0 {
			all = append(all, fmt.Sprintf("%s: %d %s: %s", p, len(list), what, strings.Join(list[:min(5, len(list))], ", ")))
		}
	}
	say("of "+strconv.Itoa(r.acked)+" acknowledged events lost", r.lost)
	say("events ended twice", r.twice)
	say("promises broken", r.wrong)
	if r.down != nil {
		all = append(all, fmt.Sprintf("%s: did not come back: %v", p, r.down))
	}
	if r.acked == 0 {
		all = append(all, fmt.Sprintf("%s: nothing was acknowledged: this proves nothing", p))
	}
	return all
}

// TestPowerCut takes the power from all stores at once, at a random moment under load,
// and holds what is on the disks then against what had been acknowledged.
//
//	go test ./internal/campaign -run TestPowerCut -v -args -seed 1 -n 50              # R1
//	go test ./internal/campaign -run TestPowerCut -v -args -seed 1 -n 10 -replicas 3  # all nodes
//	go test ./internal/campaign -run TestPowerCut -v -args -seed 1 -n 20 -control queue
//
// Each campaign ends with a few trials of its control, which does without the queue's
// fsync and has to lose events: a rig that does not see that would see nothing.
// -control runs a control alone.
func TestPowerCut(t *testing.T) {
	r := openCutRig(t)
	n := rounds(1)
	if *controlFlag != "" {
		r.control(n, *replicasFlag, *controlFlag)
		return
	}
	r.campaign(n, *replicasFlag)
	r.control(1+n/10, *replicasFlag, "queue")
}

// cutRig is what all trials of a test share.
type cutRig struct {
	t      testing.TB
	dir    string
	lib    *library
	moulds map[int]*mould // by nodes
}

// cutDir is a folder for disks. Where loop devices are not allowed the test is not run,
// and says so; everything else that goes wrong is a failure.
func cutDir(t *testing.T) string {
	t.Helper()
	sweepCuts()
	dir, err := os.MkdirTemp("", cutPrefix+strconv.Itoa(os.Getpid())+"-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(clearOnInterrupt(dir))
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	err = errors.Join(os.Chmod(dir, 0o755), probeDisks(t.Context(), dir))
	if errors.Is(err, errNotAllowed) {
		fmt.Printf("POWER CUT: not run (%v)\n", err)
		t.Skipf("power cut: not run (%v)", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func openCutRig(t *testing.T) *cutRig {
	t.Helper()
	dir := cutDir(t)
	lib, err := openLibrary(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(lib.close)
	return &cutRig{t: t, dir: dir, lib: lib, moulds: map[int]*mould{}}
}

func (r *cutRig) trial(p cutPlan) cutResult {
	r.t.Helper()
	m, ok := r.moulds[p.Layout.nodes]
	if !ok {
		var err error
		if m, err = cast(r.t, r.dir, r.lib, p.Layout.nodes); err != nil {
			r.t.Fatalf("make the disks of %s: %v", p.Layout, err)
		}
		r.moulds[p.Layout.nodes] = m
	}
	result := trial(r.t, p, r.dir, r.lib, m)
	r.t.Logf("%s: acknowledged %d, lost %d, files judged %d; outages %v; %s", p, result.acked, len(result.lost), result.judged, result.outages, strings.Join(result.story, ", "))
	return result
}

// campaign runs n trials; every violation is a failure.
func (r *cutRig) campaign(n, replicas int) {
	r.t.Helper()
	begun := time.Now()
	name := "powercut-r" + strconv.Itoa(replicas)
	seeds := roundSeeds(r.t, name, n)
	tally := newTally(r.t, name, len(seeds))
	for _, seed := range seeds {
		p := planCut(seed, replicas, "")
		result := r.trial(p)
		tally.add(p, result)
		broken := result.violations(p)
		if len(broken) > 0 {
			r.t.Logf("%s", result.said)
		}
		for _, v := range broken {
			tally.Violations = append(tally.Violations, v)
			r.t.Errorf("%s\nagain: go test ./internal/campaign -run TestPowerCut -v -args -seed %d -n 1 -replicas %d", v, p.Seed, replicas)
		}
	}
	if n >= 40 {
		for _, cell := range cutCells(replicas) {
			if tally.Cells[cell] == 0 {
				tally.Violations = append(tally.Violations, "cell "+cell+" is empty")
				r.t.Errorf("cell %s is empty after %d trials", cell, len(seeds))
			}
		}
	}
	tally.close(r.t, begun)
}

// cutCells are what a long campaign has to reach.
func cutCells(replicas int) []string {
	cells := []string{"power/under-load", "power/while-coming-up", "power/while-recovering"}
	layouts := []int{0, 1}
	if replicas == 3 {
		cells, layouts = append(cells, "power/one-of-three"), []int{3}
	}
	for _, nodes := range layouts {
		for _, c := range []care{durable, careless} {
			cells = append(cells, "power/"+layout{nodes: nodes, database: c}.String())
		}
	}
	return cells
}

// control runs n trials without one fsync; one that loses nothing counts against it.
func (r *cutRig) control(n, replicas int, what string) {
	r.t.Helper()
	begun := time.Now()
	tally := newTally(r.t, fmt.Sprintf("powercut-r%d-control-%s", replicas, what), n)
	bitten := 0
	for i := range n {
		p := planCut(*seedFlag+uint64(i), replicas, what)
		result := r.trial(p)
		tally.add(p, result)
		if len(result.lost) > 0 || result.down != nil {
			bitten++
		}
	}
	tally.Counts["bitten"] = int64(bitten)
	if 100*bitten < 95*n {
		v := fmt.Sprintf("without the %s's fsync only %d of %d trials lost anything: this rig would not see a loss", what, bitten, n)
		tally.Violations = append(tally.Violations, v)
		r.t.Error(v)
	}
	tally.close(r.t, begun)
}

// tally is the record of a campaign with what its counts are made of.
type tally struct {
	record
	acked, lost []int
}

func newTally(t testing.TB, name string, n int) *tally {
	t.Helper()
	return &tally{record: record{Campaign: name, Seed: *seedFlag, N: n, Counts: map[string]int64{}, Cells: map[string]int64{}}}
}

func (y *tally) add(p cutPlan, r cutResult) {
	y.acked, y.lost = append(y.acked, r.acked), append(y.lost, len(r.lost))
	y.Counts["acknowledged"] += int64(r.acked)
	y.Counts["lost"] += int64(len(r.lost))
	y.Counts["twice"] += int64(len(r.twice))
	y.Counts["broken"] += int64(len(r.wrong))
	for what, n := range r.checked {
		y.Counts["checked "+what] += n
	}
	y.Counts["filesJudged"] += int64(r.judged)
	y.Counts["cuts"] += int64(len(r.outages))
	if r.down != nil {
		y.Counts["down"]++
	}
	y.Cells["power/"+p.Layout.String()]++
	for i, m := range p.Moments {
		switch {
		case m.Node > 0:
			y.Cells["power/one-of-three"]++
		case m.Early:
			y.Cells["power/while-coming-up"]++
		case i > 0:
			y.Cells["power/while-recovering"]++
		default:
			y.Cells["power/under-load"]++
		}
	}
}

func (y *tally) close(t testing.TB, begun time.Time) {
	t.Helper()
	y.spread("acknowledged", y.acked)
	y.spread("lost", y.lost)
	y.Took = time.Since(begun).Round(time.Millisecond).String()
	y.write(t)
}

func (y *tally) spread(name string, of []int) {
	if len(of) == 0 {
		return
	}
	slices.Sort(of)
	y.Counts[name+"Min"], y.Counts[name+"Median"], y.Counts[name+"Max"] = int64(of[0]), int64(of[len(of)/2]), int64(of[len(of)-1])
}
