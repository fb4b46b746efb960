package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/rule"
)

// writing is the last third of a settlement: all that was decided, as bulk statements
// in one round trip.
type writing struct {
	m     *mapping
	g     *rule.Facts
	files []*rule.FilePlan
	ends  []rule.Ended
	call  *rule.Call

	secrets rule.Secrets
	clean   *Retention // a slice of clean-up rides along; nil: none does
}

func (w *writing) settled(due *time.Time) event.Settled {
	out := event.Settled{NextDue: orZero(due), Ends: make(map[string]event.End, len(w.ends)), Already: len(w.call.Pending) - len(w.ends), Security: map[string]int{}}
	for _, e := range w.ends {
		out.Ends[e.ID] = e.End
	}
	for _, f := range w.files {
		for _, flag := range f.Flags {
			out.Security[flag]++
		}
	}
	return out
}

func (w *writing) send(ctx context.Context, tx pgx.Tx) (due *time.Time, err error) {
	b := &pgx.Batch{}
	w.queueStates(b)
	w.queueRows(b)
	w.queueFuse(b)
	w.queueLedger(b)
	w.queueRetries(b)
	w.queueDead(b)
	w.queueItems(b)
	w.queueFindings(b)
	w.queueRepaired(b)
	if len(w.call.Pending) > 0 {
		b.Queue(`DELETE FROM trueup.trial_marks WHERE event_id = ANY($1)`, w.askedIDs())
	}
	if w.clean != nil {
		w.clean.queueClean(b)
	}
	b.Queue(`SELECT min(due_at) FROM trueup.retries`).QueryRow(func(row pgx.Row) error { return row.Scan(&due) })
	return due, send(ctx, tx, b)
}

// askedIDs are all events of the call. One that was over before has survived its trial,
// too: only its envelope came again.
func (w *writing) askedIDs() []string {
	ids := make([]string, len(w.call.Pending))
	for i, p := range w.call.Pending {
		ids[i] = p.ID
	}
	return ids
}

// exactly queues a statement that must touch n rows; fewer means that another
// transaction, or a person, was there in between.
func exactly(b *pgx.Batch, n int, sql string, args ...any) {
	b.Queue(sql, args...).Exec(func(ct pgconn.CommandTag) error {
		if ct.RowsAffected() != int64(n) {
			return fmt.Errorf("%d rows instead of %d: %w", ct.RowsAffected(), n, errLostRace)
		}
		return nil
	})
}

// states are the lines of file_state to write, as arrays.
type states struct {
	id                                               []string
	moves, present, remove, nominate, clears, counts []bool
	vouched                                          []bool // the nomination is
	rewritten                                        []bool
	high, ownerAt                                    []*time.Time
	hash                                             []*int64
	why, owner, kind                                 []string
	ownerEvent, ticket, flags                        []*string
	open                                             []bool
}

func (s *states) add(f *rule.FilePlan) {
	s.id = append(s.id, f.Obs.FileID)
	s.moves, s.remove = append(s.moves, f.Do.Moves()), append(s.remove, f.Do.Remove)
	s.present = append(s.present, f.Obs.Present() && (f.Do.Content || f.Do.Adopt))
	s.nominate, s.clears = append(s.nominate, f.Do.Nominate || f.Do.Doubt), append(s.clears, f.Do.Clear || f.Do.Remove)
	s.vouched, s.rewritten = append(s.vouched, f.Do.Nominate), append(s.rewritten, f.Rewrites())
	s.counts = append(s.counts, f.Counts)
	var high *time.Time
	var hash *int64
	if f.Obs.Present() && (f.Do.Content || f.Do.Adopt) {
		high, hash = moment(f.Obs.Snapshot.UpdatedAt), &f.Was.Proposed
	}
	s.high, s.hash, s.why = append(s.high, high), append(s.hash, hash), append(s.why, string(f.Do.Reason))
	o := f.Owner
	s.owner, s.kind, s.open = append(s.owner, o.User), append(s.kind, string(o.Kind)), append(s.open, o.Open)
	s.ownerAt, s.ownerEvent = append(s.ownerAt, moment(o.At)), append(s.ownerEvent, orNull(o.Event))
	s.ticket = append(s.ticket, orNull(o.Ticket))
	flags := arrayLiteral(o.Flags)
	if flags == nil {
		flags = ptr("{}")
	}
	s.flags = append(s.flags, flags)
}

