package operator

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/run"
)

// book is an in-memory Runs that keeps to what the interface promises.
type book struct {
	runs     []run.Run // youngest first
	findings []run.Finding
	applied  []run.Apply
	fault    error // of every method
}

func (b *book) StartRun(_ context.Context, r run.Run) (run.Run, error) {
	if b.fault != nil {
		return r, b.fault
	}
	for _, x := range b.runs {
		if x.Key == r.Key && x.StartedBy == r.StartedBy {
			return x, nil
		}
	}
	if slices.ContainsFunc(b.runs, func(x run.Run) bool { return x.State.Open() }) {
		return r, fmt.Errorf("start run: %w", run.ErrUnderWay)
	}
	r.ID, r.State, r.StartedAt = fmt.Sprintf("run%d", len(b.runs)), run.Running, time.Unix(int64(len(b.runs)), 0)
	b.runs = append([]run.Run{r}, b.runs...)
	return r, nil
}

func (b *book) find(id string) (*run.Run, error) {
	for i := range b.runs {
		if b.runs[i].ID == id {
			return &b.runs[i], b.fault
		}
	}
	return nil, errors.Join(b.fault, fmt.Errorf("run %s: %w", id, event.ErrUnknown))
}

func (b *book) Run(_ context.Context, id string) (run.Run, error) {
	r, err := b.find(id)
	if err != nil {
		return run.Run{}, err
	}
	return *r, nil
}

func (b *book) RunList(_ context.Context, after string, limit int) ([]run.Run, error) {
	i := slices.IndexFunc(b.runs, func(r run.Run) bool { return r.ID == after }) + 1
	return b.runs[i:min(len(b.runs), i+limit)], b.fault
}

func (b *book) Findings(_ context.Context, id string, f run.FindingFilter, after string, limit int) ([]run.Finding, error) {
	if _, err := b.find(id); err != nil {
		return nil, err
	}
	var out []run.Finding
	for _, x := range b.findings {
		if x.FileID > after && (f.Kind == "" || f.Kind == x.Kind) && (f.Status == "" || f.Status == x.Status) && len(out) < limit {
			out = append(out, x)
		}
	}
	return out, nil
}

func (b *book) ApplyRun(_ context.Context, id string, a run.Apply) (run.Run, error) {
	r, err := b.find(id)
	switch {
	case err != nil:
		return run.Run{}, err
	case r.State == run.Cancelled || r.State == run.Complete || r.State.Open():
		return *r, fmt.Errorf("apply: %w", run.ErrEnded)
	case slices.ContainsFunc(b.runs, func(x run.Run) bool { return x.State.Open() }):
		return *r, fmt.Errorf("apply: %w", run.ErrUnderWay)
	case r.ID == "forgotten":
		return *r, fmt.Errorf("the findings of run %s are not kept any more: %w", id, run.ErrEnded)
	case a.ExpectDeletions != nil && (*a.ExpectDeletions != r.Candidates || r.State == run.Failed && r.Candidates == 0):
		return *r, fmt.Errorf("apply: %w", run.ErrOtherCount)
	case !r.Account.Confirmed && !a.AcceptAccount:
		return *r, fmt.Errorf("apply: %w", run.ErrAccount)
	}
	b.applied = append(b.applied, a)
	r.State, r.ExpectedDeletions = run.Applying, a.ExpectDeletions
	return *r, nil
}

func (b *book) CancelRun(_ context.Context, id string, _ Act) (run.Run, error) {
	r, err := b.find(id)
	if err != nil {
		return run.Run{}, err
	}
	if r.State.Open() || r.State == run.Planned {
		r.State = run.Cancelled
	}
	return *r, nil
}

