package store_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/service"
	"github.com/trueup/trueup/internal/store"
	"github.com/trueup/trueup/internal/testenv"
	"github.com/trueup/trueup/internal/testenv/conform"
	"github.com/trueup/trueup/migrations"
)

// The same suite that simulated rows pass, on PostgreSQL. One database serves all cases:
// migrating one for each would take longer than all of them.
func TestConforms(t *testing.T) {
	url := testenv.Postgres(t)
	if err := migrations.Up(t.Context(), url, migrations.Options{}); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	conform.Rows(t, conform.Databases{New: func(t testing.TB) conform.Database {
		d := &conforming{TB: t, url: url, sql: conn}
		d.empty()
		return d
	}})
}

// conforming is a database, and a person who has SQL.
type conforming struct {
	testing.TB
	url string
	sql *pgx.Conn
}

func (d *conforming) Open(c store.Config) service.Rows {
	d.Helper()
	c.URL = d.url
	st, err := store.Open(d.Context(), c)
	if err != nil {
		d.Fatal(err)
	}
	d.Cleanup(st.Close)
	return service.RowsOf(st)
}

func (d *conforming) exec(sql string, args ...any) {
	d.Helper()
	if _, err := d.sql.Exec(d.Context(), sql, args...); err != nil {
		d.Fatal(err)
	}
}

// empty makes it as `migrate up` leaves it.
func (d *conforming) empty() {
	d.Helper()
	for _, table := range []string{"public.imagekit_files", "trueup.file_state", "trueup.ledger", "trueup.retries", "trueup.dead_letters", "trueup.trial_marks",
		"trueup.audit", "trueup.fuse_hours", "trueup.findings", "trueup.runs", "trueup.job_items", "trueup.jobs", "trueup.expired_counts",
		"trueup.leases", "trueup.fuse", "trueup.poll"} {
		d.exec(`DELETE FROM ` + table)
	}
	d.exec(`INSERT INTO trueup.leases (name) VALUES ('worker')`)
	d.exec(`INSERT INTO trueup.fuse DEFAULT VALUES`)
	d.exec(`INSERT INTO trueup.poll DEFAULT VALUES`)
}

func (d *conforming) Insert(fileID, user string) {
	d.exec(`INSERT INTO public.imagekit_files (file_id, file_url, user_id) VALUES ($1, 'https://app.example/' || $1, $2)`, fileID, user)
}

func (d *conforming) SetUser(fileID, user string) {
	d.exec(`UPDATE public.imagekit_files SET user_id = $2 WHERE file_id = $1`, fileID, user)
}

func (d *conforming) SetName(fileID, name string) {
	d.exec(`UPDATE public.imagekit_files SET file_name = $2 WHERE file_id = $1`, fileID, name)
}

func (d *conforming) Delete(fileID string) {
	d.exec(`DELETE FROM public.imagekit_files WHERE file_id = $1`, fileID)
}

func (d *conforming) Rows() map[string]string {
	d.Helper()
	rows, err := d.sql.Query(d.Context(), `SELECT file_id, user_id || ' ' || coalesce(file_name, '') FROM public.imagekit_files`)
	if err != nil {
		d.Fatal(err)
	}
	out, id, is := map[string]string{}, "", ""
	if _, err := pgx.ForEachRow(rows, []any{&id, &is}, func() error { out[id] = is; return nil }); err != nil {
		d.Fatal(err)
	}
	return out
}

// Pass lets the database wait: its clock is the one that counts.
func (d *conforming) Pass(of time.Duration) { d.exec(`SELECT pg_sleep($1)`, of.Seconds()) }