func ptr[T any](v T) *T { return &v }

// orNull is NULL for a zero.
func orNull[T comparable](v T) *T {
	if v == *new(T) {
		return nil
	}
	return &v
}

func (s *states) args() []any {
	return []any{s.id, s.moves, s.present, s.remove, s.nominate, s.clears, s.counts, s.high, s.hash, s.why,
		s.owner, s.kind, s.ownerAt, s.ownerEvent, s.open, s.ticket, s.flags, s.vouched, s.rewritten}
}

// stateInput draws one fence per line that moves. A subquery with a volatile function
// is never flattened, so it is drawn once however often it is used.
const stateInput = `(SELECT i.*, CASE WHEN i.moves THEN nextval('trueup.fence') END AS fence
	FROM unnest($1::text[], $2::bool[], $3::bool[], $4::bool[], $5::bool[], $6::bool[], $7::bool[], $8::timestamptz[], $9::bigint[], $10::text[],
		$11::text[], $12::text[], $13::timestamptz[], $14::text[], $15::bool[], $16::text[], $17::text[], $18::bool[], $19::bool[])
	AS i(file_id, moves, present, remove, nominate, clears, counts, high, hash, why,
		owner, owner_kind, owner_at, owner_event, claim_open, ticket, flags, vouched, rewritten)) i`

const insertStates = `INSERT INTO trueup.file_state (file_id, seen, high, hash, gone_at, gone_why, suspect_fence, suspect_at, counted_at,
	owner, owner_kind, owner_at, owner_event, claim_open, ticket, flags, rewritten)
SELECT i.file_id, i.fence, coalesce(i.high, '-infinity'), i.hash, CASE WHEN i.remove THEN clock_timestamp() END, CASE WHEN i.remove THEN i.why END,
	CASE WHEN i.vouched THEN i.fence WHEN i.nominate THEN 0 END, CASE WHEN i.nominate THEN clock_timestamp() END, CASE WHEN i.counts THEN clock_timestamp() END,
	i.owner, i.owner_kind, i.owner_at, i.owner_event, i.claim_open, i.ticket, i.flags::text[], i.rewritten
FROM ` + stateInput + ` ORDER BY i.file_id COLLATE "C" ON CONFLICT (file_id) DO NOTHING`

const updateStates = `UPDATE trueup.file_state s SET
	seen = greatest(s.seen, i.fence),
	high = greatest(s.high, i.high),
	hash = CASE WHEN i.remove THEN NULL ELSE coalesce(i.hash, s.hash) END,
	gone_at = CASE WHEN i.remove THEN clock_timestamp() WHEN i.present THEN NULL ELSE s.gone_at END,
	gone_why = CASE WHEN i.remove THEN i.why WHEN i.present THEN NULL ELSE s.gone_why END,
	suspect_fence = CASE WHEN i.vouched THEN greatest(s.seen, i.fence) WHEN i.nominate THEN 0 WHEN i.clears THEN NULL ELSE s.suspect_fence END,
	suspect_at = CASE WHEN i.nominate THEN clock_timestamp() WHEN i.clears THEN NULL ELSE s.suspect_at END,
	counted_at = CASE WHEN i.counts THEN clock_timestamp() ELSE s.counted_at END,
	owner = i.owner, owner_kind = i.owner_kind, owner_at = i.owner_at, owner_event = i.owner_event,
	claim_open = i.claim_open, ticket = i.ticket, flags = i.flags::text[], rewritten = s.rewritten OR i.rewritten
FROM ` + stateInput + ` WHERE s.file_id = i.file_id`

