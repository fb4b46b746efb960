package ingest

import (
	"fmt"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are counted on a registry the caller owns. Every label's values are from a
// closed set, so no request can add a series.
type metrics struct {
	requests *prometheus.CounterVec
	took     *prometheus.HistogramVec
	webhooks *prometheus.CounterVec
	forged   *prometheus.CounterVec
	matches  *prometheus.CounterVec
	accepted *prometheus.CounterVec
	grants   *prometheus.CounterVec
}

func orRegisterer(r prometheus.Registerer) prometheus.Registerer {
	if r == nil {
		return prometheus.NewRegistry()
	}
	return r
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	count := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "trueup", Subsystem: "ingest", Name: name, Help: help}, labels)
	}
	m := &metrics{
		requests: count("requests_total", "Requests answered.", "route", "status"),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "trueup", Subsystem: "ingest", Name: "request_seconds", Help: "Time to the whole answer.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"route"}),
		webhooks: count("webhooks_total", "Verified webhooks.", "kind", "result"),
		forged:   count("signature_failures_total", "Webhooks that did not verify.", "reason"),
		matches:  count("signature_matches_total", "What verified webhooks: which scheme, which reading of the secret.", "scheme", "form"),
		accepted: count("events_accepted_total", "Events stored durably.", "source"),
		grants:   count("grants_total", "Uploads permitted.", "version"),
	}
	for _, c := range []prometheus.Collector{m.requests, m.took, m.webhooks, m.forged, m.matches, m.accepted, m.grants} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register ingest metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) request(route string, status int, took time.Duration) {
	m.requests.WithLabelValues(route, strconv.Itoa(status)).Inc()
	m.took.WithLabelValues(route).Observe(took.Seconds())
}

func (m *metrics) webhook(kind, result string) {
	m.webhooks.WithLabelValues(kindLabel(kind), result).Inc()
}

// kindLabel keeps kinds that ImageKit may invent tomorrow out of the labels.
func kindLabel(kind string) string {
	switch kind {
	case "video.transformation.accepted", "video.transformation.ready", "video.transformation.error",
		"upload.pre-transform.success", "upload.pre-transform.error", "upload.post-transform.success", "upload.post-transform.error",
		"file.created", "file.updated", "file.deleted", "file-version.created", "file-version.deleted":
		return kind
	}
	return "other"
}
