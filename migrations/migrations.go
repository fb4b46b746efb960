// Package migrations lays and changes trueup's schema: goose runs the numbered files
// once, the files under always/ are idempotent and run at every up.
//
// It is apart from the store because it alone may run DDL, on a direct connection, as
// another role. Its one invariant: an imagekit_files that stood there before keeps
// every row, every column and every type; what cannot work is refused before anything
// is changed.
package migrations

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/sethvargo/go-retry"
)

//go:embed *.sql always/*.sql optional/*.sql
var files embed.FS

const versionTable = "trueup.goose_version"

// Options say how a migration runs. The zero value runs it.
type Options struct {
	// CompatInsert adds the trigger for applications that insert by themselves.
	CompatInsert bool
	// Print, when set, gets the SQL that would run; nothing is changed.
	Print io.Writer
	// Notes, when set, gets one line for everything worth knowing that is no error:
	// columns left alone, roles that could not be created.
	Notes io.Writer
	// Pooled says that the connection goes through a transaction pooler. A host that
	// looks like Neon's pooled endpoint is refused without it.
	Pooled bool
}

func (o Options) note(format string, args ...any) {
	if o.Notes != nil {
		_, _ = fmt.Fprintf(o.Notes, format+"\n", args...)
	}
}

// Up brings the schema to this version. Running it twice, or at once from two places,
// is the same as running it once.
func Up(ctx context.Context, url string, o Options) error {
	return retryLocked(ctx, func(ctx context.Context) error {
		m, err := open(ctx, url, o)
		if err != nil {
			return err
		}
		defer m.close(ctx)
		if o.Print != nil {
			return m.print(ctx)
		}
		return m.up(ctx)
	})
}

// Down drops the schema trueup and the trigger, and with them all memory of owners,
// tombstones and dead letters. imagekit_files and the roles stay.
func Down(ctx context.Context, url string, o Options) error {
	return retryLocked(ctx, func(ctx context.Context) error {
		m, err := open(ctx, url, o)
		if err != nil {
			return err
		}
		defer m.close(ctx)
		return m.down(ctx)
	})
}

// Step is one numbered migration and whether it stands in the database.
type Step struct {
	Version int64     `json:"version"`
	Name    string    `json:"name"`
	Applied bool      `json:"applied"`
	At      time.Time `json:"at,omitzero"`
}

// Status lists the numbered migrations. It changes nothing, also where nothing stands yet.
func Status(ctx context.Context, url string, o Options) ([]Step, error) {
	m, err := open(ctx, url, o)
	if err != nil {
		return nil, err
	}
	defer m.close(ctx)
	return m.status(ctx)
}

// migration is one open connection for DDL.
type migration struct {
	conn *pgx.Conn
	cfg  *pgx.ConnConfig
	Options
}

func open(ctx context.Context, url string, o Options) (*migration, error) {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("migrate: parse database url: %w", redact(err))
	}
	if pooledHost(cfg.Host) && !o.Pooled {
		return nil, fmt.Errorf("migrate: %s is a pooled endpoint; use the direct one (DATABASE_URL_UNPOOLED), or force it", cfg.Host)
	}
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		if n.Severity == "WARNING" {
			o.note("%s", n.Message)
		}
	}
	if !o.Pooled {
		// DDL queues behind readers and everyone else queues behind it: give up early
		// and come again. A pooler refuses this parameter.
		cfg.RuntimeParams["lock_timeout"] = "3s"
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = 15 * time.Second
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("migrate: connect: %w", err)
	}
	return &migration{conn: conn, cfg: cfg, Options: o}, nil
}

func pooledHost(host string) bool {
	first, _, _ := strings.Cut(host, ".")
	return net.ParseIP(host) == nil && strings.HasSuffix(first, "-pooler")
}

func redact(err error) error {
	var p *pgconn.ParseConfigError
	if errors.As(err, &p) { // its text repeats the url without the password
		return err
	}
	return errors.New("not a PostgreSQL url")
}

func (m *migration) close(ctx context.Context) { _ = m.conn.Close(context.WithoutCancel(ctx)) }

// retryLocked runs again what gave up on a lock or met another database's migration at
// the cluster-wide catalogues.
func retryLocked(ctx context.Context, f func(context.Context) error) error {
	b := retry.WithMaxRetries(8, retry.WithJitterPercent(30, retry.WithCappedDuration(3*time.Second, retry.NewExponential(100*time.Millisecond))))
	return retry.Do(ctx, b, func(ctx context.Context) error {
		err := f(ctx)
		var pe *pgconn.PgError
		if errors.As(err, &pe) && (pe.Code == "55P03" || pe.Code == "40P01" || pe.Code == "XX000" && strings.Contains(pe.Message, "concurrently")) {
			return retry.RetryableError(err)
		}
		return err
	})
}

