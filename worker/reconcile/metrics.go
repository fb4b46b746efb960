package reconcile

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trueup/trueup/internal/run"
)

// Metrics of the runs. All labels come from closed sets. A nil *Metrics measures nothing.
type Metrics struct {
	runs     *prometheus.CounterVec
	findings *prometheus.CounterVec
	calls    prometheus.Counter
	seconds  *prometheus.CounterVec
	repairs  *prometheus.CounterVec
	drift    prometheus.Gauge
	complete prometheus.Gauge
	fuse     prometheus.Gauge
	doubted  prometheus.Gauge
}

// NewMetrics registers the metrics of the runs.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		runs: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "trueup_reconcile_runs_total",
			Help: "Reconciliation runs that ended, by kind and state."}, []string{"kind", "state"}),
		findings: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "trueup_reconcile_findings_total",
			Help: "Findings of runs that ended, by kind and status."}, []string{"kind", "status"}),
		calls: prometheus.NewCounter(prometheus.CounterOpts{Name: "trueup_reconcile_list_calls_total",
			Help: "List calls of runs."}),
		seconds: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "trueup_reconcile_phase_seconds_total",
			Help: "Seconds spent in each phase of runs."}, []string{"phase"}),
		repairs: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "trueup_reconcile_repairs_total",
			Help: "Files that runs wrote, by what the write did."}, []string{"did"}),
		drift: prometheus.NewGauge(prometheus.GaugeOpts{Name: "trueup_reconcile_drift",
			Help: "Files that were missing, drifted or orphaned when the last run compared."}),
		complete: prometheus.NewGauge(prometheus.GaugeOpts{Name: "trueup_reconcile_last_complete_timestamp_seconds",
			Help: "When the last complete run ended, in seconds since 1970; 0 where this process has not looked."}),
		fuse: prometheus.NewGauge(prometheus.GaugeOpts{Name: "trueup_reconcile_fuse_latched",
			Help: "1 while the fuse is latched, as the last run saw it."}),
		doubted: prometheus.NewGauge(prometheus.GaugeOpts{Name: "trueup_reconcile_account_doubted",
			Help: "1 while ImageKit's account is not recognised, as the last run saw it."}),
	}
	r.MustRegister(m.runs, m.findings, m.calls, m.seconds, m.repairs, m.drift, m.complete, m.fuse, m.doubted)
	return m
}

func (m *Metrics) phase(p run.Phase, took time.Duration) {
	if m != nil {
		m.seconds.WithLabelValues(string(p)).Add(took.Seconds())
	}
}

func (m *Metrics) called(n int64) {
	if m != nil {
		m.calls.Add(float64(n))
	}
}

func (m *Metrics) repaired(did map[string]run.Repair) {
	if m == nil {
		return
	}
	for _, d := range did {
		m.repairs.WithLabelValues(string(d)).Inc()
	}
}

func (m *Metrics) compared(r *run.Run) {
	if m != nil {
		m.drift.Set(float64(ofKind(r.Found, run.Missing) + ofKind(r.Found, run.Drifted) + ofKind(r.Found, run.Orphaned)))
	}
}

func (m *Metrics) ended(r *run.Run, at time.Time) {
	if m == nil {
		return
	}
	m.runs.WithLabelValues(string(r.Kind), string(r.State)).Inc()
	for kind, of := range r.Found {
		for status, n := range of {
			m.findings.WithLabelValues(string(kind), string(status)).Add(float64(n))
		}
	}
	if r.State == run.Complete {
		m.complete.Set(float64(at.Unix()))
	}
}

// completed is for a run that ended before this process, or this turn, began.
func (m *Metrics) completed(last run.Run) {
	if m != nil && !last.FinishedAt.IsZero() {
		m.complete.Set(float64(last.FinishedAt.Unix()))
	}
}

func (m *Metrics) latched(is bool) {
	if m != nil {
		m.fuse.Set(truth(is))
	}
}

func (m *Metrics) doubts(is bool) {
	if m != nil {
		m.doubted.Set(truth(is))
	}
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
