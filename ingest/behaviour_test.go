package ingest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trueup/trueup/ingest/caller"
	"github.com/trueup/trueup/ingest/grant"
	"github.com/trueup/trueup/ingest/signature"
	"github.com/trueup/trueup/internal/event"
)

const (
	deletion = `{"type":"file.deleted","id":"w-1","data":{"fileId":"6957360537b244ef54d60180"}}`
	report   = `{"fileId":"6957360537b244ef54d60180"}`
)

// TestQueueFaults has each fault twice: nothing was stored, and it was stored all the
// same. The sender is told the same, and the event is there or it is not.
func TestQueueFaults(t *testing.T) {
	for name, c := range map[string]struct {
		err    error
		status int
		code   string
	}{
		"NotAccepted": {fmt.Errorf("no PubAck in time: %w", event.ErrNotAccepted), 503, "not_accepted"},
		"TooLarge":    {fmt.Errorf("%w: 2 MiB", event.ErrTooLarge), 413, "too_large"},
		"Unforeseen":  {errors.New("disk on fire"), 503, "unavailable"},
	} {
		for _, stored := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/stored=%v", name, stored), func(t *testing.T) {
				b := setup(t, nil)
				want := 0
				if stored {
					b.queue.after, want = c.err, 2
				} else {
					b.queue.before = c.err
				}
				for _, w := range []*httptest.ResponseRecorder{b.report("u", report), b.do(b.delivery(deletion))} {
					m := expect(t, w, c.status, c.code)
					if strings.Contains(fmt.Sprint(m), "fire") || c.status == 503 && w.Header().Get("Retry-After") == "" {
						t.Fatal(m, w.Header())
					}
				}
				if got := len(b.queue.taken()); got != want {
					t.Fatalf("%d events", got)
				}
			})
		}
	}
}

func TestRetryAfterIsSpread(t *testing.T) {
	b := setup(t, nil)
	b.queue.before = event.ErrNotAccepted
	seen := map[string]bool{}
	for range 200 {
		seen[b.do(b.delivery(deletion)).Header().Get("Retry-After")] = true
	}
	if len(seen) < 3 || seen["0"] {
		t.Fatal(seen)
	}
}

// TestNoOracle holds that nothing in the answer depends on the file or on the user,
// beyond the random ids.
func TestNoOracle(t *testing.T) {
	b := setup(t, nil)
	random := regexp.MustCompile(`rp_[0-9A-Z]{26}_[A-Za-z0-9_-]{22}`)
	plain := func(w *httptest.ResponseRecorder) string {
		w.Header().Del("X-Request-Id")
		return random.ReplaceAllString(fmt.Sprint(w.Code, w.Header(), w.Body), "ID")
	}
	want := plain(b.report("user_123", `{"fileId":"6957360537b244ef54d60180"}`))
	for _, w := range []*httptest.ResponseRecorder{
		b.report("user_123", `{"fileId":"000000000000000000000000"}`),
		b.report("user_456", `{"fileId":"6957360537b244ef54d60180"}`),
		b.report("user_123", `{"fileId":"6957360537b244ef54d60180"}`),
	} {
		if got := plain(w); got != want {
			t.Fatalf("got  %s\nwant %s", got, want)
		}
	}
}

func TestWebhooksWithoutASecret(t *testing.T) {
	b := setup(t, func(c *Config) { c.Signatures = nil })
	expect(t, b.do(b.delivery(deletion)), http.StatusUnauthorized, "bad_signature")
	if n := len(b.queue.taken()); n != 0 {
		t.Fatalf("%d events", n)
	}
}

