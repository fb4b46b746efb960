package testenv_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/testenv"
)

func TestPgBouncer(t *testing.T) {
	pooled := testenv.PgBouncer(t, testenv.Postgres(t), testenv.PgBouncerOptions{})

	t.Run("HandsOneServerConnectionToManyClients", func(t *testing.T) {
		// All stay connected: in session mode the fifth would wait for ever.
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		clients := make([]*pgx.Conn, 12)
		for i := range clients {
			c, err := pgx.Connect(ctx, pooled+"&default_query_exec_mode=cache_describe")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close(t.Context()) }()
			clients[i] = c
		}
		backends := map[int]bool{}
		for _, c := range clients {
			var pid int
			if err := c.QueryRow(ctx, "SELECT pg_backend_pid()").Scan(&pid); err != nil {
				t.Fatal(err)
			}
			backends[pid] = true
		}
		if len(backends) > 4 {
			t.Fatalf("12 clients used %d server connections, the pool has 4", len(backends))
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
