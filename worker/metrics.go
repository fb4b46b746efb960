package worker

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trueup/trueup/internal/event"
)

// Metrics of the worker. All labels come from closed sets. A nil *Metrics measures
// nothing.
type Metrics struct {
	ends     *prometheus.CounterVec
	events   prometheus.Histogram
	seconds  prometheus.Histogram
	already  prometheus.Counter
	security *prometheus.CounterVec
}

// NewMetrics registers the worker's metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		ends: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "trueup_events_settled_total",
			Help: "Events settled, by source and end; a retry counts each time."}, []string{"source", "end"}),
		events: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "trueup_batch_events",
			Help: "Events in a settled batch.", Buckets: []float64{1, 2, 5, 10, 25, 50, 100, 250, 500, 1000}}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "trueup_settle_seconds",
			Help: "Seconds a settling transaction took.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 14)}),
		already: prometheus.NewCounter(prometheus.CounterOpts{Name: "trueup_events_already_settled_total",
			Help: "Events that came again after they had reached an end."}),
		security: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "trueup_security_notes_total",
			Help: "Ownership events worth a look, by flag."}, []string{"flag"}),
	}
	r.MustRegister(m.ends, m.events, m.seconds, m.already, m.security)
	return m
}

func (m *Metrics) settled(p event.Pending, end event.End) {
	if m != nil {
		m.ends.WithLabelValues(string(p.Source), string(end.Kind)).Inc()
	}
}

func (m *Metrics) batch(events int, settled event.Settled, took time.Duration) {
	if m == nil {
		return
	}
	m.events.Observe(float64(events))
	m.seconds.Observe(took.Seconds())
	m.already.Add(float64(settled.Already))
	for flag, n := range settled.Security {
		m.security.WithLabelValues(flag).Add(float64(n))
	}
}
