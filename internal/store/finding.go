package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/run"
)

// unsettledFinding says that a finding's event is on its way.
const unsettledFinding = `event_id IS NOT NULL AND ended_at IS NULL`

// openFinding says that nothing was done about finding f yet.
const openFinding = `f.status = 'found' AND f.event_id IS NULL`

// findingDetail is what the column detail holds.
type findingDetail struct {
	Columns []run.Difference `json:"columns,omitempty"`
}

const findingColumns = `f.file_id, f.kind, f.status, f.reason, f.detail, f.evidence, coalesce(f.event_id, ''), f.found_at, f.updated_at`

// scanFinding reads findingColumns, and more after them.
func scanFinding(row pgx.CollectableRow, more ...any) (run.Finding, error) {
	var f run.Finding
	var d findingDetail
	err := row.Scan(append([]any{&f.FileID, &f.Kind, &f.Status, &f.Reason, &d, &f.Evidence, &f.Event, &f.FoundAt, &f.ChangedAt}, more...)...)
	if err != nil {
		return f, fmt.Errorf("scan finding: %w", err)
	}
	f.Columns, f.FoundAt, f.ChangedAt = d.Columns, f.FoundAt.UTC(), f.ChangedAt.UTC()
	return f, nil
}

func collectFindings(rows pgx.Rows, err error) ([]run.Finding, error) {
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (run.Finding, error) { return scanFinding(row) })
}

// SaveFindings stores findings; those of files that the run has one of already are left
// as they are.
func (s *Store) SaveFindings(ctx context.Context, turn int64, runID string, findings []run.Finding) error {
	n := len(findings)
	files, kinds, statuses, reasons := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	details, evidence := make([]string, n), make([]string, n)
	for i, f := range findings {
		files[i], kinds[i], statuses[i], reasons[i] = clean(f.FileID), string(f.Kind), string(f.Status), clean(f.Reason)
		details[i], evidence[i] = encode(findingDetail{Columns: f.Columns}), encode(nonNil(f.Evidence))
	}
	return s.inRun(ctx, "save findings", turn, runID, shared, func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO trueup.findings (run_id, file_id, kind, status, reason, detail, evidence)
			SELECT $1, i.file_id, i.kind, coalesce(nullif(i.status, ''), 'found'), i.reason, i.detail::jsonb, i.evidence::jsonb
			FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[]) AS i(file_id, kind, status, reason, detail, evidence)
			ON CONFLICT (run_id, file_id) DO NOTHING`, runID, files, kinds, statuses, reasons, details, evidence)
		return err
	})
}

// nextOpen are up to $4 open findings of run $1 and kinds $2 after file $3, in the order
// of the ids.
const nextOpen = ` FROM trueup.findings f WHERE f.run_id = $1 AND f.kind = ANY($2) AND f.file_id > $3 AND ` + openFinding + ` ORDER BY f.file_id LIMIT $4`

func kindNames(kinds []run.FindingKind) []string {
	out := make([]string, len(kinds))
	for i, k := range kinds {
		out[i] = string(k)
	}
	return out
}

// OpenFindings are findings of these kinds with status found and without an event, in
// the byte order of the ids, after one of them.
func (s *Store) OpenFindings(ctx context.Context, runID string, kinds []run.FindingKind, after string, limit int) ([]run.Finding, error) {
	var out []run.Finding
	err := s.tx(ctx, "read open findings", func(ctx context.Context, tx pgx.Tx) (err error) {
		out, err = collectFindings(tx.Query(ctx, `SELECT `+findingColumns+nextOpen, runID, kindNames(kinds), after, limit))
		return err
	})
	return out, err
}

// lockOpen locks the next open findings and says which they are and where they stand: by
// that place they are written, because a table that was filled a moment ago has no
// statistics yet, and by anything else PostgreSQL may read all of it for each slice.
func lockOpen(ctx context.Context, tx pgx.Tx, runID string, kinds []run.FindingKind, limit int) (places []string, err error) {
	rows, err := tx.Query(ctx, `SELECT f.ctid::text`+nextOpen+` FOR UPDATE`, runID, kindNames(kinds), "", limit)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// closeSlice is how many findings CloseFindings writes at once.
const closeSlice = 5_000

// CloseFindings gives all findings of these kinds that are open and without an event this
// status, slice by slice, and says how many.
func (s *Store) CloseFindings(ctx context.Context, turn int64, runID string, kinds []run.FindingKind, status run.Status, reason string) (int64, error) {
	var all, n int64
	for n = closeSlice; n == closeSlice; all += n {
		err := s.inRun(ctx, "close findings", turn, runID, alone, func(ctx context.Context, tx pgx.Tx) error {
			places, err := lockOpen(ctx, tx, runID, kinds, closeSlice)
			if n = int64(len(places)); err != nil || n == 0 {
				return err
			}
			b := &pgx.Batch{}
			exactly(b, len(places), `UPDATE trueup.findings f SET status = $2, reason = $3, updated_at = clock_timestamp()
				WHERE f.ctid = ANY($1::text[]::tid[])`, places, string(status), clean(reason))
			return send(ctx, tx, b)
		})
		if err != nil {
			return all, err
		}
	}
	return all, nil
}

// TakeFindings draws event ids for up to limit open findings of these kinds and returns
// the events to publish; none means that nothing is left. Events drawn before and never
// confirmed come first, by themselves, whatever their kind, and with the ids they had:
// they may be published already, and settling one twice is a no-op. Orphans that only the
// fuse refused come last, when an operator has released it for this run.
func (s *Store) TakeFindings(ctx context.Context, turn int64, runID string, kinds []run.FindingKind, limit int) ([]event.Event, error) {
	var out []event.Event
	// Alone, so that two slices of one run are never cut at once.
	err := s.inRun(ctx, "take findings", turn, runID, alone, func(ctx context.Context, tx pgx.Tx) (err error) {
		out, err = findingEvents(tx.Query(ctx, `SELECT file_id, event_id, updated_at FROM trueup.findings
			WHERE run_id = $1 AND published_at IS NULL AND `+unsettledFinding+` ORDER BY file_id LIMIT $2`, runID, limit))
		if err != nil || len(out) > 0 {
			return err
		}
		if out, err = drawEvents(ctx, tx, runID, kinds, limit); err != nil || len(out) > 0 || !slices.Contains(kinds, run.Orphaned) {
			return err
		}
		b := &pgx.Batch{}
		queueReopen(b, runID, limit)
		if err := send(ctx, tx, b); err != nil {
			return err
		}
		out, err = drawEvents(ctx, tx, runID, kinds, limit)
		return err
	})
	return out, err
}

// queueReopen gives up to limit orphans that only the fuse refused their chance, when an
// operator has released it for this run: as many as are taken next, because there may be
// a million. One whose event is still on its way keeps that.
func queueReopen(b *pgx.Batch, runID string, limit int) {
	b.Queue(`UPDATE trueup.findings SET status = 'found', reason = '', event_id = NULL, published_at = NULL, ended_at = NULL, updated_at = clock_timestamp()
		WHERE ctid = ANY(ARRAY(SELECT f.ctid FROM trueup.findings f WHERE f.run_id = $1 AND f.kind = 'orphaned' AND f.status = 'refused'
			AND f.reason = 'fuse_latched' AND (f.event_id IS NULL OR f.ended_at IS NOT NULL)
			AND EXISTS (SELECT FROM trueup.runs r WHERE r.id = $1 AND r.expected_deletions IS NOT NULL)
			AND EXISTS (SELECT FROM trueup.fuse WHERE latched_at IS NULL)
			ORDER BY f.file_id LIMIT $2))`, runID, limit)
}

func drawEvents(ctx context.Context, tx pgx.Tx, runID string, kinds []run.FindingKind, limit int) ([]event.Event, error) {
	places, err := lockOpen(ctx, tx, runID, kinds, limit)
	if err != nil || len(places) == 0 {
		return nil, err
	}
	ids := make([]string, len(places))
	for i := range ids {
		ids[i] = newID()
	}
	return findingEvents(tx.Query(ctx, `WITH drawn AS (UPDATE trueup.findings f SET event_id = i.event_id, updated_at = clock_timestamp()
			FROM unnest($1::text[]::tid[], $2::text[]) AS i(place, event_id) WHERE f.ctid = i.place RETURNING f.file_id, f.event_id, f.updated_at)
		SELECT file_id, event_id, updated_at FROM drawn ORDER BY file_id`, places, ids))
}

// findingEvents are the events that ask about findings, accepted when their ids were
// drawn.
func findingEvents(rows pgx.Rows, err error) ([]event.Event, error) {
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (event.Event, error) {
		e := event.Event{Source: event.Reconcile, Origin: event.Reconcile, Kind: event.KindRecheck}
		var at time.Time
		err := row.Scan(&e.FileID, &e.ID, &at)
		e.AcceptedAt = at.UTC()
		return e, err
	})
}

// ConfirmFindings records that these events of the run were published: durably, or
// perhaps, where the queue's answer got lost.
func (s *Store) ConfirmFindings(ctx context.Context, turn int64, runID string, eventIDs []string) error {
	return s.inRun(ctx, "confirm findings", turn, runID, shared, func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE trueup.findings SET published_at = clock_timestamp() WHERE event_id = ANY($2) AND run_id = $1 AND published_at IS NULL`,
			runID, nonNil(eventIDs))
		return err
	})
}