// TestUnsignedWebhookID: the legacy scheme does not sign webhook-id, so it names
// nothing.
func TestUnsignedWebhookID(t *testing.T) {
	b := setup(t, nil)
	body := `{"type":"file.deleted","data":{"fileId":"a"}}`
	r := httptest.NewRequest(http.MethodPost, "/webhooks/imagekit", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	signature.SignLegacy(r.Header, webhookSecret, b.now, []byte(body))
	r.Header.Set("Webhook-Id", "forged")
	expect(t, b.do(r), http.StatusOK, "")
	expect(t, b.do(b.delivery(body)), http.StatusOK, "")
	events := b.queue.taken()
	if events[0].WebhookID != "" || events[1].WebhookID != "msg_1" {
		t.Fatalf("%q, %q", events[0].WebhookID, events[1].WebhookID)
	}
}

// counted counts what is read of a body.
type counted struct {
	io.Reader
	read int
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.read += n
	return n, err
}

type endless byte

func (e endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(e)
	}
	return len(p), nil
}

// What is read beyond the limit is thrown away, so that the sender gets to read the
// answer; TestDeepBodiesCostNothing and the kept bytes bound the memory.
func TestBodiesAreReadNoFurtherThanTheyMustBe(t *testing.T) {
	for path, limit := range map[string]int{"/save-metadata": maxReportBody, "/generate-upload-token": maxReportBody, "/webhooks/imagekit": maxWebhookBody} {
		t.Run(path, func(t *testing.T) {
			b := setup(t, nil)
			send := func(length int64, kind string) *counted {
				body := &counted{Reader: endless('[')}
				r := httptest.NewRequest(http.MethodPost, path, body)
				r.ContentLength = length
				r.Header.Set("Content-Type", kind)
				r.Header.Set("Authorization", "Bearer "+b.token("u"))
				w := b.do(r)
				if w.Code < 400 {
					t.Fatalf("answered %d", w.Code)
				}
				return body
			}
			if c := send(-1, "application/json"); c.read > limit+1+maxDiscard {
				t.Errorf("chunked: read %d bytes", c.read)
			}
			if c := send(1<<40, "application/json"); c.read > maxDiscard {
				t.Errorf("announced too large: read %d bytes", c.read)
			}
			if c := send(-1, "application/xml"); c.read != 0 {
				t.Errorf("of another type: read %d bytes", c.read)
			}
		})
	}
}

// TestSendersOfTooMuchReadTheAnswer: over a real connection the sender is still writing
// when we have seen enough; it must read 413, not a broken connection.
func TestSendersOfTooMuchReadTheAnswer(t *testing.T) {
	b := setup(t, nil)
	server := httptest.NewServer(b.handler)
	t.Cleanup(server.Close)
	for range 20 {
		c, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		const size = 4 << 20
		_, _ = fmt.Fprintf(c, "POST /webhooks/imagekit HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", size)
		for sent := 0; sent < size; sent += 64 << 10 {
			if _, err := c.Write(bytes.Repeat([]byte("x"), 64<<10)); err != nil {
				t.Fatalf("the connection broke after %d bytes, before the answer was read: %v", sent, err)
			}
		}
		answer, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		_ = c.Close()
		if answer.StatusCode != http.StatusRequestEntityTooLarge {
			t.Fatalf("answered %d", answer.StatusCode)
		}
	}
}

func TestReadiness(t *testing.T) {
	t.Run("ShowsADatabaseThatIsDown", func(t *testing.T) {
		b := setup(t, func(c *Config) {
			c.Ready = func() Readiness {
				return Readiness{Accepting: true, Durability: "unknown", Database: "down", ImageKit: "down"}
			}
		})
		m := expect(t, b.get("", "/readyz"), http.StatusOK, "")
		if m["database"] != "down" || m["imagekit"] != "down" || m["durability"] != "unknown" {
			t.Fatal(m)
		}
	})
	t.Run("FailsWithTheQueue", func(t *testing.T) {
		b := setup(t, func(c *Config) {
			c.Ready = func() Readiness { return Readiness{Durability: "none", Why: "fsync is not proven"} }
		})
		w := b.get("", "/readyz")
		m := expect(t, w, http.StatusServiceUnavailable, "")
		if m["ready"] != false || m["why"] != "fsync is not proven" || w.Header().Get("Retry-After") == "" {
			t.Fatal(m)
		}
		expect(t, b.get("", "/healthz"), http.StatusOK, "")
	})
	t.Run("FailsWhileDraining", func(t *testing.T) {
		draining := make(chan struct{})
		b := setup(t, func(c *Config) { c.Draining = draining })
		expect(t, b.get("", "/readyz"), http.StatusOK, "")
		close(draining)
		expect(t, b.get("", "/readyz"), http.StatusServiceUnavailable, "")
		expect(t, b.report("u", report), http.StatusAccepted, "")
	})
}

