package service_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/trueup/trueup/internal/testenv"
)

// TestImageKitIsAway: while ImageKit as a whole fails, or does not let us in, the
// worker pauses; nothing is parked and no attempt counted; ingest goes on accepting.
// Afterwards everything is settled as if nothing had been.
func TestImageKitIsAway(t *testing.T) {
	t.Parallel()
	in := startServe(t, map[string]string{"TRUEUP_API_TIMEOUT": "400ms", "TRUEUP_RATE_PER_USER": "0"})
	in.webhooks(false)
	in.settings(map[string]any{"rateLimit": map[string]any{"perSecond": 0, "burst": 0}})
	known := in.generate("/known", 3)
	in.reportMany("ann", known)
	accepted := len(known)
	in.settledOnce(accepted)
	for _, c := range []struct {
		name  string
		fault map[string]any
	}{
		{"KeyRevoked401", map[string]any{"status": 401, "body": map[string]any{"message": "Your request does not contain a valid private API key."}}},
		{"KeyRestricted403", map[string]any{"status": 403, "body": map[string]any{"message": "Not allowed."}}},
		{"Everything500", map[string]any{"status": 500, "body": map[string]any{"message": "planted"}}},
		{"Everything503HTML", map[string]any{"status": 503, "body": "<html>down</html>"}},
		{"EverythingIsCut", map[string]any{"close": true, "status": 200}},
		{"EverythingHangs", map[string]any{"latency": "10s"}},
	} {
		t.Run(c.name, in.sub(func(in *installation) {
			ids := in.generate("/away-"+strings.ToLower(c.name), 8)
			before, lines := in.stats().Faults, in.lines()
			c.fault["path"] = "/v1/*"
			in.plantFault(c.fault)
			reports := in.reportMany("ann", ids)
			in.hint(ids[0])
			in.awaitOutage("imagekit")
			in.hint(known[0]) // ingest goes on
			in.awaitFaults(before, 8)
			in.nothingParked()
			if n := in.lines(); n != lines {
				in.t.Errorf("%d events ended although nobody could be asked", n-lines)
			}
			in.stillReady("imagekit")
			in.healFaults()
			accepted += len(ids) + 2
			in.settledOnce(accepted)
			in.outcomeIs("ann", reports[0], "verified")
			in.noTries()
		}))
	}
	in.dev.neverEnded()
}

// stillReady fails unless /readyz answers 200 and shows that what is down.
func (in *installation) stillReady(what string) {
	in.t.Helper()
	a := in.call("", "GET", "/readyz", nil).want(in.t, http.StatusOK)
	if how := a.text(in.t, what); !strings.HasPrefix(how, "down") {
		in.t.Errorf("/readyz says that %s is %q", what, how)
	}
}

// TestKeyOfAnotherAccount: with a key that sees another library every file is a 404.
// No row may go, however long it lasts; when the key is right again, nothing has
// happened.
func TestKeyOfAnotherAccount(t *testing.T) {
	t.Parallel()
	in := startServe(t, map[string]string{"TRUEUP_RATE_PER_USER": "0", "TRUEUP_ABSENT_CONFIRM": "200ms"})
	in.webhooks(false)
	in.settings(map[string]any{"rateLimit": map[string]any{"perSecond": 0, "burst": 0}})
	ids := in.generate("/mine", 5) // too few for the fuse, which would hold the rows, too
	in.reportMany("ann", ids)
	in.settledOnce(len(ids))
	before := in.rows()
	// What vouched for the key a moment ago is forgotten with the process.
	in.dev.stop()
	fired := in.stats().Faults
	in.plantFault(map[string]any{"path": "/v1/files/*/details", "status": 404, "body": map[string]any{"message": "The requested file does not exist."}})
	in.plantFault(map[string]any{"path": "/v1/files", "status": 200, "body": []any{}})
	in.dev.restart()
	in.answers(in.env["TRUEUP_URL"] + "/readyz")
	for _, id := range ids {
		in.hint(id)
	}
	in.awaitFaults(fired, 6*len(ids))
	if n := len(in.rows()); n != len(ids) {
		t.Errorf("%d of %d rows are left", n, len(ids))
	}
	in.healFaults()
	in.settledOnce(2 * len(ids))
	for id, r := range before {
		if in.rows()[id].XMin != r.XMin {
			t.Errorf("row %s was rewritten", id)
		}
	}
}