// Unsettled is how many of the run's events have not come to their end, those drawn and
// not published yet among them.
func (s *Store) Unsettled(ctx context.Context, runID string) (n int64, err error) {
	err = s.tx(ctx, "count unsettled findings", func(ctx context.Context, tx pgx.Tx) error {
		return tx.QueryRow(ctx, `SELECT count(*) FROM trueup.findings WHERE run_id = $1 AND `+unsettledFinding, runID).Scan(&n)
	})
	return n, err
}

// Findings returns up to limit findings of a run that the filter matches, in the byte
// order of the ids, after one of them. It wraps event.ErrUnknown where there is no run.
func (s *Store) Findings(ctx context.Context, runID string, f run.FindingFilter, after string, limit int) ([]run.Finding, error) {
	var out []run.Finding
	err := s.tx(ctx, "read findings", func(ctx context.Context, tx pgx.Tx) error {
		var known bool
		if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM trueup.runs WHERE id = $1)`, runID).Scan(&known); err != nil {
			return err
		}
		if !known {
			return fmt.Errorf("run %s: %w", runID, event.ErrUnknown)
		}
		where, args := []string{`f.run_id = $1`, `f.file_id > $2`}, []any{runID, after}
		if f.Kind != "" {
			args = append(args, string(f.Kind))
			where = append(where, `f.kind = $`+itoa(len(args)))
		}
		if f.Status != "" {
			args = append(args, string(f.Status))
			where = append(where, `f.status = $`+itoa(len(args)))
		}
		var err error
		out, err = collectFindings(tx.Query(ctx, `SELECT `+findingColumns+` FROM trueup.findings f WHERE `+strings.Join(where, ` AND `)+
			` ORDER BY f.file_id LIMIT `+itoa(limit), args...))
		return err
	})
	return out, err
}
