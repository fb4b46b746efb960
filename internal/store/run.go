package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/run"
)

// Locks on a run's row: whoever writes for the run shares it, so that nothing is written
// once the run has ended; whoever changes the row itself takes it alone.
const (
	shared = "FOR SHARE"
	alone  = "FOR NO KEY UPDATE"
)

// inRun is tx for what a run does in a turn: it wraps run.ErrEnded when the run is not
// under way, or not there any more.
func (s *Store) inRun(ctx context.Context, op string, turn int64, runID, lock string, f func(context.Context, pgx.Tx) error) error {
	return s.txFirst(ctx, op, func(b *pgx.Batch) {
		guard(b, turn, false)
		s.queueStepDown(b)
		queueOpenRun(b, runID, lock)
	}, f)
}

// queueOpenRun locks a run's row and fails with run.ErrEnded unless it is under way.
func queueOpenRun(b *pgx.Batch, id, lock string) {
	queueRunState(b, id, lock, func(state run.State) error {
		if !state.Open() {
			return fmt.Errorf("run %s is %s: %w", id, state, run.ErrEnded)
		}
		return nil
	})
}

func queueRunState(b *pgx.Batch, id, lock string, judge func(run.State) error) {
	b.Queue(`SELECT state FROM trueup.runs WHERE id = $1 `+lock, id).QueryRow(func(row pgx.Row) error {
		var state run.State
		err := row.Scan(&state)
		if errors.Is(err, pgx.ErrNoRows) {
			return fmt.Errorf("run %s is not there any more: %w", id, run.ErrEnded)
		}
		if err != nil {
			return err
		}
		return judge(state)
	})
}

// StartRun stores a run that is to begin, with its audit line; the turn's worker takes it
// up. r says Kind, StartedBy, Note and Key. The same caller with the same key gets the
// run that is there, or ErrKeyReused where that is of another kind. While a run is under
// way it wraps run.ErrUnderWay and returns that one.
func (s *Store) StartRun(ctx context.Context, r run.Run) (run.Run, error) {
	if r.Kind != run.Plan && r.Kind != run.Full {
		return run.Run{}, fmt.Errorf("start run: %q is no kind of a run", r.Kind)
	}
	id, underWay := newID(), ""
	err := s.tx(ctx, "start run", func(ctx context.Context, tx pgx.Tx) error {
		underWay = ""
		fresh, err := insertRun(ctx, tx, id, &r)
		if err != nil {
			return err
		}
		if !fresh {
			var first string
			if first, underWay, err = inItsWay(ctx, tx, &r); first != "" {
				id = first
			}
			return err
		}
		act := Act{Who: r.StartedBy, Note: r.Note, Key: r.Key}
		_, err = audit(ctx, tx, act, "reconcile "+string(r.Kind), map[string]any{"run": id})
		return err
	})
	switch {
	case err != nil:
		return run.Run{}, err
	case underWay != "":
		return s.refuseSecond(ctx, underWay)
	}
	return s.Run(ctx, id)
}

func insertRun(ctx context.Context, tx pgx.Tx, id string, r *run.Run) (bool, error) {
	// Two rules may keep it out: one run at a time, and one per key.
	ct, err := tx.Exec(ctx, `INSERT INTO trueup.runs (id, kind, state, started_by, note, key, phase, begun)
		VALUES ($1, $2, 'running', $3, $4, nullif($5, ''), $6, pg_current_snapshot()) ON CONFLICT DO NOTHING`,
		id, string(r.Kind), clean(r.StartedBy), clean(r.Note), clean(r.Key), string(r.Phase))
	return ct.RowsAffected() == 1, err
}

// inItsWay finds what kept a run from being stored: the run that has its key, or the one
// under way.
func inItsWay(ctx context.Context, tx pgx.Tx, r *run.Run) (first, underWay string, err error) {
	var kind run.Kind
	err = tx.QueryRow(ctx, `SELECT id, kind FROM trueup.runs WHERE started_by = $1 AND key = $2`, clean(r.StartedBy), clean(r.Key)).Scan(&first, &kind)
	switch {
	case err == nil && kind != r.Kind:
		return "", "", ErrKeyReused
	case err == nil, !errors.Is(err, pgx.ErrNoRows):
		return first, "", err
	}
	err = tx.QueryRow(ctx, `SELECT id FROM trueup.runs WHERE state IN ('running', 'applying')`).Scan(&underWay)
	if errors.Is(err, pgx.ErrNoRows) { // it has ended this moment
		return "", "", errLostRace
	}
	return "", underWay, err
}

