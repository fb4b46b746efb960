package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
)

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
	c := newSettlement(turn, pending, seen, end)
	var out event.Settled
	err := s.tx(ctx, "settle", func(ctx context.Context, tx pgx.Tx) error {
		w, due, err := s.settle(ctx, tx, c)
		if err == nil {
			out = w.settled(len(c.pending), due)
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
	files := planFiles(c, s.rules(), g)
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
	w = &writing{m: m, g: g, files: files, ends: planEnds(c, files, g), asked: c.pending, run: c.run, secrets: s.secrets}
	if c.turn != noTurn && s.cleanNow() {
		w.clean = &s.cfg.Retain
	}
	if due, err = w.send(ctx, tx); err != nil {
		return nil, nil, fmt.Errorf("write: %w", err)
	}
	return w, due, nil
}

func (s *Store) rules() rules {
	return rules{absentConfirm: s.cfg.AbsentConfirm, claimWindow: s.cfg.ClaimWindow, ownership: s.cfg.Ownership}
}

// fresh reports a file of which nothing stood in the database: there is no line to
// lock. Inserting it is what finds out whether somebody was quicker.
func fresh(f *filePlan) bool { return !f.was.Known && !f.was.Live }

// toLock are the files of which a line would be changed.
func toLock(files []*filePlan) []string {
	var out []string
	for _, f := range files {
		if f.writes() && !fresh(f) || f.do.Reason == file.ReasonFuseLatched {
			out = append(out, f.obs.FileID)
		}
	}
	return out
}

// widened reports a file that would be written now and was not locked: what was read
// beside it has changed in between.
func widened(files []*filePlan, locked []string) bool {
	held := make(map[string]bool, len(locked))
	for _, id := range locked {
		held[id] = true
	}
	for _, f := range files {
		if f.writes() && !fresh(f) && !held[f.obs.FileID] {
			return true
		}
	}
	return false
}

// planLocked decides again under the locks, and once more when that latches the fuse.
func (s *Store) planLocked(ctx context.Context, tx pgx.Tx, c *settlement, g *gathered) ([]*filePlan, error) {
	files := planFiles(c, s.rules(), g)
	latch, err := s.tooMany(ctx, tx, files, g)
	if err != nil || !latch {
		return files, err
	}
	g.latched = true
	return planFiles(c, s.rules(), g), nil
}

// Rolling-day limit of the fuse: this many candidates, or this share of live rows.
const (
	fuseFloor = 10
	fuseShare = 20 // one in twenty
)

// tooMany reports whether the candidates of the last day, with this call's, are more
// than the fuse bears. Rows are counted only above the floor, and no further than the
// answer needs.
func (s *Store) tooMany(ctx context.Context, tx pgx.Tx, files []*filePlan, g *gathered) (bool, error) {
	total := g.candidates
	for _, f := range files {
		if f.counts {
			total++
		}
	}
	if g.latched || total <= fuseFloor || total == g.candidates {
		return false, nil
	}
	var live int64
	err := tx.QueryRow(ctx, `SELECT count(*) FROM (SELECT FROM public.imagekit_files LIMIT $1) l`, total*fuseShare).Scan(&live)
	if err != nil {
		return false, fmt.Errorf("count live rows: %w", err)
	}
	return live < total*fuseShare, nil
}
