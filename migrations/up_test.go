package migrations_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/trueup/trueup/internal/testenv"
	"github.com/trueup/trueup/migrations"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func connect(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func exec(t testing.TB, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func value(t testing.TB, conn *pgx.Conn, sql string) string {
	t.Helper()
	var v any
	if err := conn.QueryRow(t.Context(), sql).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return fmt.Sprint(v)
}

// shape is every column, index, function and right of both schemas, as text.
func shape(t testing.TB, conn *pgx.Conn) string {
	t.Helper()
	return value(t, conn, `SELECT coalesce(string_agg(x, E'\n' ORDER BY x), '') FROM (
		SELECT attrelid::regclass || '.' || attname || ' ' || format_type(atttypid, atttypmod) AS x FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
		  WHERE relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname IN ('public', 'trueup')) AND attnum > 0
		UNION ALL SELECT oid::regclass || ' ' || coalesce(relacl::text, '') FROM pg_class WHERE relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname IN ('public', 'trueup'))
		UNION ALL SELECT oid::regprocedure || coalesce(proacl::text, '') FROM pg_proc WHERE pronamespace IN (SELECT oid FROM pg_namespace WHERE nspname IN ('public', 'trueup'))) s`)
}

func up(t testing.TB, url string, o migrations.Options) {
	t.Helper()
	if err := migrations.Up(t.Context(), url, o); err != nil {
		t.Fatal(err)
	}
}

func TestUp(t *testing.T) {
	t.Run("TwiceIsOnce", func(t *testing.T) {
		u := testenv.Postgres(t)
		conn := connect(t, u)
		up(t, u, migrations.Options{})
		once := shape(t, conn)
		up(t, u, migrations.Options{})
		if again := shape(t, conn); again != once {
			t.Errorf("the second run changed something:\n%s\n\n%s", once, again)
		}
		if id := value(t, conn, `SELECT data_type || is_identity FROM information_schema.columns WHERE table_name = 'imagekit_files' AND column_name = 'id'`); id != "bigintYES" {
			t.Errorf("id is %s", id)
		}
	})
	t.Run("AtOnceFromFivePlaces", func(t *testing.T) {
		u := testenv.Postgres(t)
		var wait sync.WaitGroup
		for range 5 {
			wait.Go(func() {
				if err := migrations.Up(t.Context(), u, migrations.Options{CompatInsert: true}); err != nil {
					t.Error(err)
				}
			})
		}
		wait.Wait()
		if n := value(t, connect(t, u), `SELECT count(*) FROM trueup.leases`); n != "1" {
			t.Errorf("%s leases", n)
		}
	})
	t.Run("PrintChangesNothing", func(t *testing.T) {
		u := testenv.Postgres(t)
		conn := connect(t, u)
		before := shape(t, conn)
		var out bytes.Buffer
		up(t, u, migrations.Options{Print: &out, CompatInsert: true})
		if shape(t, conn) != before {
			t.Error("--print changed the database")
		}
		for _, want := range []string{"CREATE TABLE trueup.file_state", "ADD COLUMN IF NOT EXISTS mime", "CREATE OR REPLACE TRIGGER trueup_compat_insert", "CREATE ROLE"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%q is not printed", want)
			}
		}
		// What is printed can be run by hand and is what up would have done.
		if _, err := conn.PgConn().Exec(t.Context(), strings.ReplaceAll(out.String(), ", trueup.goose_version FROM", " FROM")).ReadAll(); err != nil {
			t.Errorf("the printed SQL does not run: %v", err)
		}
	})
	t.Run("StatusBeforeAndAfter", func(t *testing.T) {
		u := testenv.Postgres(t)
		for _, applied := range []bool{false, true} {
			steps, err := migrations.Status(t.Context(), u, migrations.Options{})
			if err != nil || len(steps) != 5 || steps[0].Applied != applied || steps[4].Applied != applied {
				t.Errorf("steps %+v, %v", steps, err)
			}
			up(t, u, migrations.Options{})
		}
	})
	t.Run("DownKeepsTheRows", func(t *testing.T) {
		u := testenv.Postgres(t)
		conn := connect(t, u)
		up(t, u, migrations.Options{CompatInsert: true})
		exec(t, conn, `INSERT INTO imagekit_files (file_id, file_url, user_id) VALUES ('f', 'x', 'ann')`)
		for range 2 {
			if err := migrations.Down(t.Context(), u, migrations.Options{}); err != nil {
				t.Fatal(err)
			}
		}
		if got := value(t, conn, `SELECT (SELECT count(*) FROM imagekit_files) || ',' || (SELECT count(*) FROM pg_namespace WHERE nspname = 'trueup') || ','
			|| (SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal)`); got != "1,0,0" {
			t.Errorf("rows, schemas, triggers: %s", got)
		}
		up(t, u, migrations.Options{})
	})
	t.Run("APooledHostIsRefusedUnlessForced", func(t *testing.T) {
		pooled := "postgres://u:p@ep-x-pooler.localhost:1/db"
		err := migrations.Up(t.Context(), pooled, migrations.Options{})
		if err == nil || !strings.Contains(err.Error(), "pooled endpoint") {
			t.Errorf("got %v", err)
		}
		err = migrations.Up(t.Context(), pooled, migrations.Options{Pooled: true})
		if err == nil || strings.Contains(err.Error(), "pooled endpoint") {
			t.Errorf("forced: got %v", err)
		}
	})
	t.Run("ThroughAPooler", func(t *testing.T) {
		u := testenv.Postgres(t)
		pooled, err := url.Parse(testenv.PgBouncer(t, u, testenv.PgBouncerOptions{}))
		if err != nil {
			t.Fatal(err)
		}
		// PgBouncer refuses lock_timeout at start-up, which only direct connections send.
		err = migrations.Up(t.Context(), pooled.String(), migrations.Options{Pooled: true})
		if err != nil {
			t.Error(err)
		}
	})
	t.Run("ALockedTableIsTriedAgain", func(t *testing.T) {
		u := testenv.Postgres(t)
		conn := connect(t, u)
		exec(t, conn, `CREATE TABLE imagekit_files (file_id text PRIMARY KEY, file_url text NOT NULL, user_id text NOT NULL)`)
		tx, err := conn.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(t.Context(), `LOCK imagekit_files`); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- migrations.Up(t.Context(), u, migrations.Options{}) }()
		watch := connect(t, u)
		failedOnce := func() error {
			if n := value(t, watch, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`); n == "0" {
				return errors.New("it does not wait")
			}
			return nil
		}
		testenv.Eventually(t, 20e9, failedOnce)
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestInspection(t *testing.T) {
	const guide = `CREATE TABLE imagekit_files (id SERIAL PRIMARY KEY, file_id TEXT NOT NULL UNIQUE, file_url TEXT NOT NULL, user_id TEXT NOT NULL, upload_timestamp TIMESTAMPTZ DEFAULT NOW())`
	for _, c := range []struct {
		name, table string
		refused     string   // part of the sentence; empty: it is adopted
		left        []string // left alone
		notes       string
	}{
		{name: "TheGuidesTable", table: guide},
		{name: "OwnColumns", table: guide + `; ALTER TABLE imagekit_files ADD COLUMN album text NOT NULL DEFAULT '', ADD COLUMN note text`},
		{name: "OtherTypes", table: guide + `; ALTER TABLE imagekit_files ADD COLUMN tags jsonb, ADD COLUMN width smallint, ADD COLUMN size_bytes int, ADD COLUMN mime varchar(20),
			ADD COLUMN synced_at timestamp, ADD COLUMN height bigint`, left: []string{"mime", "size_bytes", "synced_at", "tags", "width"}},
		{name: "GeneratedColumn", table: guide + `; ALTER TABLE imagekit_files ADD COLUMN file_name text GENERATED ALWAYS AS (file_url) STORED`, left: []string{"file_name"}},
		{name: "NotNullWithDefault", table: guide + `; ALTER TABLE imagekit_files ADD COLUMN mime text NOT NULL DEFAULT ''`, left: []string{"mime"}},
		{name: "NotNullWithoutDefault", table: guide + `; ALTER TABLE imagekit_files ADD COLUMN album text NOT NULL`, refused: "column album (text) is NOT NULL without a default"},
		{name: "NotNullOfOurs", table: guide + `; ALTER TABLE imagekit_files ADD COLUMN width int NOT NULL`, refused: "column width (integer) is NOT NULL"},
		{name: "AUuidUser", table: `CREATE TABLE imagekit_files (id SERIAL, file_id TEXT UNIQUE, file_url TEXT, user_id uuid)`, refused: "column user_id is uuid, it must be text"},
		{name: "AShortFileID", table: `CREATE TABLE imagekit_files (file_id varchar(24) UNIQUE, file_url TEXT, user_id text)`, refused: "holds only 24 characters"},
		{name: "NoURL", table: `CREATE TABLE imagekit_files (file_id text UNIQUE, user_id text)`, refused: "no column file_url"},
		{name: "AnIDNobodyDraws", table: `CREATE TABLE imagekit_files (id int PRIMARY KEY, file_id text UNIQUE, file_url text, user_id text)`, refused: "id is NOT NULL without a default"},
		{name: "AForeignKey", table: `CREATE TABLE users (id text PRIMARY KEY); CREATE TABLE imagekit_files (file_id text UNIQUE, file_url text, user_id text REFERENCES users)`, refused: "foreign key"},
		{name: "AView", table: `CREATE VIEW imagekit_files AS SELECT 'x'::text AS file_id, 'x'::text AS file_url, 'x'::text AS user_id`, refused: "not a table"},
		{name: "NotUnique", table: `CREATE TABLE imagekit_files (file_id text, file_url text, user_id text); INSERT INTO imagekit_files VALUES ('a', 'x', 'y')`, notes: "file_id has no unique index; one is added"},
		{name: "NotUniqueWithDuplicates", table: `CREATE TABLE imagekit_files (file_id text, file_url text, user_id text); INSERT INTO imagekit_files VALUES ('a', 'x', 'y'), ('a', 'x', 'y')`, refused: "1 values stand there more than once"},
		{name: "UniqueOnlyInPart", table: `CREATE TABLE imagekit_files (file_id text, file_url text, user_id text); CREATE UNIQUE INDEX ON imagekit_files (file_id) WHERE user_id = ''`, notes: "one is added"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := testenv.Postgres(t)
			conn := connect(t, u)
			if _, err := conn.PgConn().Exec(t.Context(), c.table).ReadAll(); err != nil {
				t.Fatal(err)
			}
			before := shape(t, conn)
			var notes bytes.Buffer
			err := migrations.Up(t.Context(), u, migrations.Options{Notes: &notes})
			if c.refused != "" {
				if err == nil || !strings.Contains(err.Error(), c.refused) {
					t.Errorf("got %v, want %q", err, c.refused)
				}
				if shape(t, conn) != before {
					t.Error("it was refused and changed all the same")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			in, err := migrations.Inspect(t.Context(), u, migrations.Options{})
			if err != nil || len(in.LeftAlone) != len(c.left) || len(in.Missing) != 0 {
				t.Errorf("inspection %+v, %v", in, err)
			}
			for _, name := range c.left {
				if !strings.Contains(notes.String(), "column "+name+" (") {
					t.Errorf("no note on %s: %s", name, notes.String())
				}
			}
			if !strings.Contains(notes.String(), c.notes) {
				t.Errorf("notes %q", notes.String())
			}
			if n := value(t, conn, `SELECT count(*) FROM trueup.mapped_columns`); n != fmt.Sprint(16-len(c.left)) {
				t.Errorf("%s columns are filled", n)
			}
		})
	}
}

func refused(err error) bool {
	var pe *pgconn.PgError
	return errors.As(err, &pe) && pe.Code == "42501"
}