// shelved is one run of each sort that can be applied or not, youngest first.
func shelved() []run.Run {
	sure := run.Account{Asked: 5, Answered: 5, Confirmed: true}
	return []run.Run{
		{ID: "doubted", Kind: run.Full, State: run.Failed, StartedBy: "schedule", Account: run.Account{Asked: 5}, Error: "the account is another"},
		{ID: "forgotten", Kind: run.Full, State: run.Partial, StartedBy: "ann", Account: sure},
		{ID: "complete", Kind: run.Full, State: run.Complete, StartedBy: "ann", Account: sure},
		{ID: "cancelled", Kind: run.Plan, State: run.Cancelled, StartedBy: "ann", Account: sure},
		{ID: "planned", Kind: run.Plan, State: run.Planned, StartedBy: "ann", Account: sure, Candidates: 60, Whole: true, Listed: 940, Rows: 1000, Same: 940,
			Found: map[run.FindingKind]map[run.Status]int64{run.Orphaned: {run.Found: 60}}, Fuse: "60 candidates are more than 10"},
	}
}

func TestRunsContract(t *testing.T) {
	r := newRig(t)
	x, at := "x", time.Unix(7, 0)
	r.runs = shelved()
	r.findings = []run.Finding{
		{FileID: "a", Kind: run.Drifted, Status: run.Repaired, Columns: []run.Difference{{Column: "file_name", Row: &x}}, FoundAt: at, ChangedAt: at},
		{FileID: "b", Kind: run.Orphaned, Status: run.Refused, Reason: run.ReasonFuse, Evidence: []string{"not in a whole listing"}, Event: "E1", FoundAt: at, ChangedAt: at},
	}
	tests := []struct {
		name, method, path, body string
		status                   int
		want                     string
	}{
		{"List", "GET", "/api/runs?limit=1", "", 200, `"next":"doubted"`},
		{"ListOn", "GET", "/api/runs?limit=1&after=doubted", "", 200, `"id":"forgotten"`},
		{"ListBadLimit", "GET", "/api/runs?limit=0", "", 400, "invalid_limit"},
		{"Show", "GET", "/api/runs/planned", "", 200, `"candidates":60`},
		{"ShowUnknown", "GET", "/api/runs/nobody", "", 404, `there is no reconciliation run \"nobody\"`},
		{"Findings", "GET", "/api/runs/planned/findings?limit=1", "", 200, `"next":"a"`},
		{"FindingsAfter", "GET", "/api/runs/planned/findings?after=a", "", 200, `[{"fileId":"b"`},
		{"FindingsOfAKind", "GET", "/api/runs/planned/findings?kind=drifted&status=repaired", "", 200, `"columns":[{"column":"file_name","row":"x","imagekit":null}]`},
		{"FindingsNone", "GET", "/api/runs/planned/findings?kind=adopted", "", 200, `{"items":[]}`},
		{"FindingsMistypedKind", "GET", "/api/runs/planned/findings?kind=orphan", "", 400, "invalid_filter"},
		{"FindingsMistypedStatus", "GET", "/api/runs/planned/findings?status=open", "", 400, "invalid_filter"},
		{"FindingsOfNobody", "GET", "/api/runs/nobody/findings", "", 404, "nobody"},
		{"ApplyUnknown", "POST", "/api/runs/nobody/apply", "", 404, "unknown_id"},
		{"ApplyCancelled", "POST", "/api/runs/cancelled/apply", "", 409, `"error":"run cancelled is cancelled: start another one","code":"run_ended"`},
		{"ApplyOtherCount", "POST", "/api/runs/planned/apply", `{"expectDeletions":59}`, 409, `59 deletions are expected, but run planned has 60 candidates`},
		{"ApplyOtherCountWord", "POST", "/api/runs/planned/apply", `{"expectDeletions":0}`, 409, `"code":"other_count"`},
		{"ApplyLessThanNone", "POST", "/api/runs/planned/apply", `{"expectDeletions":-1}`, 400, "invalid_count"},
		{"ApplyHalfANumber", "POST", "/api/runs/planned/apply", `{"expectDeletions":"60"}`, 400, "invalid_body"},
		{"ApplyDoubted", "POST", "/api/runs/doubted/apply", "", 409, `0 of 5 known files are there`},
		{"ApplyDoubtedWord", "POST", "/api/runs/doubted/apply", `{"note":"x"}`, 409, `"code":"account_not_confirmed"`},
		{"CancelUnknown", "POST", "/api/runs/nobody/cancel", "", 404, "unknown_id"},
		{"ApplyForgotten", "POST", "/api/runs/forgotten/apply", "", 409, `run forgotten is partial, and its findings are not kept any more`},
		{"ApplyComplete", "POST", "/api/runs/complete/apply", "", 409, `run complete is complete, and nothing of it is left to apply: look again with trueup reconcile plan","code":"run_ended"`},
		{"ApplyUncounted", "POST", "/api/runs/doubted/apply", `{"expectDeletions":0}`, 409, `run doubted failed before it had counted candidates for deletion: start another one with trueup reconcile plan","code":"other_count"`},
		{"CancelEnded", "POST", "/api/runs/complete/cancel", "", 200, `"state":"complete"`},
		{"StartNothingSaid", "POST", "/api/runs", `{}`, 400, "invalid_kind"},
		{"StartMistyped", "POST", "/api/runs", `{"kind":"full"}`, 400, "invalid_kind"},
		{"StartUnknownField", "POST", "/api/runs", `{"kind":"plan","dry":true}`, 400, "invalid_body"},
		{"Apply", "POST", "/api/runs/planned/apply", `{"expectDeletions":60,"note":"bucket emptied"}`, 200, `"state":"applying"`},
		{"ApplyAgain", "POST", "/api/runs/planned/apply", `{"note":"once more"}`, 409, `run planned (plan, begun by ann at`},
		{"ApplyBesideIt", "POST", "/api/runs/doubted/apply", `{"acceptAccount":true}`, 409, `run planned (plan`},
		{"StartBesideIt", "POST", "/api/runs", `{"kind":"plan"}`, 409, `is under way: wait for it, or end it with trueup reconcile cancel planned","code":"run_under_way"`},
		{"Cancel", "POST", "/api/runs/planned/cancel", `{"note":"no"}`, 200, `"state":"cancelled"`},
		{"Accept", "POST", "/api/runs/doubted/apply", `{"acceptAccount":true,"note":"ours"}`, 200, `"state":"applying"`},
		{"CancelThat", "POST", "/api/runs/doubted/cancel", "", 200, `"state":"cancelled"`},
		{"Start", "POST", "/api/runs", `{"kind":"run","note":"nightly"}`, 200, `"startedBy":"ann","note":"nightly"`},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := r.do(t, tt.method, tt.path, annToken, tt.body, "Idempotency-Key", fmt.Sprint("k", i))
			if got.status != tt.status || !strings.Contains(got.body, tt.want) {
				t.Errorf("%d %s, want %d with %s", got.status, got.body, tt.status, tt.want)
			}
			if bare := r.do(t, tt.method, tt.path, "", tt.body, "Idempotency-Key", "k"); bare.status != 401 {
				t.Errorf("without a token: %d", bare.status)
			}
			if tt.method != "POST" {
				return
			}
			if bare := r.do(t, tt.method, tt.path, annToken, tt.body); bare.status != 400 || bare.code() != "idempotency_key_missing" {
				t.Errorf("without a key: %d %s", bare.status, bare.body)
			}
		})
	}
	if len(r.applied) != 2 || r.applied[0].Who != "ann" || r.applied[0].Note != "bucket emptied" || !r.applied[1].AcceptAccount {
		t.Errorf("applied %+v: a refused request must do nothing", r.applied)
	}
}

