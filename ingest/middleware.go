package ingest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"runtime/debug"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/go-chi/cors"
)

type requestIDKey struct{}

// requestID returns the id that identify gave the request.
func requestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}

// identify takes the sender's X-Request-Id when it is harmless, else draws one, and
// sends it back.
func (h *handler) identify(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.Header.Get("X-Request-Id")
		if !harmless(id) {
			id = rand.Text()
		}
		w.Header().Set("X-Request-Id", id)
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), requestIDKey{}, id)))
	})
}

func harmless(id string) bool {
	if id == "" || len(id) > 64 {
		return false
	}
	for _, c := range []byte(id) {
		switch {
		case c >= '0' && c <= '9', c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c == '-', c == '_', c == '.':
		default:
			return false
		}
	}
	return true
}

// route names the matched route, never the path as sent, for labels and log lines.
func route(r *http.Request) string {
	if c := chi.RouteContext(r.Context()); c != nil {
		if p := c.RoutePattern(); p != "" {
			return p
		}
	}
	return "none"
}

func (h *handler) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		ww := middleware.NewWrapResponseWriter(w, r.ProtoMajor)
		next.ServeHTTP(ww, r)
		took := time.Since(began)
		name, status := route(r), max(ww.Status(), http.StatusOK)
		h.metrics.request(name, status, took)
		if h.Logger.Enabled(r.Context(), slog.LevelDebug) { // its arguments cost even where nobody reads them
			h.Logger.DebugContext(r.Context(), "request served",
				"requestId", requestID(r.Context()), "route", name, "status", status, "took", took)
		}
	})
}

func (h *handler) recoverPanic(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { //nolint:contextcheck // the request's own context is used
			failure := recover()
			if failure == nil {
				return
			}
			if failure == http.ErrAbortHandler { //nolint:errorlint,err113 // net/http compares it so
				panic(failure)
			}
			h.Logger.ErrorContext(r.Context(), "request panicked", "requestId", requestID(r.Context()),
				"route", route(r), "panic", fmt.Sprintf("%T", failure), "stack", string(debug.Stack()))
			h.refuse(w, r, &problem{status: http.StatusInternalServerError, code: "internal", sentence: "Something broke here; it has been logged."})
		}()
		next.ServeHTTP(w, r)
	})
}

// secure sets what every answer carries: they are JSON for one reader. The values are made
// once; nobody changes them.
func secure(next http.Handler) http.Handler {
	always := http.Header{
		"Cache-Control":           {"no-store"},
		"X-Content-Type-Options":  {"nosniff"},
		"X-Frame-Options":         {"DENY"},
		"Referrer-Policy":         {"no-referrer"},
		"Content-Security-Policy": {"default-src 'none'; frame-ancestors 'none'"},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		maps.Copy(w.Header(), always)
		next.ServeHTTP(w, r)
	})
}

// clientAddress finds who a request is from: the peer, or, behind trusted proxies,
// the last address in X-Forwarded-For that is not one of them.
func clientAddress(trusted []string) (func(http.Handler) http.Handler, error) {
	if len(trusted) == 0 {
		return middleware.ClientIPFromRemoteAddr, nil
	}
	prefixes := make([]string, len(trusted))
	for i, text := range trusted {
		prefix, err := prefixOf(text)
		if err != nil {
			return nil, fmt.Errorf("ingest: trusted proxy %q is neither an address nor a CIDR range", text)
		}
		prefixes[i] = prefix.String()
	}
	forwarded := middleware.ClientIPFromXFF(prefixes...)
	return func(next http.Handler) http.Handler {
		// The later one wins, so a peer's own address stands where nothing is believed.
		return middleware.ClientIPFromRemoteAddr(forwarded(next))
	}, nil
}

func prefixOf(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	return netip.ParsePrefix(text)
}

// crossOrigin answers browsers of the given origins. Cookies are never allowed:
// whoever calls shows a token.
func crossOrigin(origins []string) (func(http.Handler) http.Handler, error) {
	if len(origins) == 0 {
		return func(next http.Handler) http.Handler { return next }, nil
	}
	for _, origin := range origins {
		if u, err := url.Parse(origin); err != nil || u.Scheme+"://"+u.Host != origin || u.Host == "" || u.Host[0] == '*' {
			return nil, errors.New("ingest: CORS origin " + origin + " is not an exact origin such as https://app.example.com")
		}
	}
	return cors.Handler(cors.Options{
		AllowedOrigins: origins,
		AllowedMethods: []string{http.MethodGet, http.MethodPost},
		AllowedHeaders: []string{"Authorization", "Content-Type", "X-Request-Id"},
		ExposedHeaders: []string{"Location", "Retry-After", "X-Request-Id"},
		MaxAge:         600,
	}), nil
}
