package testenv_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func TestPostgres(t *testing.T) {
	connect := func(t *testing.T, url string) *pgx.Conn {
		c, err := pgx.Connect(context.Background(), url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close(context.Background()) })
		return c
	}
	t.Run("EachTestHasItsOwnDatabase", func(t *testing.T) {
		one, two := testenv.Postgres(t), testenv.Postgres(t)
		if _, err := connect(t, one).Exec(t.Context(), "CREATE TABLE only_in_one (n int)"); err != nil {
			t.Fatal(err)
		}
		var there *string
		if err := connect(t, two).QueryRow(t.Context(), "SELECT to_regclass('only_in_one')::text").Scan(&there); err != nil || there != nil {
			t.Fatalf("table of the other database: %v, %v", there, err)
		}
	})
	t.Run("WritesAreDurable", func(t *testing.T) {
		var fsync string
		if err := connect(t, testenv.Postgres(t)).QueryRow(t.Context(), "SHOW fsync").Scan(&fsync); err != nil || fsync != "on" {
			t.Fatalf("fsync = %q, %v", fsync, err)
		}
	})
	t.Run("AConnectionLeftOpenDoesNotKeepTheDatabase", func(t *testing.T) {
		var url string
		t.Run("inner", func(t *testing.T) {
			url = testenv.Postgres(t)
			c, err := pgx.Connect(context.Background(), url) // deliberately not closed by the test
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := c.Ping(context.Background()); err != nil {
					t.Errorf("the database went before its user's cleanup: %v", err)
				}
			})
		})
		if c, err := pgx.Connect(t.Context(), url); err == nil {
			_ = c.Close(t.Context())
			t.Fatal("the database is still there")
		}
	})
}