func TestFaultsOfRuns(t *testing.T) {
	for name, tt := range map[string]struct {
		err    error
		status int
		code   string
	}{
		"Outage":          {fmt.Errorf("read: %w", event.ErrOutage), 503, "database_unavailable"},
		"OutageOfWhatIs":  {errors.Join(run.ErrUnderWay, event.ErrOutage), 503, "database_unavailable"},
		"Bug":             {errors.New("column secret_column does not exist"), 500, "internal"},
		"KeyOfAnotherOne": {ErrKeyReused, 422, "idempotency_key_reused"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.runs, r.fault = shelved(), tt.err
			for _, x := range [][3]string{{"GET", "/api/runs"}, {"GET", "/api/runs/planned"}, {"GET", "/api/runs/planned/findings"}, {"POST", "/api/runs", `{"kind":"plan"}`},
				{"POST", "/api/runs/planned/apply"}, {"POST", "/api/runs/planned/cancel"}} {
				if tt.status == 422 && x[0] == "GET" {
					continue
				}
				got := r.do(t, x[0], x[1], annToken, x[2], "Idempotency-Key", x[1])
				if got.status != tt.status || got.code() != tt.code || strings.Contains(got.body, "secret_column") {
					t.Errorf("%s %s: %d %s", x[0], x[1], got.status, got.body)
				}
			}
		})
	}
	t.Run("OpenRunHasEndedMeanwhile", func(t *testing.T) {
		h := &Handler{Config: Config{Runs: &book{}}}
		var p *Problem
		if err := h.runProblem(t.Context(), "", run.ErrUnderWay); !errors.As(err, &p) || p.Code != "run_under_way" || !strings.Contains(p.Text, "try again") {
			t.Error(err)
		}
	})
}

