package imagekit

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/file"
)

const (
	key = "private_emulatorKey0123456789abcdef="
	id  = "6957360537b244ef54d60180"
)

// sample is the File object of the reference, as ImageKit writes it.
const sample = `{"type":"file","fileId":"6957360537b244ef54d60180","name":"hero_q1W2e3R4t.jpg","filePath":"/users/42/hero_q1W2e3R4t.jpg","tags":null,"AITags":null,"versionInfo":{"id":"6957360537b244ef54d60180","name":"Version 1"},"embeddedMetadata":null,"isPrivateFile":false,"isPublished":true,"customCoordinates":null,"customMetadata":{},"url":"https://ik.imagekit.io/demo_id/users/42/hero_q1W2e3R4t.jpg?updatedAt=1767323045678","thumbnail":"https://ik.imagekit.io/demo_id/users/42/hero_q1W2e3R4t.jpg?updatedAt=1767323045678&tr=n-ik_ml_thumbnail","fileType":"image","mime":"image/jpeg","width":1200,"height":800,"size":183422,"hasAlpha":false,"createdAt":"2026-01-02T03:04:05.678Z","updatedAt":"2026-01-02T03:04:05.678Z"}`

// client speaks to a real server that answers with handler.
func client(t testing.TB, handler http.HandlerFunc, change ...func(*Config)) *Client {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	c := Config{BaseURL: server.URL, PrivateKey: key, LooksLikeTicket: func(s string) bool { return strings.HasPrefix(s, "tu1.") }}
	for _, f := range change {
		f(&c)
	}
	asking, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(asking.Close)
	return asking
}

