package operator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"github.com/go-chi/chi/v5"
	"go.uber.org/goleak"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/run"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	annToken = "ann-token-0123456789"
	bobToken = "bob-token-0123456789"
)

// standIn is a Service that records what it is told.
type standIn struct {
	drawer
	book
	status   func(*Status)
	mu       sync.Mutex
	acts     []string
	fail     error
	passport Passport
	hold     chan struct{} // acts wait for it
}

func (s *standIn) Status(context.Context) (Status, error) {
	rows := int64(7)
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	st := Status{At: at, Role: "serve", Version: "v1", Worker: &WorkerStatus{Here: true, Turn: 3},
		Queue: &QueueStatus{Accepting: true, Durability: "fsync", Oldest: &at}, Retries: &RetryStatus{Count: 1, NextDue: &at},
		DeadLetters: map[string]int64{"imagekit": 2}, Rows: &rows, Fuse: &FuseStatus{}, API: &APIStatus{PerSecond: 40},
		Security: map[string]int64{"claim_refused": 1}, Unavailable: map[string]string{"x": "y"},
		Account: &AccountStatus{Doubt: "none of 5 known files answered", Since: &at, Run: "R"}}
	if s.status != nil {
		s.status(&st)
	}
	return st, s.fail
}

func (s *standIn) Passport(context.Context, string) (Passport, error) { return s.passport, s.fail }

func (s *standIn) Pause(_ context.Context, a Act) (Paused, error)  { return s.act("pause", a, true) }
func (s *standIn) Resume(_ context.Context, a Act) (Paused, error) { return s.act("resume", a, false) }

func (s *standIn) act(verb string, a Act, paused bool) (Paused, error) {
	if s.hold != nil {
		<-s.hold
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acts = append(s.acts, verb+" "+a.Who+" "+a.Note)
	return Paused{Paused: paused, PausedBy: a.Who, PausedNote: a.Note}, s.fail
}

type rig struct {
	*standIn
	handler *Handler
	server  *httptest.Server
	router  routers.Router
	ready   Readiness
}

func newRig(t *testing.T, change ...func(*Config)) *rig {
	t.Helper()
	r := &rig{standIn: &standIn{}, ready: Readiness{Ready: true, Durability: "fsync", Parts: map[string]string{"database": "down"}}}
	c := Config{Role: "serve", Version: "v1", Service: r.standIn, Runs: r.standIn, Ready: func() Readiness { return r.ready },
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			_, _ = io.WriteString(w, "up 1\n")
		}),
		Tokens:    []Token{{"ann", annToken}, {"bob", bobToken}},
		FailDelay: time.Millisecond}
	for _, f := range change {
		f(&c)
	}
	var err error
	if r.handler, err = New(c); err != nil {
		t.Fatal(err)
	}
	r.server = httptest.NewServer(r.handler)
	t.Cleanup(r.server.Close)
	doc, err := openapi3.NewLoader().LoadFromData(OpenAPI())
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r.router, err = gorillamux.NewRouter(doc); err != nil {
		t.Fatal(err)
	}
	return r
}

// answered is one exchange; it has been held against the document.
type answered struct {
	status int
	header http.Header
	body   string
}

func (a answered) code() string {
	var p problemBody
	_ = json.Unmarshal([]byte(a.body), &p) // a body of another shape has no code
	return p.Code
}

func (r *rig) do(t *testing.T, method, path, token, body string, header ...string) answered {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, r.server.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := r.server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	r.check(t, req, res, raw)
	if res.Header.Get("X-Request-Id") == "" {
		t.Errorf("%s %s: no X-Request-Id", method, path)
	}
	return answered{res.StatusCode, res.Header, string(raw)}
}

// check holds an answer against the document, where it knows the route.
func (r *rig) check(t *testing.T, req *http.Request, res *http.Response, body []byte) {
	t.Helper()
	route, params, err := r.router.FindRoute(req)
	if err != nil {
		return
	}
	in := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: req, Route: route, PathParams: params},
		Status:                 res.StatusCode, Header: res.Header,
		Options: &openapi3filter.Options{IncludeResponseStatus: true},
	}
	in.SetBodyBytes(body)
	if err := openapi3filter.ValidateResponse(t.Context(), in); err != nil {
		t.Errorf("%s %s → %d is not as /openapi.json says: %v\n%s", req.Method, req.URL.Path, res.StatusCode, err, body)
	}
}

