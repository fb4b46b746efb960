package store

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/run"
)

// Hash is the hash that a row with exactly this content would have, in the order of the
// snapshots. One whose values the database refuses gets zero, which no row is likely to
// have: it counts as different, and whoever tries to write it learns why.
func (s *Store) Hash(ctx context.Context, snapshots []*file.Snapshot) ([]int64, error) {
	out := make([]int64, 0, len(snapshots))
	err := halving(snapshots, func(part []*file.Snapshot) error {
		hashes, err := s.hash(ctx, part)
		out = append(out, hashes...)
		return err
	}, func(*file.Snapshot, error) { out = append(out, 0) })
	return out, err
}

func (s *Store) hash(ctx context.Context, snapshots []*file.Snapshot) (out []int64, err error) {
	err = s.try(ctx, "hash", func(ctx context.Context) error {
		m, err := s.mapping(ctx, s.pool)
		if err != nil {
			return err
		}
		rows, err := s.pool.Query(ctx, m.hashes, m.args(make([]string, len(snapshots)), snapshots)...)
		if err != nil {
			return err
		}
		out, err = pgx.CollectRows(rows, pgx.RowTo[int64])
		return err
	})
	return out, err
}

// halving does f for all, and where the database refuses a value, for one half and then
// the other, until what is refused is one: that goes to bad.
func halving[T any](all []T, f func([]T) error, bad func(T, error)) error {
	if len(all) == 0 {
		return nil
	}
	err := f(all)
	var refused *BadData
	switch {
	case !errors.As(err, &refused):
		return err
	case len(all) == 1:
		bad(all[0], err)
		return nil
	}
	half := len(all) / 2
	if err := halving(all[:half], f, bad); err != nil {
		return err
	}
	return halving(all[half:], f, bad)
}

func (m *mapping) hashesSQL() string {
	from, names, _ := strings.Cut(m.proposals(), " AS ")
	return "SELECT " + m.rowHash("i") + " FROM " + from + " WITH ORDINALITY AS " + strings.TrimSuffix(names, ")") + ", place) ORDER BY i.place"
}

// Flags of one line of localSQL.
const (
	localLive = 1 << iota
	localKnown
	localGone
	localMoved
	localSuspect
	localFollowed
	localUnowned
)

// localSQL is our side of every file. The rows are hashed in a subquery that is not
// flattened, so that only narrow lines are joined and sorted. The unique index of the
// application's table is of no use for the order: it has the database's collation.
//
// A row that file_state does not know was written after the run began when the run's
// snapshot does not show its transaction. Only the youngest xmin can be of that kind: what
// is older than the snapshot, or of another epoch (an age below zero), is not looked up in
// it. A savepoint of a transaction that was open then looks ended; its row is judged, and
// no listing alone removes one.
func (m *mapping) localSQL() string {
	flag := func(is string, bit int) string { return fmt.Sprintf("CASE WHEN %s THEN %d ELSE 0 END", is, bit) }
	flags := []string{
		flag("f.file_id IS NOT NULL", localLive), flag("s.file_id IS NOT NULL", localKnown), flag("s.gone_at IS NOT NULL", localGone),
		flag("s.seen > $2 OR s.file_id IS NULL AND "+sinceBegun, localMoved),
		flag("s.suspect_at IS NOT NULL", localSuspect), flag("s.file_id IS NULL OR f.user_id = s.owner", localFollowed), flag("f.user_id = ''", localUnowned),
	}
	return `SELECT coalesce(f.file_id, s.file_id) COLLATE "C", coalesce(f.hash, 0), ` + strings.Join(flags, " + ") + `
FROM (SELECT f.file_id COLLATE "C" AS file_id, f.user_id, f.xmin, ` + m.rowHash("f") + ` AS hash FROM public.imagekit_files f OFFSET 0) f
FULL JOIN trueup.file_state s ON s.file_id = f.file_id
ORDER BY 1`
}

// sinceBegun tells of a row whether it came after the run's beginning. The xmin is made 64
// bits wide by its distance from the snapshot's oldest transaction.
const sinceBegun = `CASE WHEN age(f.xmin) BETWEEN 0 AND (SELECT age(pg_snapshot_xmin(r.begun)::xid) FROM trueup.runs r WHERE r.id = $1)
	THEN NOT pg_visible_in_snapshot(
		((SELECT pg_snapshot_xmin(r.begun)::text::bigint + age(pg_snapshot_xmin(r.begun)::xid) FROM trueup.runs r WHERE r.id = $1) - age(f.xmin))::text::xid8,
		(SELECT r.begun FROM trueup.runs r WHERE r.id = $1))
	ELSE false END`

