package store

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/run"
)

// appliable are the states of a run that can be applied, or applied once more: of a
// complete one nothing is left.
var appliable = []run.State{run.Planned, run.Partial, run.Failed}

// ApplyRun orders that what a run has found is carried out; the turn's worker does it.
// The same caller with the same key gives the order once, or gets ErrKeyReused where it
// was another one. Errors wrap event.ErrUnknown, run.ErrUnderWay while any run is under
// way, run.ErrEnded for a run that cannot be applied, run.ErrOtherCount, and
// run.ErrAccount where AcceptAccount is needed.
//
// ExpectDeletions releases the fuse and lets the run's orphans be asked about after all;
// TakeFindings reopens those that are more than a slice.
// AcceptAccount ends the doubt in the account.
func (s *Store) ApplyRun(ctx context.Context, id string, a run.Apply) (run.Run, error) {
	err := s.tx(ctx, "apply run", func(ctx context.Context, tx pgx.Tx) error {
		r, err := lockRun(ctx, tx, id)
		if err != nil {
			return err
		}
		fresh, err := auditApply(ctx, tx, id, a)
		if err != nil || !fresh {
			return err
		}
		if err := mayApply(ctx, tx, &r, a); err != nil {
			return err
		}
		return apply(ctx, tx, &r, a)
	})
	if err != nil {
		return run.Run{}, err
	}
	return s.Run(ctx, id)
}

func lockRun(ctx context.Context, tx pgx.Tx, id string) (run.Run, error) {
	all, err := readRuns(ctx, tx, false, `WHERE id = $1 `+alone, id)
	if err == nil && len(all) == 0 {
		err = fmt.Errorf("run %s: %w", id, event.ErrUnknown)
	}
	if err != nil {
		return run.Run{}, err
	}
	return all[0], nil
}

func auditApply(ctx context.Context, tx pgx.Tx, id string, a run.Apply) (bool, error) {
	const verb = "reconcile apply"
	order := map[string]any{"run": id, "acceptAccount": a.AcceptAccount}
	if a.ExpectDeletions != nil {
		order["expectDeletions"] = *a.ExpectDeletions
	}
	fresh, err := audit(ctx, tx, Act{Who: a.Who, Note: a.Note, Key: a.Key}, verb, order)
	if err != nil || fresh {
		return fresh, err
	}
	var same bool
	err = tx.QueryRow(ctx, `SELECT filter = $4::text::jsonb FROM trueup.audit WHERE who = $1 AND verb = $2 AND key = $3`,
		clean(a.Who), verb, clean(a.Key), encode(order)).Scan(&same)
	if err == nil && !same {
		err = ErrKeyReused
	}
	return false, err
}

func mayApply(ctx context.Context, tx pgx.Tx, r *run.Run, a run.Apply) error {
	var underWay string
	err := tx.QueryRow(ctx, `SELECT id FROM trueup.runs WHERE state IN ('running', 'applying')`).Scan(&underWay)
	if err == nil {
		return fmt.Errorf("run %s: %w", underWay, run.ErrUnderWay)
	}
	if !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	judged := r.Account.Confirmed || r.State != run.Failed
	switch {
	case !slices.Contains(appliable, r.State):
		return fmt.Errorf("run %s is %s: %w", r.ID, r.State, run.ErrEnded)
	case r.Found != nil:
		return fmt.Errorf("the findings of run %s are not kept any more: %w", r.ID, run.ErrEnded)
	case !judged && !a.AcceptAccount:
		return fmt.Errorf("run %s: %w", r.ID, run.ErrAccount)
	case a.ExpectDeletions == nil:
		return nil
	case r.State == run.Failed && r.Candidates == 0:
		// A number given before anything was compared would allow whatever is found later.
		return fmt.Errorf("run %s has not counted its candidates: %w", r.ID, run.ErrOtherCount)
	case *a.ExpectDeletions != r.Candidates:
		return fmt.Errorf("run %s has %d candidates, not %d: %w", r.ID, r.Candidates, *a.ExpectDeletions, run.ErrOtherCount)
	}
	return nil
}

func apply(ctx context.Context, tx pgx.Tx, r *run.Run, a run.Apply) error {
	b := &pgx.Batch{}
	b.Queue(`UPDATE trueup.runs SET state = 'applying', finished_at = NULL, error = '', waiting = '', changed_at = clock_timestamp() WHERE id = $1`, r.ID)
	if a.AcceptAccount {
		b.Queue(`UPDATE trueup.runs SET account_accepted_by = $2, identity = identity || '{"confirmed": true}' WHERE id = $1`, r.ID, clean(a.Who))
		queueTrustAccount(b, r.ID)
	}
	if a.ExpectDeletions != nil {
		b.Queue(`UPDATE trueup.runs SET expected_deletions = $2, fuse = '' WHERE id = $1`, r.ID, *a.ExpectDeletions)
		queueRelease(b, clean(a.Who))
		queueReopen(b, r.ID, closeSlice)
	}
	err := send(ctx, tx, b)
	var pe *pgconn.PgError
	if errors.As(err, &pe) && pe.ConstraintName == "runs_one_at_a_time" {
		return errLostRace // another run has begun this moment
	}
	return err
}

// CancelRun ends a run under way, or gives up a plan; what was published goes its way. A
// run that is over stays as it is. It wraps event.ErrUnknown.
func (s *Store) CancelRun(ctx context.Context, id string, act Act) (run.Run, error) {
	err := s.tx(ctx, "cancel run", func(ctx context.Context, tx pgx.Tx) error {
		r, err := lockRun(ctx, tx, id)
		if err != nil || !r.State.Open() && r.State != run.Planned {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE trueup.runs SET state = 'cancelled', waiting = '', changed_at = clock_timestamp(), finished_at = clock_timestamp() WHERE id = $1`, id)
		if err != nil {
			return err
		}
		_, err = audit(ctx, tx, act, "reconcile cancel", map[string]any{"run": id})
		return err
	})
	if err != nil {
		return run.Run{}, err
	}
	return s.Run(ctx, id)
}