// lock keeps other migrations of this database out until the returned function runs.
// A lock held by a transaction, not a session, so that it is right behind a pooler too.
func (m *migration) lock(ctx context.Context) (func(), error) {
	conn, err := pgx.ConnectConfig(ctx, m.cfg.Copy())
	if err != nil {
		return nil, fmt.Errorf("migrate: connect: %w", err)
	}
	free := func() { _ = conn.Close(context.WithoutCancel(ctx)) }
	for _, q := range []string{"BEGIN", "SET LOCAL lock_timeout = '120s'", "SET LOCAL idle_in_transaction_session_timeout = 0",
		"SELECT pg_advisory_xact_lock(hashtextextended('trueup migrate', 0))"} {
		if _, err := conn.Exec(ctx, q); err != nil {
			free()
			return nil, fmt.Errorf("migrate: wait for another migration: %w", err)
		}
	}
	return free, nil
}

func (m *migration) up(ctx context.Context) error {
	free, err := m.lock(ctx)
	if err != nil {
		return err
	}
	defer free()
	before, err := inspect(ctx, m.conn)
	if err != nil {
		return err
	}
	if err := before.Refusal(); err != nil {
		return err
	}
	if err := m.goose(ctx, func(p *goose.Provider) error { _, err := p.Up(ctx); return err }); err != nil {
		return err
	}
	after, err := inspect(ctx, m.conn)
	if err != nil {
		return err
	}
	for _, n := range after.Notes() {
		m.note("%s", n)
	}
	scripts, err := m.scripts(after)
	if err != nil {
		return err
	}
	for _, s := range scripts {
		if err := m.run(ctx, s.sql); err != nil {
			return fmt.Errorf("migrate: %s: %w", s.name, err)
		}
	}
	return nil
}

// goose runs f with a provider; its version table needs our schema first.
func (m *migration) goose(ctx context.Context, f func(*goose.Provider) error) error {
	if err := m.run(ctx, "CREATE SCHEMA IF NOT EXISTS trueup"); err != nil {
		return fmt.Errorf("migrate: create schema: %w", err)
	}
	db := stdlib.OpenDB(*m.cfg.Copy())
	defer func() { _ = db.Close() }()
	p, err := provider(db)
	if err != nil {
		return err
	}
	if err := f(p); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

func provider(db *sql.DB) (*goose.Provider, error) {
	p, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithTableName(versionTable), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return nil, fmt.Errorf("migrate: read embedded files: %w", err)
	}
	return p, nil
}

// run sends one script as one transaction, or not at all.
func (m *migration) run(ctx context.Context, script string) error {
	_, err := m.conn.PgConn().Exec(ctx, script).ReadAll()
	return err
}

type script struct{ name, sql string }

// scripts are what runs at every up: idempotent, in order.
func (m *migration) scripts(in Inspection) ([]script, error) {
	var out []script
	if in.AddUnique {
		out = append(out, script{"unique file_id", "CREATE UNIQUE INDEX imagekit_files_file_id_key ON public.imagekit_files (file_id)"})
	}
	out = append(out, script{"mapped columns", in.mapping()})
	names, err := fs.Glob(files, "always/*.sql")
	if err != nil {
		return nil, fmt.Errorf("migrate: read embedded files: %w", err)
	}
	if m.CompatInsert {
		names = append(names, "optional/compat_insert.sql")
	}
	for _, n := range names {
		b, err := files.ReadFile(n)
		if err != nil {
			return nil, fmt.Errorf("migrate: read embedded files: %w", err)
		}
		out = append(out, script{n, string(b)})
	}
	return out, nil
}

func (m *migration) down(ctx context.Context) error {
	free, err := m.lock(ctx)
	if err != nil {
		return err
	}
	defer free()
	err = m.run(ctx, `DO $$ BEGIN
  IF to_regclass('public.imagekit_files') IS NOT NULL THEN
    DROP TRIGGER IF EXISTS trueup_compat_insert ON public.imagekit_files;
  END IF;
END $$; DROP SCHEMA IF EXISTS trueup CASCADE`)
	if err != nil {
		return fmt.Errorf("migrate down: %w", err)
	}
	m.note("schema trueup was dropped; public.imagekit_files and the roles trueup_migrate, trueup_worker, trueup_ingest and trueup_plan stay")
	return nil
}
