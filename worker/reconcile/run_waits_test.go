package reconcile

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/run"
)

func TestRunWaits(t *testing.T) {
	// Each is away for some time and then back; meanwhile the run says what it waits for.
	for name, c := range map[string]struct {
		call, waits string
		how         time.Duration
		err         error
		state       run.State
	}{
		"ForImageKit":         {"list", "ImageKit does not answer", 10 * time.Minute, &file.Fault{Kind: file.Unreachable}, run.Complete},
		"ForTheQueue":         {"publish", "the queue is full", 10 * time.Minute, event.ErrNotAccepted, run.Complete},
		"ForTheQueueTooLong":  {"publish", "the queue is full", time.Hour, event.ErrNotAccepted, run.Partial},
		"ForTheDatabase":      {"repair", "", 5 * time.Hour, event.ErrOutage, run.Complete},
		"ForTheDatabaseAtAll": {"", "", 5 * time.Hour, event.ErrOutage, run.Complete},
		"ForAnOddity":         {"findings", "it is tried again", 10 * time.Minute, os.ErrPermission, run.Complete},
		"ForAnOddityTooLong":  {"findings", "it is tried again", time.Hour, os.ErrPermission, run.Failed},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, dir := scene().started(run.Full), t.TempDir()
				var back time.Time
				waited := c.waits == ""
				d.before = func(call string, n int) error {
					waited = waited || strings.Contains(d.runs[0].Waiting, c.waits)
					if call != c.call && c.call != "" || n < 20 {
						return nil
					}
					if back.IsZero() {
						back = time.Now().Add(c.how)
					}
					if time.Now().Before(back) {
						return fmt.Errorf("away: %w", c.err)
					}
					return nil
				}
				d.process(t, dir)
				r := d.last()
				if r.State != c.state || !waited || r.Waiting != "" {
					t.Errorf("%+v, waited %v", r, waited)
				}
				if r.State == run.Complete {
					d.check(t)
				} else if r.Error == "" {
					t.Error("nothing is said")
				}
			})
		})
	}
	t.Run("AsLongWhileSomebodyLooks", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := scene().started(run.Full)
			d.listing = func(query, file.Answer) (file.Answer, error) {
				return file.Answer{}, &file.Fault{Kind: file.Unavailable}
			}
			r, err := New(Config{Library: d, Runs: d, Rows: d, Brakes: d, Queue: d, Dir: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
			defer cancel()
			done := make(chan error)
			go func() { done <- r.Run(ctx, 1) }()
			for ctx.Err() == nil {
				<-time.After(200 * time.Millisecond)
				r.Wake()
			}
			if err := <-done; err != nil || len(d.queries) > 30 {
				t.Errorf("%v after %d list calls in ten minutes", err, len(d.queries))
			}
		})
	})
	t.Run("ForImageKitAnewAfterAnOutage", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := scene().started(run.Full)
			back, once := time.Now().Add(5*time.Hour), true
			d.before = func(call string, n int) error {
				switch {
				case n > 12 && time.Now().Before(back):
					return event.ErrOutage
				case call == "list" && time.Now().After(back) && once:
					once = false
					return &file.Fault{Kind: file.Unavailable, Status: 503}
				}
				return nil
			}
			d.process(t, t.TempDir())
			d.check(t)
			if r := d.last(); r.State != run.Complete || once {
				t.Errorf("%+v", r)
			}
		})
	})
	t.Run("ForTheEndOfAPause", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := scene().started(run.Full)
			d.before = func(_ string, n int) error {
				if n == 30 {
					d.paused = true
					time.AfterFunc(7*time.Hour, func() { d.mu.Lock(); defer d.mu.Unlock(); d.paused = false })
				}
				return nil
			}
			d.process(t, t.TempDir())
			d.check(t)
			if r := d.last(); r.State != run.Complete || r.FinishedAt.Sub(r.StartedAt) < 7*time.Hour {
				t.Errorf("%+v", r)
			}
		})
	})
	t.Run("ForItsEventsAndNotForEver", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := scene()
			for i := range 3 {
				d.put(fmt.Sprint("stuck", i), 200+i, "new")
				d.keep(fmt.Sprint("stuck", i), "old")
			}
			d.doubt = "stuck"
			d.started(run.Full).process(t, t.TempDir())
			r := d.last()
			if took := r.FinishedAt.Sub(r.StartedAt); r.State != run.Partial || r.Unsettled != 3 || took < 10*time.Minute || took > 11*time.Minute {
				t.Errorf("%+v after %v", r, took)
			}
			d.said(t, r, "3 events are not settled yet")
		})
	})
	t.Run("AndKeepsFewUnderWay", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := scene()
			for i := range 3000 {
				d.put(fmt.Sprintf("ask%04d", i), 200+i/20, "new")
			}
			d.page = 1000
			d.started(run.Full).process(t, t.TempDir(), func(c *Config) { c.Slice = 500 })
			d.check(t) // Publish counts
			if r := d.last(); r.State != run.Complete || len(d.stored) != 3000+11 {
				t.Errorf("%+v, %d events", r, len(d.stored))
			}
		})
	})
	t.Run("NotWhereAllThatMayBeUnderWayIsStuck", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := scene()
			for i := range 900 {
				d.put(fmt.Sprintf("stuck%03d", i), 200+i, "new")
			}
			d.doubt, d.page = "stuck", 1000
			d.started(run.Full).process(t, t.TempDir(), func(c *Config) { c.Slice = 500 })
			r := d.last()
			if r.State != run.Partial || r.Unsettled > 500 || r.Unsettled < 250 {
				t.Errorf("%+v", r)
			}
			d.said(t, r, "findings have no answer yet")
		})
	})
}

