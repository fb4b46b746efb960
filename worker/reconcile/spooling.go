package reconcile

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/trueup/trueup/internal/run"
	"github.com/trueup/trueup/worker/reconcile/spool"
)

// open opens the spool that the run has, if it is there and can be gone on with. w.spool
// is nil otherwise, and the run's notes say why.
func (w *work) open(ctx context.Context) error {
	if w.spool != nil || w.run.Spool == "" {
		return nil
	}
	if _, err := os.Stat(w.dir()); errors.Is(err, os.ErrNotExist) {
		if w.run.Slices > 0 {
			w.noteOnce("the listing's spool is not here: it was written elsewhere, or is lost")
		}
		return nil
	}
	s, err := spool.Open(w.spooled())
	if err != nil {
		return err
	}
	why, err := w.foreign(ctx, s)
	switch {
	case err != nil:
		_ = s.Close() // it was only read from
		return err
	case why != "":
		w.noteOnce("the listing's spool was discarded: %s", why)
		return s.Remove()
	}
	w.spool = s
	w.resumed()
	return nil
}

// resumed takes over what the spool knows.
func (w *work) resumed() {
	if why := w.spool.Damaged(); why != "" {
		w.note("the listing's spool was damaged: %s", why)
	}
	w.mark = lastMark(w.spool)
	if w.run.Phase == run.PhaseList && w.spool.Pages() > 0 {
		w.note("the listing went on where it was after an interruption")
	}
	if w.run.Phase == run.PhaseList {
		w.kept()
	}
}

// lastMark is what the spool's last page says; that of a spool without one is zero.
func lastMark(s *spool.Spool) (m mark) {
	last, ok := s.Last()
	if !ok || json.Unmarshal(last.Cursor, &m) != nil {
		return mark{}
	}
	return m
}

// foreign says why a spool cannot be gone on with: it is another run's, or newer than
// the database, which was put back to an earlier state or is a branch of the one that
// the spool belongs to.
func (w *work) foreign(ctx context.Context, s *spool.Spool) (why string, err error) {
	last, some := s.Last()
	if !some {
		if w.run.Slices > 0 {
			return "none of the pages that the run had spooled is in it", nil
		}
		return "", nil
	}
	if !json.Valid(last.Cursor) {
		return "it says nothing of where the listing was", nil
	}
	fence, _, err := w.rows.Fence(ctx, nil)
	switch {
	case err != nil:
		return "", err
	case last.Fence >= fence.Number || w.run.Fence >= fence.Number:
		return "it is newer than the database, which was put back since", nil
	case s.Pages() > w.run.Slices+w.SavePages:
		return "it has more pages than the database can know of, which was put back since", nil
	}
	return "", nil
}

// newID draws the id of a run, a spool or an event.
func newID() string { return ulid.MustNew(ulid.Now(), rand.Reader).String() }

// begin begins a listing in a spool of its own. Its name is in the database before it is
// on disk.
func (w *work) begin(ctx context.Context) error {
	w.drop(ctx)
	next := w.run
	next.Spool, next.Slices, next.Listed, next.Whole = newID(), 0, 0, false
	if w.run.Slices > 0 {
		next.Notes = noted(next.Notes, "the listing started over", 1)
	}
	if err := w.store(ctx, next); err != nil {
		return err
	}
	w.run = next
	s, err := spool.Open(w.spooled())
	if err != nil {
		return err
	}
	w.spool, w.mark, w.walk = s, mark{}, nil
	return nil
}

func (w *work) dir() string { return filepath.Join(w.Dir, w.run.ID) }

func (w *work) spooled() spool.Config { return spool.Config{Dir: w.dir(), ID: w.run.Spool} }

// close lets the spool go; it stays on disk.
func (w *work) close() {
	if w.spool != nil {
		_ = w.spool.Close() // what was appended is durable
	}
	w.spool, w.walk, w.mark = nil, nil, mark{}
}

// drop removes the run's spool. What cannot be removed now is pruned later.
func (w *work) drop(ctx context.Context) {
	w.close()
	w.pruned(ctx, spool.Prune(w.Dir, func(id string) bool { return id != w.run.ID }))
}

// prune removes what other runs have left. A plan's spool is of use only as long as it is
// fresh.
func (w *work) prune(ctx context.Context) {
	w.pruned(ctx, spool.Prune(w.Dir, func(id string) bool {
		began, err := ulid.ParseStrict(id)
		return id == w.run.ID || err == nil && w.Now().Sub(ulid.Time(began.Time())) < keepSpools
	}))
}

// keepSpools is how long after a run's beginning its spool may stay.
const keepSpools = 24 * time.Hour

func (w *work) pruned(ctx context.Context, err error) {
	if err != nil {
		w.Logger.WarnContext(ctx, "reconcile.spool_left", "run", w.run.ID, "error", fmt.Sprint(err))
	}
}
