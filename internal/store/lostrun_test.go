package store_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/run"
	"github.com/trueup/trueup/internal/store"
	"github.com/trueup/trueup/internal/testenv"
	"github.com/trueup/trueup/migrations"
)

// slowRuns makes every COMMIT that writes a run, a finding or the fuse wait for an
// advisory lock, so that a test can act while it is on its way.
const slowRuns = `
CREATE FUNCTION public.wait_at_commit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock(42); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER wait_at_commit AFTER INSERT OR UPDATE ON trueup.runs DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.wait_at_commit();
CREATE CONSTRAINT TRIGGER wait_at_commit AFTER INSERT OR UPDATE ON trueup.findings DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.wait_at_commit();
CREATE CONSTRAINT TRIGGER wait_at_commit AFTER INSERT OR UPDATE ON trueup.fuse DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.wait_at_commit();`

// everything that these methods write, but for the moments at which they did.
const allOfRuns = `SELECT concat_ws(' ', (SELECT count(*) FROM trueup.audit), (SELECT latched_at IS NOT NULL FROM trueup.fuse), (SELECT account_doubt FROM trueup.fuse),
	(SELECT string_agg(concat_ws(':', state, phase, remote_rows, expected_deletions), ' ') FROM trueup.runs),
	(SELECT string_agg(concat_ws(':', file_id, status, reason, event_id IS NOT NULL, published_at IS NOT NULL), ' ' ORDER BY file_id) FROM trueup.findings))`

// Each method twice over a lost connection: the commit never happened, or it did and only
// the reply was lost. Called again, it leaves what one call would have left.
func TestALostReplyOfARun(t *testing.T) {
	kinds := []run.FindingKind{run.Missing, run.Orphaned}
	for name, call := range map[string]func(r *rig, it run.Run) error{
		"StartRun": func(r *rig, _ run.Run) error {
			_, err := r.st.StartRun(r.ctx, run.Run{Kind: run.Full, StartedBy: "op", Key: "k"})
			return err
		},
		"ApplyRun": func(r *rig, it run.Run) error {
			_, err := r.st.ApplyRun(r.ctx, it.ID, run.Apply{Who: "op", Key: "k", ExpectDeletions: number(0)})
			return err
		},
		"CancelRun": func(r *rig, it run.Run) error {
			_, err := r.st.CancelRun(r.ctx, it.ID, store.Act{Who: "op"})
			return err
		},
		"SaveRun":   func(r *rig, it run.Run) error { it.Listed = 5; return r.st.SaveRun(r.ctx, r.turn, it) },
		"FinishRun": func(r *rig, it run.Run) error { it.State = run.Complete; return r.st.FinishRun(r.ctx, r.turn, it) },
		"SaveFindings": func(r *rig, it run.Run) error {
			return r.st.SaveFindings(r.ctx, r.turn, it.ID, findings(run.Missing, "f1", "f2", "f3"))
		},
		"CloseFindings": func(r *rig, it run.Run) error {
			_, err := r.st.CloseFindings(r.ctx, r.turn, it.ID, kinds, run.Refused, "x")
			return err
		},
		"TakeFindings": func(r *rig, it run.Run) error {
			_, err := r.st.TakeFindings(r.ctx, r.turn, it.ID, kinds, 1)
			return err
		},
		"ConfirmFindings": func(r *rig, it run.Run) error { return r.st.ConfirmFindings(r.ctx, r.turn, it.ID, []string{"E"}) },
		"LatchFuse":       func(r *rig, it run.Run) error { return r.st.LatchFuse(r.ctx, r.turn, it.ID, "x") },
		"DoubtAccount":    func(r *rig, it run.Run) error { return r.st.DoubtAccount(r.ctx, r.turn, it.ID, "x") },
	} {
		for _, happened := range []bool{false, true} {
			t.Run(name+map[bool]string{false: "/NothingHappened", true: "/ItHappened"}[happened], func(t *testing.T) {
				lost, quiet := lostReply(t, name, happened, call), quietly(t, name, call)
				if lost != quiet {
					t.Errorf("left\n%s, and without a fault\n%s", lost, quiet)
				}
			})
		}
	}
}

// prepareRun is what stands there before the call.
func prepareRun(r *rig, method string) run.Run {
	r.Helper()
	if method == "StartRun" {
		return run.Run{}
	}
	it := r.compared(run.Full, 0)
	r.save(it, findings(run.Missing, "f1", "f2")...)
	r.save(it, findings(run.Orphaned, "f4")...)
	switch method {
	case "ConfirmFindings":
		r.exec(`UPDATE trueup.findings SET event_id = 'E' WHERE file_id = 'f1'`)
	case "ApplyRun":
		r.must(r.st.LatchFuse(r.ctx, r.turn, it.ID, "x"))
		it = r.finish(it, run.Partial)
	}
	return it
}

func quietly(t *testing.T, method string, call func(*rig, run.Run) error) string {
	r := newRig(t)
	r.must(call(r, prepareRun(r, method)))
	return one[string](r, allOfRuns)
}

func lostReply(t *testing.T, method string, happened bool, call func(*rig, run.Run) error) string {
	direct := testenv.Postgres(t)
	if err := migrations.Up(t.Context(), direct, migrations.Options{}); err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(direct)
	if err != nil {
		t.Fatal(err)
	}
	link := testenv.Cut(t, u.Host)
	r := rigOn(t, link.URL(direct), direct, func(c *store.Config) { c.ConnectTimeout = 2 * time.Second })
	it := prepareRun(r, method)
	before := one[string](r, allOfRuns)
	r.exec(slowRuns)
	holder := r.connect()
	if _, err := holder.Exec(r.ctx, `SELECT pg_advisory_lock(42)`); err != nil {
		t.Fatal(err)
	}
	var lost error
	var wait sync.WaitGroup
	wait.Go(func() { lost = call(r, it) })
	r.blocked(1)
	if happened {
		link.DropReplies()
		r.unlock(holder)
		testenv.Eventually(r, 10*time.Second, func() error {
			if one[string](r, allOfRuns) == before {
				return errors.New("not committed yet")
			}
			return nil
		})
		link.Cut()
	} else {
		r.exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'`)
		wait.Wait()
		r.unlock(holder)
		r.want("left behind", allOfRuns, before)
	}
	wait.Wait()
	wantErr(t, lost, event.ErrOutage)
	link.Restore()
	r.must(call(r, it))
	return one[string](r, allOfRuns)
}

// The id under which a finding is asked about is the same after a lost reply: the event
// may be published already.
func TestALostReplyDrawsNoSecondEvent(t *testing.T) {
	r := newRig(t)
	it := r.begin(run.Full)
	r.save(it, findings(run.Missing, "f1", "f2")...)
	ctx, stop := context.WithCancel(r.ctx)
	r.exec(slowRuns)
	holder := r.connect()
	if _, err := holder.Exec(r.ctx, `SELECT pg_advisory_lock(42)`); err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	wait.Go(func() {
		if _, err := r.st.TakeFindings(ctx, r.turn, it.ID, []run.FindingKind{run.Missing}, 1); err == nil {
			t.Error("nothing was lost")
		}
	})
	r.blocked(1)
	stop() // the process ends here; the server may commit or not
	wait.Wait()
	r.unlock(holder)
	drawn := r.takeFindings(it, 1, run.Missing)
	if again := r.takeFindings(it, 1, run.Missing); fmt.Sprint(again) != fmt.Sprint(drawn) {
		t.Errorf("took %+v, then %+v", drawn, again)
	}
	r.want("events drawn", `SELECT count(event_id) FROM trueup.findings`, 1)
}