// reads makes the test itself read from another address than trueup.
func (in *installation) reads(url string) {
	in.t.Helper()
	db, err := pgxpool.New(context.Background(), url)
	if err != nil {
		in.t.Fatal(err)
	}
	in.t.Cleanup(db.Close)
	in.db = db
}

// TestPostgresIsKilled: kill -9 and a stop of the database while reports and webhooks
// come in. Ingest accepts all the while, cannot say what became of a report, and is
// restarted meanwhile, too; then everything is settled once.
func TestPostgresIsKilled(t *testing.T) {
	t.Parallel()
	pg := testenv.PostgresServer(t)
	in := startServe(t, map[string]string{"DATABASE_URL": pg.URL(), "TRUEUP_RATE_PER_USER": "0"})
	in.webhooks(false)
	accepted := 0
	for _, c := range []struct {
		name      string
		down      func()
		restarted bool
	}{{"Killed", pg.Kill9, false}, {"Stopped", pg.Stop, false}, {"StoppedBeforeServeStarts", pg.Stop, true}} {
		t.Run(c.name, in.sub(func(in *installation) {
			ids := in.generate("/pg-"+strings.ToLower(c.name), 20)
			in.reportMany("ann", ids[:5])
			c.down()
			if c.restarted {
				in.dev.stop()
				in.dev.restart()
				in.answers(in.env["TRUEUP_URL"] + "/readyz")
			}
			reports := in.reportMany("ann", ids[5:])
			in.hint(ids[0])
			if err := in.call("ann", "GET", "/reports/"+reports[0], nil).refused(in); err != nil {
				in.t.Error(err)
			}
			if s := in.awaitOutage("database"); s.Unavailable["database"] == "" {
				in.t.Errorf("status does not say why the database cannot be asked: %+v", s)
			}
			in.stillReady("database")
			pg.Start()
			in.db.Reset() // its connections ended with the server, too
			accepted += len(ids) + 1
			in.settledOnce(accepted)
			in.outcomeIs("ann", reports[0], "verified")
			in.nothingParked()
		}))
	}
	in.dev.neverEnded()
}

// TestCommitReplyIsLost: the settling transaction's COMMIT is under way when the
// connection dies. It happened all the same, it happens later, or it never happened:
// the rows are right and each event has its one line.
func TestCommitReplyIsLost(t *testing.T) {
	t.Parallel()
	direct := testenv.Postgres(t)
	cfg, err := pgx.ParseConfig(direct)
	if err != nil {
		t.Fatal(err)
	}
	link := testenv.Cut(t, fmt.Sprintf("%s:%d", cfg.Host, cfg.Port))
	in := startServe(t, map[string]string{"DATABASE_URL": link.URL(direct), "TRUEUP_RATE_PER_USER": "0"})
	in.webhooks(false)
	in.reads(direct)
	hold := in.holdCommits()
	already := func() float64 {
		return in.metric(in.env["TRUEUP_OPS_URL"], "trueup_events_already_settled_total")
	}
	accepted := 0
	for _, c := range []struct {
		name     string
		fault    func(release func())
		happened bool
	}{
		{"ReplyDroppedAndItHappened", func(release func()) {
			link.DropReplies()
			release()
			testenv.Eventually(t, time.Minute, func() error {
				if link.Dropped() == 0 {
					return fmt.Errorf("no reply was dropped")
				}
				return nil
			})
			link.Restore()
		}, true},
		{"CutAndItHappensLater", func(release func()) {
			// Cut until it has happened: the driver sends a cancel request after a connection
			// that broke, and where that came through first the commit would not happen.
			before := in.lines()
			link.Cut()
			release()
			testenv.Eventually(t, time.Minute, func() error {
				if in.lines() == before {
					return fmt.Errorf("the commit has not happened")
				}
				return nil
			})
			link.Restore()
		}, true},
		{"TerminatedAndNothingHappened", func(release func()) {
			if n := in.count(`SELECT count(*) FROM (SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND wait_event = 'advisory') x`); n == 0 {
				in.t.Error("nobody was terminated")
			}
			release()
		}, false},
	} {
		t.Run(c.name, in.sub(func(in *installation) {
			ids := in.generate("/commit-"+strings.ToLower(c.name), 6)
			before := already()
			release := hold()
			in.reportMany("ann", ids)
			in.awaitHeldCommit()
			c.fault(release)
			accepted += len(ids)
			in.settledOnce(accepted)
			in.nothingParked()
			if n := already() - before; (n > 0) != c.happened {
				in.t.Errorf("%v events were found settled when they came again, although the commit had happened: %t", n, c.happened)
			}
		}))
	}

	t.Run("CutAnywhere", in.sub(func(in *installation) {
		for n := int64(50); n < 6000; n = n*5/4 + 7 {
			ids := in.generate(fmt.Sprintf("/cut-%d", n), 2)
			link.CutAfterBytes(n)
			in.reportMany("ann", ids)
			in.hint(ids[0])
			in.hint(ids[1])
			testenv.Eventually(in.t, time.Minute, func() error {
				if c, err := pgx.Connect(context.Background(), link.URL(direct)); err == nil {
					_ = c.Close(context.Background())
					return fmt.Errorf("the link has not been cut after %d bytes", n)
				}
				return nil
			})
			link.Restore()
			accepted += 4
		}
		in.settledOnce(accepted)
		in.nothingParked()
	}))
	in.dev.neverEnded()
}

