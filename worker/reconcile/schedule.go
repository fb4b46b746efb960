package reconcile

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/trueup/trueup/internal/run"
)

// schedule begins a run that is due, and says how long to wait for the next. When that
// is, is read from the rows once, and again after each run: an idle database is left
// asleep. Several processes agree, because each reads when the last run began.
func (t *tenure) schedule(ctx context.Context) (time.Duration, error) {
	if t.Every <= 0 {
		return untilWoken, nil
	}
	if !t.scheduled {
		began, complete, err := t.Runs.LastRuns(ctx)
		if err != nil {
			return 0, fmt.Errorf("read when the last run began: %w", err)
		}
		t.Metrics.completed(complete)
		t.next, t.scheduled = due(began, t.Every, t.Jitter(), t.Now()), true
	}
	if wait := t.next.Sub(t.Now()); wait > 0 {
		return wait, nil
	}
	_, err := t.Runs.StartRun(ctx, run.Run{ID: newID(), Kind: run.Full, State: run.Running, Phase: run.PhaseAccount, StartedBy: scheduler})
	switch {
	case errors.Is(err, run.ErrUnderWay): // an operator was quicker
		t.next = due(run.Run{ID: "another", StartedAt: t.Now()}, t.Every, t.Jitter(), t.Now())
	case err != nil:
		return 0, fmt.Errorf("begin the run that is due: %w", err)
	}
	return atOnce, nil
}

// scheduler is who starts the runs of the schedule.
const scheduler = "schedule"

// due is when the next run begins: an interval, give or take a tenth of it, after the
// last one began, but not before a tenth has passed since that ended; at once where
// there never was one.
func due(last run.Run, every time.Duration, jitter float64, now time.Time) time.Time {
	if last.ID == "" {
		return now
	}
	tenth := every / 10
	at := last.StartedAt.Add(every - tenth + time.Duration(2*float64(tenth)*jitter))
	if rested := last.FinishedAt.Add(tenth); at.Before(rested) {
		return rested
	}
	return at
}
