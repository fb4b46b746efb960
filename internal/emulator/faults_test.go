package emulator

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

func (a *account) fault(body string) { a.t.Helper(); a.must(200, "POST", "/_emulator/faults", body) }

// fired is how many faults fired since the last clear, by stats.
func (a *account) fired() float64 {
	a.t.Helper()
	return a.must(200, "GET", "/_emulator/stats", "").object()["faults"].(float64)
}

// fails sends a request and wants it to end without a whole answer.
func (a *account) fails(method, path, body string) {
	a.t.Helper()
	resp, err := a.http.Do(a.request(method, path, body))
	if err != nil {
		return
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err == nil {
		a.t.Fatalf("%s %s: %d %s, want a cut connection", method, path, resp.StatusCode, b)
	}
}

func TestFaults(t *testing.T) {
	a := quiet(t)
	id, other := a.put("a.png").text("fileId"), a.put("b.png").text("fileId")
	details := "/v1/files/" + id + "/details"
	for _, c := range []struct {
		name, fault string
		fires       float64
		try         func()
	}{
		{"TwiceThenNot", `{"path":"/v1/files/*","status":503,"times":2,"headers":{"Retry-After":"7"}}`, 2, func() {
			if r := a.must(503, "GET", details, ""); r.header.Get("Retry-After") != "7" {
				t.Errorf("headers: %v", r.header)
			}
			a.must(503, "GET", details, "")
			a.must(200, "GET", details, "")
		}},
		{"OneFile", `{"fileId":"` + id + `","status":404}`, 2, func() {
			a.must(404, "GET", details, "")
			a.must(200, "GET", "/v1/files/"+other+"/details", "")
			a.must(404, "GET", "/v1/files?"+search(`id IN ["`+other+`","`+id+`"]`), "")
			a.must(200, "GET", "/v1/files?"+search(`id IN ["`+other+`"]`), "")
		}},
		{"MethodAndPath", `{"method":"get","path":"/v1/files/*/details","status":500}`, 1, func() {
			a.must(500, "GET", details, "")
			a.must(200, "PATCH", details, "{}")
			a.must(200, "GET", "/v1/files", "")
		}},
		{"TextBody", `{"path":"*","status":200,"body":"<html>oops"}`, 1, func() {
			if r := a.must(200, "GET", details, ""); string(r.body) != "<html>oops" {
				t.Errorf("body: %s", r.body)
			}
		}},
		{"JSONBody", `{"path":"*","body":{"fileId":7}}`, 1, func() {
			if r := a.must(200, "GET", details, ""); string(r.body) != `{"fileId":7}` {
				t.Errorf("body: %s", r.body)
			}
		}},
		{"LatencyOnlyDelays", `{"path":"*details","latency":"60ms"}`, 1, func() {
			begun := time.Now()
			if r := a.must(200, "GET", details, ""); r.text("fileId") != id || time.Since(begun) < 60*time.Millisecond {
				t.Errorf("%s after %v", r.body, time.Since(begun))
			}
		}},
		{"CloseCutsTheAnswer", `{"method":"GET","path":"*","close":true}`, 1, func() { a.fails("GET", details, "") }},
		{"CloseAfterItHappened", `{"method":"PATCH","path":"*","close":true,"times":1}`, 1, func() {
			a.fails("PATCH", details, `{"description":"kept"}`)
			if got := a.must(200, "GET", details, "").text("description"); got != "kept" {
				t.Errorf("failed and did not happen: %q", got)
			}
		}},
		{"CloseBeforeItHappened", `{"method":"PATCH","path":"*","status":500,"close":true,"times":1}`, 1, func() {
			a.fails("PATCH", details, `{"description":"lost"}`)
			if got := a.must(200, "GET", details, "").text("description"); got == "lost" {
				t.Error("failed and happened")
			}
		}},
		{"StatusAfterItHappened", `{"method":"PATCH","path":"*","status":500,"after":true,"times":1}`, 1, func() {
			a.must(500, "PATCH", details, `{"description":"kept too"}`)
			if got := a.must(200, "GET", details, "").text("description"); got != "kept too" {
				t.Errorf("failed and did not happen: %q", got)
			}
		}},
		{"OnlyOneOfBulk", `{"fileId":"` + other + `","status":500,"times":1}`, 1, func() {
			r := a.must(207, "POST", "/v1/files/removeTags", `{"fileIds":["`+id+`","`+other+`"],"tags":["x"]}`)
			if fmt.Sprint(r.object()["successfullyUpdatedFileIds"]) != "["+id+"]" || !strings.Contains(string(r.body), `"errors":[{"fileId":"`+other) {
				t.Errorf("207: %s", r.body)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := a.fired()
			a.fault(c.fault)
			c.try()
			if got := a.fired() - before; got != c.fires {
				t.Errorf("fired %v times, want %v", got, c.fires)
			}
			a.must(204, "DELETE", "/_emulator/faults", "")
			a.must(200, "GET", details, "")
		})
	}
}

func TestFaultsByChance(t *testing.T) {
	a := quiet(t)
	a.fault(`{"path":"/v1/files","status":500,"probability":0.3}`)
	run := func() (out string) {
		a.settings1(`{"seed":42}`)
		for range 60 {
			out += fmt.Sprint(a.call("GET", "/v1/files", "").status / 100)
		}
		return out
	}
	one := run()
	if n := strings.Count(one, "5"); n < 6 || n > 36 || a.fired() != float64(n) {
		t.Errorf("%d of 60, %v counted", n, a.fired())
	}
	if two := run(); two != one {
		t.Errorf("the same seed gave\n%s and then\n%s", one, two)
	}
}

func TestFaultRefusals(t *testing.T) {
	a := quiet(t)
	for _, body := range []string{`{}`, `{"path":"*"}`, `{"status":99}`, `{"statuss":500}`, `{"status":500,"latency":5}`, `{"status":500,"probability":2}`, `{"status":500,"times":-1}`, `[]x`, `[null]`, `{"status":500,"fired":3}`} {
		a.must(400, "POST", "/_emulator/faults", body)
	}
	a.must(200, "POST", "/_emulator/faults", `[{"path":"/x","status":500},{"path":"/y","status":500}]`)
	if l := a.must(200, "GET", "/_emulator/faults", "").list(); len(l) != 2 {
		t.Errorf("faults: %v", l)
	}
}

func TestMatchStars(t *testing.T) {
	for _, c := range []struct {
		pattern, s string
		want       bool
	}{
		{"/a", "/a", true}, {"/a", "/ab", false}, {"*", "", true}, {"/v1/*/details", "/v1/files/x/details", true}, {"/v1/*/details", "/v1/details", false},
		{"*a*b*", "xaybz", true}, {"*a*b", "ba", false}, {"ab*ba", "aba", false}, {"", "", true}, {"/v1/files/*", "/v1/files", false},
	} {
		if got := matchStars(c.pattern, c.s); got != c.want {
			t.Errorf("%s against %s: %v", c.pattern, c.s, got)
		}
	}
}

func TestRateLimits(t *testing.T) {
	c := &clockwork{at: time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)}
	a := start(t, Config{Now: c.now})
	a.settings1(`{"rateLimit":{"perSecond":10,"burst":3},"writeRateLimit":{"perSecond":0.5,"burst":1}}`)
	for range 3 {
		a.must(200, "GET", "/v1/files", "")
	}
	r := a.must(429, "GET", "/v1/files", "")
	if h := r.header; h.Get("X-RateLimit-Limit") != "10" || h.Get("X-RateLimit-Reset") != "100" || h.Get("X-RateLimit-Interval") != "1000" {
		t.Errorf("headers: %v", h)
	}
	a.must(404, "GET", "/v1/files/598821f949c0a938d57563bd/details", "") // its own limit
	c.forward(99 * time.Millisecond)
	if r := a.must(429, "GET", "/v1/files", ""); r.header.Get("X-RateLimit-Reset") != "1" {
		t.Errorf("headers: %v", r.header)
	}
	c.forward(time.Millisecond)
	a.must(200, "GET", "/v1/files", "")
	a.must(404, "DELETE", "/v1/files/598821f949c0a938d57563bd", "")
	if r := a.must(429, "DELETE", "/v1/files/598821f949c0a938d57563bd", ""); r.header.Get("X-RateLimit-Reset") != "2000" || r.header.Get("X-RateLimit-Interval") != "2000" {
		t.Errorf("headers: %v", r.header)
	}
	for range 5 {
		a.put("never limited.png")
	}
	s := a.must(200, "GET", "/_emulator/stats", "").object()
	if s["rateLimited"] != 3.0 || s["early"] != 1.0 {
		t.Errorf("stats: %v", s)
	}
	a.settings1(`{"rateHeaders":false}`)
	c.forward(time.Minute)
	if h := a.must(200, "GET", "/v1/files", "").header; h.Get("X-RateLimit-Limit") != "" {
		t.Errorf("headers that were switched off: %v", h)
	}
}
