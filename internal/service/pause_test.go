package service_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/testenv"
)

// TestPauseAndResume: an operator stops the active worker and lets it go on, through
// either worker's address; the pause outlives the worker that was active, and both
// acts are in the audit.
func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	a := startApart(t, nil)
	a.webhooks(false)
	first := a.active()
	second := a.other(first)
	at := func(w *process) map[string]string {
		return a.with(map[string]string{"TRUEUP_OPS_URL": a.opsOf(w)})
	}
	a.reportMany("ann", a.generate("/before", 10))
	a.env["TRUEUP_OPS_URL"] = a.opsOf(first)
	a.settledOnce(10)

	must(t, at(second), "pause", "--note", "by the standby's address")
	first.said(`"worker.paused","why":"operator"`)
	a.reportMany("ann", a.generate("/paused", 10))
	if s := a.status(); !s.Worker.Here || !s.Worker.Paused || s.Worker.Note != "by the standby's address" {
		t.Errorf("status of the active worker: %+v", s.Worker)
	}
	first.kill9()
	second.said(`"paused":true`) // its turn begins so
	a.env["TRUEUP_OPS_URL"] = a.opsOf(second)
	first.restart()
	a.answers(a.opsOf(first) + "/readyz")
	if n := a.lines(); n != 10 {
		t.Errorf("%d events have an end, want the 10 from before the pause", n)
	}

	must(t, at(first), "resume", "--note", "by the other's") // the standby now
	a.settledOnce(20)
	for verb, note := range map[string]string{"pause": "by the standby's address", "resume": "by the other's"} {
		if n := a.count(`SELECT count(*) FROM trueup.audit WHERE verb=$1 AND note=$2 AND who <> ''`, verb, note); n != 1 {
			t.Errorf("%d audit lines of %s, want 1", n, verb)
		}
	}

	// Who talks to the active worker is told the same.
	must(t, at(second), "pause", "--note", "again")
	a.reportMany("ann", a.generate("/again", 10))
	must(t, at(second), "resume")
	a.settledOnce(30)
	a.nothingParked()
}

// TestPauseNoticeIsLost: nothing depends on the notice that tells the active worker of
// a pause. The next batch finds out from the lease and writes nothing; the end of the
// pause is found out as well.
func TestPauseNoticeIsLost(t *testing.T) {
	t.Parallel()
	in := startServe(t, nil)
	in.webhooks(false)
	in.reportMany("ann", in.generate("/before", 1))
	in.settledOnce(1)
	lease := func(sql string) {
		t.Helper()
		if _, err := in.db.Exec(context.Background(), `UPDATE trueup.leases SET `+sql+` WHERE name = 'worker'`); err != nil {
			t.Fatal(err)
		}
	}
	lease(`paused = true, paused_by = 'somebody', paused_note = 'untold', paused_at = clock_timestamp()`)
	in.reportMany("ann", in.generate("/lost", 5))
	in.dev.said(`"worker.paused","why":"operator"`)
	if s := in.status(); !s.Worker.Paused || s.Worker.By != "somebody" || s.Queue.Waiting+s.Queue.Unacked == 0 {
		t.Errorf("status %+v", s)
	}
	if n := in.lines(); n != 1 {
		t.Errorf("%d events have an end, want the one from before the pause", n)
	}
	in.nothingParked()
	lease(`paused = false`)
	testenv.Eventually(t, time.Minute, func() error {
		if !strings.Contains(in.dev.log.String(), `"worker.resumed","why":"operator"`) {
			return fmt.Errorf("the worker has not noticed the end of the pause")
		}
		return nil
	})
	in.settledOnce(6)
	in.noTries()
}
