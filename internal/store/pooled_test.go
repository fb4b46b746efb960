package store_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/store"
	"github.com/trueup/trueup/internal/testenv"
	"github.com/trueup/trueup/migrations"
)

// Twelve clients over four server connections in transaction mode, on a PgBouncer that
// knows no prepared statements: every method, and settlements at once.
func TestThroughATransactionPooler(t *testing.T) {
	direct := testenv.Postgres(t)
	if err := migrations.Up(t.Context(), direct, migrations.Options{CompatInsert: true}); err != nil {
		t.Fatal(err)
	}
	pooled := testenv.PgBouncer(t, direct, testenv.PgBouncerOptions{PoolSize: 4})
	r := rigOn(t, pooled, direct, func(c *store.Config) { c.MaxConns = 12 })
	var wait sync.WaitGroup
	for n := range 12 {
		wait.Go(func() {
			for i := range 10 {
				id := fmt.Sprintf("f%d", (n+i)%20)
				fence, _, err := r.st.Fence(r.ctx, []string{id})
				if err != nil {
					r.Error(err)
					return
				}
				p := report(id, "ann")
				if _, _, err := r.trySettle([]event.Pending{p}, lookAt(fence, id, snap(id, 0))); err != nil {
					r.Error(err)
				}
				if _, err := r.st.Report(r.ctx, p.ID, "ann"); err != nil {
					r.Error(err)
				}
			}
		})
	}
	wait.Wait()
	r.want("rows", `SELECT count(*) FROM public.imagekit_files WHERE user_id = 'ann'`, 20)
	r.expect(r.see(deleted("f1"), r.look("f1", nil)), file.LookAgain, file.ReasonNoCanary)
	o := r.look("f1", nil)
	o.Canary.FileIDs = []string{"f2"}
	r.expect(r.see(deleted("f1"), o), file.Tombstoned, file.ReasonAnnounced)
	if _, err := r.st.Mark(r.ctx, r.turn, []string{"e"}); err != nil {
		t.Error(err)
	}
	r.die(event.End{}, webhook("f3"), webhook("f4"))
	r.drain(r.start(event.Job{Verb: event.JobReplay}), 1, r.look("f3", snap("f3", 0)), r.look("f4", snap("f4", 0)))
	letters := r.export(event.Filter{State: event.LetterResolved})
	if in, known := r.load("i", letters); len(letters) != 2 || in != 0 || known != 2 {
		t.Errorf("letters %+v, inserted %d, known %d", letters, in, known)
	}
	if _, err := r.st.Preview(r.ctx, []event.Pending{webhook("f3")}, nil, settleTable); err != nil {
		t.Error(err)
	}
	if err := r.st.Blame(r.ctx, r.turn, []string{"e"}, "stack"); err != nil {
		t.Error(err)
	}
	if _, err := r.st.Status(r.ctx); err != nil {
		t.Error(err)
	}
	if _, err := r.st.Passport(r.ctx, "f1"); err != nil {
		t.Error(err)
	}
	if live, err := r.st.LiveFiles(r.ctx, 5, []string{"f2"}); err != nil || len(live) != 5 {
		t.Errorf("live files %v, %v", live, err)
	}
	if _, err := r.st.SetPaused(r.ctx, true, store.Act{Who: "op"}); err != nil {
		t.Error(err)
	}
	// The settings of a transaction end with it: whoever gets the server connection next
	// is no writer of ours.
	config, err := pgx.ParseConfig(pooled)
	if err != nil {
		t.Fatal(err)
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	for range 12 {
		conn, err := pgx.ConnectConfig(r.ctx, config)
		if err != nil {
			t.Fatal(err)
		}
		var writer string
		if err := conn.QueryRow(r.ctx, `SELECT coalesce(current_setting('trueup.writer', true), '')`).Scan(&writer); err != nil || writer != "" {
			t.Errorf("a setting leaked: %q, %v", writer, err)
		}
		_ = conn.Close(r.ctx)
	}
}
