package service_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/testenv"
)

// TestReconcileWaits: whatever a run needs goes away in the middle of it and comes back:
// it waits, goes on, and ends complete, never before. What was listed is not listed again
// but for the pages that were under way: one being asked for, one being written.
func TestReconcileWaits(t *testing.T) {
	t.Parallel()
	pg := testenv.PostgresServer(t)
	in := startServe(t, map[string]string{"DATABASE_URL": pg.URL(), "TRUEUP_API_PATIENCE": "300ms"})
	in.untold(4000)
	in.wantRun(0, "complete", "run")
	// held waits until the run has said in its log that it is held up.
	held := func(in *installation, from int) {
		in.t.Helper()
		testenv.Eventually(in.t, time.Minute, func() error {
			if !strings.Contains(in.dev.log.String()[from:], "reconcile.held_up") {
				return fmt.Errorf("the run is not held up")
			}
			return nil
		})
	}
	waiting := func(in *installation, id, phase, what string) {
		in.t.Helper()
		testenv.Eventually(in.t, time.Minute, func() error {
			if r := in.showRun(id); r.State != "running" || r.Phase != phase || !strings.Contains(r.waiting(in), what) {
				return fmt.Errorf("%s in %s waits for %q, want %s for %q", r.State, r.Phase, r.waiting(in), phase, what)
			}
			return nil
		})
	}
	details := map[string]any{"method": "GET", "path": "/v1/files/*/details"}
	away := map[string]any{"path": "/v1/*", "status": 503, "body": "<html>down</html>"}
	for _, c := range []struct {
		name  string
		phase string
		fault func(in *installation, id string)
	}{
		{"PausedInTheListing", "list", func(in *installation, _ string) {
			from := len(in.dev.log.String())
			must(in.t, in.env, "pause", "--note", "in the middle of a run")
			held(in, from)
			asked := len(in.listing())
			testenv.Eventually(in.t, time.Minute, func() error {
				if n := strings.Count(in.dev.log.String()[from:], "reconcile.held_up"); n < 3 {
					return fmt.Errorf("held up %d times", n)
				}
				return nil
			})
			if n := len(in.listing()); n > asked+1 { // one may have been under way
				in.t.Errorf("%d pages were listed while everything was paused", n-asked)
			}
			must(in.t, in.env, "resume")
		}},
		{"PostgresKilledInTheListing", "list", func(in *installation, _ string) {
			from := len(in.dev.log.String())
			pg.Kill9()
			held(in, from)
			pg.Start()
			in.db.Reset()
		}},
		{"ImageKitAwayInTheListing", "list", func(in *installation, id string) {
			in.healFaults()
			in.plantFault(away)
			waiting(in, id, "list", "ImageKit")
			in.healFaults()
		}},
		{"RateLimitInTheListing", "list", func(in *installation, _ string) {
			in.healFaults()
			n := in.plantFault(map[string]any{"method": "GET", "path": "/v1/files", "status": 429, "headers": map[string]string{"X-RateLimit-Reset": "700"}, "times": 4,
				"body": map[string]any{"message": "planted"}})
			testenv.Eventually(in.t, time.Minute, func() error {
				if fired := in.fired()[n]; fired < 4 {
					return fmt.Errorf("%d of the 429s were sent", fired)
				}
				return nil
			})
		}},
		{"ImageKitAwayWhileItSettles", "settle", func(in *installation, id string) {
			in.healFaults()
			in.plantFault(away)
			waiting(in, id, "settle", "not settled yet")
			in.awaitOutage("imagekit")
			in.healFaults()
		}},
		{"PostgresStoppedWhileItSettles", "settle", func(in *installation, _ string) {
			from := len(in.dev.log.String())
			pg.Stop()
			held(in, from)
			pg.Start()
			in.db.Reset()
			in.healFaults()
		}},
	} {
		t.Run(c.name, in.sub(func(in *installation) {
			want := in.damage(20)
			before := in.listing()
			if c.phase == "list" {
				in.slowPages("400ms")
			}
			details["latency"] = map[string]string{"list": "1ms", "settle": "2s"}[c.phase]
			in.plantFault(details)
			var id string
			if c.phase == "list" {
				id = in.listingPages(2)
			} else {
				id = in.ops("POST", "/api/runs", map[string]any{"kind": "run"}).want(in.t, http.StatusOK).text(in.t, "id")
				testenv.Eventually(in.t, time.Minute, func() error {
					if r := in.showRun(id); r.Phase != c.phase {
						return fmt.Errorf("in %s", r.Phase)
					}
					return nil
				})
			}
			c.fault(in, id)
			r := in.awaitRun(id, 2*time.Minute)
			if n := in.count(`SELECT count(*) FROM public.imagekit_files`); r.State != "complete" || !r.Whole || r.Listed != int64(n) {
				in.t.Errorf("%d rows, and the run ended %+v", n, r)
			}
			in.healFaults()
			listed := in.listing()[len(before):]
			again := repeats(listed)
			in.t.Logf("%d list calls, %d of them again; notes %q", len(listed), again, r.Notes)
			if again > 2 && !strings.HasPrefix(c.name, "ImageKit") && !strings.HasPrefix(c.name, "RateLimit") { // what was refused is asked again
				in.t.Errorf("%d pages were listed again: %v", again, counted(listed))
			}
			in.foundAll(r, want)
			in.nothingParked()
		}))
	}
	in.dev.neverEnded()
}

