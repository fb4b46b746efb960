package service_test

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// snapshot copies the installation's database while trueup is down, and returns what puts
// it back to that state, also while trueup is down.
func (in *installation) snapshot(name string) (restore func()) {
	in.t.Helper()
	cfg, err := pgx.ParseConfig(in.env["DATABASE_URL"])
	if err != nil {
		in.t.Fatal(err)
	}
	own, saved := cfg.Database, cfg.Database+"_"+name
	admin := func(statements ...string) {
		in.t.Helper()
		in.db.Reset()
		other := cfg.Copy()
		other.Database = "postgres"
		c, err := pgx.ConnectConfig(context.Background(), other)
		if err != nil {
			in.t.Fatal(err)
		}
		defer func() { _ = c.Close(context.Background()) }()
		for _, sql := range statements {
			if _, err := c.Exec(context.Background(), sql); err != nil {
				in.t.Fatalf("%s: %v", sql, err)
			}
		}
	}
	// Connections of the process that was killed may be there yet.
	admin(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '`+own+`'`, `CREATE DATABASE `+saved+` TEMPLATE `+own)
	in.t.Cleanup(func() { admin(`DROP DATABASE ` + saved + ` WITH (FORCE)`) })
	return func() {
		in.t.Helper()
		admin(`DROP DATABASE `+own+` WITH (FORCE)`, `CREATE DATABASE `+own+` TEMPLATE `+saved)
	}
}

// TestReconcileAfterARestore: the database is put back to an earlier state while a run's
// spool stays where it is. A spool that is newer than its run is discarded, and a note
// says so; a run that is not there any more is no hindrance to the next.
func TestReconcileAfterARestore(t *testing.T) {
	t.Parallel()
	in := startServe(t, nil)
	in.untold(5000)
	in.wantRun(0, "complete", "run")
	want := in.damage(20)
	in.dev.stop()
	beforeAny := in.snapshot("before")
	in.dev.restart()
	in.answers(in.env["TRUEUP_URL"] + "/readyz")

	in.slowPages("300ms")
	before := len(in.listing())
	id := in.listingPages(2)
	in.dev.kill9()
	inTheMiddle := in.snapshot("middle")
	in.dev.restart()
	in.pagesSince(before, 5)
	in.dev.kill9()
	inTheMiddle()
	in.dev.restart()
	in.answers(in.env["TRUEUP_URL"] + "/readyz")
	in.healFaults()
	r := in.awaitRun(id, 2*time.Minute)
	if r.State != "complete" || r.Listed != 5000-5 {
		t.Errorf("the run ended %+v", r)
	}
	r.noted(t, "the listing's spool was discarded: it is newer than the database")
	in.foundAll(r, want)

	in.slowPages("300ms")
	forgotten := in.listingPages(2)
	in.dev.kill9()
	left := filepath.Join(in.env["TRUEUP_DATA_DIR"], "reconcile", forgotten)
	if _, err := os.Stat(left); err != nil {
		t.Error(err)
	}
	beforeAny()
	in.healFaults()
	in.dev.restart()
	in.answers(in.env["TRUEUP_URL"] + "/readyz")
	in.ops("GET", "/api/runs/"+forgotten, nil).want(t, http.StatusNotFound)
	in.foundAll(in.wantRun(0, "complete", "run"), want)
}
