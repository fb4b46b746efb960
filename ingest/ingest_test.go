package ingest

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/goleak"

	"github.com/trueup/trueup/ingest/caller"
	"github.com/trueup/trueup/ingest/grant"
	"github.com/trueup/trueup/ingest/signature"
	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/ticket"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	jwtSecret     = "a-shared-secret-of-32-bytes-or-more"
	webhookSecret = "whsec_Zm9vYmFyLWVtdWxhdG9yLXNlY3JldA=="
	issuer        = "https://app.example.com"
	audience      = "trueup"
)

// start is the clock of every test here.
var start = time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)

// recorder is a queue that remembers what it was given, and fails as told: before
// storing (nothing happened) or after (it happened anyway).
type recorder struct {
	mu     sync.Mutex
	events []event.Event
	before error
	after  error
}

func (q *recorder) Publish(_ context.Context, events []event.Event) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.before != nil {
		return q.before
	}
	q.events = append(q.events, events...)
	return q.after
}

func (q *recorder) taken() []event.Event {
	q.mu.Lock()
	defer q.mu.Unlock()
	return append([]event.Event(nil), q.events...)
}

// bench is one ingest with everything a test looks at.
type bench struct {
	t       testing.TB
	queue   *recorder
	handler http.Handler
	tickets *ticket.Keys
	config  Config
	now     time.Time
}

// setup builds an ingest as `serve` does; change alters its Config first.
func setup(t testing.TB, change func(*Config)) *bench {
	t.Helper()
	b := &bench{t: t, queue: &recorder{}, now: start}
	clock := func() time.Time { return b.now }
	b.tickets = must(ticket.NewKeys("report-id-secret-report-id-secret"))(t)
	c := Config{
		Queue:   b.queue,
		Callers: must(caller.New(caller.Config{Secret: jwtSecret, Issuer: issuer, Audience: audience, Now: clock}))(t),
		Grants: must(grant.New(grant.Config{
			PublicKey: "public_k", PrivateKey: "private_k", URLEndpoint: "https://ik.imagekit.io/demo_id",
			Tickets: b.tickets, Account: "demo_id", Now: clock,
		}))(t),
		Tickets:    b.tickets,
		Signatures: must(signature.New(webhookSecret))(t),
		Ready:      func() Readiness { return Readiness{Accepting: true, Durability: "fsync"} },
		Now:        clock,
	}
	if change != nil {
		change(&c)
	}
	b.config, b.handler = c, must(New(c))(t)
	return b
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// token signs a token for user as the application's sign-in would.
func (b *bench) token(user string) string {
	b.t.Helper()
	claims := jwt.MapClaims{"sub": user, "iss": issuer, "aud": audience, "exp": start.Add(time.Hour).Unix()}
	return must(jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(jwtSecret)))(b.t)
}

func (b *bench) do(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	b.handler.ServeHTTP(w, r)
	return w
}

// report posts a report body as user.
func (b *bench) report(user, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/save-metadata", strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+b.token(user))
	r.Header.Set("Content-Type", "application/json")
	return b.do(r)
}

// delivery is a webhook signed as ImageKit does.
func (b *bench) delivery(body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/webhooks/imagekit", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	signature.Sign(r.Header, webhookSecret, "msg_1", b.now, []byte(body))
	return r
}

// get asks as user.
func (b *bench) get(user, path string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.Header.Set("Authorization", "Bearer "+b.token(user))
	return b.do(r)
}

func decoded(t testing.TB, w *httptest.ResponseRecorder) map[string]any {
	t.Helper()
	raw := must(io.ReadAll(w.Body))(t)
	var m map[string]any
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatalf("%d %q: %v", w.Code, raw, err)
	}
	return m
}

// expect fails unless the answer has that status and, where not empty, that code.
func expect(t testing.TB, w *httptest.ResponseRecorder, status int, code string) map[string]any {
	t.Helper()
	m := decoded(t, w)
	got, _ := m["code"].(string)
	if w.Code != status || got != code {
		t.Fatalf("got %d %v, want %d %q", w.Code, m, status, code)
	}
	return m
}