func TestStatusTellsTheRunAndHowToReleaseTheFuse(t *testing.T) {
	found := map[run.FindingKind]map[run.Status]int64{run.Orphaned: {run.Refused: 60}, run.Missing: {run.Repaired: 3, run.Found: 1}, run.Unowned: {run.Skipped: 9}}
	sure := run.Account{Confirmed: true}
	tests := []struct {
		name          string
		run           run.Run
		fuse          FuseStatus
		kept          []run.Run
		release, want string
	}{
		{"ByThisRun", run.Run{ID: "R1", State: run.Partial, Found: found, Candidates: 60, Account: sure}, FuseStatus{Latched: true, Run: "R1"}, nil,
			"trueup reconcile apply R1 --expect-deletions 60", `"drift":61`},
		{"ByAnOlderRun", run.Run{ID: "R2", State: run.Complete, Account: sure}, FuseStatus{Latched: true, Run: "planned"}, shelved(),
			"trueup reconcile apply planned --expect-deletions 60", `"drift":0`},
		{"ByTheWorker", run.Run{ID: "R2", State: run.Complete, Account: sure}, FuseStatus{Latched: true}, nil, "trueup reconcile plan", `"id":"R2"`},
		{"ByACancelledRun", run.Run{ID: "R3", State: run.Cancelled, Account: sure}, FuseStatus{Latched: true, Run: "R3"}, nil, "trueup reconcile plan", ""},
		{"ByARunThatJudgedNothing", run.Run{ID: "R3", State: run.Failed}, FuseStatus{Latched: true, Run: "R3"}, nil, "trueup reconcile plan", ""},
		{"ByOneThatCountedNothing", run.Run{ID: "R3", State: run.Failed, Account: sure}, FuseStatus{Latched: true, Run: "R3"}, nil, "trueup reconcile plan", ""},
		{"ByOneUnderWay", run.Run{ID: "R4", State: run.Running, Account: sure}, FuseStatus{Latched: true, Run: "R4"}, nil, "", ""},
		{"ByOneForgotten", run.Run{ID: "R5", State: run.Complete, Account: sure}, FuseStatus{Latched: true, Run: "nobody"}, nil, "trueup reconcile plan", ""},
		{"NotLatched", run.Run{ID: "R1", State: run.Complete, Account: sure}, FuseStatus{Run: "R1"}, nil, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			r.runs = tt.kept
			tt.run.Kind = run.Full
			r.status = func(s *Status) { s.Run, s.Fuse = &RunStatus{Run: tt.run}, &tt.fuse }
			s, err := clientOf(t, r).Status(t.Context())
			if err != nil || s.Fuse.Release != tt.release {
				t.Errorf("release %q, want %q (%v)", s.Fuse.Release, tt.release, err)
			}
			if got := r.do(t, "GET", "/api/status", annToken, ""); !strings.Contains(got.body, tt.want) {
				t.Errorf("%s, want %s", got.body, tt.want)
			}
		})
	}
}

