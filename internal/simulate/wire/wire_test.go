package wire_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trueup/trueup/internal/simulate/wire"
)

// ways are the two ways to a handler; both must show it, and its client, the same.
func ways(t *testing.T, f func(t *testing.T, open func(http.Handler) http.RoundTripper)) {
	t.Run("OverPipes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { f(t, func(h http.Handler) http.RoundTripper { return serve(t, h) }) })
	})
	t.Run("Direct", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f(t, func(h http.Handler) http.RoundTripper {
				d := &wire.Direct{Handler: h}
				t.Cleanup(d.Wait)
				return d
			})
		})
	})
}

// serve is h behind net/http's own server, on a network of its own.
func serve(t testing.TB, h http.Handler) *http.Transport {
	t.Helper()
	n := &wire.Network{}
	l, err := n.Listen(t.Context(), "tcp", "ingest.invalid:80")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	over := make(chan error, 1)
	go func() { over <- s.Serve(l) }()
	way := n.Transport()
	t.Cleanup(func() {
		way.CloseIdleConnections()
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if err := <-over; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return way
}

func ask(t testing.TB, way http.RoundTripper, r *http.Request) (*http.Response, string, error) {
	t.Helper()
	w, err := way.RoundTrip(r)
	if err != nil {
		return nil, "", err
	}
	defer w.Body.Close()
	body, err := io.ReadAll(w.Body)
	return w, string(body), err
}

func request(t testing.TB, method, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://ingest.invalid/a%2Fb?c=d", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestBothWays(t *testing.T) {
	t.Run("CarryEverything", func(t *testing.T) {
		ways(t, func(t *testing.T, open func(http.Handler) http.RoundTripper) {
			way := open(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				if r.Host != "ingest.invalid" || r.URL.String() != "/a%2Fb?c=d" || r.RequestURI != "/a%2Fb?c=d" || r.ContentLength != 5 ||
					r.Header.Get("X-Sent") != "yes" || !strings.HasPrefix(r.RemoteAddr, "127.0.0.1:") || string(body) != "hello" {
					t.Errorf("the handler sees %s %s of %s from %s: %v %q", r.Method, r.URL, r.Host, r.RemoteAddr, r.Header, body)
				}
				w.Header().Set("X-Answered", "yes")
				w.WriteHeader(http.StatusAccepted)
				w.Header().Set("X-Late", "too late")
				_, _ = io.WriteString(w, "good bye")
			}))
			r := request(t, http.MethodPost, "hello")
			r.Header.Set("X-Sent", "yes")
			w, body, err := ask(t, way, r)
			if err != nil || w.StatusCode != http.StatusAccepted || body != "good bye" || w.ContentLength != 8 || w.Header.Get("X-Answered") != "yes" || w.Header.Get("X-Late") != "" ||
				w.Header.Get("Content-Type") != "text/plain; charset=utf-8" || w.Header.Get("Date") != "Sat, 01 Jan 2000 00:00:00 GMT" {
				t.Errorf("the client sees %+v %q %v", w, body, err)
			}
		})
	})
	t.Run("CutInTheMiddle", func(t *testing.T) {
		ways(t, func(t *testing.T, open func(http.Handler) http.RoundTripper) {
			way := open(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "8")
				_, _ = io.WriteString(w, "good")
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			}))
			w, body, err := ask(t, way, request(t, http.MethodGet, ""))
			if w == nil || w.StatusCode != http.StatusOK || body != "good" || !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%+v %q %v", w, body, err)
			}
		})
	})
	t.Run("CutBeforeTheAnswer", func(t *testing.T) {
		ways(t, func(t *testing.T, open func(http.Handler) http.RoundTripper) {
			way := open(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
			if w, _, err := ask(t, way, request(t, http.MethodPost, "hello")); !errors.Is(err, io.EOF) {
				t.Errorf("%+v %v", w, err)
			}
		})
	})
	t.Run("WhoHangsUpIsNotWaitedForAndTheHandlerLearnsOfIt", func(t *testing.T) {
		ways(t, func(t *testing.T, open func(http.Handler) http.RoundTripper) {
			learned := make(chan struct{})
			way := open(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				<-r.Context().Done()
				close(learned)
			}))
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			began := time.Now()
			if w, _, err := ask(t, way, request(t, http.MethodGet, "").WithContext(ctx)); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 3*time.Second {
				t.Errorf("%+v %v after %v", w, err, time.Since(began))
			}
			<-learned
		})
	})
	t.Run("NothingLeavesAfterTheLastMoment", func(t *testing.T) {
		ways(t, func(t *testing.T, open func(http.Handler) http.RoundTripper) {
			var came atomic.Int64
			way := open(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { came.Add(1) }))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) {
				cancel()
				_ = got.Conn.Close()
			}})
			if _, _, err := ask(t, way, request(t, http.MethodGet, "").WithContext(ctx)); err == nil || came.Load() != 0 {
				t.Errorf("%d came, %v", came.Load(), err)
			}
		})
	})
	t.Run("HeadAndNoContentHaveNoBody", func(t *testing.T) {
		ways(t, func(t *testing.T, open func(http.Handler) http.RoundTripper) {
			way := open(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodDelete {
					w.WriteHeader(http.StatusNoContent)
					return
				}
				w.Header().Set("Content-Length", "8")
				_, _ = io.WriteString(w, "good bye")
			}))
			if w, body, err := ask(t, way, request(t, http.MethodHead, "")); err != nil || body != "" || w.ContentLength != 8 {
				t.Errorf("%+v %q %v", w, body, err)
			}
			if w, body, err := ask(t, way, request(t, http.MethodDelete, "")); err != nil || body != "" || w.StatusCode != http.StatusNoContent {
				t.Errorf("%+v %q %v", w, body, err)
			}
		})
	})
}