// says answers with a status and a body of type JSON.
func says(status int, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.Header().Set("x-ik-requestId", "0c8f6f0e")
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

func faultOf(t testing.TB, err error) *file.Fault {
	t.Helper()
	var fault *file.Fault
	if !errors.As(err, &fault) {
		t.Fatalf("error %v (%T), want a *file.Fault", err, err)
	}
	return fault
}

// answers is every way an answer can be, shared by all questions. found is
// the kind when asked by id, listed when searched or listed; "" is success.
var answers = []struct {
	name          string
	answer        http.HandlerFunc
	found, listed file.FaultKind
}{
	{"400InvalidFileID", says(400, `{"message":"Your request contains invalid fileId parameter.","help":"x"}`), file.InvalidID, file.BadRequest},
	{"400Other", says(400, `{"message":"Your request contains invalid value for sort parameters."}`), file.BadRequest, file.BadRequest},
	{"400Unreadable", says(400, `<html>`), file.BadRequest, file.BadRequest},
	{"401", says(401, `{"message":"Your request does not contain private API key."}`), file.Unauthorized, file.Unauthorized},
	{"402", says(402, `{}`), file.Forbidden, file.Forbidden},
	{"403", says(403, `{"message":"Your account cannot be authenticated."}`), file.Forbidden, file.Forbidden},
	{"404", says(404, `{"message":"The requested file does not exist.","help":"x"}`), file.NotFound, file.Garbled},
	{"404Empty", says(404, ``), file.NotFound, file.Garbled},
	{"404HTML", says(404, `<html>nginx</html>`), file.Garbled, file.Garbled},
	{"404Array", says(404, `[]`), file.Garbled, file.Garbled},
	{"404Cut", says(404, `{"message":"The requested`), file.Garbled, file.Garbled},
	{"404HalfSent", says(404, `{"message":`, "Content-Length", "500"), file.Unreachable, file.Unreachable},
	{"408", says(408, `{}`), file.Unavailable, file.Unavailable},
	{"409", says(409, `{}`), file.BadRequest, file.BadRequest},
	{"410", says(410, `{}`), file.BadRequest, file.BadRequest},
	{"414", says(414, `{}`), file.BadRequest, file.BadRequest},
	{"423", says(423, `{"message":"A bulk job is running on given folder path, please try after sometime."}`), file.Unavailable, file.Unavailable},
	{"429", says(429, `{"message":"slow down"}`), file.Limited, file.Limited},
	{"500", says(500, `{}`), file.Unavailable, file.Unavailable},
	{"502HTML", says(502, `<html>`), file.Unavailable, file.Unavailable},
	{"503Cut", says(503, `x`, "Content-Length", "500"), file.Unavailable, file.Unavailable},
	{"504", says(504, ``), file.Unavailable, file.Unavailable},
	{"599", says(599, ``), file.Unavailable, file.Unavailable},
	{"999", says(999, ``), file.Garbled, file.Garbled},
	{"201", says(201, sample), file.Garbled, file.Garbled},
	{"204", says(204, ``), file.Garbled, file.Garbled},
	{"207", says(207, sample), file.Garbled, file.Garbled},
	{"301", says(301, ``, "Location", "/elsewhere"), file.Garbled, file.Garbled},
	{"302ToItself", says(302, sample, "Location", "?"), file.Garbled, file.Garbled},
	{"304", says(304, ``), file.Garbled, file.Garbled},
	{"200HTML", says(200, `<html></html>`, "Content-Type", "text/html"), file.Garbled, file.Garbled},
	{"200HTMLThatSaysJSON", says(200, `<html></html>`), file.Garbled, file.Garbled},
	{"200JSONThatSaysHTML", says(200, sample, "Content-Type", "text/html"), file.Garbled, file.Garbled},
	{"200WithoutType", says(200, sample, "Content-Type", ""), file.Garbled, file.Garbled},
	{"200Empty", says(200, ``), file.Garbled, file.Garbled},
	{"200Null", says(200, `null`), file.Garbled, file.Garbled},
	{"200Text", says(200, `"ok"`), file.Garbled, file.Garbled},
	{"200Cut", says(200, sample[:200]), file.Garbled, file.Garbled},
	{"200HalfSent", says(200, sample[:200], "Content-Length", "700"), file.Unreachable, file.Unreachable},
	{"200Twice", says(200, sample+sample), file.Garbled, file.Garbled},
	{"200Object", says(200, sample), "", file.Garbled},
	{"200Array", says(200, "["+sample+"]"), file.Garbled, ""},
	{"200EmptyArray", says(200, "[]"), file.Garbled, ""},
	{"200Bad", says(200, `{"message":"The requested file does not exist."}`), file.Garbled, file.Garbled},
	{"200AnotherFile", says(200, strings.ReplaceAll(sample, id, "another")), file.Garbled, file.Garbled},
	{"200Huge", says(200, `{"x":"`+strings.Repeat("x", 5000)+`"}`), file.Garbled, file.Garbled},
	{"CutAtOnce", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, file.Unreachable, file.Unreachable},
	{"Hangs", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, file.TimedOut, file.TimedOut},
	{"HangsInTheMiddle", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(sample[:100]))
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}, file.TimedOut, file.TimedOut},
}

func TestAnswers(t *testing.T) {
	questions := []struct {
		name string
		ask  func(*Client, context.Context) (file.Answer, error)
	}{
		{"Details", func(c *Client, ctx context.Context) (file.Answer, error) { return c.Details(ctx, id) }},
		{"Search", func(c *Client, ctx context.Context) (file.Answer, error) { return c.Search(ctx, []string{id}) }},
		{"ListOne", func(c *Client, ctx context.Context) (file.Answer, error) { return c.ListOne(ctx) }},
		{"ListCreated", func(c *Client, ctx context.Context) (file.Answer, error) { return c.ListCreated(ctx, time.Time{}, 0) }},
		{"Newest", func(c *Client, ctx context.Context) (file.Answer, error) { return c.Newest(ctx) }},
	}
	for _, a := range answers {
		for _, q := range questions {
			t.Run(a.name+"/"+q.name, func(t *testing.T) {
				want := a.listed
				if q.name == "Details" {
					want = a.found
				}
				var asked atomic.Int64
				c := client(t, func(w http.ResponseWriter, r *http.Request) { asked.Add(1); a.answer(w, r) }, func(c *Config) {
					c.MaxDetails, c.MaxSearch, c.MaxPage = 4000, 4000, 4000
					if strings.HasPrefix(a.name, "Hangs") {
						c.Timeout, c.PageTimeout = 40*time.Millisecond, 40*time.Millisecond
					}
				})
				answer, err := q.ask(c, t.Context())
				if want == "" {
					if err != nil {
						t.Fatal(err)
					}
					return
				}
				fault := faultOf(t, err)
				if fault.Kind != want || len(answer.Snapshots) != 0 {
					t.Errorf("fault %v with %d snapshots, want %s", fault, len(answer.Snapshots), want)
				}
				if strings.Contains(err.Error()+fault.Excerpt, key) || len(fault.Excerpt) > 200 {
					t.Errorf("fault %v, excerpt %q", fault, fault.Excerpt)
				}
				if n := asked.Load(); n != 1 {
					t.Errorf("asked %d times: retries are not this package's", n)
				}
			})
		}
	}
}

