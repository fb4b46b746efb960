package migrations_test

import (
	"bytes"
	"context"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/store"
	"github.com/trueup/trueup/internal/testenv"
	"github.com/trueup/trueup/migrations"
)

// login makes a user in a group and returns the database's URL for it.
func login(t *testing.T, admin *pgx.Conn, dbURL, name, attributes string) string {
	t.Helper()
	exec(t, admin, `DROP ROLE IF EXISTS `+name)
	exec(t, admin, `CREATE ROLE `+name+` LOGIN PASSWORD 'test-only' `+attributes)
	u, err := url.Parse(dbURL)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(name, "test-only")
	return u.String()
}

func TestRoles(t *testing.T) {
	u := testenv.Postgres(t)
	admin := connect(t, u)
	up(t, u, migrations.Options{})
	exec(t, admin, `INSERT INTO imagekit_files (file_id, file_url, user_id) VALUES ('f', 'x', 'ann')`)

	users := map[string]*pgx.Conn{}
	urls := map[string]string{}
	for _, role := range []string{"worker", "ingest", "plan"} {
		urls[role] = login(t, admin, u, "test_"+role, `IN ROLE trueup_`+role)
		users[role] = connect(t, urls[role])
	}
	const (
		yes = true
		no  = false
	)
	for _, c := range []struct {
		name, sql            string
		worker, ingest, plan bool
	}{
		{"read rows", `SELECT count(*) FROM public.imagekit_files`, yes, no, yes},
		{"write rows", `UPDATE public.imagekit_files SET file_url = 'y'`, yes, no, no},
		{"add a row", `INSERT INTO public.imagekit_files (file_id, file_url, user_id) VALUES (gen_random_uuid(), 'x', '')`, yes, no, no},
		{"delete rows", `DELETE FROM public.imagekit_files WHERE false`, yes, no, no},
		{"read states", `SELECT count(*) FROM trueup.file_state`, yes, no, yes},
		{"write states", `UPDATE trueup.file_state SET seen = 1`, yes, no, no},
		{"draw a fence", `SELECT nextval('trueup.fence')`, yes, no, no},
		{"read the ledger", `SELECT count(*) FROM trueup.ledger`, yes, no, yes},
		{"write the ledger", `DELETE FROM trueup.ledger WHERE false`, yes, no, no},
		{"read dead letters", `SELECT count(*) FROM trueup.dead_letters`, yes, no, yes},
		{"write dead letters", `DELETE FROM trueup.dead_letters WHERE false`, yes, no, no},
		{"read jobs", `SELECT count(*) FROM trueup.jobs, trueup.job_items`, yes, no, yes},
		{"write jobs", `DELETE FROM trueup.jobs WHERE false`, yes, no, no},
		{"read what has expired", `SELECT count(*) FROM trueup.expired_counts`, yes, no, yes},
		{"write a run", `INSERT INTO trueup.runs (id, kind, state) VALUES (gen_random_uuid(), 'plan', 'planned')`, yes, no, yes},
		{"write a finding", `DELETE FROM trueup.findings WHERE false`, yes, no, yes},
		{"write the audit", `DELETE FROM trueup.audit WHERE false`, yes, no, no},
		{"change the mapping", `DELETE FROM trueup.mapped_columns WHERE false`, no, no, no},
		{"ask for a report", `SELECT * FROM trueup.report('e', 'ann')`, yes, yes, no},
		{"change the schema", `CREATE TABLE trueup.x (y int)`, no, no, no},
		{"drop a table", `DROP TABLE trueup.ledger`, no, no, no},
	} {
		t.Run(c.name, func(t *testing.T) {
			for role, may := range map[string]bool{"worker": c.worker, "ingest": c.ingest, "plan": c.plan} {
				_, err := users[role].Exec(t.Context(), c.sql)
				if may && err != nil {
					t.Errorf("%s may: %v", role, err)
				}
				if !may && !refused(err) {
					t.Errorf("%s may not, and got %v", role, err)
				}
			}
		})
	}
	t.Run("TheStoreWorksAsWorkerAndAnswersAsIngest", func(t *testing.T) {
		st, err := store.Open(t.Context(), store.Config{URL: urls["worker"]})
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		turn, err := st.BeginTurn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := st.Settle(t.Context(), turn.Number, nil, nil, nil); err != nil {
			t.Error(err)
		}
		if _, err := st.Status(t.Context()); err != nil {
			t.Error(err)
		}
		in, err := store.Open(t.Context(), store.Config{URL: urls["ingest"]})
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		if got, err := in.Report(t.Context(), "e", "ann"); err != nil || got.State != "pending" {
			t.Errorf("report %+v, %v", got, err)
		}
	})
	t.Run("TimeoutsStandOnTheRoleAndAfterAnotherUpOnItsMembers", func(t *testing.T) {
		up(t, u, migrations.Options{})
		for _, role := range []string{"trueup_worker", "test_worker", "test_ingest"} {
			got := value(t, admin, `SELECT array_to_string(rolconfig, ' ') FROM pg_roles WHERE rolname = '`+role+`'`)
			if got != "statement_timeout=30s lock_timeout=5s idle_in_transaction_session_timeout=30s" {
				t.Errorf("%s: %s", role, got)
			}
		}
	})
}

func TestAMigratorWhoMayNotCreateRoles(t *testing.T) {
	u := testenv.Postgres(t)
	admin := connect(t, u)
	// The group roles belong to the server and stand there from other tests.
	for _, r := range []string{"trueup_migrate", "trueup_worker", "trueup_ingest", "trueup_plan"} {
		exec(t, admin, `ALTER ROLE `+r+` RENAME TO x_`+r)
		t.Cleanup(func() {
			if _, err := admin.Exec(context.Background(), `ALTER ROLE x_`+r+` RENAME TO `+r); err != nil {
				t.Error(err)
			}
		})
	}
	as := login(t, admin, u, "test_migrator", ``)
	exec(t, admin, `GRANT CREATE ON DATABASE `+value(t, admin, `SELECT current_database()`)+` TO test_migrator; GRANT CREATE ON SCHEMA public TO test_migrator`)
	var notes bytes.Buffer
	up(t, as, migrations.Options{Notes: &notes, CompatInsert: true})
	up(t, as, migrations.Options{})
	if n := strings.Count(notes.String(), "was not created"); n != 4 {
		t.Errorf("notes: %s", notes.String())
	}
	st, err := store.Open(t.Context(), store.Config{URL: as})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if _, err := st.BeginTurn(t.Context()); err != nil {
		t.Error(err)
	}
}