// Local yields our side of every file, rows and what file_state remembers, in the byte
// order of the ids, from one read-only transaction; an error of yield ends it and comes
// back. Moved is what was written after fence, or, where file_state does not know the row,
// after the run began; without a run no such row has moved.
func (s *Store) Local(ctx context.Context, runID string, fence int64, yield func(run.Local) error) error {
	yielded := false
	once := func() error {
		return s.local(ctx, runID, fence, func(l run.Local) error {
			yielded = true
			return yield(l)
		})
	}
	err := once()
	if staleColumns(err) && s.forgetMapping() && !yielded {
		err = once()
	}
	var theirs *yieldError
	if errors.As(err, &theirs) {
		return theirs.error
	}
	return classify("read rows", err)
}

// yieldError is an error of the caller's, on its way back to it.
type yieldError struct{ error }

func (s *Store) local(ctx context.Context, runID string, fence int64, yield func(run.Local) error) error {
	// Cancelled, the connection is closed; otherwise an early end would read all the rest.
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	// One snapshot, taken before age() begins to count: nothing in it is younger than that.
	return pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		m, err := s.mapping(ctx, tx)
		if err != nil {
			return err
		}
		b := &pgx.Batch{}
		s.queueStepDown(b)
		// The bounds that stand on the role are for short transactions.
		b.Queue(`SELECT set_config('statement_timeout', '1h', true), set_config('work_mem', '32MB', true), set_config('jit', 'off', true)`)
		if err := send(ctx, tx, b); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, m.local, runID, fence)
		if err != nil {
			return err
		}
		defer rows.Close()
		if err := eachLocal(rows, yield); err != nil {
			stop()
			return err
		}
		return rows.Err()
	})
}

func eachLocal(rows pgx.Rows, yield func(run.Local) error) error {
	var l run.Local
	var flags int32
	into := []any{&l.FileID, &l.Hash, &flags}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return err
		}
		is := func(bit int32) bool { return flags&bit != 0 }
		l.Live, l.Known, l.Gone, l.Moved = is(localLive), is(localKnown), is(localGone), is(localMoved)
		l.Suspect, l.Followed, l.Unowned = is(localSuspect), is(localFollowed), is(localUnowned)
		if err := yield(l); err != nil {
			return &yieldError{err}
		}
	}
	return nil
}

// differencesSQL compares each mapped column of a live row with what is proposed, and
// user_id with the owner that file_state holds.
func (m *mapping) differencesSQL() string {
	values := []string{`('user_id', f.user_id::text, s.owner, s.file_id IS NOT NULL AND f.user_id IS DISTINCT FROM s.owner, 0)`}
	for i, c := range m.columns {
		values = append(values, fmt.Sprintf("('%[1]s', f.%[1]s::text, (%[2]s)::text, f.%[1]s IS DISTINCT FROM %[2]s, %[3]d)", c.name, m.value(c), i+1))
	}
	return `SELECT i.file_id, d.name, left(d.ours, 200), left(d.theirs, 200) FROM ` + m.proposals() + `
` + besideFile + `
CROSS JOIN LATERAL (VALUES ` + strings.Join(values, ",\n\t") + `) d(name, ours, theirs, differs, place)
WHERE f.file_id IS NOT NULL AND d.differs ORDER BY i.file_id COLLATE "C", d.place`
}

// Differences says by file which columns of a live row disagree; files without a row, and
// those that agree, are not in it. user_id comes first, then the columns as the table has
// them.
func (s *Store) Differences(ctx context.Context, snapshots []*file.Snapshot) (map[string][]run.Difference, error) {
	out := make(map[string][]run.Difference, len(snapshots))
	err := halving(snapshots, func(part []*file.Snapshot) error { return s.differences(ctx, part, out) }, func(*file.Snapshot, error) {})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (s *Store) differences(ctx context.Context, snapshots []*file.Snapshot, into map[string][]run.Difference) error {
	ids := make([]string, len(snapshots))
	for i, snapshot := range snapshots {
		ids[i] = snapshot.ID
	}
	return s.tx(ctx, "compare rows", func(ctx context.Context, tx pgx.Tx) error {
		m, err := s.mapping(ctx, tx)
		if err != nil {
			return err
		}
		found := map[string][]run.Difference{}
		b := &pgx.Batch{}
		b.Queue(`SELECT set_config('TimeZone', 'UTC', true)`)
		b.Queue(m.differences, m.args(ids, snapshots)...).Query(func(rows pgx.Rows) error {
			var id string
			var d run.Difference
			_, err := pgx.ForEachRow(rows, []any{&id, &d.Column, &d.Row, &d.ImageKit}, func() error {
				found[id] = append(found[id], d)
				return nil
			})
			return err
		})
		if err := send(ctx, tx, b); err != nil {
			return err
		}
		for id, columns := range found {
			into[id] = columns
		}
		return nil
	})
}
