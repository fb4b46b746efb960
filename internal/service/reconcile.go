package service

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"path/filepath"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/operator"
	"github.com/trueup/trueup/internal/run"
	"github.com/trueup/trueup/internal/store"
	"github.com/trueup/trueup/worker/reconcile"
	"github.com/trueup/trueup/worker/verify"
)

// Reconciliation is what runs and polling need of the database.
type Reconciliation interface {
	reconcile.Runs
	reconcile.Brakes
	reconcile.Positions
	reconcile.PlanDoors
	// ForPlan is the same database for a run that may write nothing but itself, and a
	// sentence where PostgreSQL cannot see to that.
	ForPlan(ctx context.Context) (plan reconcile.PlanDoors, note string, err error)
	Run(ctx context.Context, id string) (run.Run, error)
	RunList(ctx context.Context, after string, limit int) ([]run.Run, error)
	Findings(ctx context.Context, runID string, f run.FindingFilter, after string, limit int) ([]run.Finding, error)
	ApplyRun(ctx context.Context, id string, a run.Apply) (run.Run, error)
	CancelRun(ctx context.Context, id string, act store.Act) (run.Run, error)
}

// reconciliation is step 3 from the other side: what nobody told us of.
func (s *Service) reconciliation() error {
	c := s.Config.Config
	library := reconcile.NewLibrary(s.Library, s.verifier)
	var err error
	s.reconciler, err = reconcile.New(reconcile.Config{
		Library: library, Runs: s.Rows, Rows: s.Rows, Brakes: s.Rows, Queue: s.Queue, Prove: s.prove, Ask: s.hits,
		PlanRows: s.Rows.ForPlan,
		Dir:      filepath.Join(c.Queue.DataDir, "reconcile"), Account: s.account(), Every: c.Timing.ReconcileEvery,
		Now: s.Now, Jitter: s.Random.Float64, Metrics: reconcile.NewMetrics(s.Registry), Logger: s.Logger,
	})
	if err != nil {
		return err
	}
	s.poller, err = reconcile.NewPoller(reconcile.PollConfig{
		Library: library, Rows: s.Rows, Brakes: s.Rows, Positions: s.Rows, Queue: s.Queue, Prove: s.prove,
		Every: c.Timing.PollEvery, Now: s.Now, Metrics: reconcile.NewPollMetrics(s.Registry), Logger: s.Logger,
	})
	return err
}

// account names the private key and the account that this process is configured for.
// The fingerprint tells two keys apart and nothing else.
func (s *Service) account() run.Account {
	print := sha256.Sum256([]byte("trueup account " + s.ImageKit.PrivateKey.Reveal()))
	return run.Account{Key: hex.EncodeToString(print[:6]), Endpoint: s.Ownership.Account}
}

// hits searches for files by id, as a backlog does; what is not found, or not answered,
// is left out.
func (s *Service) hits(ctx context.Context, ids []string) ([]file.Observation, error) {
	asks := make([]verify.Ask, len(ids))
	for i, id := range ids {
		asks[i] = verify.Ask{FileID: id, Priority: verify.Run, AnyHit: true}
	}
	answers, err := s.verifier.Look(ctx, asks)
	if err != nil {
		return nil, err
	}
	var seen []file.Observation
	for _, a := range answers {
		if a.Observation != nil && a.Observation.Present() {
			seen = append(seen, *a.Observation)
		}
	}
	return seen, nil
}

func (o operations) StartRun(ctx context.Context, r run.Run) (run.Run, error) {
	r, err := o.s.Rows.StartRun(ctx, r)
	if err == nil && r.State.Open() {
		o.jobsChanged(ctx)
	}
	return r, said(err)
}

func (o operations) Run(ctx context.Context, id string) (run.Run, error) {
	r, err := o.s.Rows.Run(ctx, id)
	if err == nil && r.State.Open() {
		o.jobsChanged(ctx)
	}
	return r, err
}

func (o operations) RunList(ctx context.Context, after string, limit int) ([]run.Run, error) {
	return o.s.Rows.RunList(ctx, after, limit)
}

func (o operations) Findings(ctx context.Context, runID string, f run.FindingFilter, after string, limit int) ([]run.Finding, error) {
	return o.s.Rows.Findings(ctx, runID, f, after, limit)
}

func (o operations) ApplyRun(ctx context.Context, id string, a run.Apply) (run.Run, error) {
	r, err := o.s.Rows.ApplyRun(ctx, id, a)
	if err == nil {
		o.jobsChanged(ctx)
	}
	return r, said(err)
}

func (o operations) CancelRun(ctx context.Context, id string, act operator.Act) (run.Run, error) {
	r, err := o.s.Rows.CancelRun(ctx, id, actOf(act))
	if err == nil {
		o.jobsChanged(ctx)
	}
	return r, said(err)
}

// reconciled tells status of the last run and of the account.
func reconciled(out *operator.Status, st *store.Status) {
	if st.Run != nil {
		out.Run = &operator.RunStatus{Run: *st.Run}
	}
	if d := st.Account; d.Doubt != "" {
		out.Account = &operator.AccountStatus{Doubt: d.Doubt, Since: moment(d.Since), Run: d.Run}
	}
}

// besides goes on beside the worker while it has the turn.
func (s *Service) besides(ctx context.Context, turn int64) []func() {
	told := func(what string, work func(context.Context, int64) error) func() {
		return func() {
			if err := work(ctx, turn); err != nil && !errors.Is(err, event.ErrTurnMoved) && ctx.Err() == nil {
				s.Logger.ErrorContext(ctx, what+".ended", "error", err.Error())
			}
		}
	}
	return []func(){
		func() { s.probeSearch(ctx) },
		told("jobs", s.runner.Run),
		told("reconcile", s.reconciler.Run),
		told("poll", s.poller.Run),
	}
}
