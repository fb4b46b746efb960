package reconcile

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/run"
)

// scene is a library and a table that differ in every way a run knows of, by names that
// say how.
func scene() *world {
	d := newWorld()
	minute := 0
	shelve := func(n int, name string, tickets ...string) {
		for i := range n {
			minute++
			d.put(fmt.Sprint(name, i), minute, "new", tickets...)
		}
	}
	shelve(60, "same")
	shelve(5, "missing")
	shelve(2, "ask_missing")
	shelve(5, "drifted")
	shelve(2, "ask_drifted")
	shelve(2, "other")
	shelve(3, "adopted")
	shelve(2, "nobody")
	shelve(2, "ticketed", "tu1.x")
	shelve(2, "moved")
	shelve(1, "tomb")
	for id := range d.shelf {
		switch strings.TrimRight(id, "0123456789") {
		case "same":
			d.keep(id, "new")
		case "drifted", "ask_drifted":
			d.keep(id, "old")
		case "other":
			d.rows[id], d.state[id] = "new", standing{seen: 1, other: true}
		case "adopted":
			d.rows[id] = "old"
		case "nobody", "ticketed":
			d.rows[id], d.state[id] = "new", standing{seen: 1, unowned: true}
		case "moved":
			d.rows[id], d.state[id] = "newer", standing{seen: 1 << 40}
		case "tomb":
			d.state[id] = standing{seen: 1, gone: true}
		}
	}
	for i := range 5 {
		d.keep(fmt.Sprint("orphan", i), "old")
	}
	d.rows["bogus"] = "old"
	d.rows["moved_away"], d.state["moved_away"] = "newer", standing{seen: 1 << 40}
	return d
}

// started begins a run as an operator would.
func (d *world) started(kind run.Kind) *world {
	if _, err := d.StartRun(context.Background(), run.Run{Kind: kind, StartedBy: "operator", Phase: run.PhaseAccount}); err != nil {
		panic(err)
	}
	d.calls = nil
	return d
}

func (d *world) apply(id string, expect *int64, accept bool) {
	for i := range d.runs {
		if r := &d.runs[i]; r.ID == id {
			r.State, r.Error = run.Applying, ""
			if r.ExpectedDeletions = expect; expect != nil {
				d.latched, r.Fuse = "", ""
				for _, f := range d.findings[id] {
					if f.Kind == run.Orphaned && f.Status == run.Refused {
						f.Status, f.Event = run.Found, ""
					}
				}
			}
			if accept {
				r.AccountAcceptedBy, r.Account.Confirmed, d.doubted = "operator", true, ""
			}
		}
	}
}

func (d *world) open1() bool {
	return slices.ContainsFunc(d.snapshotOfRuns(), func(r run.Run) bool { return r.State.Open() })
}

// process is one process with its turn: it ends when no run is open any more, when crash
// is called, or when a day has passed.
func (d *world) process(t *testing.T, dir string, tune ...func(*Config)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
	defer cancel()
	d.crash = cancel
	c := Config{Library: d, Runs: d, Rows: d, Brakes: d, Queue: d, Dir: dir, Slice: 4, pageSize: d.page, Account: run.Account{Key: "key", Endpoint: "endpoint"}}
	for _, f := range tune {
		f(&c)
	}
	r, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- r.Run(ctx, d.turn) }()
	for {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			return
		case <-time.After(time.Second):
			if !d.open1() {
				cancel()
			}
		}
	}
}

func (d *world) last() run.Run { return d.counted(d.runs[len(d.runs)-1]) }

// found is the run's findings as text, by kind, status and reason, in order.
func (d *world) found() []string {
	var out []string
	for id, f := range d.findings[d.runs[len(d.runs)-1].ID] {
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s %s %s", id, f.Kind, f.Status, f.Reason)))
	}
	slices.Sort(out)
	return out
}

// check is the oracle of every run that went to its end: the table equals the library,
// but for rows newer than the run, and nothing happened that never may.
func (d *world) check(t *testing.T) {
	t.Helper()
	for _, w := range d.wrong {
		t.Error("never:", w)
	}
	for id, s := range d.shelf {
		if !prefixed(id, "moved") && d.rows[id] != *s.Name {
			t.Errorf("row %s is %q, ImageKit has %q", id, d.rows[id], *s.Name)
		}
	}
	for id := range d.rows {
		if _, there := d.shelf[id]; !there && id != "moved_away" {
			t.Errorf("row %s stands, and ImageKit does not have it", id)
		}
	}
	for _, id := range []string{"moved0", "moved1", "moved_away"} {
		if d.rows[id] != "newer" {
			t.Errorf("row %s is newer than the run, and is %q now", id, d.rows[id])
		}
	}
	for id, events := range d.stored {
		if len(events) > 1 {
			t.Errorf("%s was asked about under %d ids", id, len(events))
		}
	}
}

