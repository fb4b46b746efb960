package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"sync"
	"time"
)

// Direct asks a handler without any connection. As over the wire, a request that has
// left is carried out even if nobody waits for its answer any more; Wait waits for
// those.
type Direct struct {
	Handler http.Handler
	// Remote is the address that requests seem to come from; empty means
	// "127.0.0.1:20000".
	Remote string

	left sync.WaitGroup
}

// Wait returns when every request has been answered, waited for or not.
func (d *Direct) Wait() { d.left.Wait() }

// RoundTrip implements http.RoundTripper.
func (d *Direct) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := bodyOf(r)
	if err != nil {
		return nil, err
	}
	if err := leaves(r.Context()); err != nil {
		return nil, err
	}
	asked, hangUp := d.asked(r, body)
	w := &answering{header: http.Header{}, asked: asked}
	done := make(chan struct{})
	d.left.Go(func() {
		defer close(done)
		defer hangUp()
		w.aborted = serve(d.Handler, w, asked)
	})
	select {
	case <-done:
	case <-r.Context().Done():
		hangUp()
		return nil, r.Context().Err()
	}
	return w.response(r)
}

func bodyOf(r *http.Request) ([]byte, error) {
	if r.Body == nil {
		return nil, nil
	}
	body, err := io.ReadAll(r.Body)
	if err := errors.Join(err, r.Body.Close()); err != nil {
		return nil, fmt.Errorf("read the body to send: %w", err)
	}
	return body, nil
}

// leaves is the moment at which a request has a connection and is about to be written.
func leaves(ctx context.Context) error {
	trace := httptrace.ContextClientTrace(ctx)
	if trace != nil && trace.GotConn != nil {
		near, far := net.Pipe()
		defer far.Close()
		defer near.Close()
		trace.GotConn(httptrace.GotConnInfo{Conn: near})
	}
	return ctx.Err()
}

// asked is the request as its handler sees it.
func (d *Direct) asked(r *http.Request, body []byte) (*http.Request, context.CancelFunc) {
	ctx, hangUp := context.WithCancel(context.Background())
	asked := (&http.Request{
		Method: r.Method, URL: r.URL, Host: r.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: r.Header.Clone(), Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
		RequestURI: r.URL.RequestURI(), RemoteAddr: d.Remote,
	}).WithContext(ctx)
	u := *r.URL
	u.Scheme, u.Host, u.User, u.Fragment = "", "", nil, ""
	asked.URL = &u
	if asked.Method == "" {
		asked.Method = http.MethodGet
	}
	if asked.Host == "" {
		asked.Host = r.URL.Host
	}
	if asked.Header == nil {
		asked.Header = http.Header{}
	}
	if asked.RemoteAddr == "" {
		asked.RemoteAddr = "127.0.0.1:20000"
	}
	if asked.Header.Get("User-Agent") == "" {
		asked.Header.Set("User-Agent", "Go-http-client/1.1")
	}
	if len(body) > 0 || r.Method == http.MethodPost {
		asked.Header.Set("Content-Length", strconv.Itoa(len(body)))
	}
	return asked, hangUp
}

// serve runs the handler; aborted says that it cut the connection.
func serve(h http.Handler, w *answering, r *http.Request) (aborted bool) {
	defer func() {
		switch p := recover(); p {
		case nil:
		case http.ErrAbortHandler:
			aborted = true
		default:
			panic(p)
		}
	}()
	h.ServeHTTP(w, r)
	return false
}

// answering is an answer that is being written.
type answering struct {
	asked   *http.Request
	header  http.Header
	sent    http.Header // as they were when the status was written; nil before
	status  int
	body    bytes.Buffer
	aborted bool
}

func (a *answering) Header() http.Header { return a.header }

func (a *answering) WriteHeader(status int) {
	if a.sent != nil || status < 200 {
		return
	}
	a.status, a.sent = status, maps.Clone(a.header)
}

func (a *answering) Write(b []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	if a.asked.Method == http.MethodHead {
		return len(b), nil
	}
	return a.body.Write(b)
}

// Flush implements http.Flusher.
func (a *answering) Flush() { a.WriteHeader(http.StatusOK) }

// SetReadDeadline and SetWriteDeadline are for an http.ResponseController; nothing here
// can be slow.
func (a *answering) SetReadDeadline(time.Time) error  { return nil }
func (a *answering) SetWriteDeadline(time.Time) error { return nil }

// response is the answer as its client sees it.
func (a *answering) response(r *http.Request) (*http.Response, error) {
	if a.aborted && a.sent == nil {
		return nil, io.EOF
	}
	a.WriteHeader(http.StatusOK)
	h := a.sent
	if h.Get("Date") == "" {
		h.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	}
	bodiless := a.status == http.StatusNoContent || a.status == http.StatusNotModified
	if h.Get("Content-Type") == "" && a.body.Len() > 0 && !bodiless {
		h.Set("Content-Type", http.DetectContentType(a.body.Bytes()))
	}
	length := int64(-1)
	if stated, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64); err == nil {
		length = stated
	} else if !a.aborted && !bodiless {
		length = int64(a.body.Len())
		h.Set("Content-Length", strconv.FormatInt(length, 10))
	}
	return &http.Response{
		Status: strconv.Itoa(a.status) + " " + http.StatusText(a.status), StatusCode: a.status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: h, ContentLength: length,
		Body: a.reader(length), Request: r,
	}, nil
}

// reader is the body, which ends too early where the handler cut it, or promised more.
func (a *answering) reader(length int64) io.ReadCloser {
	if a.asked.Method == http.MethodHead {
		return http.NoBody
	}
	var body io.Reader = &a.body
	if a.aborted || length > int64(a.body.Len()) {
		body = io.MultiReader(body, broken{})
	}
	return io.NopCloser(body)
}

// broken is a connection that ends in the middle.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
