package service_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/testenv"
)

// noted fails unless one of the run's notes contains what.
func (r reconciled) noted(t testing.TB, what string) {
	t.Helper()
	if !slices.ContainsFunc(r.Notes, func(n string) bool { return strings.Contains(n, what) }) {
		t.Errorf("no note says %q: %q", what, r.Notes)
	}
}

// slowPages lets each page of a listing take that long.
func (in *installation) slowPages(each string) {
	in.t.Helper()
	in.plantFault(map[string]any{"method": "GET", "path": "/v1/files", "latency": each, "times": 0})
}

// begun starts a run and waits until it has listed some, and is still at it.
func (in *installation) begun(kind string, files int) (id string) {
	in.t.Helper()
	id = in.ops("POST", "/api/runs", map[string]any{"kind": kind}).want(in.t, http.StatusOK).text(in.t, "id")
	in.awaitListed(id, files)
	return id
}

// awaitListed waits until a run that is still listing says that it has so many files.
func (in *installation) awaitListed(id string, files int) {
	in.t.Helper()
	testenv.Eventually(in.t, time.Minute, func() error {
		r := in.showRun(id)
		if !slices.Contains([]string{"", "account", "list"}, r.Phase) || r.State != "running" {
			in.t.Fatalf("the run is past its listing: %+v", r)
		}
		if r.Listed < int64(files) {
			return fmt.Errorf("%d files listed, want %d", r.Listed, files)
		}
		return nil
	})
}

// written is what a plan must leave as it is.
func (in *installation) written() (sums string) {
	in.t.Helper()
	for _, table := range []string{"public.imagekit_files", "trueup.file_state", "trueup.ledger", "trueup.retries", "trueup.fuse", "trueup.dead_letters"} {
		sums += fmt.Sprintf("%s: %d rows, %d; ", table, in.count(`SELECT count(*) FROM `+table), in.count(`SELECT coalesce(sum(xmin::text::bigint), 0) FROM `+table))
	}
	return sums
}

// TestReconcileChangesHands: the active worker is killed in the middle of a listing. The
// other carries the run on, and because the spool is not where it is, lists anew and says
// so. Before that a plan, made through the pooler with the roles as migrated, has
// written nothing.
func TestReconcileChangesHands(t *testing.T) {
	t.Parallel()
	a := startApart(t, nil)
	a.untold(4000)
	first := a.active()
	second := a.other(first)
	a.env["TRUEUP_OPS_URL"] = a.opsOf(first)
	a.wantRun(0, "complete", "run")
	want := a.damage(300)

	before := a.written()
	plan := a.wantRun(0, "planned", "plan")
	for class, n := range counted(slices.Collect(values(want))) {
		if plan.of(class, "found") != int64(n) {
			t.Errorf("the plan found %v %s, want %d", plan.Found[class], class, n)
		}
	}
	for _, n := range plan.Notes {
		if strings.Contains(n, "role") || strings.Contains(n, "rights") {
			t.Errorf("the plan was not made under its own role: %s", n)
		}
	}
	if now := a.written(); now != before {
		t.Errorf("the plan wrote: %s; before: %s", now, before)
	}

	a.slowPages("1s")
	id := a.begun("run", 1000)
	first.kill9()
	a.env["TRUEUP_OPS_URL"] = a.opsOf(second)
	testenv.Eventually(t, time.Minute, func() error {
		if !strings.Contains(second.log.String(), `"reconcile.carried","run":"`+id) {
			return fmt.Errorf("the other worker has not taken the run up")
		}
		return nil
	})
	a.healFaults()
	r := a.awaitRun(id, 2*time.Minute)
	if r.State != "complete" || r.Listed != 4000-5 {
		t.Errorf("the run ended %+v", r)
	}
	r.noted(t, "the listing's spool is not here")
	r.noted(t, "the listing started over")
	a.foundAll(r, want)
}

// values yields the values of a map.
func values(m damaged) func(func(string) bool) {
	return func(yield func(string) bool) {
		for _, v := range m {
			if !yield(v) {
				return
			}
		}
	}
}

// runList is every run there is, the oldest first.
func (in *installation) runList() (all []reconciled) {
	in.t.Helper()
	for after := ""; ; {
		a := in.ops("GET", "/api/runs?limit=100&after="+after, nil).want(in.t, http.StatusOK)
		var page struct {
			Items []reconciled
			Next  string
		}
		if err := json.Unmarshal(a.body, &page); err != nil {
			in.t.Fatal(err)
		}
		all = append(all, page.Items...)
		if after = page.Next; after == "" {
			slices.Reverse(all)
			return all
		}
	}
}

// TestScheduleOverTwoWorkers: each interval brings one run, however many workers there
// are; none begins before the last has ended, and a hand-over doubles none.
func TestScheduleOverTwoWorkers(t *testing.T) {
	t.Parallel()
	const every = 2 * time.Second
	a := startApart(t, map[string]string{"TRUEUP_RECONCILE_EVERY": every.String()})
	a.untold(1500)
	a.slowPages("200ms")
	awaitRuns := func(n int) {
		t.Helper()
		testenv.Eventually(t, time.Minute, func() error {
			ended := 0
			for _, r := range a.runList() {
				if !r.FinishedAt.IsZero() {
					ended++
				}
			}
			if ended < n {
				return fmt.Errorf("%d runs have ended, want %d", ended, n)
			}
			return nil
		})
	}
	first := a.active()
	second := a.other(first)
	a.env["TRUEUP_OPS_URL"] = a.opsOf(second)
	awaitRuns(3)
	if strings.Contains(second.log.String(), "reconcile.carried") {
		t.Error("the standby carried a run")
	}
	first.kill9()
	awaitRuns(5)
	first.restart()
	awaitRuns(6)
	all := a.runList()
	for i, r := range all[1:] {
		before := all[i]
		if before.FinishedAt.IsZero() || r.StartedAt.Before(before.FinishedAt) {
			t.Errorf("run %s began at %s, before %s had ended at %s", r.ID, r.StartedAt, before.ID, before.FinishedAt)
		}
		if gap := r.StartedAt.Sub(before.StartedAt); gap < every*9/10 {
			t.Errorf("run %s began %s after %s, want at least %s", r.ID, gap, before.ID, every*9/10)
		}
	}
	for _, r := range all {
		if !r.FinishedAt.IsZero() && r.State != "complete" {
			t.Errorf("a scheduled run ended %+v", r)
		}
	}
	t.Logf("%d runs", len(all))
}
