package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
)

// BeginTurn raises the turn's number: whoever held it before can settle nothing more.
func (s *Store) BeginTurn(ctx context.Context) (event.Turn, error) {
	var t event.Turn
	err := s.tx(ctx, "begin turn", func(ctx context.Context, tx pgx.Tx) error {
		b := &pgx.Batch{}
		b.Queue(`SELECT ` + flushed) // a number forgotten would be given out twice
		b.Queue(`UPDATE trueup.leases SET turn = turn + 1 WHERE name = 'worker' RETURNING turn, paused, paused_by, paused_note`).
			QueryRow(func(row pgx.Row) error { return row.Scan(&t.Number, &t.Paused, &t.PausedBy, &t.PausedNote) })
		b.Queue(`SELECT min(due_at) FROM trueup.retries`).QueryRow(func(row pgx.Row) error {
			var due *time.Time
			err := row.Scan(&due)
			t.NextDue = orZero(due)
			return err
		})
		var m *mapping
		s.queueMapping(b, &m)
		if err := send(ctx, tx, b); err != nil {
			return err
		}
		s.keepMapping(m)
		return nil
	})
	return t, err
}

// Turn reads the turn in force and whether it is paused; it changes nothing.
func (s *Store) Turn(ctx context.Context) (event.Turn, error) {
	var t event.Turn
	err := s.try(ctx, "read turn", func(ctx context.Context) error {
		return s.pool.QueryRow(ctx, `SELECT turn, paused, paused_by, paused_note FROM trueup.leases WHERE name = 'worker'`).
			Scan(&t.Number, &t.Paused, &t.PausedBy, &t.PausedNote)
	})
	return t, err
}

// Mark writes the trial marks of events that are about to be tried alone, and says how
// many marks of earlier turns still stood: that many crashes each has survived. Marking
// again in the same turn (the reply to the first was lost) changes nothing.
func (s *Store) Mark(ctx context.Context, turn int64, ids []string) (map[string]event.Mark, error) {
	sorted := slices.Compact(slices.Sorted(slices.Values(ids)))
	survived := make(map[string]event.Mark, len(ids))
	err := s.tx(ctx, "mark trials", func(ctx context.Context, tx pgx.Tx) error {
		b := &pgx.Batch{}
		guard(b, turn, false)
		b.Queue(`INSERT INTO trueup.trial_marks AS t (event_id, turn) SELECT i.id, $2 FROM unnest($1::text[]) AS i(id)
			ON CONFLICT (event_id) DO UPDATE SET marks = t.marks + CASE WHEN t.turn = excluded.turn THEN 0 ELSE 1 END,
				turn = excluded.turn, at = clock_timestamp() RETURNING event_id, marks - 1, stack`, sorted, turn).
			Query(func(rows pgx.Rows) error {
				var id string
				var m event.Mark
				_, err := pgx.ForEachRow(rows, []any{&id, &m.Survived, &m.Stack}, func() error { survived[id] = m; return nil })
				return err
			})
		return send(ctx, tx, b)
	})
	return survived, err
}

// Acquit takes this turn's marks back from events whose trial ended without an end and
// without a crash. It holds no turn: that it is over is the usual reason. Marks that a
// later turn has made since are left alone, and doing it again does nothing.
func (s *Store) Acquit(ctx context.Context, turn int64, ids []string) error {
	sorted := slices.Compact(slices.Sorted(slices.Values(ids)))
	return s.tx(ctx, "acquit events", func(ctx context.Context, tx pgx.Tx) error {
		b := &pgx.Batch{}
		b.Queue(`UPDATE trueup.trial_marks SET marks = marks - 1, turn = 0 WHERE event_id = ANY($1) AND turn = $2`, sorted, turn)
		b.Queue(`DELETE FROM trueup.trial_marks WHERE event_id = ANY($1) AND marks <= 0`, sorted)
		return send(ctx, tx, b)
	})
}

// maxStack bounds the stack that a mark keeps.
const maxStack = 16 << 10

// Blame leaves a mark on events that are about to end this process, with what they were
// doing. One crash counts once: an event that is on trial in this turn has its mark
// already and gets the stack. A pause does not stop it: the process ends all the same.
func (s *Store) Blame(ctx context.Context, turn int64, ids []string, stack string) error {
	sorted := slices.Compact(slices.Sorted(slices.Values(ids)))
	stack = clean(stack[:min(len(stack), maxStack)])
	return s.tx(ctx, "blame events", func(ctx context.Context, tx pgx.Tx) error {
		b := &pgx.Batch{}
		hold(b, turn)
		b.Queue(`INSERT INTO trueup.trial_marks AS t (event_id, turn, stack) SELECT i.id, $2, $3 FROM unnest($1::text[]) AS i(id)
			ON CONFLICT (event_id) DO UPDATE SET marks = t.marks + CASE WHEN t.turn = excluded.turn THEN 0 ELSE 1 END,
				turn = excluded.turn, stack = excluded.stack, at = clock_timestamp()`, sorted, turn, stack)
		return send(ctx, tx, b)
	})
}

