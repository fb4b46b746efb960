package migrations

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// numbered lists the embedded migrations in order.
func numbered() ([]Step, error) {
	names, err := fs.Glob(files, "0*.sql")
	if err != nil {
		return nil, fmt.Errorf("migrate: read embedded files: %w", err)
	}
	sort.Strings(names)
	steps := make([]Step, 0, len(names))
	for _, n := range names {
		num, _, _ := strings.Cut(n, "_")
		v, err := strconv.ParseInt(num, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("migrate: %s has no number: %w", n, err)
		}
		steps = append(steps, Step{Version: v, Name: n})
	}
	return steps, nil
}

// status reads goose's own table instead of asking goose, which would create it.
func (m *migration) status(ctx context.Context) ([]Step, error) {
	steps, err := numbered()
	if err != nil {
		return nil, err
	}
	rows, err := m.conn.Query(ctx, "SELECT version_id, tstamp FROM "+versionTable+" WHERE is_applied")
	if err != nil {
		return nil, fmt.Errorf("migrate status: %w", err)
	}
	defer rows.Close()
	at := map[int64]time.Time{}
	for rows.Next() {
		var v int64
		var t time.Time
		if err := rows.Scan(&v, &t); err != nil {
			return nil, fmt.Errorf("migrate status: %w", err)
		}
		at[v] = t
	}
	var pe *pgconn.PgError
	if err := rows.Err(); err != nil && (!errors.As(err, &pe) || pe.Code != "42P01" && pe.Code != "3F000") {
		return nil, fmt.Errorf("migrate status: %w", err)
	}
	for i := range steps {
		steps[i].At, steps[i].Applied = at[steps[i].Version], !at[steps[i].Version].IsZero()
	}
	return steps, nil
}

// Latest is the version that this program needs.
func Latest() (int64, error) {
	steps, err := numbered()
	if err != nil {
		return 0, err
	}
	return steps[len(steps)-1].Version, nil
}

// print writes what up would run, in order, and runs none of it.
func (m *migration) print(ctx context.Context) error {
	in, err := inspect(ctx, m.conn)
	if err != nil {
		return err
	}
	if err := in.Refusal(); err != nil {
		return err
	}
	steps, err := m.status(ctx)
	if err != nil {
		return err
	}
	var out []script
	out = append(out, script{"schema", "CREATE SCHEMA IF NOT EXISTS trueup"})
	for _, s := range steps {
		if s.Applied {
			continue
		}
		b, err := files.ReadFile(s.Name)
		if err != nil {
			return fmt.Errorf("migrate: read embedded files: %w", err)
		}
		up, _, _ := strings.Cut(string(b), "-- +goose Down")
		out = append(out, script{s.Name, strings.TrimPrefix(up, "-- +goose Up\n")})
	}
	always, err := m.scripts(in.afterUp())
	if err != nil {
		return err
	}
	for _, s := range append(out, always...) {
		if _, err := fmt.Fprintf(m.Print, "-- %s\n%s;\n\n", s.name, strings.TrimRight(s.sql, "; \n")); err != nil {
			return fmt.Errorf("migrate: print: %w", err)
		}
	}
	for _, n := range in.Notes() {
		m.note("%s", n)
	}
	return nil
}
