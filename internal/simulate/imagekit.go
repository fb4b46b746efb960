package simulate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/trueup/trueup/internal/check"
	"github.com/trueup/trueup/internal/simulate/fault"
)

// imagekitWay is the way to ImageKit and back. What goes wrong there goes wrong here, on
// the wire, so that the library itself stays the truth. It keeps the log of what was
// asked and answered, which the checker judges by.
type imagekitWay struct {
	world *world
	// library is our account, another somebody else's: it knows none of our files.
	library, another http.RoundTripper

	mu    sync.Mutex // guards what follows
	log   []check.Request
	seen  map[string][][]byte // by file: bodies that details answered, each once
	flick map[*armed]string   // the file that a flicker is about
}

// line is one process's way to ImageKit.
type line struct {
	*imagekitWay
	process *process
}

// exchange is one question and what became of it.
type exchange struct {
	request  check.Request
	endpoint string // details or list
	file     string // the file that details are asked of
	side     string // what goes wrong
}

func (l *line) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		_ = r.Body.Close()
	}
	ctx, w, p := r.Context(), l.world, l.process
	e := l.understand(r)
	there, back := w.latency(fault.Call{Door: fault.ImageKit, Method: e.endpoint, Key: e.file})
	if p.dead.Load() || time.Until(p.stalledUntil()) > 0 {
		if err := p.travel(ctx, 0); err != nil {
			return nil, err
		}
	}
	if err := leaves(ctx); err != nil {
		return nil, err // held back at the last moment: it never left
	}
	e.request.At = time.Now()
	e.side = w.strike("imagekit/" + e.endpoint)
	if e.side == "closed-before" {
		l.keep(&e, 0, nil, nil, true)
		return nil, errors.Join(net.ErrClosed, p.travel(ctx, there))
	}
	err := p.travel(ctx, there)
	var res *http.Response
	var body []byte
	if !p.dead.Load() {
		// It is on its way: ImageKit answers whether or not anybody waits.
		var failed error
		if res, body, failed = l.answer(r, &e); failed != nil {
			return nil, failed
		}
	}
	if err == nil && (e.side == "hang" || e.side == "slow") {
		err = p.travel(ctx, l.delay(&e))
	}
	if err == nil {
		err = p.travel(ctx, back)
	}
	cut := e.side == "closed-after" || err != nil
	if res != nil {
		l.keep(&e, res.StatusCode, res.Header, body, cut)
	}
	if err != nil {
		return nil, err
	}
	if e.side == "closed-after" {
		res.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body[:len(body)/2]), broken{}))
		return res, nil
	}
	res.Body = io.NopCloser(bytes.NewReader(body))
	return res, nil
}

// broken is a connection that ends in the middle.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// leaves is the moment at which a request has a connection and is about to be written.
func leaves(ctx context.Context) error {
	if trace := httptrace.ContextClientTrace(ctx); trace != nil && trace.GotConn != nil {
		near, far := net.Pipe()
		defer func() { _, _ = near.Close(), far.Close() }()
		trace.GotConn(httptrace.GotConnInfo{Conn: near})
	}
	return ctx.Err()
}

func (l *line) understand(r *http.Request) exchange {
	e := exchange{endpoint: "list", request: check.Request{Method: r.Method, Path: r.URL.EscapedPath(), Query: r.URL.RawQuery, Who: "trueup/" + l.process.name}}
	if id, ok := strings.CutPrefix(r.URL.Path, "/v1/files/"); ok {
		e.endpoint, e.file = "details", strings.TrimSuffix(id, "/details")
	}
	e.request.Endpoint = e.endpoint
	return e
}

// shape is what kind of JSON a body is: all that its reader can believe of it.
func shape(body []byte) string {
	body = bytes.TrimSpace(body)
	switch {
	case len(body) == 0:
		return ""
	case !json.Valid(body):
	case body[0] == '{':
		return "object"
	case body[0] == '[':
		return "array"
	}
	return "text"
}

// delay is how much longer than usual the answer takes.
func (l *line) delay(e *exchange) time.Duration {
	if e.side == "hang" {
		return 10 * time.Minute // nobody waits so long
	}
	return time.Duration(l.world.lot("late "+e.file) % uint64(9*time.Second))
}

// keep writes the log. It is ordered by when requests left.
func (k *imagekitWay) keep(e *exchange, status int, h http.Header, body []byte, cut bool) {
	q := e.request
	q.Body, q.Blank = shape(body), e.endpoint == "details" && status == http.StatusOK && !bytes.Contains(body, []byte(`"fileId"`))
	q.Status, q.Cut, q.Took = status, cut, time.Since(q.At)
	if h != nil {
		q.RequestID = h.Get("X-Ik-Requestid")
		if ms, err := strconv.ParseInt(h.Get("X-Ratelimit-Reset"), 10, 64); err == nil && status == http.StatusTooManyRequests {
			q.Reset = time.Duration(ms) * time.Millisecond
		}
	}
	k.world.trace.say(q.Who, "imagekit %s %s %d %s", e.endpoint, e.file, status, e.side)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.log = append(k.log, q)
}