func (s *Store) refuseSecond(ctx context.Context, underWay string) (run.Run, error) {
	r, err := s.Run(ctx, underWay)
	if err != nil {
		return run.Run{}, err
	}
	return r, fmt.Errorf("run %s: %w", underWay, run.ErrUnderWay)
}

const runColumns = `id, kind, state, phase, started_by, note, coalesce(key, ''), started_at, changed_at, finished_at, coalesce(fence, 0), checkpoint,
	coalesce(remote_rows, 0), calls, whole, coalesce(live_rows, 0), same, moved, unowned, found::text, candidates, fuse, identity,
	expected_deletions, account_accepted_by, notes, waiting, error`

// checkpoint is what a run needs to be resumed.
type checkpoint struct {
	Spool  string `json:"spool,omitempty"`
	Slices int64  `json:"slices,omitempty"`
}

func scanRun(row pgx.CollectableRow) (run.Run, error) {
	var r run.Run
	var finished *time.Time
	var point checkpoint
	var found *string
	err := row.Scan(&r.ID, &r.Kind, &r.State, &r.Phase, &r.StartedBy, &r.Note, &r.Key, &r.StartedAt, &r.ChangedAt, &finished, &r.Fence, &point,
		&r.Listed, &r.Calls, &r.Whole, &r.Rows, &r.Same, &r.Moved, &r.Unowned, &found, &r.Candidates, &r.Fuse, &r.Account,
		&r.ExpectedDeletions, &r.AccountAcceptedBy, &r.Notes, &r.Waiting, &r.Error)
	if err != nil {
		return r, fmt.Errorf("scan run: %w", err)
	}
	r.StartedAt, r.ChangedAt, r.FinishedAt = r.StartedAt.UTC(), r.ChangedAt.UTC(), orZero(finished)
	r.Spool, r.Slices = point.Spool, point.Slices
	if found != nil {
		err = json.Unmarshal([]byte(*found), &r.Found)
	}
	return r, err
}

// runs reads runs; counted, with what became of their findings.
func (s *Store) runs(ctx context.Context, counted bool, which string, args ...any) ([]run.Run, error) {
	var out []run.Run
	err := s.tx(ctx, "read runs", func(ctx context.Context, tx pgx.Tx) (err error) {
		out, err = readRuns(ctx, tx, counted, which, args...)
		return err
	})
	return out, err
}

func readRuns(ctx context.Context, tx pgx.Tx, counted bool, which string, args ...any) ([]run.Run, error) {
	rows, err := tx.Query(ctx, `SELECT `+runColumns+` FROM trueup.runs `+which, args...)
	if err != nil {
		return nil, err
	}
	out, err := pgx.CollectRows(rows, scanRun)
	if err != nil || !counted {
		return out, err
	}
	return out, countFindings(ctx, tx, out)
}