func TestSignedMode(t *testing.T) {
	b := setup(t, func(c *Config) {
		g := c.Grants.Config
		g.Signed = true
		c.Grants, _ = grant.New(g)
	})
	expect(t, b.get("u", "/generate-auth-params"), http.StatusGone, "signed_mode")
}

func TestDevTakesARequestWithoutAuthorization(t *testing.T) {
	b := setup(t, func(c *Config) { c.Callers, _ = caller.New(caller.Config{Dev: true}) })
	r := httptest.NewRequest(http.MethodPost, "/save-metadata", strings.NewReader(report))
	r.Header.Set("Content-Type", "application/json")
	expect(t, b.do(r), http.StatusAccepted, "")
	if e := b.queue.taken()[0]; e.User != caller.DevUser {
		t.Fatalf("%q", e.User)
	}
	r.Header.Set("Authorization", "Bearer nonsense")
	expect(t, b.do(r), http.StatusUnauthorized, "bad_token")
}

func TestCrossOrigin(t *testing.T) {
	const app = "https://app.example.com"
	preflight := func(origin string) *http.Request {
		r := httptest.NewRequest(http.MethodOptions, "/save-metadata", nil)
		r.Header.Set("Origin", origin)
		r.Header.Set("Access-Control-Request-Method", "POST")
		r.Header.Set("Access-Control-Request-Headers", "authorization,content-type")
		return r
	}
	b := setup(t, func(c *Config) { c.CORSOrigins = []string{app} })
	t.Run("AllowsAConfiguredOrigin", func(t *testing.T) {
		h := b.do(preflight(app)).Header()
		if h.Get("Access-Control-Allow-Origin") != app || h.Get("Access-Control-Allow-Credentials") != "" || !strings.Contains(strings.Join(h["Vary"], " "), "Origin") {
			t.Fatal(h)
		}
	})
	t.Run("RefusesAnother", func(t *testing.T) {
		for _, origin := range []string{"https://app.example.com.evil.example", "http://app.example.com", "null", "https://evil.example"} {
			if h := b.do(preflight(origin)).Header(); h.Get("Access-Control-Allow-Origin") != "" {
				t.Fatal(origin, h)
			}
		}
	})
	t.Run("WantsExactOrigins", func(t *testing.T) {
		for _, origin := range []string{"*", "https://*", "app.example.com", "https://app.example.com/", "https://*.example.com"} {
			c := b.config
			c.CORSOrigins = []string{origin}
			if _, err := New(c); err == nil {
				t.Error(origin)
			}
		}
	})
}

