package ingest

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestUserRate(t *testing.T) {
	b := setup(t, func(c *Config) { c.UserRate, c.UserBurst = 1, 2 })
	for range 2 {
		expect(t, b.report("a", report), http.StatusAccepted, "")
	}
	w := b.report("a", report)
	expect(t, w, http.StatusTooManyRequests, "rate_limited")
	if w.Header().Get("Retry-After") != "1" {
		t.Fatal(w.Header())
	}
	expect(t, b.report("b", report), http.StatusAccepted, "")
	b.now = b.now.Add(time.Second)
	expect(t, b.report("a", report), http.StatusAccepted, "")
	if n := len(b.queue.taken()); n != 4 {
		t.Fatalf("%d events", n)
	}
	t.Run("CountsReportsNotRequests", func(t *testing.T) {
		b := setup(t, func(c *Config) { c.UserRate, c.UserBurst = 1, 5 })
		array := func(n int) string { return "[" + strings.TrimSuffix(strings.Repeat(report+",", n), ",") + "]" }
		expect(t, b.report("a", array(3)), http.StatusAccepted, "")
		expect(t, b.report("a", array(3)), http.StatusTooManyRequests, "rate_limited")
		expect(t, b.report("a", report), http.StatusAccepted, "")
		expect(t, b.report("b", array(100)), http.StatusAccepted, "") // more than the budget ever holds
		expect(t, b.report("b", report), http.StatusTooManyRequests, "rate_limited")
		if n := len(b.queue.taken()); n != 104 {
			t.Fatalf("%d events", n)
		}
	})
	t.Run("CanBeOff", func(t *testing.T) {
		b := setup(t, func(c *Config) { c.UserRate = -1 })
		for range 500 {
			expect(t, b.report("a", report), http.StatusAccepted, "")
		}
	})
}

func TestFailedSignatures(t *testing.T) {
	forged := func(from, forwarded string) *http.Request {
		r := httptest.NewRequest(http.MethodPost, "/webhooks/imagekit", strings.NewReader(deletion))
		r.Header.Set("Content-Type", "application/json")
		r.RemoteAddr = net.JoinHostPort(from, "1234")
		if forwarded != "" {
			r.Header.Set("X-Forwarded-For", forwarded)
		}
		return r
	}
	t.Run("AreLimitedPerAddress", func(t *testing.T) {
		b := setup(t, func(c *Config) { c.FailureRate, c.FailureBurst = 1, 2 })
		for range 2 {
			expect(t, b.do(forged("192.0.2.1", "")), http.StatusUnauthorized, "bad_signature")
		}
		expect(t, b.do(forged("192.0.2.1", "")), http.StatusTooManyRequests, "rate_limited")
		expect(t, b.do(forged("192.0.2.2", "")), http.StatusUnauthorized, "bad_signature")
		if n := len(b.queue.taken()); n != 0 {
			t.Fatalf("%d events", n)
		}
	})
	t.Run("AreLimitedPerNetworkOfIPv6", func(t *testing.T) {
		b := setup(t, func(c *Config) { c.FailureRate, c.FailureBurst = 1, 1 })
		expect(t, b.do(forged("2001:db8:1:2::1", "")), http.StatusUnauthorized, "bad_signature")
		expect(t, b.do(forged("2001:db8:1:2:ffff::9", "")), http.StatusTooManyRequests, "rate_limited")
		expect(t, b.do(forged("2001:db8:1:3::1", "")), http.StatusUnauthorized, "bad_signature")
	})
	t.Run("NeverCostAVerifiedOne", func(t *testing.T) {
		b := setup(t, func(c *Config) { c.FailureRate, c.FailureBurst = 1, 1 })
		for range 5 {
			b.do(forged("192.0.2.1", ""))
		}
		good := b.delivery(deletion)
		good.RemoteAddr = "192.0.2.1:4321"
		expect(t, b.do(good), http.StatusOK, "")
	})
	t.Run("AreNotMovedByAHeaderNobodyVouchesFor", func(t *testing.T) {
		b := setup(t, func(c *Config) { c.FailureRate, c.FailureBurst = 1, 1 })
		expect(t, b.do(forged("192.0.2.1", "203.0.113.1")), http.StatusUnauthorized, "bad_signature")
		expect(t, b.do(forged("192.0.2.1", "203.0.113.2")), http.StatusTooManyRequests, "rate_limited")
	})
	t.Run("AreToldApartBehindATrustedProxy", func(t *testing.T) {
		b := setup(t, func(c *Config) {
			c.FailureRate, c.FailureBurst, c.TrustedProxies = 1, 1, []string{"192.0.2.0/24", "198.51.100.7"}
		})
		expect(t, b.do(forged("192.0.2.1", "203.0.113.1")), http.StatusUnauthorized, "bad_signature")
		expect(t, b.do(forged("192.0.2.1", "203.0.113.2, 198.51.100.7")), http.StatusUnauthorized, "bad_signature")
		// What stands left of the last stranger is that stranger's own claim.
		expect(t, b.do(forged("192.0.2.1", "10.9.9.9, 203.0.113.2")), http.StatusTooManyRequests, "rate_limited")
		// A peer that is no proxy of ours is taken at its own address.
		expect(t, b.do(forged("198.51.100.8", "203.0.113.9")), http.StatusUnauthorized, "bad_signature")
		expect(t, b.do(forged("198.51.100.8", "203.0.113.10")), http.StatusTooManyRequests, "rate_limited")
	})
	t.Run("RefuseAProxyThatIsNone", func(t *testing.T) {
		b := setup(t, nil)
		c := b.config
		c.TrustedProxies = []string{"example.com"}
		if _, err := New(c); err == nil {
			t.Fatal("no error")
		}
	})
}