func TestNobodyThere(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	c, err := New(Config{BaseURL: "http://" + address, PrivateKey: key})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Details(t.Context(), id)
	if fault := faultOf(t, err); fault.Kind != file.Unreachable || fault.Status != 0 {
		t.Errorf("fault %v", fault)
	}
}

// TestNotHTTP: something listens that is no web server, or speaks no TLS.
func TestNotHTTP(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = fmt.Fprint(conn, "220 mail.example.org ESMTP\r\n")
			_ = conn.Close()
		}
	}()
	for _, scheme := range []string{"http://", "https://"} {
		c, err := New(Config{BaseURL: scheme + listener.Addr().String(), PrivateKey: key, Timeout: 2 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Details(t.Context(), id)
		if fault := faultOf(t, err); !fault.Transient() || fault.Absent() {
			t.Errorf("%s: fault %v", scheme, fault)
		}
		c.Close()
	}
	_ = listener.Close()
	<-done
}

func TestACallersContextIsHonoured(t *testing.T) {
	arrived := make(chan struct{})
	c := client(t, func(_ http.ResponseWriter, r *http.Request) { close(arrived); <-r.Context().Done() })
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	if _, err := c.Details(ctx, id); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want the context's", err)
	}
}

// TestWaits: what a 429's headers ask for.
func TestWaits(t *testing.T) {
	tests := []struct {
		name     string
		header   []string
		wait     time.Duration
		limit    int
		interval time.Duration
	}{
		{"Missing", nil, 0, 0, 0},
		{"Zero", []string{"X-RateLimit-Reset", "0"}, 0, 0, 0},
		{"Milliseconds", []string{"X-RateLimit-Reset", "1500", "X-RateLimit-Limit", "40", "X-RateLimit-Interval", "1000"}, 1500 * time.Millisecond, 40, time.Second},
		{"LowerCase", []string{"x-ratelimit-reset", "7"}, 7 * time.Millisecond, 0, 0},
		{"Minutes", []string{"X-RateLimit-Reset", "600000"}, 10 * time.Minute, 0, 0},
		{"BeyondTheCap", []string{"X-RateLimit-Reset", "86400000"}, 15 * time.Minute, 0, 0},
		{"Huge", []string{"X-RateLimit-Reset", "99999999999999999999999999"}, 15 * time.Minute, 0, 0},
		{"Infinite", []string{"X-RateLimit-Reset", "1e999"}, 15 * time.Minute, 0, 0},
		{"Fraction", []string{"X-RateLimit-Reset", "0.2"}, time.Millisecond, 0, 0},
		{"Negative", []string{"X-RateLimit-Reset", "-5", "X-RateLimit-Limit", "-1", "X-RateLimit-Interval", "-1"}, 0, 0, 0},
		{"Garbage", []string{"X-RateLimit-Reset", "soon", "X-RateLimit-Limit", "many", "X-RateLimit-Interval", "NaN"}, 0, 0, 0},
		{"RetryAfter", []string{"Retry-After", "2"}, 2 * time.Second, 0, 0},
		{"ResetBeforeRetryAfter", []string{"Retry-After", "2", "X-RateLimit-Reset", "30"}, 30 * time.Millisecond, 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			answer, err := client(t, says(429, `{"message":"x"}`, tt.header...)).Details(t.Context(), id)
			fault := faultOf(t, err)
			if fault.Kind != file.Limited || fault.Wait != tt.wait || fault.RequestID != "0c8f6f0e" {
				t.Errorf("fault %+v, want a wait of %v", fault, tt.wait)
			}
			if want := (file.Rate{Limit: tt.limit, Interval: tt.interval, Reset: tt.wait}); answer.Rate != want {
				t.Errorf("rate %+v, want %+v", answer.Rate, want)
			}
		})
	}
	t.Run("OfASuccess", func(t *testing.T) {
		answer, err := client(t, says(200, sample, "X-RateLimit-Limit", "100", "X-RateLimit-Interval", "60000")).Details(t.Context(), id)
		if want := (file.Rate{Limit: 100, Interval: time.Minute}); err != nil || answer.Rate != want {
			t.Errorf("rate %+v, error %v", answer.Rate, err)
		}
		if answer.Date.IsZero() || answer.Status != 200 || answer.RequestID != "0c8f6f0e" {
			t.Errorf("answer %+v", answer)
		}
	})
}

