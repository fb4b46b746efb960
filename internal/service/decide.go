package service

import (
	"context"
	"strings"

	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/operator"
	"github.com/trueup/trueup/worker"
	"github.com/trueup/trueup/worker/verify"
)

// decider is step 3: worker and verifier on the queue, ImageKit and the rows.
func (s *Service) decider() error {
	c := s.Config.Config
	dog := s.watchdog()
	var err error
	s.verifier, err = verify.New(verify.Config{
		Library: s.Library, Fences: s.Rows, LiveFiles: s.Rows.LiveFiles,
		Prove: s.prove, Patience: c.ImageKit.Patience, Step: dog.Step,
		Budget:  verify.BudgetConfig{MaxRate: c.ImageKit.RateMax},
		Metrics: verify.NewMetrics(s.Registry), Random: s.Random,
	})
	if err != nil {
		return err
	}
	s.worker, err = worker.New(worker.Config{
		Queue: s.Queue, Turns: s.Queue, Look: s.verifier, Rows: s.Rows,
		Table: worker.Table{NotFoundGrace: c.Timing.NotFoundGrace, RetryMaxAge: c.Timing.RetryMaxAge, Version: s.Version, Jitter: 20},
		Begun: s.begun,
		Settled: func(ids []string) {
			// A lost notice costs whoever waits a second.
			_ = s.Queue.Tell(topicSettled, []byte(strings.Join(ids, " ")))
		},
		Watchdog: dog, Metrics: worker.NewMetrics(s.Registry), Logger: s.Logger, Now: s.Now, Random: s.Random, Drain: c.Listen.Drain * 2 / 3,
	})
	if err != nil {
		return err
	}
	s.runner, err = operator.NewRunner(operator.RunnerConfig{Work: s.Rows, Queue: s.Queue, Logger: s.Logger})
	if err != nil {
		return err
	}
	return s.reconciliation()
}

// probeSearch finds out at the start of a turn whether ImageKit searches by id here,
// so that no backlog has to.
func (s *Service) probeSearch(ctx context.Context) {
	supported, err := s.verifier.ProbeSearch(ctx)
	if err != nil {
		s.Logger.InfoContext(ctx, "imagekit.search_by_id", "unknown", err.Error())
		return
	}
	s.Logger.InfoContext(ctx, "imagekit.search_by_id", "supported", supported)
}

// prove opens the tickets that came back with a file. Valid ones of two users prove
// nothing; what looks like a ticket and does not open is only noted.
func (s *Service) prove(snapshot *file.Snapshot) file.Proof {
	var proof file.Proof
	for _, sealed := range snapshot.Tickets {
		t, err := s.keys.Open(sealed, s.Ownership.Account)
		switch {
		case err != nil:
			proof.Invalid = true
		case proof.User != "" && proof.User != t.User:
			return file.Proof{Conflict: true, Invalid: proof.Invalid}
		default:
			proof.User, proof.Ticket = t.User, t.ID
		}
	}
	return proof
}
