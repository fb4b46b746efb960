// Package telemetry sets up how a process speaks of itself: one structured log and
// one registry of metrics, both handed on, neither global.
//
// It is apart so that no package picks its own logger, registry or output. Its
// invariant: nothing whose name says secret leaves through a log made here, whoever
// logs it. OpenTelemetry traces are not built; events are followed by their id, which
// every line carries.
package telemetry

import (
	"io"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// LogConfig is how a log is written.
type LogConfig struct {
	// Out is where to. Required.
	Out io.Writer
	// Format is "text", "json" or "auto" (also ""): text when Out is a terminal.
	Format string
	// Level is "debug", "info" (also ""), "warn" or "error".
	Level string
}

// NewLogger is the process's log.
func NewLogger(c LogConfig) *slog.Logger {
	options := &slog.HandlerOptions{Level: level(c.Level), ReplaceAttr: redact}
	if c.Format == "text" || c.Format != "json" && Terminal(c.Out) {
		return slog.New(slog.NewTextHandler(c.Out, options))
	}
	return slog.New(slog.NewJSONHandler(c.Out, options))
}

func level(name string) slog.Level {
	var l slog.Level
	if err := l.UnmarshalText([]byte(strings.ToUpper(name))); err != nil {
		return slog.LevelInfo
	}
	return l
}

// Terminal reports whether w is a terminal that a person may be looking at.
func Terminal(w any) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0 && f.Name() != os.DevNull
}

var (
	// secretName are attribute names whose value is never shown.
	secretName = regexp.MustCompile(`(?i)(secret|password|passwd|token|authorization|cookie|private_?key|signature|credential)`)
	// harmlessName look like those and only count or name.
	harmlessName = regexp.MustCompile(`(?i)(_FILE|_PER_MINUTE|TOKENS?_?(count|name)|public_?key)$`)
	// secretText are secrets by their form, wherever they stand: the password of an
	// address, ImageKit's private keys and webhook secrets, bearer tokens, JWTs.
	secretText = regexp.MustCompile(`(://[^/\s:@]*:)[^/\s@]+(@)|\b(private_|whsec_)[A-Za-z0-9+/=_-]{4,}|\b(?i:bearer|basic) +[A-Za-z0-9._~+/=-]{8,}|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*`)
)

const hidden = "<secret>"

// redact is the last line of defence; the first is that secrets have types that do
// not print.
func redact(_ []string, a slog.Attr) slog.Attr {
	a.Value = a.Value.Resolve()
	switch a.Value.Kind() {
	case slog.KindString:
		if named(a.Key) && a.Value.String() != "" {
			return slog.String(a.Key, hidden)
		}
		return slog.String(a.Key, Redact(a.Value.String()))
	case slog.KindAny:
		if named(a.Key) {
			return slog.String(a.Key, hidden)
		}
		if err, ok := a.Value.Any().(error); ok {
			return slog.String(a.Key, Redact(err.Error()))
		}
	}
	return a
}

func named(key string) bool {
	return secretName.MatchString(key) && !harmlessName.MatchString(key)
}

// Redact hides what looks like a secret inside a text, for errors and excerpts that
// come from others.
func Redact(text string) string {
	return secretText.ReplaceAllString(text, "${1}${3}"+hidden+"${2}")
}

// NewRegistry is a registry of its own with what Go and the process say of
// themselves.
func NewRegistry(version string) *prometheus.Registry {
	r := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "trueup_build_info", Help: "Always 1; the label says which version runs.",
		ConstLabels: prometheus.Labels{"version": version},
	})
	build.Set(1)
	r.MustRegister(build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// MetricsHandler answers /metrics from a registry. A collector that fails loses its
// own lines, not the whole answer.
func MetricsHandler(r *prometheus.Registry) http.Handler {
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: 4})
}
