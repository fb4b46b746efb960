package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
)

// gathered is everything one settlement reads before it decides.
type gathered struct {
	over      map[string]bool // events that have an end, or wait in retries already
	standings map[string]*standing
	// sound are the canaries of this call that are good ones; others are up to two live
	// rows that are not announced deleted, suspect ones too.
	sound  map[string]bool
	others []string
	// rests is the first and last file that rests on a ticket.
	rests map[string][2]string
	// originals are the event ids of the dead letters replayed in this call.
	originals map[string]string
	// lines are the findings behind the events that runs have sent, by event id.
	lines      map[string]lineOfRun
	latched    bool
	candidates int64
	// doubted: a run did not recognise ImageKit's account.
	doubted bool
}

func newGathered() *gathered {
	return &gathered{over: map[string]bool{}, standings: map[string]*standing{}, sound: map[string]bool{},
		rests: map[string][2]string{}, originals: map[string]string{}, lines: map[string]lineOfRun{}}
}

// active are the events that still need an end, each once.
func (g *gathered) active(c *settlement) []event.Pending {
	out := make([]event.Pending, 0, len(c.pending))
	for i, p := range c.pending {
		if !g.over[p.ID] && (i == 0 || c.pending[i-1].ID != p.ID) {
			out = append(out, p)
		}
	}
	return out
}

// canary is rule 3's proof that the key still sees our library.
func (g *gathered) canary(o *file.Observation, announced map[string]bool) bool {
	for _, id := range o.Canary.FileIDs {
		if id != o.FileID && g.sound[id] && !announced[id] {
			return true
		}
	}
	// A key of another account makes every row suspect, one look after another. Its
	// listing must not stand in for them then, not even for those announced deleted.
	for _, id := range g.others {
		if id != o.FileID {
			return false
		}
	}
	return o.Canary.EmptyLibrary
}

func (g *gathered) restsElsewhere(ticket, id string) bool {
	r, ok := g.rests[ticket]
	return ok && (r[0] != id || r[1] != id)
}

// original is the event whose claim this is: for a replay that of its dead letter.
func (g *gathered) original(e *event.Event) string {
	if o := g.originals[e.DeadLetter]; e.DeadLetter != "" && o != "" {
		return o
	}
	return e.ID
}

// guard is queued first in every transaction that must hold the turn: the lease, which
// also says whether an operator has paused the worker (the notice of that may be lost), and
// two settings that last as long as the transaction, which is all a pooler allows.
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
		set_config('lock_timeout', $1, true)`, wait)
}

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
func (s *Store) gatherFirst(ctx context.Context, tx pgx.Tx, m *mapping, c *settlement) (*gathered, error) {
	g, b := newGathered(), &pgx.Batch{}
	guard(b, c.turn, m.compat)
	if c.run != nil {
		queueOpenRun(b, c.run.id, shared)
	}
	g.queueOver(b, c)
	g.queueRunLines(b, c)
	b.Queue(m.read, m.args(c.ids, c.snapshots())...).Query(collectStandings(g.standings, true))
	g.queueBeside(b, c)
	g.queueFuse(b, c, false)
	return g, send(ctx, tx, b)
}

// gatherLocked takes the locks, in the order of file ids, then reads again: each
// statement sees what was committed before it began.
func (s *Store) gatherLocked(ctx context.Context, tx pgx.Tx, m *mapping, c *settlement, first *gathered, lock []string) (*gathered, error) {
	g, b := newGathered(), &pgx.Batch{}
	g.over, g.originals, g.lines = first.over, first.originals, first.lines
	for id, st := range first.standings {
		g.standings[id] = st
	}
	b.Queue(`SELECT 1 FROM trueup.file_state WHERE file_id = ANY($1) ORDER BY file_id FOR UPDATE`, lock)
	g.queueFuse(b, c, true)
	b.Queue(m.reread, lock).Query(collectStandings(g.standings, false))
	g.queueBeside(b, c)
	return g, send(ctx, tx, b)
}

// queueOver asks which events are over already.
func (g *gathered) queueOver(b *pgx.Batch, c *settlement) {
	if len(c.pending) == 0 {
		return
	}
	ids, retried, letters := make([]string, len(c.pending)), map[string]bool{}, []string(nil)
	for i, p := range c.pending {
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
			g.over[id] = over || waits != retried[id]
		}
		return rows.Err()
	})
	if len(letters) > 0 {
		b.Queue(`SELECT id, event_id FROM trueup.dead_letters WHERE id = ANY($1)`, letters).Query(pairs(g.originals))
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
func (g *gathered) queueBeside(b *pgx.Batch, c *settlement) {
	var canaries, tickets, announced []string
	absent := false
	for _, id := range c.ids {
		o := c.seen[id]
		if !o.Present() {
			absent = true
			canaries = append(canaries, o.Canary.FileIDs...)
		} else if o.Proof.Ticket != "" {
			tickets = append(tickets, o.Proof.Ticket)
		}
	}
	if absent {
		for _, p := range c.pending {
			if p.Kind == event.KindDeleted && p.Signed() {
				announced = append(announced, p.FileID)
			}
		}
		b.Queue(`SELECT f.file_id FROM public.imagekit_files f WHERE f.file_id = ANY($1) AND `+soundRow, canaries).Query(func(rows pgx.Rows) error {
			ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
			for _, id := range ids {
				g.sound[id] = true
			}
			return err
		})
		b.Queue(`SELECT f.file_id FROM public.imagekit_files f WHERE NOT f.file_id = ANY($1) AND `+notAnnounced+` LIMIT 2`, nonNil(announced)).
			Query(func(rows pgx.Rows) (err error) {
				g.others, err = pgx.CollectRows(rows, pgx.RowTo[string])
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
					g.rests[t] = [2]string{first, last}
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

// fuseWindow is the fuse's rolling day.
const fuseWindow = 24 * time.Hour

// queueFuse reads the fuse where an absence may need it. Locked, it keeps two calls
// from both taking the last free place.
func (g *gathered) queueFuse(b *pgx.Batch, c *settlement, lock bool) {
	absent := false
	for _, id := range c.ids {
		absent = absent || !c.seen[id].Present()
	}
	if !absent {
		return
	}
	tail := ""
	if lock {
		tail = " FOR UPDATE"
	}
	b.Queue(`SELECT latched_at IS NOT NULL, account_doubt <> '' FROM trueup.fuse` + tail).QueryRow(func(row pgx.Row) error { return row.Scan(&g.latched, &g.doubted) })
	b.Queue(`SELECT coalesce(sum(candidates), 0) FROM trueup.fuse_hours WHERE hour >= date_trunc('hour', clock_timestamp() - interval '24 hours')`).
		QueryRow(func(row pgx.Row) error { return row.Scan(&g.candidates) })
}