// answer is what ImageKit says, and what the way back makes of it.
func (l *line) answer(r *http.Request, e *exchange) (*http.Response, []byte, error) {
	if res, body := l.refusal(e); res != nil {
		return res, body, nil
	}
	library := l.library
	if l.world.anothers() {
		library = l.another
	}
	clean := r.Clone(context.WithoutCancel(r.Context()))
	res, err := library.RoundTrip(clean)
	if err != nil {
		return nil, nil, fmt.Errorf("ask the library: %w", err)
	}
	body, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if err != nil {
		return nil, nil, fmt.Errorf("read the library's answer: %w", err)
	}
	if e.endpoint == "details" && res.StatusCode == http.StatusOK && library == l.library {
		body = l.remembered(e.file, body)
	}
	if e.endpoint == "list" && res.StatusCode == http.StatusOK {
		if _, empty := l.world.lasts("imagekit/list/empty"); empty {
			l.world.reached.Hit("imagekit/list/empty")
			body = []byte("[]")
		}
	}
	body = spoil(e.side, res, body)
	return res, body, nil
}

// remembered keeps what a file looked like, and answers with an older look while stale
// answers are asked for.
func (l *line) remembered(id string, body []byte) []byte {
	_, stale := l.world.lasts("imagekit/details/stale")
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.seen[id]
	if n := len(all); n == 0 || !bytes.Equal(all[n-1], body) {
		all = append(all, body)
		l.seen[id] = all
	}
	if stale && len(all) > 1 {
		l.world.reached.Hit("imagekit/details/stale")
		return all[len(all)-2]
	}
	return body
}

// refusal is an answer in which the library has no say; nil when it has.
func (l *line) refusal(e *exchange) (*http.Response, []byte) {
	refuse := func(status int, say string) (*http.Response, []byte) {
		body := []byte(fmt.Sprintf(`{"message":%q,"help":"For support kindly contact us at support@imagekit.io ."}`, say))
		return reply(status, "application/json; charset=utf-8"), body
	}
	w := l.world
	if _, revoked := w.lasts("imagekit/account/revoked-401"); revoked {
		w.reached.Hit("imagekit/account/revoked-401")
		return refuse(http.StatusUnauthorized, "Your account cannot be authenticated.")
	}
	if _, restricted := w.lasts("imagekit/account/restricted-403"); restricted {
		w.reached.Hit("imagekit/account/restricted-403")
		return refuse(http.StatusForbidden, "Your API key is restricted.")
	}
	if l.flickers(e) {
		w.reached.Hit("imagekit/details/404-flicker")
		return refuse(http.StatusNotFound, "The requested file does not exist.")
	}
	switch e.side {
	case "429-reset", "429-bare", "429-zero", "429-huge":
		res, body := refuse(http.StatusTooManyRequests, "Too many requests.")
		if ms := resets(e.side, w.lot("reset")); ms >= 0 {
			res.Header.Set("X-Ratelimit-Limit", "40")
			res.Header.Set("X-Ratelimit-Interval", "1000")
			res.Header.Set("X-Ratelimit-Reset", strconv.FormatInt(ms, 10))
		}
		return res, body
	case "500", "502", "503":
		status, _ := strconv.Atoi(e.side)
		return refuse(status, "Something went wrong.")
	}
	return nil, nil
}

// resets is what a 429 names, in milliseconds; negative: nothing.
func resets(side string, lot uint64) int64 {
	switch side {
	case "429-reset":
		return 100 + int64(lot%20_000)
	case "429-zero":
		return 0
	case "429-huge":
		return (48 * time.Hour).Milliseconds()
	}
	return -1
}

func reply(status int, kind string) *http.Response {
	return &http.Response{StatusCode: status, Status: strconv.Itoa(status) + " " + http.StatusText(status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {kind}, "X-Ik-Requestid": {"simulated"}}, ContentLength: -1}
}

// flickers reports whether this question is answered 404 though the file is there. A
// flicker is about one file, the first that is asked for while it lasts.
func (l *line) flickers(e *exchange) bool {
	f, on := l.world.lasts("imagekit/details/404-flicker")
	if !on || e.endpoint != "details" {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	id, chosen := l.flick[f]
	if !chosen && len(l.seen[e.file]) > 0 {
		for _, other := range l.flick {
			if other == e.file {
				return false // once in a run: two of them are no flicker
			}
		}
		id, l.flick[f] = e.file, e.file
		l.world.record.lie(e.file, e.request.At, l.world.began.Add(f.At+f.For))
	}
	return id == e.file
}

// spoil makes an honest answer what the fault wants of it.
func spoil(side string, res *http.Response, body []byte) []byte {
	switch side {
	case "html-200":
		res.Header.Set("Content-Type", "text/html")
		return []byte("<html><body><h1>We will be right back</h1></body></html>")
	case "truncated":
		return body[:len(body)*2/3]
	case "empty-body":
		return nil
	case "wrong-type":
		return []byte(`"ok"`)
	case "missing-fields":
		if len(body) > 0 && body[0] == '[' {
			return []byte(`[{"type":"file"}]`)
		}
		return []byte(`{"type":"file"}`)
	}
	return body
}

// requests is the log so far, by the time at which they left.
func (k *imagekitWay) requests() []check.Request {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]check.Request{}, k.log...)
}