// listingPages starts a run and waits until ImageKit has sent it so many pages.
func (in *installation) listingPages(n int) (id string) {
	in.t.Helper()
	before := len(in.listing())
	id = in.ops("POST", "/api/runs", map[string]any{"kind": "run"}).want(in.t, http.StatusOK).text(in.t, "id")
	in.pagesSince(before, n)
	return id
}

// pagesSince waits until ImageKit has sent so many pages since there were before.
func (in *installation) pagesSince(before, n int) {
	in.t.Helper()
	testenv.Eventually(in.t, time.Minute, func() error {
		if now := len(in.listing()); now < before+n {
			return fmt.Errorf("%d pages were sent, want %d", now-before, n)
		}
		return nil
	})
}

// waiting is what the run says it waits for.
func (r reconciled) waiting(in *installation) string {
	in.t.Helper()
	return in.ops("GET", "/api/runs/"+r.ID, nil).want(in.t, http.StatusOK).text(in.t, "waiting")
}

// TestReconcileCancelled: cancelled in its listing, or while it settles, a run ends where
// it stands, its spool goes, and the next can begin at once; while one is under way a
// second one is refused by name.
func TestReconcileCancelled(t *testing.T) {
	t.Parallel()
	in := startServe(t, nil)
	in.untold(3000)
	in.wantRun(0, "complete", "run")
	want := in.damage(20)
	spool := func(id string) string { return filepath.Join(in.env["TRUEUP_DATA_DIR"], "reconcile", id) }
	cancel := func(id string) {
		t.Helper()
		if _, stderr, code := once(t, in.env, "reconcile", "run"); code != 1 || !strings.Contains(stderr, id) {
			t.Errorf("a second run: exit %d, %q, want 1 and the name of %s", code, stderr, id)
		}
		must(t, in.env, "reconcile", "cancel", id, "--note", "enough")
		if r := in.showRun(id); r.State != "cancelled" || r.FinishedAt.IsZero() {
			t.Errorf("the run is %+v", r)
		}
	}
	gone := func(id string) {
		t.Helper()
		testenv.Eventually(t, time.Minute, func() error {
			if _, err := os.Stat(spool(id)); !os.IsNotExist(err) {
				return fmt.Errorf("the spool of run %s is still there", id)
			}
			return nil
		})
	}

	in.slowPages("700ms")
	listing := in.listingPages(2)
	if _, err := os.Stat(spool(listing)); err != nil {
		t.Error(err)
	}
	cancel(listing)
	in.healFaults()
	in.plantFault(map[string]any{"method": "GET", "path": "/v1/files/*/details", "latency": "1s"})
	settling := in.ops("POST", "/api/runs", map[string]any{"kind": "run"}).want(t, http.StatusOK).text(t, "id")
	testenv.Eventually(t, time.Minute, func() error {
		if r := in.showRun(settling); r.Phase != "settle" {
			return fmt.Errorf("in %q", r.Phase)
		}
		return nil
	})
	gone(listing)
	cancel(settling)
	in.healFaults()
	r := in.wantRun(0, "complete", "run")
	gone(settling)
	gone(r.ID)
	// Events that were published went their way all the same.
	in.settles(time.Minute)
	if err := in.differs(); err != nil {
		t.Error(err)
	}
	found := in.findings(settling)
	for id, class := range want {
		if f := found[id]; f.Kind != class || f.Status != "repaired" && class != "orphaned" {
			t.Errorf("%s: %+v, want %s", id, f, class)
		}
	}
	for verb, n := range map[string]int{"reconcile cancel": 2} {
		if got := in.count(`SELECT count(*) FROM trueup.audit WHERE verb = $1 AND note = 'enough'`, verb); got != n {
			t.Errorf("%d audit lines of %s, want %d", got, verb, n)
		}
	}
}
