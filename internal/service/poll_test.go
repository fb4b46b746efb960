package service_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/testenv"
)

// TestQuietPollAsksTheDatabaseNothing: while ImageKit shows nothing new, no session but
// our own begins a query, so that an idle database stays asleep. The sessions themselves
// are asked: the counters of pg_stat_database lag behind by seconds.
func TestQuietPollAsksTheDatabaseNothing(t *testing.T) {
	t.Parallel()
	in := startServe(t, map[string]string{"TRUEUP_POLL_EVERY": "1s"})
	in.settings(map[string]any{"webhooks": map[string]any{"enabled": false}})
	ids := in.generate("/quiet", 50)
	ask, err := pgx.Connect(t.Context(), in.env["DATABASE_URL"])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ask.Close(context.Background()) })
	lastQuery := func() (at time.Time) {
		t.Helper()
		err := ask.QueryRow(t.Context(), `SELECT coalesce(max(query_start), 'epoch') FROM pg_stat_activity
			WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()`).Scan(&at)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	polled := func(n int) {
		t.Helper()
		before := in.stats().Requests["list"]
		testenv.Eventually(t, time.Minute, func() error {
			if now := in.stats().Requests["list"]; now < before+n {
				return fmt.Errorf("%d polls, want %d", now-before, n)
			}
			return nil
		})
	}
	rows := func() (n int) {
		t.Helper()
		if err := ask.QueryRow(t.Context(), `SELECT count(*) FROM public.imagekit_files`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}

	polled(2) // the first one only finds out where to begin
	before := rows()
	in.patch(ids[10], map[string]any{"tags": []string{"changed"}})
	polled(4) // fed, and seen again
	if n := rows(); n <= before {
		t.Errorf("%d rows before a change upstream, %d after it", before, n)
	}
	quiet := lastQuery()
	polled(5)
	if last := lastQuery(); !last.Equal(quiet) {
		t.Errorf("a query began at %v, after the last change was written at %v", last, quiet)
	}
}