func TestPublishInHalves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := scene().started(run.Full)
		var sizes []int
		d.process(t, t.TempDir(), func(c *Config) { c.Queue = narrow{d, 2, &sizes} })
		d.check(t)
		if r := d.last(); r.State != run.Complete || slices.Max(sizes) > 2 {
			t.Errorf("%+v, %v", r, sizes)
		}
	})
}

// narrow is a queue whose messages take few events.
type narrow struct {
	*world
	most  int
	sizes *[]int
}

func (q narrow) Publish(ctx context.Context, events []event.Event) error {
	if len(events) > q.most {
		return event.ErrTooLarge
	}
	*q.sizes = append(*q.sizes, len(events))
	return q.world.Publish(ctx, events)
}

// Whenever an operator cancels, nothing of the run is written after that.
func TestRunCancelledAnywhere(t *testing.T) {
	var calls int
	synctest.Test(t, func(t *testing.T) {
		d := scene().started(run.Full)
		d.process(t, t.TempDir())
		calls = len(d.calls)
	})
	for at := 1; at < calls; at += 3 {
		synctest.Test(t, func(t *testing.T) {
			d, dir := scene().started(run.Full), t.TempDir()
			var rows map[string]string
			d.before = func(_ string, n int) error {
				if n == at {
					d.runs[0].State, rows = run.Cancelled, maps.Clone(d.rows)
				}
				return nil
			}
			d.process(t, dir)
			if d.last().State != run.Cancelled {
				t.Errorf("cancelled at call %d: %+v", at, d.last())
			}
			for id := range d.rows { // what was published before goes its way
				if rows[id] != d.rows[id] && len(d.stored[id]) == 0 {
					t.Errorf("cancelled at call %d: %s was written later", at, id)
				}
			}
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Errorf("cancelled at call %d: left behind %v", at, left)
			}
		})
	}
	t.Run("WhileItWaits", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := scene().started(run.Full)
			d.listing = func(query, file.Answer) (file.Answer, error) {
				return file.Answer{}, &file.Fault{Kind: file.Unavailable}
			}
			r, err := New(Config{Library: d, Runs: d, Rows: d, Brakes: d, Queue: d, Dir: t.TempDir(), Backoff: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- r.Run(ctx, 1) }()
			d.quiet()
			d.runs[0].State = run.Cancelled
			lists := len(d.queries)
			d.release()
			r.Wake()
			d.quiet()
			if n := d.calls[len(d.calls)-1]; len(d.queries) != lists || n != "open" {
				t.Errorf("%d more list calls, then %s", len(d.queries)-lists, n)
			}
			d.release()
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	})
}

func TestRunEndsWithItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, dir := scene().started(run.Full), t.TempDir()
		d.before = func(call string, _ int) error {
			if call == "repair" && d.turn == 1 {
				d.turn = 2 // another process
			}
			return nil
		}
		rows := maps.Clone(d.rows)
		began := time.Now()
		c := Config{Library: d, Runs: d, Rows: d, Brakes: d, Queue: d, Dir: dir, pageSize: 20}
		r, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Run(t.Context(), 1); err != nil || !maps.Equal(rows, d.rows) || time.Since(began) > time.Second {
			t.Fatalf("%v after %v", err, time.Since(began))
		}
		lists := len(d.queries)
		d.process(t, dir)
		d.check(t)
		if d.last().State != run.Complete || len(d.queries) != lists {
			t.Errorf("%+v, %d more list calls", d.last(), len(d.queries)-lists)
		}
	})
}

