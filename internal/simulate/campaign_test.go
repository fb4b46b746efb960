package simulate_test

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/trueup/trueup/internal/simulate"
)

// The flags of a campaign. A test binary is one lane: it runs one schedule after the
// other; several lanes are several processes with seeds of their own.
var (
	first    = flag.Uint64("seed", 1_000_000, "the first seed; those below a million are longer plans, kept as they were drawn")
	count    = flag.Int("n", 25, "how many schedules")
	duration = flag.Duration("duration", 0, "stop after so long, though not all schedules have run; 0: no bound")
	recordTo = flag.String("record", "", "append one JSON line on the campaign to this file")
	story    = flag.Bool("story", false, "tell the whole story of each schedule, and what its processes logged")
)

func TestMain(m *testing.M) {
	flag.Parse()
	becomeLane()
	goleak.VerifyTestMain(m)
}

// mostShown is how many failing schedules are printed.
const mostShown = 20

// enough is the size from which on a campaign has to have reached every cell.
const enough = 2000

// TestCampaign runs schedules, one seed after the other, and first those that have found
// something before. An interrupt ends it after the schedule under way.
func TestCampaign(t *testing.T) {
	interrupted, stop := signal.NotifyContext(t.Context(), os.Interrupt)
	defer stop()
	c := campaign{t: t, reached: simulate.NewReached(), counts: map[string]int64{}, began: time.Now()}
	if *count > 1 {
		for _, seed := range keptSeeds(t) {
			c.run(seed)
		}
	}
	for i := range *count {
		if *duration > 0 && time.Since(c.began) > *duration || interrupted.Err() != nil {
			break
		}
		c.run(*first + uint64(i))
	}
	c.end()
}

type campaign struct {
	t       *testing.T
	reached *simulate.Reached
	counts  map[string]int64
	began   time.Time
	ran     int
	failing []uint64
	virtual time.Duration
	says    []string // of the failing ones
}

func (c *campaign) run(seed uint64) {
	c.running(seed)
	began := time.Now()
	r := simulated(c.t, simulate.NewPlan(seed), c.reached)
	c.ran++
	c.virtual += r.Virtual
	for k, n := range r.Counts {
		c.counts[k] += n
	}
	if *story {
		c.t.Log(r)
	} else if testing.Verbose() {
		c.t.Logf("seed %d: %s inside, %s outside, %d lines, digest %016x", seed, r.Virtual.Round(time.Second), time.Since(began).Round(time.Millisecond), r.Lines, r.Digest)
	}
	if !r.Failed() {
		return
	}
	c.failing = append(c.failing, seed)
	for _, v := range r.Violations {
		c.says = append(c.says, fmt.Sprintf("seed %d: %s", seed, v))
	}
	c.t.Fail()
	if len(c.failing) <= mostShown && !*story {
		c.t.Log(r)
	}
}

// running notes which seed is under way, so that a run that ends the process is known.
func (c *campaign) running(seed uint64) {
	if *recordTo != "" {
		_ = os.WriteFile(*recordTo+".running", []byte(strconv.FormatUint(seed, 10)+"\n"), 0o600)
	}
}

func (c *campaign) end() {
	empty := c.reached.Empty()
	took := time.Since(c.began)
	c.t.Logf("%d schedules from seed %d in %s (%s each), %s of virtual time, %d failing %v, %d of %d cells reached",
		c.ran, *first, took.Round(time.Millisecond), (took / time.Duration(max(c.ran, 1))).Round(time.Microsecond),
		c.virtual.Round(time.Second), len(c.failing), c.failing, len(simulate.Cells())-len(empty), len(simulate.Cells()))
	if len(empty) > 0 && c.ran >= enough {
		c.t.Errorf("%d cells were never reached: %s", len(empty), strings.Join(empty, ", "))
	} else if len(empty) > 0 && testing.Verbose() {
		c.t.Logf("not reached: %s", strings.Join(empty, ", "))
	}
	if *recordTo == "" {
		return
	}
	line, err := json.Marshal(map[string]any{
		"campaign": "simulation", "commit": commit(), "seed": *first, "n": c.ran, "counts": c.counts, "failing": c.failing,
		"violations": append([]string{}, c.says...), "cells": c.reached.Counts(), "took": took.Round(time.Millisecond).String(), "virtual": c.virtual.Round(time.Second).String(),
	})
	if err != nil {
		c.t.Fatal(err)
	}
	f, err := os.OpenFile(*recordTo, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		c.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(append(line, '\n')); err != nil {
		c.t.Fatal(err)
	}
	_ = os.Remove(*recordTo + ".running")
}

// commit is what the campaign is of.
func commit() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	out, err := exec.Command("git", "rev-parse", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// simulated carries a plan out in a bubble of its own, with randomness of its own.
func simulated(t *testing.T, p simulate.Plan, reached *simulate.Reached) (r *simulate.Result) {
	t.Helper()
	dir, remove := scratch(t)
	defer remove()
	o := simulate.Options{Dir: dir, Whole: *story}
	if *story {
		o.Log = t.Output()
	}
	tidy()
	synctest.Test(t, func(t *testing.T) {
		cryptotest.SetGlobalRandom(t, p.Seed)
		var err error
		if r, err = simulate.Run(t.Context(), p, o, reached); err != nil {
			t.Fatalf("seed %d: %v", p.Seed, err)
		}
	})
	return r
}

// tidy collects garbage now and then between schedules, rather than in the middle of one.
func tidy() {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if m.HeapAlloc > 200<<20 {
		runtime.GC()
	}
}

// scratch is a folder in memory where there is one: what a process keeps on disk is not
// what is tried here. It lasts as long as its schedule.
func scratch(t *testing.T) (dir string, remove func()) {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "trueup-simulated-")
	if err != nil {
		dir, err = os.MkdirTemp("", "trueup-simulated-")
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir, func() { _ = os.RemoveAll(dir) }
}

// keptSeeds are those that have found something, from testdata/seeds: a name, the seed,
// and what it found, one a line.
func keptSeeds(t *testing.T) (seeds []uint64) {
	t.Helper()
	files, err := filepath.Glob("testdata/seeds/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no seeds in testdata/seeds: %v", err)
	}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			words := strings.Fields(lines.Text())
			if len(words) == 0 || strings.HasPrefix(words[0], "#") {
				continue
			}
			if len(words) < 3 {
				t.Fatalf("%s: %q is not a name, a seed and what it found", name, lines.Text())
			}
			seed, err := strconv.ParseUint(words[1], 10, 64)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			seeds = append(seeds, seed)
		}
	}
	return seeds
}
