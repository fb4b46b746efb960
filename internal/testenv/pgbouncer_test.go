package testenv_test

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/trueup/trueup/internal/testenv"
)

func TestPgBouncer(t *testing.T) {
	pooled := testenv.PgBouncer(t, testenv.Postgres(t), testenv.PgBouncerOptions{})

	t.Run("HandsOneServerConnectionToManyClients", func(t *testing.T) {
		backends := make([]int, 12)
		var g errgroup.Group
		for i := range backends {
			g.Go(func() error {
				c, err := pgx.Connect(t.Context(), pooled+"&default_query_exec_mode=cache_describe")
				if err != nil {
					return err
				}
				defer func() { _ = c.Close(t.Context()) }()
				return c.QueryRow(t.Context(), "SELECT pg_backend_pid()").Scan(&backends[i])
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		distinct := map[int]bool{}
		for _, pid := range backends {
			distinct[pid] = true
		}
		if len(distinct) > 4 {
			t.Fatalf("12 clients used %d server connections, the pool has 4", len(distinct))
		}
	})
	t.Run("RefusesStartupParametersAsNeonDoes", func(t *testing.T) {
		c, err := pgx.Connect(t.Context(), pooled+"&statement_timeout=1000")
		if err == nil {
			_ = c.Close(t.Context())
			t.Fatal("statement_timeout was let through")
		}
	})
	t.Run("LogsInFurtherUsers", func(t *testing.T) {
		direct := testenv.Postgres(t)
		role := "bouncer_role"
		run(t, direct, fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD 'word'", role))
		t.Cleanup(func() { run(t, direct, "DROP ROLE "+role) })
		url := testenv.PgBouncer(t, direct, testenv.PgBouncerOptions{Users: map[string]string{role: "word"}})
		c, err := pgx.ParseConfig(url)
		if err != nil {
			t.Fatal(err)
		}
		c.User = role
		conn, err := pgx.ConnectConfig(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close(t.Context())
	})
}
