package rows

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/run"
	"github.com/trueup/trueup/internal/store"
)

// ApplyRun orders that what a run has found is carried out.
func (d *Door) ApplyRun(ctx context.Context, id string, a run.Apply) (out run.Run, err error) {
	err = d.do(ctx, "ApplyRun", id, func() (err error) {
		k := d.db.runs[id]
		if k == nil {
			return fmt.Errorf("run %s: %w", id, event.ErrUnknown)
		}
		const verb = "reconcile apply"
		order := map[string]any{"run": id, "acceptAccount": a.AcceptAccount}
		if a.ExpectDeletions != nil {
			order["expectDeletions"] = *a.ExpectDeletions
		}
		by := store.Act{Who: a.Who, Note: a.Note, Key: a.Key}
		if before := d.db.recorded(by, verb); a.Key != "" && before != nil {
			if !maps.Equal(before.filter, order) {
				return store.ErrKeyReused
			}
			out, err = d.db.runNamed(id)
			return err
		}
		if err := d.db.mayApply(k, a); err != nil {
			return err
		}
		d.db.record(by, verb, order)
		d.db.apply(k, a)
		out, err = d.db.runNamed(id)
		return err
	})
	if err != nil {
		return run.Run{}, err
	}
	return out, nil
}

func (db *Database) mayApply(k *keptRun, a run.Apply) error {
	if open := db.underWay(); open != nil {
		return fmt.Errorf("run %s: %w", open.ID, run.ErrUnderWay)
	}
	judged := k.Account.Confirmed || k.State != run.Failed
	switch {
	case !slices.Contains([]run.State{run.Planned, run.Partial, run.Failed}, k.State):
		return fmt.Errorf("run %s is %s: %w", k.ID, k.State, run.ErrEnded)
	case k.found != nil:
		return fmt.Errorf("the findings of run %s are not kept any more: %w", k.ID, run.ErrEnded)
	case !judged && !a.AcceptAccount:
		return fmt.Errorf("run %s: %w", k.ID, run.ErrAccount)
	case a.ExpectDeletions == nil:
		return nil
	case k.State == run.Failed && k.Candidates == 0:
		return fmt.Errorf("run %s has not counted its candidates: %w", k.ID, run.ErrOtherCount)
	case *a.ExpectDeletions != k.Candidates:
		return fmt.Errorf("run %s has %d candidates, not %d: %w", k.ID, k.Candidates, *a.ExpectDeletions, run.ErrOtherCount)
	}
	return nil
}

// reopened is how many orphans one order reopens.
const reopened = 5_000

func (db *Database) apply(k *keptRun, a run.Apply) {
	k.State, k.FinishedAt, k.Error, k.Waiting, k.ChangedAt = run.Applying, time.Time{}, "", "", now()
	if a.AcceptAccount {
		k.AccountAcceptedBy, k.Account.Confirmed = a.Who, true
		db.trustAccount(k.ID)
	}
	if a.ExpectDeletions != nil {
		expected := *a.ExpectDeletions
		k.ExpectedDeletions, k.Fuse = &expected, ""
		db.fuse.latchedAt, db.fuse.why, db.fuse.runID = time.Time{}, "", ""
		db.fuse.releasedAt, db.fuse.releasedBy = now(), a.Who
		clear(db.hours)
		db.reopen(k.ID, reopened)
	}
}

// CancelRun ends a run under way, or gives up a plan.
func (d *Door) CancelRun(ctx context.Context, id string, by store.Act) (out run.Run, err error) {
	err = d.do(ctx, "CancelRun", id, func() (err error) {
		k := d.db.runs[id]
		if k == nil {
			return fmt.Errorf("run %s: %w", id, event.ErrUnknown)
		}
		if k.State.Open() || k.State == run.Planned {
			k.State, k.Waiting, k.ChangedAt, k.FinishedAt = run.Cancelled, "", now(), now()
			d.db.record(by, "reconcile cancel", map[string]any{"run": id})
		}
		out, err = d.db.runNamed(id)
		return err
	})
	if err != nil {
		return run.Run{}, err
	}
	return out, nil
}