func TestRunSpoolElsewhere(t *testing.T) {
	for name, c := range map[string]struct {
		between func(d *world, dir *string, t *testing.T)
		said    string
	}{
		"AnotherMachine":      {func(_ *world, dir *string, t *testing.T) { *dir = t.TempDir() }, "the listing started over"},
		"DatabasePutBack":     {func(d *world, _ *string, _ *testing.T) { d.fence = 100 }, "newer than the database"},
		"DatabaseFarBehind":   {func(d *world, _ *string, _ *testing.T) { d.runs[0].Slices = 0; d.fence += 1000 }, "more pages than the database can know of"},
		"SpoolOfAnotherRun":   {func(d *world, _ *string, _ *testing.T) { d.runs[0].Spool = "01ARZ3NDEKTSV4RRFFQ69G5FAV" }, "the listing started over"},
		"DamagedInTheMiddle":  {func(d *world, dir *string, _ *testing.T) { damage(*dir + "/R1/00000001.pages") }, "was damaged"},
		"ALittleBehindIsFine": {func(d *world, _ *string, _ *testing.T) { d.runs[0].Slices-- }, "the listing went on where it was"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, dir := scene().started(run.Full), t.TempDir()
				tune := func(c *Config) { c.SavePages = 3 }
				d.after = func(call string, _ int) error {
					if call == "list" && len(d.queries) == 5 {
						d.crash()
						return errCrash
					}
					return nil
				}
				d.process(t, dir, tune)
				d.turn++
				had := d.runs[0].Slices
				c.between(d, &dir, t)
				d.process(t, dir, tune)
				d.check(t)
				r := d.last()
				d.said(t, r, c.said)
				if r.State != run.Complete || r.Listed != 86 || had == 0 {
					t.Errorf("%+v, had %d", r, had)
				}
				if got := d.found(); !slices.Equal(got, wantFound) {
					t.Errorf("found %q", got)
				}
			})
		})
	}
}

func TestSchedule(t *testing.T) {
	start := func(t *testing.T, d *world, tune func(*Config)) (r *Reconciler, stop func()) {
		c := Config{Library: d, Runs: d, Rows: d, Brakes: d, Queue: d, Dir: t.TempDir(), Every: time.Hour, Jitter: func() float64 { return 0.5 }}
		tune(&c)
		r, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx, 1) }()
		return r, func() {
			d.release()
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	t.Run("EveryHourAndNoQueryBetween", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := scene()
			r, stop := start(t, d, func(*Config) {})
			defer stop()
			d.release()
			<-time.After(24*time.Hour + 30*time.Minute)
			d.quiet()
			if len(d.runs) != 25 {
				t.Fatalf("%d runs", len(d.runs))
			}
			for i, r := range d.runs {
				if r.StartedBy != "schedule" || r.State != run.Complete || i > 0 && r.StartedAt.Sub(d.runs[i-1].StartedAt) != time.Hour {
					t.Errorf("%+v", r)
				}
			}
			calls := len(d.calls)
			d.release()
			<-time.After(20 * time.Minute)
			d.quiet()
			if len(d.calls) != calls {
				t.Errorf("asked meanwhile: %v", d.calls[calls:])
			}
			d.release()
			r.Wake()
			d.quiet()
			if got := d.calls[calls:]; !slices.Equal(got, []string{"open"}) {
				t.Errorf("asked when woken: %v", got)
			}
		})
	})
	t.Run("OnceWhoeverIsAsked", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := scene()
			d.runs = []run.Run{{ID: "R0", Kind: run.Full, State: run.Failed, StartedAt: time.Now().Add(-30 * time.Minute)}}
			_, stop := start(t, d, func(*Config) {})
			defer stop()
			d.release()
			<-time.After(29 * time.Minute)
			d.quiet()
			if len(d.runs) != 1 {
				t.Errorf("too early: %+v", d.runs)
			}
			d.release()
			<-time.After(2 * time.Minute)
			d.quiet()
			if len(d.runs) != 2 {
				t.Errorf("%d runs", len(d.runs))
			}
		})
	})
	t.Run("AnotherWasQuicker", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := scene()
			d.before = func(call string, _ int) error {
				if call == "start" && d.starts == 0 {
					d.runs = append(d.runs, run.Run{ID: "R1", Kind: run.Full, State: run.Running, Phase: run.PhaseAccount, StartedBy: "operator", StartedAt: time.Now()})
				}
				return nil
			}
			_, stop := start(t, d, func(*Config) {})
			defer stop()
			d.release()
			<-time.After(30 * time.Minute)
			d.quiet()
			if len(d.runs) != 1 || d.runs[0].State != run.Complete || d.starts != 1 {
				t.Errorf("%+v, started %d times", d.runs, d.starts)
			}
		})
	})
	t.Run("Never", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := scene()
			r, stop := start(t, d, func(c *Config) { c.Every = 0 })
			defer stop()
			d.release()
			<-time.After(1000 * time.Hour)
			d.quiet()
			if len(d.calls) != 1 || len(d.runs) != 0 {
				t.Errorf("%v", d.calls)
			}
			d.release()
			d.started(run.Full)
			d.release()
			r.Wake()
			d.release()
			<-time.After(time.Minute)
			d.quiet()
			if d.last().State != run.Complete {
				t.Errorf("%+v", d.last())
			}
		})
	})
	t.Run("GoesOnThroughAnOutage", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := scene()
			back := time.Now().Add(3 * time.Hour)
			d.before = func(string, int) error {
				if time.Now().Before(back) {
					return event.ErrOutage
				}
				return nil
			}
			_, stop := start(t, d, func(*Config) {})
			defer stop()
			d.release()
			<-time.After(3*time.Hour + 2*time.Minute)
			d.quiet()
			if len(d.runs) != 1 || d.runs[0].State != run.Complete {
				t.Errorf("%+v", d.runs)
			}
		})
	})
}

func TestReconcilerNeedsItsDoors(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("no error")
	}
}