func TestDocumentNamesEveryRoute(t *testing.T) {
	r := newRig(t)
	doc, err := openapi3.NewLoader().LoadFromData(OpenAPI())
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			documented[method+" "+path] = true
		}
	}
	err = chi.Walk(r.handler.mux.(chi.Routes), func(method, path string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		if !documented[method+" "+path] {
			t.Errorf("%s %s is served and not documented", method, path)
		}
		delete(documented, method+" "+path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for left := range documented {
		t.Errorf("%s is documented and not served", left)
	}
}

func TestContract(t *testing.T) {
	r := newRig(t)
	tests := []struct {
		name, method, path, token, body string
		header                          []string
		status                          int
		code                            string
	}{
		{"Health", "GET", "/healthz", "", "", nil, 200, ""},
		{"Ready", "GET", "/readyz", "", "", nil, 200, ""},
		{"Metrics", "GET", "/metrics", "", "", nil, 200, ""},
		{"Document", "GET", "/openapi.json", "", "", nil, 200, ""},
		{"NoSuchPath", "GET", "/nothing", "", "", nil, 404, "not_found"},
		{"WrongMethod", "POST", "/healthz", "", "", nil, 405, "method_not_allowed"},
		{"StatusWithoutToken", "GET", "/api/status", "", "", nil, 401, "unauthorized"},
		{"StatusWithWrongToken", "GET", "/api/status", "ann-token-012345678", "", nil, 401, "unauthorized"},
		{"StatusWithBasic", "GET", "/api/status", "", "", []string{"Authorization", "Basic " + annToken}, 401, "unauthorized"},
		{"Status", "GET", "/api/status", annToken, "", nil, 200, ""},
		{"StatusSecondToken", "GET", "/api/status", bobToken, "", nil, 200, ""},
		{"StatusWrongMethod", "POST", "/api/status", annToken, "", nil, 405, "method_not_allowed"},
		{"Passport", "GET", "/api/files/abc", annToken, "", nil, 200, ""},
		{"PassportBadID", "GET", "/api/files/a.b", annToken, "", nil, 400, "invalid_file_id"},
		{"PassportLongID", "GET", "/api/files/" + strings.Repeat("a", 65), annToken, "", nil, 400, "invalid_file_id"},
		{"PauseWithoutToken", "POST", "/api/pause", "", "", []string{"Idempotency-Key", "k0"}, 401, "unauthorized"},
		{"PauseWithoutKey", "POST", "/api/pause", annToken, "", nil, 400, "idempotency_key_missing"},
		{"PauseLongKey", "POST", "/api/pause", annToken, "", []string{"Idempotency-Key", strings.Repeat("k", 129)}, 400, "idempotency_key_missing"},
		{"Pause", "POST", "/api/pause", annToken, "", []string{"Idempotency-Key", "k1"}, 200, ""},
		{"PauseWithNote", "POST", "/api/pause", annToken, `{"note":"why"}`, []string{"Idempotency-Key", "k2"}, 200, ""},
		{"PauseUnknownField", "POST", "/api/pause", annToken, `{"notes":"why"}`, []string{"Idempotency-Key", "k3"}, 400, "invalid_body"},
		{"PauseCutBody", "POST", "/api/pause", annToken, `{"note":`, []string{"Idempotency-Key", "k4"}, 400, "invalid_body"},
		{"PauseTwoBodies", "POST", "/api/pause", annToken, `{}{}`, []string{"Idempotency-Key", "k5"}, 400, "invalid_body"},
		{"PauseForm", "POST", "/api/pause", annToken, `note=x`, []string{"Idempotency-Key", "k6", "Content-Type", "application/x-www-form-urlencoded"}, 415, "unsupported_media_type"},
		{"PauseLargeBody", "POST", "/api/pause", annToken, `{"note":"` + strings.Repeat("x", maxBody) + `"}`, []string{"Idempotency-Key", "k7"}, 413, "body_too_large"},
		{"Resume", "POST", "/api/resume", bobToken, "", []string{"Idempotency-Key", "k1"}, 200, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := r.do(t, tt.method, tt.path, tt.token, tt.body, tt.header...)
			if got.status != tt.status || got.code() != tt.code {
				t.Errorf("%d %s, want %d %s: %s", got.status, got.code(), tt.status, tt.code, got.body)
			}
		})
	}
	if got, want := strings.Join(r.acts, ","), "pause ann ,pause ann why,resume bob "; got != want {
		t.Errorf("acts are %q, want %q: a refused request must do nothing", got, want)
	}
}

func TestReadiness(t *testing.T) {
	r := newRig(t)
	t.Run("ShowsWhatIsDownWithoutFailing", func(t *testing.T) {
		if got := r.do(t, "GET", "/readyz", "", ""); got.status != 200 || !strings.Contains(got.body, `"durability":"fsync"`) || !strings.Contains(got.body, `"database":"down"`) {
			t.Errorf("%d %s", got.status, got.body)
		}
	})
	t.Run("FailsWhenTheQueueDoes", func(t *testing.T) {
		r.ready = Readiness{Why: "the disk is full", Durability: "none"}
		if got := r.do(t, "GET", "/readyz", "", ""); got.status != 503 || !strings.Contains(got.body, "the disk is full") {
			t.Errorf("%d %s", got.status, got.body)
		}
	})
}

func TestRoleWithoutAPI(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Service, c.Role = nil, "ingest" })
	for _, path := range []string{"/api/status", "/api/files/abc", "/api/"} {
		if got := r.do(t, "GET", path, annToken, ""); got.status != 404 || got.code() != "not_here" {
			t.Errorf("%s: %d %s", path, got.status, got.body)
		}
	}
	if got := r.do(t, "GET", "/readyz", "", ""); got.status != 200 {
		t.Errorf("health belongs to every role: %d", got.status)
	}
}

