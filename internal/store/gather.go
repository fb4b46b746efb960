package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/rule"
)

// guard is queued first in every transaction that must hold the turn: the lease, which
// also says whether an operator has paused the worker (the notice of that may be lost), and
// settings that last as long as the transaction, which is all a pooler allows.
func guard(b *pgx.Batch, turn int64, compat bool) {
	if turn != noTurn {
		queueLease(b, turn)
	}
	// Under deadlock_timeout (1 s), so that with an application inserting beside us it
	// is always we who give way.
	wait := "5s"
	if compat {
		wait = "800ms"
	}
	b.Queue(`SELECT set_config('trueup.writer', 'on', true), set_config('idle_in_transaction_session_timeout', '30s', true),
		set_config('lock_timeout', $1, true), `+flushed, wait)
}

// flushed makes COMMIT wait for the disk where a role or database was set not to: an
// envelope is acked after it and is nowhere else then. Waiting for more than that, or for
// a standby less, stays as it was set.
const flushed = `set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, true)`

// noTurn is the turn of what is rolled back anyway.
const noTurn int64 = -1

func queueLease(b *pgx.Batch, turn int64) {
	b.Queue(`SELECT turn, paused FROM trueup.leases WHERE name = 'worker' FOR SHARE`).QueryRow(func(row pgx.Row) error {
		var now int64
		var paused bool
		if err := row.Scan(&now, &paused); err != nil {
			return fmt.Errorf("read turn: %w", err)
		}
		switch {
		case now != turn:
			return fmt.Errorf("turn %d, now %d: %w", turn, now, event.ErrTurnMoved)
		case paused:
			return event.ErrPaused
		}
		return nil
	})
}

// gatherFirst reads without a lock: most calls find nothing to change.
func (s *Store) gatherFirst(ctx context.Context, tx pgx.Tx, m *mapping, c *settlement) (*rule.Facts, error) {
	g, b := rule.NewFacts(), &pgx.Batch{}
	guard(b, c.turn, m.compat)
	if c.Run != nil {
		queueOpenRun(b, c.Run.ID, shared)
	}
	queueOver(g, b, c)
	queueRunLines(g, b, c)
	b.Queue(m.read, m.args(c.IDs, c.snapshots())...).Query(collectStandings(g.Standings, true))
	queueBeside(g, b, c)
	queueFuse(g, b, c, false)
	return g, send(ctx, tx, b)
}

// gatherLocked takes the locks, in the order of file ids, then reads again: each
// statement sees what was committed before it began.
func (s *Store) gatherLocked(ctx context.Context, tx pgx.Tx, m *mapping, c *settlement, first *rule.Facts, lock []string) (*rule.Facts, error) {
	g, b := rule.NewFacts(), &pgx.Batch{}
	g.Over, g.Originals, g.Lines = first.Over, first.Originals, first.Lines
	for id, st := range first.Standings {
		g.Standings[id] = st
	}
	b.Queue(`SELECT 1 FROM trueup.file_state WHERE file_id = ANY($1) ORDER BY file_id FOR UPDATE`, lock)
	queueFuse(g, b, c, true)
	b.Queue(m.reread, lock).Query(collectStandings(g.Standings, false))
	queueBeside(g, b, c)
	return g, send(ctx, tx, b)
}

// queueOver asks which events are over already.
func queueOver(g *rule.Facts, b *pgx.Batch, c *settlement) {
	if len(c.Pending) == 0 {
		return
	}
	ids, retried, letters := make([]string, len(c.Pending)), map[string]bool{}, []string(nil)
	for i, p := range c.Pending {
		ids[i], retried[p.ID] = p.ID, p.Retried
		if p.DeadLetter != "" {
			letters = append(letters, p.DeadLetter)
		}
	}
	b.Queue(`SELECT i.id, `+whereEventIs+` FROM unnest($1::text[]) AS i(id) `+besideEvent, ids).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var id string
			var over, waits bool
			if err := rows.Scan(&id, &over, &waits); err != nil {
				return err
			}
			// One that comes from retries must still be there; one from an envelope not yet.
			g.Over[id] = over || waits != retried[id]
		}
		return rows.Err()
	})
	if len(letters) > 0 {
		b.Queue(`SELECT id, event_id FROM trueup.dead_letters WHERE id = ANY($1)`, letters).Query(pairs(g.Originals))
	}
}

