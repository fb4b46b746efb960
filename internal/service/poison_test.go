package service_test

import (
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/testenv"
)

// Poison that no recover catches, with the real binary: a build whose worker spins, eats
// the memory or hangs where an event's body asks for it. What is counted: restarts, dead
// letters, rows. That the watchdog finds the right event is tested in worker.

// TestI15SpinningAndEatingEvents: three such events in one envelope with 57 healthy
// ones. Every healthy one becomes a row, each of the three costs at most two restarts of
// the same process and ends alone in class trueup, with the stack of what it was doing.
func TestI15SpinningAndEatingEvents(t *testing.T) {
	t.Parallel()
	in := startServe(t, map[string]string{"TRUEUP_STEP_LIMIT": "1s", "TRUEUP_MEMORY_LIMIT": "1GiB"})
	in.webhooks(false)
	in.dev.stop()
	in.dev.tags = []string{"planted"}
	in.dev.restart()
	in.answers(in.env["TRUEUP_URL"] + "/readyz")
	pid := in.dev.cmd.Process.Pid

	in.control("POST", "files/generate", map[string]any{"count": 80, "folder": "/poison", "spread": "20m"})
	plants := map[string]string{}
	var reports []map[string]string
	for id := range in.library() {
		report := map[string]string{"fileId": id}
		if i := len(reports); i < 60 && i%20 == 7 {
			report["plant"] = []string{"spin", "eat", "hang"}[i/20]
			plants[id] = report["plant"]
		}
		reports = append(reports, report)
	}
	in.call("ann", "POST", "/save-metadata", reports[:60]).want(t, http.StatusAccepted)
	in.call("ann", "POST", "/save-metadata", reports[60:]).want(t, http.StatusAccepted)

	testenv.Eventually(t, 3*time.Minute, func() error {
		dead, rows := in.count("SELECT count(*) FROM trueup.dead_letters"), in.count("SELECT count(*) FROM public.imagekit_files WHERE user_id = 'ann'")
		if dead != len(plants) || rows != len(reports)-len(plants) {
			return fmt.Errorf("%d dead letters and %d rows, want %d and %d", dead, rows, len(plants), len(reports)-len(plants))
		}
		return nil
	})
	for id, plant := range plants {
		frame := map[string]string{"spin": "worker.spin", "eat": "worker.eat", "hang": "worker.plant"}[plant]
		if n := in.count(`SELECT count(*) FROM trueup.dead_letters WHERE file_id = $1 AND class = 'trueup' AND reason = 'poison' AND state = 'dead'
			AND attempts::text LIKE '%' || $2 || '%'`, id, frame); n != 1 {
			t.Errorf("the event that should %s: %d dead letters of class trueup with %s in the stack, want 1", plant, n, frame)
		}
	}
	if restarts := strings.Count(in.dev.log.String(), "worker.restart"); restarts < len(plants) || restarts > 2*len(plants) {
		t.Errorf("%d restarts for %d poisonous events, want at most two each", restarts, len(plants))
	} else {
		t.Logf("%d restarts for %d poisonous events", restarts, len(plants))
	}
	in.answers(in.env["TRUEUP_URL"] + "/readyz")
	if err := in.dev.cmd.Process.Signal(syscall.Signal(0)); err != nil || in.dev.cmd.Process.Pid != pid {
		t.Errorf("process %d is gone: %v", pid, err)
	}
	if n := in.count("SELECT count(*) FROM trueup.trial_marks"); n != 0 {
		t.Errorf("%d trial marks are left", n)
	}
}