func TestWithoutTokensNobodySignsIn(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Tokens = nil })
	for _, token := range []string{"", annToken} {
		if got := r.do(t, "GET", "/api/status", token, ""); got.status != 401 || got.code() != "no_token_configured" {
			t.Errorf("%d %s", got.status, got.body)
		}
	}
}

func TestWrongTokensWaitAndAreBounded(t *testing.T) {
	r := newRig(t, func(c *Config) { c.FailDelay = time.Hour })
	r.handler.waiting = make(chan struct{}, 1)
	r.handler.waiting <- struct{}{} // one waits already
	if got := r.do(t, "GET", "/api/status", "wrong", ""); got.status != 429 || got.code() != "too_many_failures" || got.header.Get("Retry-After") == "" {
		t.Errorf("%d %s", got.status, got.body)
	}
	if got := r.do(t, "GET", "/api/status", annToken, ""); got.status != 200 {
		t.Errorf("a right token must not wait: %d", got.status)
	}
}

func TestFaultsOfTheService(t *testing.T) {
	tests := []struct {
		name   string
		err    error
		status int
		code   string
	}{
		{"Outage", fmt.Errorf("read: %w", event.ErrOutage), 503, "database_unavailable"},
		{"CutShort", context.Canceled, 503, "cut_short"},
		{"Bug", errors.New("column secret_column does not exist"), 500, "internal"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			r.fail = tt.err
			for _, x := range [][2]string{{"GET", "/api/status"}, {"GET", "/api/files/abc"}, {"POST", "/api/pause"}} {
				got := r.do(t, x[0], x[1], annToken, "", "Idempotency-Key", "k")
				if got.status != tt.status || got.code() != tt.code || strings.Contains(got.body, "secret_column") {
					t.Errorf("%s: %d %s", x[1], got.status, got.body)
				}
			}
		})
	}
	t.Run("Panic", func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Ready = func() Readiness { panic("no") } })
		// The document promises no 500 here; the shape must hold all the same.
		rec := httptest.NewRecorder()
		r.handler.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), "GET", "/readyz", nil))
		if rec.Code != 500 || !strings.Contains(rec.Body.String(), `"code":"internal"`) {
			t.Errorf("%d %s", rec.Code, rec.Body)
		}
	})
}

func TestIdempotencyKey(t *testing.T) {
	t.Run("RepeatGetsTheFirstAnswerAndDoesNothing", func(t *testing.T) {
		r := newRig(t)
		first := r.do(t, "POST", "/api/pause", annToken, `{"note":"a"}`, "Idempotency-Key", "k")
		second := r.do(t, "POST", "/api/pause", annToken, `{"note":"a"}`, "Idempotency-Key", "k")
		if first.body != second.body || len(r.acts) != 1 {
			t.Errorf("%q %q, acts %q", first.body, second.body, r.acts)
		}
	})
	t.Run("AnotherRequestUnderItIsRefused", func(t *testing.T) {
		r := newRig(t)
		r.do(t, "POST", "/api/pause", annToken, "", "Idempotency-Key", "k")
		for _, x := range [][2]string{{"/api/resume", ""}, {"/api/pause", `{"note":"b"}`}} {
			if got := r.do(t, "POST", x[0], annToken, x[1], "Idempotency-Key", "k"); got.status != 422 || got.code() != "idempotency_key_reused" {
				t.Errorf("%d %s", got.status, got.body)
			}
		}
		if len(r.acts) != 1 {
			t.Errorf("acts %q", r.acts)
		}
	})
	t.Run("BelongsToItsCaller", func(t *testing.T) {
		r := newRig(t)
		r.do(t, "POST", "/api/pause", annToken, "", "Idempotency-Key", "k")
		r.do(t, "POST", "/api/pause", bobToken, "", "Idempotency-Key", "k")
		if len(r.acts) != 2 {
			t.Errorf("acts %q", r.acts)
		}
	})
	t.Run("FailureMayBeTriedAgain", func(t *testing.T) {
		r := newRig(t)
		r.fail = event.ErrOutage
		r.do(t, "POST", "/api/pause", annToken, "", "Idempotency-Key", "k")
		r.fail = nil
		if got := r.do(t, "POST", "/api/pause", annToken, "", "Idempotency-Key", "k"); got.status != 200 {
			t.Errorf("%d %s", got.status, got.body)
		}
	})
	t.Run("RepeatWaitsForTheFirst", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := &standIn{hold: make(chan struct{})}
			h, err := New(Config{Role: "serve", Service: s, Tokens: []Token{{"ann", annToken}},
				Ready: func() Readiness { return Readiness{} }, Metrics: http.NotFoundHandler()})
			if err != nil {
				t.Fatal(err)
			}
			var all sync.WaitGroup
			for range 4 {
				all.Go(func() {
					req := httptest.NewRequestWithContext(t.Context(), "POST", "/api/pause", nil)
					req.Header.Set("Authorization", "Bearer "+annToken)
					req.Header.Set("Idempotency-Key", "k")
					rec := httptest.NewRecorder()
					if h.ServeHTTP(rec, req); rec.Code != 200 {
						t.Errorf("%d %s", rec.Code, rec.Body)
					}
				})
			}
			synctest.Wait() // all four have come as far as they can
			close(s.hold)
			all.Wait()
			if len(s.acts) != 1 {
				t.Errorf("acts %q", s.acts)
			}
		})
	})
}

