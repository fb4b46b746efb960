package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/operator"
	"github.com/trueup/trueup/internal/run"
)

// server answers like the operator API: a run that goes through its states, one each
// time it is asked for.
type server struct {
	*httptest.Server
	mu       sync.Mutex
	states   []run.Run
	latched  bool
	findings []run.Finding
	bodies   []string // of the POSTs
	refusal  *operator.Problem
}

func newServer(t *testing.T, states ...run.Run) *server {
	t.Helper()
	s := &server{states: states}
	mux := http.NewServeMux()
	next := func(w http.ResponseWriter, _ *http.Request) { say(w, s.next()) }
	started := func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.bodies = append(s.bodies, r.URL.Path+" "+string(body))
		if s.refusal != nil {
			w.WriteHeader(s.refusal.Status)
			say(w, map[string]any{"success": false, "error": s.refusal.Text, "code": s.refusal.Code})
			return
		}
		say(w, s.next())
	}
	mux.HandleFunc("POST /api/runs", started)
	mux.HandleFunc("POST /api/runs/{id}/{verb}", started)
	mux.HandleFunc("GET /api/runs/{id}", next)
	mux.HandleFunc("GET /api/runs", func(w http.ResponseWriter, _ *http.Request) {
		say(w, operator.Page[run.Run]{Items: append([]run.Run{}, run.Run{ID: "R0", Whole: true, State: run.Complete, Listed: 4000})})
	})
	mux.HandleFunc("GET /api/runs/{id}/findings", func(w http.ResponseWriter, r *http.Request) {
		page := operator.Page[run.Finding]{Items: s.findings}
		if r.URL.Query().Get("after") == "" && len(s.findings) > 1 {
			page = operator.Page[run.Finding]{Items: s.findings[:1], Next: s.findings[0].FileID}
		} else if len(s.findings) > 1 {
			page.Items = s.findings[1:]
		}
		say(w, page)
	})
	mux.HandleFunc("GET /api/status", func(w http.ResponseWriter, _ *http.Request) {
		say(w, operator.Status{Fuse: &operator.FuseStatus{Latched: s.latched}})
	})
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

// next is the state that is due; the last one stays.
func (s *server) next() run.Run {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.states[0]
	if len(s.states) > 1 {
		s.states = s.states[1:]
	}
	return r
}

func say(w http.ResponseWriter, v any) { _ = json.NewEncoder(w).Encode(v) }

// trueup is the whole program on this server.
func (s *server) trueup(ctx context.Context, stdin string, args ...string) (stdout, stderr string, code int) {
	var out, errs bytes.Buffer
	code = execute(ctx, args, map[string]string{"TRUEUP_OPS_URL": s.URL, "TRUEUP_OPS_TOKEN": "0123456789abcdef"}, strings.NewReader(stdin), &out, &errs)
	return out.String(), errs.String(), code
}

type counts = map[run.FindingKind]map[run.Status]int64

func ended(kind run.Kind, state run.State, change ...func(*run.Run)) run.Run {
	r := run.Run{ID: "R1", Kind: kind, State: state, StartedBy: "ann", Listed: 1000, Calls: 1, Rows: 998, Same: 990, Whole: true, Account: run.Account{Asked: 5, Answered: 1, Confirmed: true}}
	for _, f := range change {
		f(&r)
	}
	return r
}