func (w *writing) queueStates(b *pgx.Batch) {
	var fresh, known states
	for _, f := range w.files {
		switch {
		case !f.Writes():
		case f.Was.Known:
			known.add(f)
		default:
			fresh.add(f)
		}
	}
	if n := len(fresh.id); n > 0 {
		exactly(b, n, insertStates, fresh.args()...)
	}
	if n := len(known.id); n > 0 {
		exactly(b, n, updateStates, known.args()...)
	}
}

// insertSQL never updates: where a row stands by now, the race was lost and the rule is
// applied again. An id is burned only for a row that is added.
func (m *mapping) insertSQL() string {
	names, values := "file_id, user_id", "i.file_id, i.user_id"
	for _, c := range m.columns {
		names, values = names+", "+c.name, values+", "+m.value(c)
	}
	if m.synced {
		names, values = names+", synced_at", values+", clock_timestamp()"
	}
	return "INSERT INTO public.imagekit_files (" + names + ") SELECT " + values + " FROM " + m.proposals("user_id", "text") +
		` ORDER BY i.file_id COLLATE "C" ON CONFLICT (file_id) DO NOTHING`
}

func (m *mapping) updateSQL() string {
	set := "user_id = i.user_id"
	for _, c := range m.columns {
		set += ", " + c.name + " = " + m.value(c)
	}
	if m.synced {
		set += ", synced_at = clock_timestamp()"
	}
	return "UPDATE public.imagekit_files f SET " + set + " FROM " + m.proposals("user_id", "text") + " WHERE f.file_id = i.file_id"
}

// rowset is a list of files with what is written for them.
type rowset struct {
	ids, users []string
	snaps      []*file.Snapshot
}

func (r *rowset) add(f *rule.FilePlan) {
	r.ids, r.users, r.snaps = append(r.ids, f.Obs.FileID), append(r.users, f.Owner.User), append(r.snaps, f.Obs.Snapshot)
}

// queueRows writes the live rows. A removal is a statement of its own after the
// tombstone: within one statement it would not see a row committed meanwhile.
func (w *writing) queueRows(b *pgx.Batch) {
	var insert, update, user rowset
	var remove []string
	for _, f := range w.files {
		switch {
		case f.Do.Remove:
			remove = append(remove, f.Obs.FileID)
		case f.Do.Content && f.Was.Live:
			update.add(f)
		case f.Do.Content:
			insert.add(f)
		case f.Do.User:
			user.add(f)
		}
	}
	if n := len(insert.ids); n > 0 {
		exactly(b, n, w.m.insert, append(w.m.args(insert.ids, insert.snaps), insert.users)...)
	}
	if n := len(update.ids); n > 0 {
		exactly(b, n, w.m.update, append(w.m.args(update.ids, update.snaps), update.users)...)
	}
	if n := len(user.ids); n > 0 {
		exactly(b, n, `UPDATE public.imagekit_files f SET user_id = i.user_id FROM unnest($1::text[], $2::text[]) AS i(file_id, user_id)
			WHERE f.file_id = i.file_id`, user.ids, user.users)
	}
	if len(remove) > 0 {
		b.Queue(`DELETE FROM public.imagekit_files WHERE file_id = ANY($1)`, remove)
	}
}

// queueFuse counts this call's candidates, and latches the fuse where that is decided.
func (w *writing) queueFuse(b *pgx.Batch) {
	n := 0
	for _, f := range w.files {
		if f.Counts {
			n++
		}
	}
	if n == 0 {
		return
	}
	b.Queue(`INSERT INTO trueup.fuse_hours AS h (hour, candidates) VALUES (date_trunc('hour', clock_timestamp()), $1)
		ON CONFLICT (hour) DO UPDATE SET candidates = h.candidates + excluded.candidates`, n)
	b.Queue(`DELETE FROM trueup.fuse_hours WHERE hour < clock_timestamp() - interval '3 days'`)
	if w.g.Latched {
		b.Queue(`UPDATE trueup.fuse SET latched_at = clock_timestamp(), why = $1 WHERE latched_at IS NULL`,
			rule.LatchedBy(w.g.Candidates+int64(n)))
	}
}