func TestRequestID(t *testing.T) {
	r := newRig(t)
	if got := r.do(t, "GET", "/healthz", "", "", "X-Request-Id", "abc-1").header.Get("X-Request-Id"); got != "abc-1" {
		t.Errorf("kept %q", got)
	}
	if got := r.do(t, "GET", "/healthz", "", "", "X-Request-Id", "a b<script>").header.Get("X-Request-Id"); strings.Contains(got, "script") || got == "" {
		t.Errorf("took over %q", got)
	}
}

func TestClient(t *testing.T) {
	r := newRig(t)
	client := func(url, token string) *Client {
		c, err := NewClient(ClientConfig{URL: url, Token: token})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	t.Run("EveryVerb", func(t *testing.T) {
		c := client(r.server.URL+"/", "ann:"+annToken)
		if s, err := c.Status(t.Context()); err != nil || s.Worker.Turn != 3 {
			t.Errorf("%+v %v", s, err)
		}
		r.passport = Passport{Row: &Row{URL: "u", User: "me"}, Findings: []FileFinding{{"R1", run.Finding{FileID: "abc", Kind: run.Adopted, Status: run.Found}}}}
		if got := r.do(t, "GET", "/api/files/abc", annToken, ""); !strings.Contains(got.body, `"findings":[{"run":"R1","fileId":"abc"`) {
			t.Error(got.body)
		}
		if p, err := c.Passport(t.Context(), "abc"); err != nil || p.FileID != "abc" || len(p.Why) == 0 || len(p.Findings) != 1 {
			t.Errorf("%+v %v", p, err)
		}
		if p, err := c.Pause(t.Context(), "deploy"); err != nil || !p.Paused {
			t.Errorf("%+v %v", p, err)
		}
		if p, err := c.Resume(t.Context(), ""); err != nil || p.Paused {
			t.Errorf("%+v %v", p, err)
		}
		if got := strings.Join(r.acts, ","); got != "pause ann deploy,resume ann " {
			t.Error(got)
		}
	})
	t.Run("SaysTheAnswersProblem", func(t *testing.T) {
		_, err := client(r.server.URL, "wrong").Status(t.Context())
		var p *Problem
		if !errors.As(err, &p) || p.Status != 401 || !strings.Contains(p.Text, "TRUEUP_OPS_TOKEN") {
			t.Error(err)
		}
	})
	t.Run("SaysWhenNobodyAnswers", func(t *testing.T) {
		gone := httptest.NewServer(nil)
		gone.Close()
		_, err := client(gone.URL, "").Status(t.Context())
		if err == nil || !strings.Contains(err.Error(), "no trueup answers at "+gone.URL+": is it running?") {
			t.Error(err)
		}
	})
	t.Run("TakesNobodyElseForTrueup", func(t *testing.T) {
		for name, h := range map[string]http.HandlerFunc{
			"html":     func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") },
			"notfound": http.NotFound,
			"redirect": func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
			},
		} {
			other := httptest.NewServer(h)
			_, err := client(other.URL, annToken).Status(t.Context())
			other.Close()
			if err == nil || !strings.Contains(err.Error(), "another program's port") {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}
