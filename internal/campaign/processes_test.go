package campaign

import (
	"context"
	"flag"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/check"
)

var (
	lanesFlag = flag.Int("lanes", 3, "installations of the campaign of processes at once")
	renewFlag = flag.Int("renew", 20, "rounds after which an installation of that campaign is replaced by a new one")
)

// TestProcesses breaks the real processes by schedules drawn from seeds: at least five
// faults each while clients, webhooks and people go on; then everything heals and the
// installation has to come to rest with no acknowledged event lost, no wrong row and
// nothing stuck.
//
//	go test ./internal/campaign -run TestProcesses -timeout 2h -args -seed 1 -n 1000 -lanes 6
//
// A seed gives the same faults and the same traffic again, at the same moments of the
// schedule; what they meet there is real and differs from run to run.
func TestProcesses(t *testing.T) {
	c := &processes{t: t, cells: map[string]int64{}, counts: map[string]int64{}}
	n := rounds(4)
	began := time.Now()
	seeds := roundSeeds(t, "processes", n)
	queues := map[int]chan uint64{1: make(chan uint64, len(seeds)), 3: make(chan uint64, len(seeds))}
	for _, seed := range seeds {
		queues[nodesOf(seed)] <- seed
	}
	close(queues[1])
	close(queues[3])
	// Lanes mostly wait, so they may be more than -parallel allows.
	var lanes sync.WaitGroup
	for lane := range max(*lanesFlag, 1) {
		lanes.Go(func() {
			t.Run(fmt.Sprintf("lane%d", lane+1), func(t *testing.T) {
				order := []int{1, 3}
				if lane%4 == 1 {
					order = []int{3, 1} // clusters are a quarter of the rounds, and of the lanes
				}
				for _, nodes := range order {
					c.lane(t, nodes, queues[nodes])
				}
			})
		})
	}
	lanes.Wait()
	c.counts["schedules"] = c.done
	record{Campaign: "processes", Seed: *seedFlag, N: n, Counts: c.counts, Violations: c.violations, Cells: c.cells, Took: time.Since(began).Round(time.Second).String()}.write(t)
	c.judgeCells(n)
}

// processes is the campaign over all its lanes.
type processes struct {
	t testing.TB

	mu         sync.Mutex // guards the rest
	done       int64
	cells      map[string]int64
	counts     map[string]int64
	violations []string
}

// lane plays schedules one after the other, on an installation that is replaced after
// some rounds and after every failure.
func (c *processes) lane(t *testing.T, nodes int, seeds <-chan uint64) {
	for number := 1; ; number++ {
		seed, ok := <-seeds
		if !ok {
			return
		}
		t.Run(fmt.Sprintf("%dnodes-%d", nodes, number), func(t *testing.T) {
			r := start(t, Options{Nodes: nodes, PgBouncer: true, Links: true})
			if err := r.furnish(); err != nil {
				t.Fatal(err)
			}
			defer c.collect(r)
			for i := 0; ; i++ {
				if !c.round(t, r, seed) || i+1 >= *renewFlag {
					return
				}
				if seed, ok = <-seeds; !ok {
					return
				}
			}
		})
	}
}

// round plays one seed and says whether the installation is still good.
func (c *processes) round(t *testing.T, r *rig, seed uint64) bool {
	s := drawSchedule(seed)
	began := time.Now()
	err := r.run(s)
	t.Logf("seed %d: %d faults, %d acts, %s: %v", seed, len(s.Faults), len(s.Acts), time.Since(began).Round(100*time.Millisecond), err)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done++
	c.counts["faults"] += int64(len(s.Faults))
	c.counts["acts"] += int64(len(s.Acts))
	if err == nil {
		return true
	}
	first, _, _ := strings.Cut(err.Error(), "\n")
	c.violations = append(c.violations, fmt.Sprintf("seed %d: %s", seed, first))
	t.Errorf("seed %d failed: %v\n%s\nrepeat: go test ./internal/campaign -run TestProcesses -args -seed %d -n 1", seed, err, s.story(), seed)
	return false
}

// furnish gives the installation a library of some size, without which a few lost
// announcements of deletions would be too large a part of it for the fuse.
func (r *rig) furnish() error {
	if err := r.Generate("/shelf", 600); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), liveness)
	defer cancel()
	err := until(ctx, func() error {
		a, err := r.Ops(ctx, 0, "POST", "/api/runs", map[string]any{"kind": "run"})
		if err == nil && a.status/100 != 2 && !strings.Contains(string(a.body), "under way") {
			err = fmt.Errorf("start a run: %d %s", a.status, a.body)
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := r.Settle(liveness); err != nil {
		return err
	}
	_, err = r.Judge(ctx, check.Safety) // the first look, which all others are held against
	return err
}

// collect adds what an installation has seen to the campaign's sums.
func (c *processes) collect(r *rig) {
	turns := r.turns()
	r.mu.Lock()
	defer r.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts["turns"] += int64(len(turns)) // beyond one an installation: hand-overs
	c.counts["installations"]++
	for cell, n := range r.cells {
		c.cells[cell] += n
	}
	for _, a := range r.acks {
		c.counts["sent"]++
		if a.Status/100 == 2 {
			c.counts["acknowledged"]++
		}
	}
}

// judgeCells fails a long campaign that left part of the matrix out.
func (c *processes) judgeCells(n int) {
	var empty []string
	for _, cell := range append(faultCells(3), trafficCells()...) {
		if c.cells[cell] == 0 {
			empty = append(empty, cell)
		}
	}
	if n >= 300 && len(empty) > 0 {
		c.t.Errorf("cells that nothing fell into: %s", strings.Join(empty, ", "))
	}
}