func TestRunsEndWithTheirExitCode(t *testing.T) {
	fused := func(r *run.Run) {
		r.Fuse, r.Candidates = "60 of 998 rows are candidates", 60
		r.Found = counts{run.Orphaned: {run.Refused: 60}, run.Missing: {run.Repaired: 2}}
	}
	tests := []struct {
		name    string
		args    []string
		end     run.Run
		latched bool
		code    int
		says    []string
	}{
		{"CompleteAndNothingDiffered", []string{"run"}, ended(run.Full, run.Complete), false, 0,
			[]string{"Run R1 is complete.", "Examined: 1000 files of ImageKit in 1 list call, and 998 rows; 990 agreed.", "Found: nothing that differs."}},
		{"Complete", []string{"run"}, ended(run.Full, run.Complete, func(r *run.Run) {
			r.Moved, r.Unowned, r.Notes = 1, 2, []string{"a page came twice (2×)"}
			r.Found = counts{run.Missing: {run.Repaired: 3}, run.Orphaned: {run.Repaired: 1, run.Skipped: 1}, run.Unowned: {run.Skipped: 2}}
		}), false, 0,
			[]string{"1 was created or changed during the run", "Repaired: 3 missing, 1 orphaned (no row is left).", "Skipped: 1 orphaned.", "To see why each was skipped: trueup reconcile show R1 --status skipped\n", "2 rows agree and belong to nobody.", "Note: a page came twice (2×)."}},
		{"Fuse", []string{"run"}, ended(run.Full, run.Partial, fused), true, 3,
			[]string{"Repaired: 2 missing.", "Refused: 60 orphaned.", "The fuse is latched: 60 of 998 rows are candidates.", "To look at the 60 candidates for deletion: trueup reconcile show R1 --kind orphaned --all\n", "let exactly these 60 be deleted where a look-up by id confirms it: trueup reconcile apply R1 --expect-deletions 60\n"}},
		{"FuseLatchedBefore", []string{"run"}, ended(run.Full, run.Partial, fused, func(r *run.Run) { r.Fuse = "" }), true, 3, []string{"Refused: 60 orphaned.", "The fuse, latched before this run", "--expect-deletions 60\n"}},
		{"RefusedByOthersThanTheFuse", []string{"run"}, ended(run.Full, run.Partial, fused, func(r *run.Run) { r.Fuse = "" }), false, 4, nil},
		{"Unsettled", []string{"run"}, ended(run.Full, run.Partial, func(r *run.Run) { r.Unsettled, r.Error = 2, "2 events are not settled yet" }), false, 4,
			[]string{"Run R1 is partial: 2 events are not settled yet.", "2 of its events are not settled yet. See later: trueup reconcile show R1\n"}},
		{"UnsettledAfterARelease", []string{"apply", "R1", "--yes", "--expect-deletions", "60"}, ended(run.Plan, run.Partial, func(r *run.Run) {
			n := int64(60)
			r.Fuse, r.ExpectedDeletions, r.Error = "60 candidates", &n, "2 events are not settled yet"
		}), false, 4, []string{"An operator has released the fuse for this run's 60 candidates."}},
		{"Failed", []string{"run"}, ended(run.Full, run.Failed, func(r *run.Run) {
			r.Error, r.Account, r.Whole, r.Listed = "this may be another account's key", run.Account{Asked: 5}, false, 0
		}), false, 1, []string{"Run R1 failed: this may be another account's key.", "Nothing was judged: ImageKit's account was not recognised, 0 of 5 known files are there", "trueup reconcile apply R1 --accept-account\n"}},
		{"Cancelled", []string{"run"}, ended(run.Full, run.Cancelled), false, 1, []string{"was cancelled"}},
		{"Planned", []string{"plan"}, ended(run.Plan, run.Planned, func(r *run.Run) { r.Found = counts{run.Drifted: {run.Found: 3}} }), false, 0,
			[]string{"is a plan: nothing was changed.", "Found, and not repaired so far: 3 drifted.", "To repair this: trueup reconcile apply R1\n"}},
		{"PlannedWhileTheFuseIsLatched", []string{"plan"}, ended(run.Plan, run.Planned, func(r *run.Run) { r.Found, r.Candidates = counts{run.Orphaned: {run.Found: 1}}, 1 }), true, 0,
			[]string{"To repair this: trueup reconcile apply R1\n", "The fuse, latched before this run", "let exactly this one be deleted where a look-up by id confirms it: trueup reconcile apply R1 --expect-deletions 1\n"}},
		{"PlannedNothingWhileTheFuseIsLatched", []string{"plan"}, ended(run.Plan, run.Planned), true, 0,
			[]string{"Found: nothing that differs.", "To release the fuse, with no candidate for deletion: trueup reconcile apply R1 --expect-deletions 0\n"}},
		{"PlanOfOrphansAlone", []string{"plan"}, ended(run.Plan, run.Planned, func(r *run.Run) { r.Found, r.Candidates = counts{run.Orphaned: {run.Found: 2}}, 2 }), false, 0,
			[]string{"Found, and not repaired so far: 2 orphaned.", "To repair this: trueup reconcile apply R1\n"}},
		{"PlannedWithExitCode", []string{"plan", "--exit-code"}, ended(run.Plan, run.Planned, func(r *run.Run) { r.Found = counts{run.Drifted: {run.Found: 3}} }), false, 5, nil},
		{"PlannedNothingWithExitCode", []string{"plan", "--exit-code"}, ended(run.Plan, run.Planned, func(r *run.Run) { r.Found = counts{run.Unowned: {run.Skipped: 3}} }), false, 0, nil},
		{"PlanThatWouldLatch", []string{"plan"}, ended(run.Plan, run.Planned, func(r *run.Run) { r.Fuse, r.Candidates = "60 of 998 rows", 60 }), false, 0,
			[]string{"Applying this would latch the fuse: 60 of 998 rows.", "--expect-deletions 60"}},
		{"PartialPlan", []string{"plan", "--exit-code"}, ended(run.Plan, run.Partial, func(r *run.Run) { r.Whole, r.Error = false, "the listing is garbage" }), false, 4,
			[]string{"The listing was not whole, so no row was judged by its absence from it."}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, run.Run{ID: "R1", State: run.Running}, tt.end)
			s.latched = tt.latched
			stdout, stderr, code := s.trueup(t.Context(), "", append([]string{"reconcile"}, tt.args...)...)
			if code != tt.code {
				t.Errorf("exit %d, want %d\n%s%s", code, tt.code, stdout, stderr)
			}
			for _, part := range tt.says {
				if !strings.Contains(stdout, part) {
					t.Errorf("%q is missing in:\n%s", part, stdout)
				}
			}
			s.states = []run.Run{{ID: "R1", State: run.Running}, tt.end}
			stdout, _, code = s.trueup(t.Context(), "", append([]string{"reconcile", "--json"}, tt.args...)...)
			var got run.Run
			if err := json.Unmarshal([]byte(stdout), &got); err != nil || got.State != tt.end.State || code != tt.code {
				t.Errorf("--json: exit %d, %v:\n%s", code, err, stdout)
			}
		})
	}
}