// TestNothingSaidIsLogged: no body, no token and no signature reaches the log, even
// when everything fails and a part panics.
func TestNothingSaidIsLogged(t *testing.T) {
	var log bytes.Buffer
	b := setup(t, func(c *Config) {
		c.Logger = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	token := b.token("u")
	b.report("u", `{"fileId":"CANARY"}`)
	b.report("u", `{"fileId":"CANARY/"}`)
	b.queue.before = errors.New("no space")
	b.report("u", `{"fileId":"CANARY"}`)
	good := b.delivery(`{"data":{"fileId":"CANARY"}}`)
	mac := good.Header.Get(signature.HeaderSignature)
	b.do(good)
	forged := b.delivery(`{"data":{"fileId":"CANARY"}}`)
	forged.Header.Set(signature.HeaderSignature, "v1,CANARY")
	forged.Header.Del(signature.HeaderLegacy)
	forged.URL.Path = "/webhooks/imagekit"
	b.do(forged)
	b.get("u", "/CANARY?CANARY")

	if log.Len() == 0 {
		t.Fatal("nothing was logged at all")
	}
	for _, secret := range []string{"CANARY", token, mac, jwtSecret, webhookSecret} {
		if strings.Contains(log.String(), secret) {
			t.Fatalf("%q in %s", secret, log.String())
		}
	}
}

func TestPanicIsOneRequestsProblem(t *testing.T) {
	b := setup(t, func(c *Config) { c.Ready = func() Readiness { panic("CANARY") } })
	m := expect(t, b.get("", "/readyz"), http.StatusInternalServerError, "internal")
	if strings.Contains(fmt.Sprint(m), "CANARY") {
		t.Fatal(m)
	}
	expect(t, b.report("u", report), http.StatusAccepted, "")
}

func TestMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	b := setup(t, func(c *Config) { c.Metrics = registry })
	b.report("u", report)
	b.do(b.delivery(deletion))
	b.do(b.delivery(`{"type":"file.teleported","data":{"fileId":"a"}}`))
	b.do(b.delivery(`{"type":"file.teleported"}`))
	forged := b.delivery(deletion)
	forged.Body = io.NopCloser(strings.NewReader(report))
	b.do(forged)
	for i := range 50 {
		b.get("u", fmt.Sprintf("/nothing/%d", i))
	}
	got := counters(t, registry)
	for series, want := range map[string]float64{
		"events_accepted{client}":          1,
		"events_accepted{webhook}":         2,
		"requests{/save-metadata 202}":     1,
		"requests{/webhooks/imagekit 200}": 3,
		"requests{/webhooks/imagekit 401}": 1,
		"requests{none 404}":               50,
		"webhooks{file.deleted accepted}":  1,
		"webhooks{other accepted}":         1,
		"webhooks{other ignored}":          1,
		"signature_failures{mismatch}":     1,
		"signature_matches{raw standard}":  3,
	} {
		if got[series] != want {
			t.Errorf("%s is %v, want %v", series, got[series], want)
		}
		delete(got, series)
	}
	if len(got) != 0 {
		t.Errorf("also counted: %v", got)
	}
}

// counters reads all counters, as name{label values in the order of their names}.
func counters(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	all := map[string]float64{}
	for _, family := range must(registry.Gather())(t) {
		name := strings.TrimSuffix(strings.TrimPrefix(family.GetName(), "trueup_ingest_"), "_total")
		for _, metric := range family.GetMetric() {
			if metric.GetCounter() == nil {
				continue
			}
			var values []string
			for _, label := range metric.GetLabel() {
				values = append(values, label.GetValue())
			}
			all[name+"{"+strings.Join(values, " ")+"}"] = metric.GetCounter().GetValue()
		}
	}
	return all
}

func TestServerLeavesNobodyAConnectionForNothing(t *testing.T) {
	s := NewServer("127.0.0.1:0", http.NotFoundHandler())
	if s.ReadHeaderTimeout <= 0 || s.ReadTimeout <= 0 || s.IdleTimeout <= 0 || s.MaxHeaderBytes <= 0 {
		t.Fatalf("%+v", s)
	}
	if s.WriteTimeout <= maxWait {
		t.Fatalf("an answer may take %s, a question waits up to %s", s.WriteTimeout, maxWait)
	}
}

func TestConfigNamesWhatIsMissing(t *testing.T) {
	_, err := New(Config{})
	for _, name := range []string{"Queue", "Callers", "Grants", "Tickets", "Ready"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Fatal(name, err)
		}
	}
}