// whereEventIs says whether an event is over, and whether it waits, by what besideEvent
// joins to i(id): one event after the other by the indexes, as in besideFile.
const (
	whereEventIs = `l.yes IS NOT NULL OR d.yes IS NOT NULL, r.yes IS NOT NULL`
	besideEvent  = `LEFT JOIN LATERAL (SELECT true AS yes FROM trueup.ledger l WHERE l.id = i.id LIMIT 1) l ON true
		LEFT JOIN LATERAL (SELECT true AS yes FROM trueup.dead_letters d WHERE d.event_id = i.id LIMIT 1) d ON true
		LEFT JOIN LATERAL (SELECT true AS yes FROM trueup.retries r WHERE r.event_id = i.id LIMIT 1) r ON true`
)

func pairs(into map[string]string) func(pgx.Rows) error {
	return func(rows pgx.Rows) error {
		for rows.Next() {
			var k, v string
			if err := rows.Scan(&k, &v); err != nil {
				return err
			}
			into[k] = v
		}
		return rows.Err()
	}
}

// soundRow says that a live row can stand as a canary: neither suspect nor announced
// deleted.
const soundRow = `NOT EXISTS (SELECT FROM trueup.file_state s WHERE s.file_id = f.file_id AND s.suspect_at IS NOT NULL) AND ` + notAnnounced

const notAnnounced = `NOT EXISTS (SELECT FROM trueup.retries r WHERE r.file_id = f.file_id AND r.kind = 'file.deleted')`

// queueBeside reads what the files' own rows do not tell: canaries and tickets.
func queueBeside(g *rule.Facts, b *pgx.Batch, c *settlement) {
	var canaries, tickets, announced []string
	absent := false
	for _, id := range c.IDs {
		o := c.Seen[id]
		if !o.Present() {
			absent = true
			canaries = append(canaries, o.Canary.FileIDs...)
		} else if o.Proof.Ticket != "" {
			tickets = append(tickets, o.Proof.Ticket)
		}
	}
	if absent {
		for _, p := range c.Pending {
			if p.Kind == event.KindDeleted && p.Signed() {
				announced = append(announced, p.FileID)
			}
		}
		b.Queue(`SELECT f.file_id FROM public.imagekit_files f WHERE f.file_id = ANY($1) AND `+soundRow, canaries).Query(func(rows pgx.Rows) error {
			ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
			for _, id := range ids {
				g.Sound[id] = true
			}
			return err
		})
		b.Queue(`SELECT f.file_id FROM public.imagekit_files f WHERE NOT f.file_id = ANY($1) AND `+notAnnounced+` LIMIT 2`, nonNil(announced)).
			Query(func(rows pgx.Rows) (err error) {
				g.Others, err = pgx.CollectRows(rows, pgx.RowTo[string])
				return err
			})
	}
	if len(tickets) > 0 {
		b.Queue(`SELECT ticket, min(file_id), max(file_id) FROM trueup.file_state WHERE ticket = ANY($1) GROUP BY ticket`, tickets).
			Query(func(rows pgx.Rows) error {
				for rows.Next() {
					var t, first, last string
					if err := rows.Scan(&t, &first, &last); err != nil {
						return err
					}
					g.Rests[t] = [2]string{first, last}
				}
				return rows.Err()
			})
	}
}

func nonNil(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

// queueFuse reads the fuse where an absence may need it. Locked, it keeps two calls
// from both taking the last free place.
func queueFuse(g *rule.Facts, b *pgx.Batch, c *settlement, lock bool) {
	var absent []string
	for _, id := range c.IDs {
		if !c.Seen[id].Present() {
			absent = append(absent, id)
		}
	}
	if len(absent) == 0 {
		return
	}
	tail := ""
	if lock {
		tail = " FOR UPDATE"
	}
	b.Queue(`SELECT latched_at IS NOT NULL, account_doubt <> '', released_at FROM trueup.fuse` + tail).QueryRow(func(row pgx.Row) error {
		var released *time.Time
		err := row.Scan(&g.Latched, &g.Doubted, &released)
		g.Released = orZero(released)
		return err
	})
	b.Queue(`SELECT f.file_id FROM trueup.findings f JOIN trueup.runs r ON r.id = f.run_id
		WHERE f.file_id = ANY($1) AND f.kind = 'orphaned' AND (f.status = 'found' OR f.status = 'refused' AND f.reason = 'fuse_latched')
			AND r.expected_deletions IS NOT NULL AND r.state <> 'cancelled'`, absent).Query(func(rows pgx.Rows) error {
		var id string
		_, err := pgx.ForEachRow(rows, []any{&id}, func() error { g.Named[id] = true; return nil })
		return err
	})
	b.Queue(`SELECT coalesce(sum(candidates), 0) FROM trueup.fuse_hours WHERE hour >= date_trunc('hour', clock_timestamp() - interval '24 hours')`).
		QueryRow(func(row pgx.Row) error { return row.Scan(&g.Candidates) })
}