var wantFound = []string{
	"adopted0 adopted repaired", "adopted1 adopted repaired", "adopted2 adopted repaired",
	"ask_drifted0 drifted repaired", "ask_drifted1 drifted repaired",
	"ask_missing0 missing repaired", "ask_missing1 missing repaired",
	"bogus orphaned repaired",
	"drifted0 drifted repaired", "drifted1 drifted repaired", "drifted2 drifted repaired", "drifted3 drifted repaired", "drifted4 drifted repaired",
	"missing0 missing repaired", "missing1 missing repaired", "missing2 missing repaired", "missing3 missing repaired", "missing4 missing repaired",
	"nobody0 unowned skipped nobody", "nobody1 unowned skipped nobody",
	"orphan0 orphaned repaired", "orphan1 orphaned repaired", "orphan2 orphaned repaired", "orphan3 orphaned repaired", "orphan4 orphaned repaired",
	"other0 drifted repaired", "other1 drifted repaired",
	"ticketed0 unowned repaired", "ticketed1 unowned repaired",
	"tomb0 missing repaired",
}

func TestRunRepairsEverythingOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, dir := scene().started(run.Full), t.TempDir()
		d.process(t, dir)
		d.check(t)
		r := d.last()
		if got := d.found(); !slices.Equal(got, wantFound) {
			t.Errorf("found %q", got)
		}
		if r.State != run.Complete || !r.Whole || r.Listed != 86 || r.Rows != 85 || r.Same != 62 || r.Moved != 3 || r.Unowned != 4 || r.Candidates != 6 || r.Error != "" || r.Fuse != "" {
			t.Errorf("%+v", r)
		}
		if !r.Account.Confirmed || r.Account.Answered != 1 || r.Account.Key != "key" || d.account.Key != "key" {
			t.Errorf("account %+v, %+v", r.Account, d.account)
		}
		if len(d.stored) != 4+1+6 {
			t.Errorf("published for %v", slices.Sorted(maps.Keys(d.stored)))
		}
		if f := d.findings["R1"]["drifted0"]; len(f.Columns) != 1 || *f.Columns[0].Row != "old" || *f.Columns[0].ImageKit != "new" || !strings.Contains(f.Evidence[0], "request req-") {
			t.Errorf("%+v", f)
		}
		if f := d.findings["R1"]["orphan0"]; !strings.Contains(f.Evidence[0], "not in ImageKit's listing of 86 files") {
			t.Errorf("%+v", f)
		}
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}

		// A second run changes nothing, and says what it examined.
		rows := maps.Clone(d.rows)
		d.started(run.Full).process(t, dir)
		if r := d.last(); r.State != run.Complete || r.Listed != 86 || r.Rows != 87 || len(r.Found) != 1 || !maps.Equal(rows, d.rows) {
			t.Errorf("%+v", r)
		}
	})
}

// Wherever a run stops, and whether what it did last happened or not, the next process
// goes on to the same end: nothing listed twice, nothing asked about under two ids.
func TestRunThroughEveryFault(t *testing.T) {
	var calls, lists int
	synctest.Test(t, func(t *testing.T) {
		d := scene().started(run.Full)
		d.process(t, t.TempDir())
		calls, lists = len(d.calls), len(d.queries)
	})
	outage := func(d *world) error { return fmt.Errorf("lost: %w", event.ErrOutage) }
	for name, fault := range map[string]func(*world) error{
		"Crash":  func(d *world) error { d.crash(); return errCrash },
		"Outage": outage,
	} {
		for _, happened := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/happened=%v", name, happened), func(t *testing.T) {
				for at := 1; at <= calls; at++ {
					synctest.Test(t, func(t *testing.T) { faultAt(t, at, lists, happened, fault) })
					if t.Failed() {
						t.Fatalf("at call %d of %d", at, calls)
					}
				}
			})
		}
	}
}