// countFindings counts those that are still there to be counted.
func countFindings(ctx context.Context, tx pgx.Tx, runs []run.Run) error {
	byID, ids := map[string]*run.Run{}, []string(nil)
	for i := range runs {
		if runs[i].Found == nil {
			byID[runs[i].ID], ids = &runs[i], append(ids, runs[i].ID)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	rows, err := tx.Query(ctx, `SELECT run_id, kind, status, count(*), count(*) FILTER (WHERE `+unsettledFinding+`)
		FROM trueup.findings WHERE run_id = ANY($1) GROUP BY run_id, kind, status`, ids)
	if err != nil {
		return err
	}
	var id string
	var kind run.FindingKind
	var status run.Status
	var n, unsettled int64
	_, err = pgx.ForEachRow(rows, []any{&id, &kind, &status, &n, &unsettled}, func() error {
		r := byID[id]
		if r.Found == nil {
			r.Found = map[run.FindingKind]map[run.Status]int64{}
		}
		if r.Found[kind] == nil {
			r.Found[kind] = map[run.Status]int64{}
		}
		r.Found[kind][status] += n
		r.Unsettled += unsettled
		return nil
	})
	return err
}

// Run returns one run as far as it has come. It wraps event.ErrUnknown where there is
// none.
func (s *Store) Run(ctx context.Context, id string) (run.Run, error) {
	all, err := s.runs(ctx, true, `WHERE id = $1`, id)
	switch {
	case err != nil:
		return run.Run{}, err
	case len(all) == 0:
		return run.Run{}, fmt.Errorf("run %s: %w", id, event.ErrUnknown)
	}
	return all[0], nil
}

// RunList returns up to limit runs, the youngest first, older than the id given; empty
// means from the youngest.
func (s *Store) RunList(ctx context.Context, after string, limit int) ([]run.Run, error) {
	return s.runs(ctx, true, `WHERE $1 = '' OR id < $1 ORDER BY id DESC LIMIT $2`, after, limit)
}

// OpenRun is the run under way; ok is false when there is none.
func (s *Store) OpenRun(ctx context.Context) (r run.Run, ok bool, err error) {
	all, err := s.runs(ctx, true, `WHERE state IN ('running', 'applying')`)
	if err != nil || len(all) == 0 {
		return run.Run{}, false, err
	}
	return all[0], true, nil
}

// LastRuns are the youngest run that was to repair, whatever became of it, and the
// youngest complete one, plans that were applied among them. A zero ID means none.
func (s *Store) LastRuns(ctx context.Context) (began, complete run.Run, err error) {
	err = s.tx(ctx, "read last runs", func(ctx context.Context, tx pgx.Tx) error {
		for _, last := range []struct {
			into  *run.Run
			which string
		}{{&began, `kind = 'run'`}, {&complete, `state = 'complete'`}} {
			all, err := readRuns(ctx, tx, false, `WHERE `+last.which+` ORDER BY started_at DESC, id DESC LIMIT 1`)
			if err != nil {
				return err
			}
			*last.into = run.Run{}
			if len(all) > 0 {
				*last.into = all[0]
			}
		}
		return nil
	})
	return began, complete, err
}

// SaveRun stores how far the run has come: everything of r but its kind, its state and
// what operators decide. More candidates than an operator has expected end what the
// number allowed.
func (s *Store) SaveRun(ctx context.Context, turn int64, r run.Run) error {
	return s.inRun(ctx, "save run", turn, r.ID, alone, func(ctx context.Context, tx pgx.Tx) error {
		return saveRun(ctx, tx, &r)
	})
}

func saveRun(ctx context.Context, tx pgx.Tx, r *run.Run) error {
	notes := make([]string, len(r.Notes))
	for i, n := range r.Notes {
		notes[i] = clean(n)
	}
	_, err := tx.Exec(ctx, `UPDATE trueup.runs SET phase = $2, fence = nullif($3::bigint, 0), checkpoint = $4::text::jsonb, remote_rows = $5, calls = $6, whole = $7,
			live_rows = $8, same = $9, moved = $10, unowned = $11, candidates = $12::bigint, fuse = $13, identity = $14::text::jsonb, notes = $15::text::jsonb,
			waiting = $16, error = $17, changed_at = clock_timestamp(),
			expected_deletions = CASE WHEN expected_deletions >= $12::bigint THEN expected_deletions END
		WHERE id = $1`, r.ID, string(r.Phase), r.Fence, encode(checkpoint{r.Spool, r.Slices}), r.Listed, r.Calls, r.Whole,
		r.Rows, r.Same, r.Moved, r.Unowned, r.Candidates, clean(r.Fuse), encode(r.Account), encode(notes), clean(r.Waiting), clean(r.Error))
	return err
}

// FinishRun stores r with its final state. Doing it again changes nothing. Findings of
// old runs go with it.
func (s *Store) FinishRun(ctx context.Context, turn int64, r run.Run) error {
	if r.State.Open() || r.State == "" {
		return fmt.Errorf("finish run %s: %q is not an end", r.ID, r.State)
	}
	var before run.State
	first := func(b *pgx.Batch) {
		guard(b, turn, false)
		s.queueStepDown(b)
		queueRunState(b, r.ID, alone, func(state run.State) error {
			if before = state; !state.Open() && state != r.State {
				return fmt.Errorf("run %s is %s: %w", r.ID, state, run.ErrEnded)
			}
			return nil
		})
	}
	err := s.txFirst(ctx, "finish run", first, func(ctx context.Context, tx pgx.Tx) error {
		if !before.Open() {
			return nil
		}
		if err := saveRun(ctx, tx, &r); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `UPDATE trueup.runs SET state = $2, waiting = '', finished_at = clock_timestamp() WHERE id = $1`, r.ID, string(r.State))
		return err
	})
	if err == nil {
		s.cleanAfterRun(ctx)
	}
	return err
}