func TestReportBecomesAnEvent(t *testing.T) {
	b := setup(t, nil)
	body := `{"fileId":"6957360537b244ef54d60180", "url":"https://evil.example/x.jpg"}`
	m := expect(t, b.report("user_123", body), http.StatusAccepted, "")

	events := b.queue.taken()
	if len(events) != 1 {
		t.Fatalf("%d events", len(events))
	}
	e := events[0]
	if e.FileID != "6957360537b244ef54d60180" || e.User != "user_123" || e.Source != event.Client || e.Origin != event.Client ||
		e.Kind != event.KindReport || string(e.Body) != body || !e.AcceptedAt.Equal(start) || e.Signed() {
		t.Fatalf("%+v", e)
	}
	id, at, err := b.tickets.OpenReport(m["reportId"].(string), "user_123")
	if err != nil || id != e.ID || !at.Equal(start) {
		t.Fatal(id, at, err)
	}
}

func TestWebhookBecomesAnEvent(t *testing.T) {
	b := setup(t, nil)
	body := `{"type":"file.updated","id":"5b1c7a52","created_at":"2026-01-02T04:00:00.120Z","data":{"fileId":"6957360537b244ef54d60180","updatedAt":"2026-01-02T04:00:00.100Z","url":"x"},"novel":[1]}`
	r := b.delivery(body)
	r.Header.Set("Cookie", "session=secret")
	r.Header.Set("X-Ik-Requestid", "ik-1")
	r.Header.Set("X-Request-Id", "req-1")
	expect(t, b.do(r), http.StatusOK, "")

	events := b.queue.taken()
	if len(events) != 1 {
		t.Fatalf("%d events", len(events))
	}
	e := events[0]
	if e.FileID != "6957360537b244ef54d60180" || e.User != "" || !e.Signed() || e.Kind != "file.updated" || e.WebhookID != "5b1c7a52" ||
		!e.UpdatedAt.Equal(time.Date(2026, 1, 2, 4, 0, 0, 100e6, time.UTC)) || string(e.Body) != body {
		t.Fatalf("%+v", e)
	}
	want := map[string]string{
		"content-type": "application/json", "webhook-id": "msg_1", "webhook-timestamp": "1767323045",
		"x-ik-requestid": "ik-1", "x-request-id": "req-1",
	}
	if got, wanted := must(json.Marshal(e.Headers))(t), must(json.Marshal(want))(t); string(got) != string(wanted) {
		t.Fatalf("kept %s, want %s", got, wanted)
	}
}

// BenchmarkWebhook is the cost of a webhook without the network and the queue.
func BenchmarkWebhook(b *testing.B) {
	bench := setup(b, func(c *Config) { c.Queue = bottomless{} })
	body := `{"type":"file.updated","id":"5b1c7a52-6f0e-4d5c-9d19-0f4f5a1e7c11","created_at":"2026-01-02T04:00:00.120Z","data":{"type":"file","fileId":"6957360537b244ef54d60180","name":"hero_q1W2e3R4t.jpg","filePath":"/users/42/hero_q1W2e3R4t.jpg","tags":["cover"],"versionInfo":{"id":"6957360537b244ef54d60180","name":"Version 1"},"url":"https://ik.imagekit.io/demo_id/users/42/hero_q1W2e3R4t.jpg","width":1200,"height":800,"size":183422,"createdAt":"2026-01-02T03:04:05.678Z","updatedAt":"2026-01-02T04:00:00.100Z"}}`
	header := bench.delivery(body).Header
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequest(http.MethodPost, "/webhooks/imagekit", strings.NewReader(body))
		r.Header = header
		if w := bench.do(r); w.Code != http.StatusOK {
			b.Fatal(w.Code, w.Body)
		}
	}
}

// bottomless is a queue that takes everything and keeps nothing.
type bottomless struct{}

func (bottomless) Publish(context.Context, []event.Event) error { return nil }