// TestTheKeyNeverShows: some proxies echo the request they refuse (I18).
func TestTheKeyNeverShows(t *testing.T) {
	basic := base64.StdEncoding.EncodeToString([]byte(key + ":"))
	echo := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("x-ik-requestId", r.Header.Get("Authorization"))
			w.WriteHeader(status)
			_, _ = fmt.Fprintf(w, "%s\x00\x1b[31m%s %s%s", strings.Repeat("é", 60), key, r.Header.Get("Authorization"), strings.Repeat(key, 20))
		}
	}
	for _, status := range []int{200, 301, 400, 403, 404, 500} {
		_, err := client(t, echo(status)).Details(t.Context(), id)
		fault := faultOf(t, err)
		all := err.Error() + fault.Excerpt + fault.RequestID + fmt.Sprintf("%+v", fault)
		if strings.Contains(all, key) || strings.Contains(all, basic) || strings.Contains(all, basic[:20]) || strings.Contains(all, key[:20]) {
			t.Errorf("%d: the key shows in %q", status, all)
		}
		if len(fault.Excerpt) > 200 || strings.ContainsAny(fault.Excerpt, "\x00\x1b") || !strings.Contains(fault.Excerpt, "é") {
			t.Errorf("%d: excerpt %q", status, fault.Excerpt)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	tests := []struct {
		name, base, key string
		ok              bool
	}{
		{"Default", "", key, true},
		{"Prefix", "http://127.0.0.1:1/pre/", key, true},
		{"NoKey", "", "", false},
		{"KeyWithLineBreak", "", key + "\n", false},
		{"KeyWithColon", "", "a:b", false},
		{"NoScheme", "api.imagekit.io", key, false},
		{"OtherScheme", "ftp://api.imagekit.io", key, false},
		{"File", "file:///etc/passwd", key, false},
		{"User", "https://secret@api.imagekit.io", key, false},
		{"Query", "https://api.imagekit.io/?a=secret", key, false},
		{"Unreadable", "http://secret%zz", key, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := New(Config{BaseURL: tt.base, PrivateKey: tt.key})
			if (err == nil) != tt.ok {
				t.Errorf("error %v", err)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("error %v repeats its input", err)
			}
		})
	}
}

func TestClampWait(t *testing.T) {
	for ms, want := range map[float64]time.Duration{
		math.Inf(1): time.Minute, math.Inf(-1): 0, 0: 0, -1: 0, 1: time.Millisecond, 59_999: 59999 * time.Millisecond, 60_000: time.Minute, 1e300: time.Minute,
	} {
		if got := clampWait(ms, time.Minute); got != want {
			t.Errorf("%v ms: %v, want %v", ms, got, want)
		}
	}
	if got := clampWait(math.NaN(), time.Minute); got != 0 {
		t.Errorf("not a number: %v", got)
	}
}