func TestClientOfRuns(t *testing.T) {
	r := newRig(t)
	r.runs, r.findings = shelved(), []run.Finding{{FileID: "a", Kind: run.Missing, Status: run.Found}}
	c := clientOf(t, r)
	if page, err := c.Runs(t.Context(), "", 2); err != nil || len(page.Items) != 2 || page.Next != "forgotten" {
		t.Errorf("%+v %v", page, err)
	}
	if page, err := c.Findings(t.Context(), "planned", run.FindingFilter{Kind: run.Missing, Status: run.Found}, "", 10); err != nil || len(page.Items) != 1 {
		t.Errorf("%+v %v", page, err)
	}
	sixty := int64(60)
	if got, err := c.ApplyRun(t.Context(), "planned", run.Apply{ExpectDeletions: &sixty, Note: "n"}); err != nil || got.State != run.Applying || *got.ExpectedDeletions != 60 {
		t.Errorf("%+v %v", got, err)
	}
	if got, err := c.CancelRun(t.Context(), "planned", ""); err != nil || got.State != run.Cancelled {
		t.Errorf("%+v %v", got, err)
	}
	if got, err := c.StartRun(t.Context(), run.Full, "n"); err != nil || got.Note != "n" || got.Kind != run.Full {
		t.Errorf("%+v %v", got, err)
	}
	if got, err := c.Run(t.Context(), "run5"); err != nil || !got.State.Open() {
		t.Errorf("%+v %v", got, err)
	}
}

// TestClientAsksAgainUnderOneKey: a lost answer starts no second run, whether or not the
// first request was carried out.
func TestClientAsksAgainUnderOneKey(t *testing.T) {
	tests := map[string]struct {
		lose func(w http.ResponseWriter, r *http.Request, real http.Handler)
	}{
		"NothingHappened": {func(_ http.ResponseWriter, _ *http.Request, _ http.Handler) { panic(http.ErrAbortHandler) }},
		"ItHappenedAndNobodyIsTold": {func(_ http.ResponseWriter, r *http.Request, real http.Handler) {
			real.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		}},
		"ItHappenedAndHalfIsTold": {func(w http.ResponseWriter, r *http.Request, real http.Handler) {
			real.ServeHTTP(httptest.NewRecorder(), r)
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte(`{"id":"ru`))
			panic(http.ErrAbortHandler)
		}},
		"ItHappenedAndTheDatabaseSeemsAway": {func(w http.ResponseWriter, r *http.Request, real http.Handler) {
			real.ServeHTTP(httptest.NewRecorder(), r)
			fail(w, errOutage)
		}},
		"ItHappenedBehindAProxyThatGaveUp": {func(w http.ResponseWriter, r *http.Request, real http.Handler) {
			real.ServeHTTP(httptest.NewRecorder(), r)
			w.WriteHeader(http.StatusGatewayTimeout)
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			var asked atomic.Int32
			unsure := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				if asked.Add(1) <= 2 {
					tt.lose(w, req, r.handler)
					return
				}
				r.handler.ServeHTTP(w, req)
			}))
			defer unsure.Close()
			c, err := NewClient(ClientConfig{URL: unsure.URL, Token: annToken, Again: time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			got, err := c.StartRun(t.Context(), run.Plan, "")
			if err != nil || got.ID != "run0" || asked.Load() != 3 || len(r.runs) != 1 {
				t.Errorf("%+v %v after %d requests, %d runs", got, err, asked.Load(), len(r.runs))
			}
		})
	}
	t.Run("ARefusalIsFinal", func(t *testing.T) {
		r := newRig(t)
		r.runs = []run.Run{{ID: "open", State: run.Running}}
		var p *Problem
		if _, err := clientOf(t, r).StartRun(t.Context(), run.Plan, ""); !errors.As(err, &p) || p.Code == "" || p.Status != 409 {
			t.Error(err)
		}
	})
	t.Run("NobodyThereIsSaidAtOnce", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
		c, err := NewClient(ClientConfig{URL: "http://" + l.Addr().String(), Again: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.StartRun(t.Context(), run.Plan, ""); err == nil || !strings.Contains(err.Error(), "is it running?") {
			t.Error(err)
		}
	})
	t.Run("ItGivesUp", func(t *testing.T) {
		var asked atomic.Int32
		gone := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1); panic(http.ErrAbortHandler) }))
		defer gone.Close()
		c, err := NewClient(ClientConfig{URL: gone.URL, Again: time.Microsecond})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.StartRun(t.Context(), run.Plan, ""); err == nil || asked.Load() != 1+persistMost {
			t.Errorf("%v after %d requests", err, asked.Load())
		}
	})
}