// holdCommits makes each commit that adds to the ledger wait for an advisory lock, and
// returns what takes the lock; that returns what releases it.
func (in *installation) holdCommits() (hold func() (release func())) {
	in.t.Helper()
	for _, sql := range []string{
		`CREATE FUNCTION public.hold_commit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock_shared(4711); RETURN NULL; END $$`,
		`CREATE CONSTRAINT TRIGGER hold_commit AFTER INSERT ON trueup.ledger DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.hold_commit()`,
	} {
		if _, err := in.db.Exec(context.Background(), sql); err != nil {
			in.t.Fatal(err)
		}
	}
	return func() func() {
		c, err := in.db.Acquire(context.Background())
		if err != nil {
			in.t.Fatal(err)
		}
		if _, err := c.Exec(context.Background(), `SELECT pg_advisory_lock(4711)`); err != nil {
			in.t.Fatal(err)
		}
		return func() {
			if _, err := c.Exec(context.Background(), `SELECT pg_advisory_unlock(4711)`); err != nil {
				in.t.Error(err)
			}
			c.Release()
		}
	}
}

// awaitHeldCommit waits until a settling transaction is inside its COMMIT.
func (in *installation) awaitHeldCommit() {
	in.t.Helper()
	testenv.Eventually(in.t, time.Minute, func() error {
		if in.count(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND wait_event = 'advisory' AND query ILIKE 'commit%'`) == 0 {
			return fmt.Errorf("no commit is being held")
		}
		return nil
	})
}

// TestSchemaIsMissing: a database that was never migrated is an outage with a
// sentence that says what to do; nothing is parked, and after `migrate up` it all
// works without a restart.
func TestSchemaIsMissing(t *testing.T) {
	t.Parallel()
	in := startServe(t, nil)
	in.webhooks(false)
	in.dev.stop()
	empty := testenv.Postgres(t)
	in.env["DATABASE_URL"] = empty
	in.dev.set("DATABASE_URL", empty)
	in.dev.restart()
	in.answers(in.env["TRUEUP_URL"] + "/readyz")
	ids := in.generate("/unmigrated", 5)
	reports := in.reportMany("ann", ids)
	in.hint(ids[0])
	const remedy = "trueup migrate up"
	if why := in.awaitOutage("database").Unavailable["database"]; !strings.Contains(why, remedy) {
		t.Errorf("status says of the database %q, which names no remedy", why)
	}
	in.dev.said(remedy)
	if err := in.call("ann", "GET", "/reports/"+reports[0], nil).refused(in); err != nil {
		t.Error(err)
	}
	testenv.Eventually(t, time.Minute, func() error { // it asks at growing intervals
		if n := strings.Count(in.dev.log.String(), "worker.paused"); n < 2 {
			return fmt.Errorf("paused %d times", n)
		}
		return nil
	})
	if n := strings.Count(in.dev.log.String(), "worker.paused"); n > 20 {
		t.Errorf("the worker has asked %d times: it does not wait in between", n)
	}
	must(t, in.env, "migrate", "up")
	in.reads(empty)
	in.settledOnce(len(ids) + 1)
	in.nothingParked()
	in.dev.neverEnded()
}
