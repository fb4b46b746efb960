package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/run"
	"github.com/trueup/trueup/migrations"
)

// ErrNoTable means that the database has no public.imagekit_files.
var ErrNoTable = errors.New("there is no table public.imagekit_files")

// Audit reads somebody's imagekit_files, whoever made it and whether or not trueup
// has ever been here: it asks nothing of schema trueup. Every transaction of it is a
// read-only one, and nothing in it breaks behind a transaction pooler.
type Audit struct {
	pool *pgxpool.Pool
	m    *mapping
	// Columns are those that can be compared, in order; what stands in the others is
	// the application's own.
	Columns []string
	// Notes say what `migrate up` would say of the table.
	Notes []string
	owned bool // it has a user_id
}

// OpenAudit connects and finds out which columns can be compared, judging them as
// `migrate up` does.
func OpenAudit(ctx context.Context, url string) (*Audit, error) {
	p, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("open audit: %w", err)
	}
	// One connection streams the table while the other asks about single rows.
	p.MaxConns = 2
	p.ConnConfig.ConnectTimeout = cmp.Or(p.ConnConfig.ConnectTimeout, 15*time.Second)
	p.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	p.ConnConfig.RuntimeParams["application_name"] = "trueup audit"
	pool, err := pgxpool.NewWithConfig(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("open audit: %w", err)
	}
	a := &Audit{pool: pool}
	if err := a.inspect(ctx); err != nil {
		pool.Close()
		return nil, err
	}
	return a, nil
}

// Close ends all connections.
func (a *Audit) Close() { a.pool.Close() }

// read runs f in one read-only transaction.
func (a *Audit) read(ctx context.Context, op string, f func(pgx.Tx) error) error {
	err := pgx.BeginTxFunc(ctx, a.pool, pgx.TxOptions{AccessMode: pgx.ReadOnly}, f)
	var pe *pgconn.PgError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &pe) && pe.Code == "42501":
		return fmt.Errorf("%s: the role of DATABASE_URL may not read public.imagekit_files: %w", op, err)
	}
	return fmt.Errorf("%s: %w", op, err)
}

func (a *Audit) inspect(ctx context.Context) error {
	var in migrations.Inspection
	err := a.read(ctx, "inspect imagekit_files", func(tx pgx.Tx) (err error) {
		in, err = migrations.InspectIn(ctx, tx)
		return err
	})
	if err != nil {
		return err
	}
	if !in.Exists {
		return ErrNoTable
	}
	if err := auditable(in); err != nil {
		return err
	}
	types := map[string]string{}
	for _, c := range in.Filled {
		types[c.Name] = c.Type
	}
	a.m = newMapping(types, false)
	for _, c := range a.m.columns {
		a.Columns = append(a.Columns, c.name)
	}
	a.owned = slices.ContainsFunc(in.Columns, func(c migrations.Column) bool { return c.Name == "user_id" })
	if err := in.Refusal(); err != nil {
		a.Notes = append(a.Notes, "trueup could not keep this table as it is: "+strings.Join(in.Refused, "; "))
	}
	a.Notes = append(a.Notes, in.Notes()...)
	return nil
}

// auditable demands what a comparison cannot do without; what else keeps trueup from
// writing to the table does not matter here.
func auditable(in migrations.Inspection) error {
	if len(in.Columns) == 0 {
		return errors.New("public.imagekit_files is not a table")
	}
	i := slices.IndexFunc(in.Columns, func(c migrations.Column) bool { return c.Name == "file_id" })
	if i < 0 {
		return errors.New("public.imagekit_files has no column file_id, so no row names a file")
	}
	if t := in.Columns[i].Type; t != "text" && !strings.HasPrefix(t, "character varying") {
		return fmt.Errorf("column file_id of public.imagekit_files is %s; it must be text to name a file", t)
	}
	if len(in.Filled) == 0 {
		return errors.New("public.imagekit_files has no column that trueup knows, beside file_id")
	}
	return nil
}

// Hash is the hash that a row with exactly this content would have in this table.
func (a *Audit) Hash(ctx context.Context, snapshots []*file.Snapshot) ([]int64, error) {
	var out []int64
	err := a.read(ctx, "hash files", func(tx pgx.Tx) error {
		sql := "SELECT " + a.m.rowHash("i") + " FROM " + a.m.proposals("place", "int") + " ORDER BY i.place"
		rows, err := tx.Query(ctx, sql, append(a.m.args(idsOf(snapshots), snapshots), places(len(snapshots)))...)
		if err != nil {
			return err
		}
		out, err = pgx.CollectRows(rows, pgx.RowTo[int64])
		return err
	})
	return out, err
}

func idsOf(snapshots []*file.Snapshot) []string {
	ids := make([]string, len(snapshots))
	for i, s := range snapshots {
		ids[i] = s.ID
	}
	return ids
}

func places(n int) []int32 {
	out := make([]int32, n)
	for i := range out {
		out[i] = int32(i)
	}
	return out
}

// Local yields every row in the byte order of file_id, from one read-only transaction.
// A row without an id comes first, with an empty one; a file_id that stands there twice
// comes twice.
func (a *Audit) Local(ctx context.Context, yield func(run.Local) error) error {
	unowned := "false"
	if a.owned {
		unowned = "coalesce(f.user_id, '') = ''"
	}
	return a.read(ctx, "read rows", func(tx pgx.Tx) error {
		// It may well take longer than what is set for the application's own queries.
		if _, err := tx.Exec(ctx, `SELECT set_config('statement_timeout', '0', true)`); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `SELECT coalesce(f.file_id, ''), `+a.m.rowHash("f")+`, `+unowned+`
			FROM public.imagekit_files f ORDER BY coalesce(f.file_id, '') COLLATE "C"`)
		if err != nil {
			return err
		}
		l := run.Local{Live: true, Followed: true}
		_, err = pgx.ForEachRow(rows, []any{&l.FileID, &l.Hash, &l.Unowned}, func() error { return yield(l) })
		return err
	})
}

// auditValue is how much of a value comes over: a URL fits.
const auditValue = 2000

// Differences says by file which columns of its row disagree.
func (a *Audit) Differences(ctx context.Context, snapshots []*file.Snapshot) (map[string][]run.Difference, error) {
	out := map[string][]run.Difference{}
	err := a.read(ctx, "compare rows", func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, a.differencesSQL(), a.m.args(idsOf(snapshots), snapshots)...)
		if err != nil {
			return err
		}
		var id string
		var d run.Difference
		_, err = pgx.ForEachRow(rows, []any{&id, &d.Column, &d.Row, &d.ImageKit}, func() error {
			// A file_id that stands there twice is told once.
			if !slices.ContainsFunc(out[id], func(o run.Difference) bool { return o.Column == d.Column }) {
				out[id] = append(out[id], d)
			}
			return nil
		})
		return err
	})
	return out, err
}

func (a *Audit) differencesSQL() string {
	values := make([]string, len(a.m.columns))
	for i, c := range a.m.columns {
		row, there := "f."+c.name, a.m.value(c)
		values[i] = fmt.Sprintf("(%d, '%s', left(%s::text, %d), left((%s)::text, %d), %s IS DISTINCT FROM %s)",
			i, c.name, row, auditValue, there, auditValue, row, there)
	}
	return `SELECT f.file_id, v.name, v.here, v.there FROM ` + a.m.proposals() + ` JOIN public.imagekit_files f ON f.file_id = i.file_id
		CROSS JOIN LATERAL (VALUES ` + strings.Join(values, ", ") + `) v(place, name, here, there, differs)
		WHERE v.differs ORDER BY f.file_id, v.place`
}
