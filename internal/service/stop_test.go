package service_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/testenv"
)

// load reports files one by one, eight at a time, until each is answered 202.
type load struct {
	wg      sync.WaitGroup
	refused atomic.Int64 // answered 503
}

// under starts reporting; about half of it is done when half is called.
func (in *installation) under(ids []string, half func()) *load {
	in.t.Helper()
	l, work := &load{}, make(chan string)
	for range 8 {
		l.wg.Go(func() {
			for id := range work {
				testenv.Eventually(in.t, 2*time.Minute, func() error {
					a := in.call("ann", "POST", "/save-metadata", map[string]string{"fileId": id})
					switch a.status {
					case http.StatusAccepted:
						return nil
					case http.StatusServiceUnavailable:
						l.refused.Add(1)
						if err := a.refused(in); err != nil {
							in.t.Error(err)
						}
					}
					return fmt.Errorf("report of %s: %d %s", id, a.status, a.body)
				})
			}
		})
	}
	l.wg.Go(func() {
		for i, id := range ids {
			if i == len(ids)/2 {
				half()
			}
			work <- id
		}
		close(work)
	})
	return l
}

// TestStopUnderLoad: SIGTERM while reports come in and batches are under way: exit
// code 0, what was accepted is settled by the next process, and nothing was left on
// trial.
func TestStopUnderLoad(t *testing.T) {
	t.Parallel()
	in := startServe(t, map[string]string{"TRUEUP_RATE_PER_USER": "0"})
	in.webhooks(false)
	in.settings(map[string]any{"rateLimit": map[string]any{"perSecond": 0, "burst": 0}})
	ids := in.generate("/stop", 300)
	in.plantFault(map[string]any{"path": "/v1/files*", "latency": "50ms"})
	stopped := make(chan struct{})
	l := in.under(ids, func() {
		in.dev.stop()
		if code := in.dev.code(); code != 0 {
			t.Errorf("exit code %d after SIGTERM, want 0", code)
		}
		in.dev.restart()
		close(stopped)
	})
	<-stopped
	l.wg.Wait()
	in.settles(time.Minute)
	in.healFaults()
	in.owned(len(ids), "ann")
	if n := in.lines(); n < len(ids) {
		t.Errorf("%d events have an end, at least %d were accepted", n, len(ids))
	}
	if n := in.count(`SELECT count(*) FROM trueup.trial_marks`); n != 0 {
		t.Errorf("%d trial marks were left", n)
	}
	if s := in.stats(); s.Faults == 0 {
		t.Error("no answer was slow: this proves nothing")
	}
	in.nothingParked()
	in.identity()
}

// TestFrozenWorkerWritesNothing: the active worker is frozen while it waits for
// ImageKit, for longer than its turn lasts. Another one takes over and settles; when
// the first wakes up, with its answer in hand, it writes nothing and stands by.
func TestFrozenWorkerWritesNothing(t *testing.T) {
	t.Parallel()
	a := startApart(t, nil)
	a.webhooks(false)
	frozen := a.active()
	ops := a.opsOf(frozen)
	ids := a.generate("/frozen", 3)
	number := a.plantFault(map[string]any{"path": "/v1/files/*/details", "fileId": ids[0], "latency": "3s", "times": 1})
	a.hint(ids[0])
	testenv.Eventually(t, time.Minute, func() error {
		if a.fired()[number] == 0 {
			return fmt.Errorf("the worker has not asked yet")
		}
		return nil
	})
	frozen.freeze()
	for _, id := range ids[1:] {
		a.hint(id)
	}
	a.env["TRUEUP_OPS_URL"] = a.opsOf(a.other(frozen))
	testenv.Eventually(t, 2*time.Minute, func() error {
		if s := a.status(); !s.Worker.Here {
			return fmt.Errorf("nobody else has taken the turn: %+v", s)
		}
		return nil
	})
	a.settledOnce(len(ids))
	frozen.thaw()
	testenv.Eventually(t, time.Minute, func() error {
		if text := frozen.log.String(); !strings.Contains(text, "turn.ended") {
			return fmt.Errorf("the thawed worker still believes in its turn")
		}
		return nil
	})
	a.settledOnce(len(ids))
	if n := a.metric(ops, "trueup_events_settled_total"); n != 0 {
		t.Errorf("the frozen worker settled %v events after its turn", n)
	}
	if n := a.metric(a.env["TRUEUP_OPS_URL"], "trueup_events_settled_total", `end="done"`); n != float64(len(ids)) {
		t.Errorf("the other worker settled %v events, want %d", n, len(ids))
	}
	if n := a.count(`SELECT count(*) FROM trueup.trial_marks`); n != 0 {
		t.Errorf("%d trial marks were left", n)
	}
}

// opsOf is the operator address of a worker.
func (a *apart) opsOf(w *process) string {
	for _, kv := range w.env {
		if v, ok := strings.CutPrefix(kv, "TRUEUP_OPS_ADDR="); ok {
			return "http://" + v
		}
	}
	a.t.Fatal("a worker without an operator address")
	return ""
}

// other is the worker that w is not.
func (a *apart) other(w *process) *process {
	for _, o := range a.workers {
		if o != w {
			return o
		}
	}
	return nil
}

// freeze stops a process where it stands; the test's end lets it go on, so that it can
// be told to end.
func (p *process) freeze() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(p.thaw)
}

func (p *process) thaw() { _ = p.cmd.Process.Signal(syscall.SIGCONT) }