func TestARunIsFollowedToItsEnd(t *testing.T) {
	under := func(phase run.Phase, change func(*run.Run)) run.Run {
		r := run.Run{ID: "R1", Kind: run.Full, State: run.Running, Phase: phase}
		change(&r)
		return r
	}
	s := newServer(t, under("", func(*run.Run) {}), under(run.PhaseAccount, func(*run.Run) {}), under(run.PhaseList, func(r *run.Run) { r.Listed = 2000 }),
		under(run.PhaseList, func(r *run.Run) { r.Listed, r.Waiting = 2000, "ImageKit does not answer" }),
		under(run.PhaseRepair, func(r *run.Run) { r.Found = counts{run.Missing: {run.Found: 1, run.Repaired: 3}} }),
		under(run.PhaseSettle, func(r *run.Run) { r.Unsettled = 7 }), ended(run.Full, run.Complete))
	stdout, stderr, code := s.trueup(t.Context(), "", "reconcile", "run", "--note", "by hand")
	if code != 0 || !strings.HasPrefix(stdout, "Run R1 is complete.") {
		t.Errorf("exit %d\n%s", code, stdout)
	}
	for _, want := range []string{"run R1: is it still our account?", "run R1: 2000 files listed", "waits: ImageKit does not answer", "repairing, 3 of 4; found so far: missing 4", "7 look-ups by id not settled yet"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("%q is missing in:\n%s", want, stderr)
		}
	}
	if got := strings.Join(s.bodies, ""); got != `/api/runs {"kind":"run","note":"by hand"}` {
		t.Error(got)
	}
}

func TestTheRunGoesOnWithoutTheCommand(t *testing.T) {
	s := newServer(t, run.Run{ID: "R1", State: run.Running})
	t.Run("Interrupted", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s.Config.Handler = interrupt(s.Config.Handler, cancel)
		if _, stderr, code := s.trueup(ctx, "", "reconcile", "run"); code != 1 || !strings.Contains(stderr, "the run goes on: trueup reconcile show R1") {
			t.Errorf("exit %d\n%s", code, stderr)
		}
	})
	t.Run("NotWaitedFor", func(t *testing.T) {
		s := newServer(t, run.Run{ID: "R1", State: run.Running})
		if stdout, _, code := s.trueup(t.Context(), "", "reconcile", "plan", "--no-wait"); code != 0 || stdout != "Run R1 goes on: trueup reconcile show R1\n" {
			t.Errorf("exit %d\n%s", code, stdout)
		}
	})
}

// interrupt is a person who has seen enough when the run is asked for.
func interrupt(h http.Handler, stop func()) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/api/runs/") {
			stop()
		}
		h.ServeHTTP(w, r)
	})
}

