package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/rule"
)

// settlement is one call of Settle, Repair or Preview.
type settlement struct {
	turn int64
	*rule.Call
}

func (c *settlement) snapshots() []*file.Snapshot {
	out := make([]*file.Snapshot, len(c.IDs))
	for i, id := range c.IDs {
		out[i] = c.Seen[id].Snapshot
	}
	return out
}

// Settle brings every pending event to its end in one transaction: rows, tombstones,
// owners, ledger, retries and dead letters, or nothing at all. An event without an
// observation gets its end with a zero Result.
//
// end is called inside the transaction, which may be run again after a lost race: it
// must be pure. Settling the same events again is a no-op, so after an ErrOutage, whose
// commit may have happened all the same, the caller settles again. Errors wrap
// event.ErrTurnMoved (stop), event.ErrPaused (wait for the operator), event.ErrOutage (pause) or event.ErrUnstorable (halve the call; a *BadData).
func (s *Store) Settle(ctx context.Context, turn int64, pending []event.Pending, seen []file.Observation,
	end func(event.Pending, file.Result) event.End,
) (event.Settled, error) {
	c := &settlement{turn: turn, Call: rule.NewCall(pending, seen, end)}
	var out event.Settled
	err := s.tx(ctx, "settle", func(ctx context.Context, tx pgx.Tx) error {
		w, due, err := s.settle(ctx, tx, c)
		if err == nil {
			out = w.settled(due)
		}
		return err
	})
	if err != nil {
		return event.Settled{}, err
	}
	return out, nil
}

func (s *Store) settle(ctx context.Context, tx pgx.Tx, c *settlement) (w *writing, due *time.Time, err error) {
	m, err := s.mapping(ctx, tx)
	if err != nil {
		return nil, nil, err
	}
	g, err := s.gatherFirst(ctx, tx, m, c)
	if err != nil {
		return nil, nil, fmt.Errorf("read: %w", err)
	}
	files := rule.Plan(c.Call, s.settings(), g)
	if lock := toLock(files); len(lock) > 0 {
		if g, err = s.gatherLocked(ctx, tx, m, c, g, lock); err != nil {
			return nil, nil, fmt.Errorf("lock: %w", err)
		}
		if files, err = s.planLocked(ctx, tx, c, g); err != nil {
			return nil, nil, err
		}
		if widened(files, lock) {
			return nil, nil, errLostRace
		}
	}
	w = &writing{m: m, g: g, files: files, ends: rule.Ends(c.Call, files, g), call: c.Call, secrets: s.secrets}
	if c.turn != noTurn && s.cleanNow() {
		w.clean = &s.cfg.Retain
	}
	if due, err = w.send(ctx, tx); err != nil {
		return nil, nil, fmt.Errorf("write: %w", err)
	}
	return w, due, nil
}

func (s *Store) settings() rule.Settings {
	return rule.Settings{AbsentConfirm: s.cfg.AbsentConfirm, ClaimWindow: s.cfg.ClaimWindow, Ownership: s.cfg.Ownership}
}

// toLock are the files of which a line would be changed.
func toLock(files []*rule.FilePlan) []string {
	var out []string
	for _, f := range files {
		if f.Writes() && !f.Fresh() || f.Do.Reason == file.ReasonFuseLatched {
			out = append(out, f.Obs.FileID)
		}
	}
	return out
}

// widened reports a file that would be written now and was not locked: what was read
// beside it has changed in between.
func widened(files []*rule.FilePlan, locked []string) bool {
	held := make(map[string]bool, len(locked))
	for _, id := range locked {
		held[id] = true
	}
	for _, f := range files {
		if f.Writes() && !f.Fresh() && !held[f.Obs.FileID] {
			return true
		}
	}
	return false
}

// planLocked decides again under the locks, and once more when that latches the fuse. Rows
// are counted no further than the answer needs.
func (s *Store) planLocked(ctx context.Context, tx pgx.Tx, c *settlement, g *rule.Facts) ([]*rule.FilePlan, error) {
	return rule.PlanBraked(c.Call, s.settings(), g, func(atMost int64) (live int64, err error) {
		err = tx.QueryRow(ctx, `SELECT count(*) FROM (SELECT FROM public.imagekit_files LIMIT $1) l`, atMost).Scan(&live)
		if err != nil {
			err = fmt.Errorf("count live rows: %w", err)
		}
		return live, err
	})
}
