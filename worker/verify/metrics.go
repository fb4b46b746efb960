package verify

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trueup/trueup/internal/file"
)

// Metrics of all calls to ImageKit. All labels come from closed sets. A nil
// *Metrics measures nothing. Calls per file is calls_total over files_total.
type Metrics struct {
	calls   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
	waits   *prometheus.HistogramVec
	helds   prometheus.Counter
	files   *prometheus.CounterVec
	merged  prometheus.Counter
	probes  *prometheus.CounterVec
}

// NewMetrics registers the metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "trueup_imagekit_calls_total",
			Help: "Calls of ImageKit's management API, by endpoint and outcome (ok, or the fault's kind)."}, []string{"endpoint", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "trueup_imagekit_call_seconds",
			Help: "Seconds a call took.", Buckets: prometheus.ExponentialBuckets(0.002, 2, 14)}, []string{"endpoint"}),
		waits: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "trueup_imagekit_budget_wait_seconds",
			Help: "Seconds a call waited for the budget.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 10)}, []string{"class"}),
		helds: prometheus.NewCounter(prometheus.CounterOpts{Name: "trueup_imagekit_calls_held_total",
			Help: "Calls stopped at the last moment because of a 429 met meanwhile."}),
		files: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "trueup_verify_files_total",
			Help: "Files answered, by how: hit, look-up, absent, fault, panic."}, []string{"how"}),
		merged: prometheus.NewCounter(prometheus.CounterOpts{Name: "trueup_verify_coalesced_total",
			Help: "Asks that shared another's question."}),
		probes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "trueup_imagekit_probes_total",
			Help: "Probes whether ImageKit as a whole answers, by result."}, []string{"result"}),
	}
	r.MustRegister(m.calls, m.seconds, m.waits, m.helds, m.files, m.merged, m.probes)
	return m
}

func (m *Metrics) called(endpoint string, fault *file.Fault, took time.Duration) {
	if m == nil {
		return
	}
	outcome := "ok"
	if fault != nil {
		outcome = string(fault.Kind)
	}
	m.calls.WithLabelValues(endpoint, outcome).Inc()
	m.seconds.WithLabelValues(endpoint).Observe(took.Seconds())
}

func (m *Metrics) waited(p Priority, wait time.Duration) {
	if m != nil {
		m.waits.WithLabelValues(p.String()).Observe(wait.Seconds())
	}
}

func (m *Metrics) held() {
	if m != nil {
		m.helds.Inc()
	}
}

func (m *Metrics) answered(how string) {
	if m != nil {
		m.files.WithLabelValues(how).Inc()
	}
}

func (m *Metrics) coalesced(n int) {
	if m != nil && n > 0 {
		m.merged.Add(float64(n))
	}
}

func (m *Metrics) probed(alive bool) {
	if m == nil {
		return
	}
	result := "outage"
	if alive {
		result = "alive"
	}
	m.probes.WithLabelValues(result).Inc()
}