func TestApplyAsksFirst(t *testing.T) {
	plan := ended(run.Plan, run.Planned, func(r *run.Run) {
		r.Candidates, r.Found = 60, counts{run.Missing: {run.Found: 4}, run.Unowned: {run.Found: 1, run.Skipped: 9}, run.Orphaned: {run.Found: 60}}
	})
	latching := plan
	latching.Fuse = "60 of 998 rows"
	doubted := ended(run.Full, run.Failed, func(r *run.Run) { r.Account.Confirmed = false })
	tests := []struct {
		name  string
		run   run.Run
		args  []string
		asks  string
		wants string
	}{
		{"WithinTheBrakes", plan, nil, "Repair 5 findings of run R1, and delete the rows of those of its 60 candidates that a look-up by id does not find either? [y/N]", `{}`},
		{"BeyondTheFuse", latching, nil, "Repair 5 findings of run R1 (its 60 candidates for deletion stay, and the fuse is latched: only --expect-deletions 60 lets them go)?", `{}`},
		{"ReleasingIt", latching, []string{"--expect-deletions", "60", "--note", "moved"}, "release the fuse, and delete the rows of those of its 60 candidates", `{"expectDeletions":60,"note":"moved"}`},
		{"ExpectingNone", latching, []string{"--expect-deletions", "0"}, "release the fuse", `{"expectDeletions":0}`},
		{"AnotherAccount", doubted, []string{"--accept-account"}, "Take this ImageKit account for ours, and do all of run R1: rows whose files it does not have become candidates for deletion?", `{"acceptAccount":true}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t, tt.run)
			args := append([]string{"reconcile", "apply", "R1"}, tt.args...)
			if _, stderr, code := s.trueup(t.Context(), "no\n", args...); code != 1 || !strings.Contains(stderr, tt.asks) || len(s.bodies) > 0 {
				t.Errorf("exit %d, %q, want %q\n%s", code, s.bodies, tt.asks, stderr)
			}
			if _, stderr, code := s.trueup(t.Context(), "", args...); code != 2 || !strings.Contains(stderr, "say --yes") || len(s.bodies) > 0 {
				t.Errorf("nobody there: exit %d, %q\n%s", code, s.bodies, stderr)
			}
			s.trueup(t.Context(), "yes\n", args...)
			if got, want := strings.Join(s.bodies, ""), "/api/runs/R1/apply "+tt.wants; got != want {
				t.Errorf("sent %q, want %q", got, want)
			}
		})
	}
	t.Run("RefusalIsSaid", func(t *testing.T) {
		s := newServer(t, plan)
		s.refusal = &operator.Problem{Status: 409, Code: "other_count", Text: "59 deletions are expected, but run R1 has 60 candidates"}
		if stdout, stderr, code := s.trueup(t.Context(), "", "reconcile", "apply", "R1", "--yes", "--expect-deletions", "59"); code != 1 || !strings.Contains(stderr, "but run R1 has 60") || stdout != "" {
			t.Errorf("exit %d\n%s%s", code, stdout, stderr)
		}
	})
}

func TestShowPrintsWhatToType(t *testing.T) {
	x, y := "old.jpg", "new.jpg"
	s := newServer(t, ended(run.Full, run.Partial, func(r *run.Run) {
		r.Candidates, r.Found = 60, counts{run.Drifted: {run.Repaired: 1}, run.Orphaned: {run.Refused: 60}}
		r.StartedAt, r.FinishedAt, r.Error = time.Unix(100, 0), time.Unix(190, 0), "the fuse is latched"
	}))
	s.findings = []run.Finding{
		{FileID: "aaa", Kind: run.Drifted, Status: run.Repaired, Columns: []run.Difference{{Column: "file_name", Row: &x, ImageKit: &y}, {Column: "format", Row: &x}}},
		{FileID: "bbbb", Kind: run.Orphaned, Status: run.Refused, Reason: run.ReasonFuse, Event: "E1", Evidence: []string{"not in a whole listing of 1000\nfiles"}},
	}
	stdout, stderr, code := s.trueup(t.Context(), "", "reconcile", "show", "R1", "--limit", "1")
	for _, want := range []string{"state     partial", "ended     1970-01-01 00:03:10Z, after 1m30s", "FINDINGS  FOUND  REPAIRED  SKIPPED  REFUSED  ALL", "orphaned  0      0         0        60       60",
		"all       0      1         0        60       61", "The fuse, latched before this run", "let exactly these 60 be deleted where a look-up by id confirms it: trueup reconcile apply R1 --expect-deletions 60\n", "aaa   drifted   repaired", `  file_name: "old.jpg" → "new.jpg"`, `  format: "old.jpg" → NULL`} {
		if !strings.Contains(stdout, want) {
			t.Errorf("%q is missing in:\n%s", want, stdout)
		}
	}
	if code != 0 || strings.Contains(stdout, "bbbb") || !strings.Contains(stderr, "--all shows all of them") {
		t.Errorf("exit %d\n%s%s", code, stdout, stderr)
	}
	stdout, _, _ = s.trueup(t.Context(), "", "reconcile", "show", "R1", "--all")
	if !strings.Contains(stdout, "bbbb  orphaned  refused   fuse_latched, event E1\n  not in a whole listing of 1000 files\n") {
		t.Error(stdout)
	}
	var got shownRun
	stdout, _, _ = s.trueup(t.Context(), "", "reconcile", "show", "R1", "--all", "--json")
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || got.Run.ID != "R1" || len(got.Findings) != 2 || !strings.Contains(got.Release, "60") {
		t.Errorf("%v\n%s", err, stdout)
	}
	if _, stderr, code := s.trueup(t.Context(), "", "reconcile", "show", "R1", "--limit", "0"); code != 2 {
		t.Errorf("exit %d\n%s", code, stderr)
	}
}

func TestListingSaysHowLongItTakes(t *testing.T) {
	now := time.Unix(0, 0)
	c := &pace{expected: 1_000_000, now: func() time.Time { return now }}
	look := func(listed int64, after time.Duration) point {
		now = now.Add(after)
		return c.point(run.Run{State: run.Running, Phase: run.PhaseList, Listed: listed, Found: counts{}})
	}
	look(100_000, 0)
	at := look(300_000, 10*time.Second)
	if want := "300000 files listed, 20000/s, about 35s left"; at.what != want || at.filled(10) != 3 {
		t.Errorf("%q, %d tenths, want %q", at.what, at.filled(10), want)
	}
	if again := look(300_000, time.Second); again.what != at.what {
		t.Errorf("the count has not been saved anew, yet it says %q", again.what)
	}
	if at := look(1_200_000, time.Minute); strings.Contains(at.what, "left") || at.filled(10) != 10 {
		t.Errorf("more than expected: %+v", at)
	}
	c = &pace{now: func() time.Time { return now }}
	first, same, later := look(1000, 0), look(9000, time.Second), look(10_000, time.Second)
	if first.phase != same.phase || later.phase == same.phase || later.filled(10) != 0 {
		t.Errorf("without an expectation a line is due each 10,000 files: %+v %+v %+v", first, same, later)
	}
}

func TestStatusSpeaksOfRuns(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := operator.Status{At: at.Add(time.Hour),
		Fuse:    &operator.FuseStatus{Latched: true, Why: "60 of 998 rows", Run: "R1", Release: "trueup reconcile apply R1 --expect-deletions 60"},
		Account: &operator.AccountStatus{Doubt: "none answered", Since: &at, Run: "R2"},
		Run:     &operator.RunStatus{Run: ended(run.Full, run.Partial, func(r *run.Run) { r.FinishedAt, r.Found = at, counts{run.Orphaned: {run.Refused: 60}} }), Drift: 60}}
	said := fmt.Sprint(statusLines(s))
	for _, want := range []string{"to release it: trueup reconcile apply R1 --expect-deletions 60", "NOT RECOGNISED since 2026-01-02 03:04:05Z", "trueup reconcile apply R2 --accept-account",
		"R1 (run) partial 1h0m0s ago, 1000 files listed, drift 60; found: orphaned 60"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is missing in %s", want, said)
		}
	}
	s.Fuse.Release = operator.PlanCommand
	if said := fmt.Sprint(statusLines(s)); !strings.Contains(said, "to see how to release it: trueup reconcile plan") {
		t.Error(said)
	}
}

func TestABarFitsTheTerminal(t *testing.T) {
	at := point{done: 1, total: 4}
	if got, want := bar(at, "a quarter", 80), "[#####---------------] a quarter"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := bar(at, "ein Viertel für Élise", 30), "[#####---------------] ein V…"; got != want || len([]rune(got)) != 29 {
		t.Errorf("%q, want %q", got, want)
	}
	if got := bar(at, "x", 1); got != "…" {
		t.Errorf("%q", got)
	}
}
