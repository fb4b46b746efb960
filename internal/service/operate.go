package service

import (
	"context"
	"net/http"
	"time"

	"github.com/trueup/trueup/internal/config"
	"github.com/trueup/trueup/internal/operator"
	"github.com/trueup/trueup/internal/telemetry"
)

// What a control notice says.
const (
	controlPause  = "pause"
	controlResume = "resume"
)

// operations is the operator listener's handler. An ingest has no API: it has no
// right to the tables behind it.
func (s *Service) operations() (http.Handler, error) {
	c := operator.Config{
		Role: string(s.Role), Version: s.Version, Ready: s.opsReady, Metrics: telemetry.MetricsHandler(s.Registry), Logger: s.Logger,
	}
	for _, t := range s.OperatorTokens() {
		c.Tokens = append(c.Tokens, operator.Token{Name: t.Name, Value: t.Value.Reveal()})
	}
	if s.Role != config.Ingest {
		c.Service = operations{s}
	}
	return operator.New(c)
}

func (s *Service) opsReady() operator.Readiness {
	r := s.ready()
	parts := map[string]string{}
	if r.Database != "" {
		parts["database"], parts["imagekit"] = r.Database, r.ImageKit
	}
	return operator.Readiness{Ready: r.Accepting, Durability: r.Durability, Why: r.Why, Parts: parts}
}

// operations is what the operator API asks of a process.
type operations struct{ s *Service }

func (o operations) Status(ctx context.Context) (operator.Status, error) {
	return operator.Status{At: o.s.Now().UTC(), Role: string(o.s.Role), Version: o.s.Version}, nil
}

func (o operations) Passport(ctx context.Context, fileID string) (operator.Passport, error) {
	return operator.Passport{FileID: fileID}, nil
}

func (o operations) Pause(ctx context.Context, act operator.Act) (operator.Paused, error) {
	return o.setPaused(ctx, true, act)
}

func (o operations) Resume(ctx context.Context, act operator.Act) (operator.Paused, error) {
	return o.setPaused(ctx, false, act)
}

func (o operations) setPaused(ctx context.Context, paused bool, act operator.Act) (operator.Paused, error) {
	if err := o.s.Rows.SetPaused(ctx, paused, act.Who, act.Note); err != nil {
		return operator.Paused{}, err
	}
	word := controlResume
	if paused {
		word = controlPause
	}
	o.s.worker.SetPaused(paused, act.Note)
	_ = o.s.Queue.Tell(topicControl, []byte(word))
	at := time.Now()
	return operator.Paused{Paused: paused, PausedBy: act.Who, PausedNote: act.Note, PausedAt: &at}, nil
}