func TestANetwork(t *testing.T) {
	t.Run("RefusesWhatIsTakenAndWhatNobodyListensOn", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := &wire.Network{}
			if _, err := n.Dial(t.Context(), "tcp", "a.invalid:80"); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Error(err)
			}
			l, err := n.Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := n.Listen(t.Context(), "tcp", l.Addr().String()); !errors.Is(err, syscall.EADDRINUSE) {
				t.Error(err)
			}
			_ = l.Close()
			if _, err := n.Dial(t.Context(), "tcp", l.Addr().String()); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Error(err)
			}
			if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
				t.Error(err)
			}
			if l, err = n.Listen(t.Context(), "tcp", l.Addr().String()); err != nil {
				t.Errorf("an address that was given up cannot be taken: %v", err)
			}
			_ = l.Close()
		})
	})
	t.Run("AServersDeadlinesRunInVirtualTime", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := &wire.Network{}
			l, err := n.Listen(t.Context(), "tcp", "127.0.0.1:80")
			if err != nil {
				t.Fatal(err)
			}
			s := &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: 5 * time.Second}
			over := make(chan error, 1)
			go func() { over <- s.Serve(l) }()
			c, err := n.Dial(t.Context(), "tcp", "127.0.0.1:80")
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			if _, err := io.WriteString(c, "GET / HT"); err != nil {
				t.Fatal(err)
			}
			_, _ = io.ReadAll(c)
			if time.Since(began) != 5*time.Second {
				t.Errorf("a slow client was cut off after %v", time.Since(began))
			}
			_ = c.Close()
			if err := s.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			if err := <-over; !errors.Is(err, http.ErrServerClosed) {
				t.Error(err)
			}
		})
	})
}

func BenchmarkWays(b *testing.B) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = w.Write(body)
	})
	for name, way := range map[string]http.RoundTripper{"OverPipes": serve(b, h), "Direct": &wire.Direct{Handler: h}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := ask(b, way, request(b, http.MethodPost, "hello")); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
