package reconcile

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trueup/trueup/internal/run"
)

// PollMetrics of the Poller. A nil *PollMetrics measures nothing.
type PollMetrics struct {
	polls    *prometheus.CounterVec
	hits     *prometheus.CounterVec
	position prometheus.Gauge
}

// NewPollMetrics registers them.
func NewPollMetrics(r prometheus.Registerer) *PollMetrics {
	m := &PollMetrics{
		polls: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "trueup_polls_total",
			Help: "Polls of what changed lately, by result: quiet, fed, doubted (the account), paused, failed."}, []string{"result"}),
		hits: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "trueup_poll_hits_total",
			Help: "Hits of polls, by what the write did with them: repaired, same, ask (to be looked up by id)."}, []string{"result"}),
		position: prometheus.NewGauge(prometheus.GaugeOpts{Name: "trueup_poll_position_seconds",
			Help: "The updatedAt that polling has come to, as stored, in seconds since 1970."}),
	}
	r.MustRegister(m.polls, m.hits, m.position)
	return m
}

func (m *PollMetrics) polled(state string, news int) {
	if m == nil {
		return
	}
	switch {
	case state != "":
	case news > 0:
		state = "fed"
	default:
		state = "quiet"
	}
	m.polls.WithLabelValues(state).Inc()
}

func (m *PollMetrics) hit(did run.Repair) {
	if m != nil {
		m.hits.WithLabelValues(string(did)).Inc()
	}
}

func (m *PollMetrics) at(position time.Time) {
	if m != nil {
		m.position.Set(float64(position.UnixMicro()) / 1e6)
	}
}