// Fence draws one fence, to be drawn before ImageKit is asked, and says what the rows
// know of the files.
func (s *Store) Fence(ctx context.Context, ids []string) (file.Fence, map[string]file.Known, error) {
	var fence file.Fence
	known := make(map[string]file.Known, len(ids))
	err := s.try(ctx, "draw fence", func(ctx context.Context) error {
		b := &pgx.Batch{}
		b.Queue(`SELECT nextval('trueup.fence'), clock_timestamp()`).QueryRow(func(row pgx.Row) error { return row.Scan(&fence.Number, &fence.At) })
		b.Queue(`SELECT i.file_id, s.file_id IS NOT NULL OR f.file_id IS NOT NULL, f.file_id IS NOT NULL, s.gone_at IS NOT NULL AND f.file_id IS NULL,
				s.suspect_at IS NOT NULL, coalesce((extract(epoch FROM clock_timestamp() - s.suspect_at) * 1e6)::bigint, 0), nullif(s.high, '-infinity')
			FROM unnest($1::text[]) AS i(file_id) `+besideFile, nonNil(ids)).Query(func(rows pgx.Rows) error {
			for rows.Next() {
				var id string
				var k file.Known
				var micros int64
				var high *time.Time
				if err := rows.Scan(&id, &k.Seen, &k.Live, &k.Gone, &k.Suspect, &micros, &high); err != nil {
					return err
				}
				k.SuspectFor, k.High = time.Duration(micros)*time.Microsecond, orZero(high)
				known[id] = k
			}
			return rows.Err()
		})
		return send(ctx, s.pool, b)
	})
	fence.At = fence.At.UTC()
	return fence, known, err
}

// LiveFiles returns up to n live files that can stand as canaries: neither suspect nor
// announced deleted. Which ones is left to the database.
func (s *Store) LiveFiles(ctx context.Context, n int, except []string) ([]string, error) {
	var out []string
	err := s.try(ctx, "list live files", func(ctx context.Context) (err error) {
		rows, err := s.pool.Query(ctx, `SELECT f.file_id FROM public.imagekit_files f WHERE NOT f.file_id = ANY($2) AND `+soundRow+` LIMIT $1`, n, nonNil(except))
		if err != nil {
			return err
		}
		out, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	return out, err
}

// Due returns the events whose wait is over, oldest first, and when the next of the
// others is due; zero when none waits. They stay in retries until they are settled.
func (s *Store) Due(ctx context.Context, limit int) ([]event.Pending, time.Time, error) {
	var out []event.Pending
	var next time.Time
	err := s.try(ctx, "read due retries", func(ctx context.Context) error {
		out, next = nil, time.Time{}
		// One more than asked for: it tells when to come again.
		rows, err := s.pool.Query(ctx, `SELECT due_at, due_at <= clock_timestamp(), `+retryColumns+` FROM trueup.retries ORDER BY due_at LIMIT $1`, limit+1)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() && next.IsZero() {
			p, at, due, err := scanRetry(rows)
			if err != nil {
				return err
			}
			if !due || len(out) == limit {
				next = at.UTC()
				continue
			}
			out = append(out, p)
		}
		return rows.Err()
	})
	return out, next, err
}

const retryColumns = `event_id, file_id, source, origin, kind, user_id, accepted_at, updated_at, webhook_id, dead_letter, headers, body, attempts, tries, waited_ms`

func scanRetry(rows pgx.Rows) (p event.Pending, at time.Time, due bool, err error) {
	p.Retried = true
	var updated *time.Time
	var waited int64
	err = rows.Scan(&at, &due, &p.ID, &p.FileID, &p.Source, &p.Origin, &p.Kind, &p.User, &p.AcceptedAt, &updated, &p.WebhookID, &p.DeadLetter,
		&p.Headers, &p.Body, &p.Attempts, &p.Tries, &waited)
	if err != nil {
		return p, at, due, fmt.Errorf("scan retry: %w", err)
	}
	p.AcceptedAt, p.UpdatedAt, p.Waited = p.AcceptedAt.UTC(), orZero(updated), time.Duration(waited)*time.Millisecond
	return p, at, due, nil
}
