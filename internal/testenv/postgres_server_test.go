package testenv_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/testenv"
)

func TestPostgresServer(t *testing.T) {
	exec := func(t *testing.T, url, sql string) {
		t.Helper()
		c, err := pgx.Connect(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close(t.Context()) }()
		if _, err := c.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	server := testenv.PostgresServer(t)
	exec(t, server.URL(), "CREATE TABLE kept (n int)")

	t.Run("IsDownAfterKill9AndKeepsWhatWasCommitted", func(t *testing.T) {
		server.Kill9()
		if c, err := pgx.Connect(t.Context(), server.URL()); err == nil {
			_ = c.Close(t.Context())
			t.Fatal("a killed server answers")
		}
		server.Start()
		exec(t, server.URL(), "INSERT INTO kept VALUES (1)")
	})
	t.Run("ComesBackAtTheSameURLAfterStop", func(t *testing.T) {
		before := server.URL()
		server.Stop()
		server.Start()
		if server.URL() != before {
			t.Fatalf("URL changed from %s to %s", before, server.URL())
		}
		exec(t, before, "INSERT INTO kept VALUES (2)")
	})
}