func faultAt(t *testing.T, at, lists int, happened bool, fault func(*world) error) {
	d, dir := scene().started(run.Full), t.TempDir()
	hook := func(_ string, n int) error {
		if n == at {
			return fault(d)
		}
		return nil
	}
	if happened {
		d.after = hook
	} else {
		d.before = hook
	}
	d.process(t, dir)
	if d.open1() {
		d.turn++
		d.process(t, dir)
	}
	d.check(t)
	if got := d.found(); !slices.Equal(got, wantFound) {
		t.Errorf("after %s: found %q", d.calls[at-1], got)
	}
	if r := d.last(); r.State != run.Complete || r.Candidates != 6 || r.Listed != 86 {
		t.Errorf("after %s: %+v", d.calls[at-1], r)
	}
	if n := len(d.queries); n > lists+3 { // one page not kept, and one fetched: the last one takes two calls
		t.Errorf("after %s: %d list calls, want %d: %v", d.calls[at-1], n, lists, d.queries)
	}
	// A process that ends between the run's end and its clean-up leaves that to the next run.
	if left, _ := os.ReadDir(dir); len(left) > 0 && d.calls[at-1] != "finish" {
		t.Errorf("after %s: left behind %v", d.calls[at-1], left)
	}
}

func TestPlan(t *testing.T) {
	t.Run("ChangesNothingAndIsApplied", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d, dir := scene().started(run.Plan), t.TempDir()
			rows := maps.Clone(d.rows)
			d.process(t, dir)
			if r := d.last(); r.State != run.Planned || r.Candidates != 6 || r.Fuse != "" || len(d.stored) > 0 || !maps.Equal(rows, d.rows) {
				t.Fatalf("%+v, %v", r, d.stored)
			}
			lists := len(d.queries)
			d.apply("R1", nil, false)
			d.process(t, dir)
			d.check(t)
			if got := d.found(); !slices.Equal(got, wantFound) || len(d.queries) != lists || d.last().State != run.Complete {
				t.Errorf("%s, %d list calls, found %q", d.last().State, len(d.queries)-lists, got)
			}
		})
	})
	for name, lose := range map[string]func(dir string){
		"OlderThanAnHour":  func(string) { <-time.After(61 * time.Minute) },
		"FromElsewhere":    func(dir string) { _ = os.RemoveAll(dir) },
		"WithADamagedPage": func(dir string) { damage(filepath.Join(dir, "R1", "00000001.pages")) },
	} {
		t.Run(name+"IsAskedForAgain", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, dir := scene().started(run.Plan), t.TempDir()
				d.process(t, dir)
				lists := len(d.queries)
				lose(dir)
				d.apply("R1", nil, false)
				asked := 0
				d.process(t, dir, func(c *Config) {
					c.Ask = func(_ context.Context, ids []string) (hits []file.Observation, err error) {
						asked += len(ids)
						for _, id := range ids {
							if s, ok := d.shelf[id]; ok && id != "missing0" { // this one becomes an event
								hits = append(hits, file.Observation{FileID: id, How: file.Hit, Fence: file.Fence{Number: 1 << 30}, Snapshot: &s})
							}
						}
						return hits, nil
					}
				})
				d.check(t)
				if got := d.found(); !slices.Equal(got, wantFound) || len(d.queries) != lists || asked != 22 || len(d.stored["missing0"]) != 1 {
					t.Errorf("%d list calls, %d asked, found %q", len(d.queries)-lists, asked, got)
				}
				if r := d.last(); r.State != run.Complete || !slices.ContainsFunc(r.Notes, func(n string) bool { return strings.Contains(n, "asked for again") }) {
					t.Errorf("%+v", r)
				}
			})
		})
	}
	t.Run("SaysWhatWouldLatch", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := scene()
			for i := range 9 {
				d.keep(fmt.Sprint("orphan1", i), "old")
			}
			d.started(run.Plan).process(t, t.TempDir())
			if r := d.last(); r.State != run.Planned || !strings.Contains(r.Fuse, "15 of 94 rows are candidates") || d.latched != "" {
				t.Errorf("%+v, %q", r, d.latched)
			}
		})
	})
	t.Run("UsesItsOwnDoorsAndSaysWhereTheyAreWeak", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := scene().started(run.Plan)
			taken := 0
			d.process(t, t.TempDir(), func(c *Config) {
				c.PlanRows = func(context.Context) (PlanDoors, string, error) {
					taken++
					return d, "the role of plans cannot be taken", nil
				}
			})
			if r := d.last(); taken != 1 || !slices.Contains(r.Notes, "the role of plans cannot be taken") {
				t.Errorf("taken %d times: %q", taken, r.Notes)
			}
		})
	})
}

// damage turns a bit in the middle of a file.
func damage(path string) {
	b, err := os.ReadFile(path)
	if err != nil {
		panic(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		panic(err)
	}
}
