package ingest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
)

// ledger answers reports as told, counts the questions, and signals each.
type ledger struct {
	mu     sync.Mutex
	status ReportStatus
	err    error
	asked  chan string
}

func newLedger() *ledger {
	return &ledger{status: ReportStatus{State: Pending}, asked: make(chan string, 100)}
}

func (l *ledger) Report(_ context.Context, eventID, user string) (ReportStatus, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked <- eventID + " " + user
	return l.status, l.err
}

func (l *ledger) become(s ReportStatus) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.status = s
}

// notices is a Settled that is told by hand; each Wait is signalled.
type notices struct {
	waiting chan string
	settled chan struct{}
}

func (n *notices) Wait(ctx context.Context, id string) error {
	n.waiting <- id
	select {
	case <-n.settled:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// reported makes a report of user and returns where to ask about it.
func (b *bench) reported(user string) string {
	b.t.Helper()
	w := b.report(user, report)
	if w.Code != http.StatusAccepted {
		b.t.Fatal(w.Code, w.Body)
	}
	return w.Header().Get("Location")
}

func TestReportStatus(t *testing.T) {
	ask := func(t *testing.T, s ReportStatus) map[string]any {
		l := newLedger()
		l.become(s)
		b := setup(t, func(c *Config) { c.Reports = l })
		w := b.get("u", b.reported("u"))
		if got, want := <-l.asked, b.queue.taken()[0].ID+" u"; got != want {
			t.Fatalf("asked for %s, want %s", got, want)
		}
		if w.Header().Get("Cache-Control") != "no-store" {
			t.Fatal(w.Header())
		}
		return expect(t, w, http.StatusOK, "")
	}
	t.Run("Pending", func(t *testing.T) {
		if m := ask(t, ReportStatus{State: Pending}); fmt.Sprint(m) != "map[state:pending success:true]" {
			t.Fatal(m)
		}
	})
	t.Run("VerifiedShowsTheFile", func(t *testing.T) {
		name, width := "a.jpg", int32(0)
		m := ask(t, ReportStatus{State: Verified, File: &file.Snapshot{
			ID: "f", URL: "https://ik.imagekit.io/demo_id/a.jpg", Name: &name, Width: &width, Tickets: []string{"tu1.secret"}, CreatedAt: start,
		}})
		if got := fmt.Sprint(m); got != "map[file:map[createdAt:2026-01-02T03:04:05.678Z fileId:f name:a.jpg url:https://ik.imagekit.io/demo_id/a.jpg width:0] state:verified success:true]" {
			t.Fatal(got)
		}
	})
	t.Run("RejectedGivesOneReasonAndNoFile", func(t *testing.T) {
		m := ask(t, ReportStatus{State: Rejected, File: &file.Snapshot{ID: "f"}})
		if fmt.Sprint(m) != "map[reason:not_claimable state:rejected success:true]" {
			t.Fatal(m)
		}
	})
}

func TestReportRefuses(t *testing.T) {
	l := newLedger()
	b := setup(t, func(c *Config) { c.Reports = l })
	where := b.reported("u")
	t.Run("AForeignID", func(t *testing.T) {
		foreign := b.get("v", where)
		m := fmt.Sprint(expect(t, foreign, http.StatusNotFound, "not_found"))
		forged := expect(t, b.get("v", where[:len(where)-3]+"AAA"), http.StatusNotFound, "not_found")
		if fmt.Sprint(forged) != m {
			t.Fatal(forged, m)
		}
	})
	t.Run("OneOlderThanRetention", func(t *testing.T) {
		old := setup(t, func(c *Config) { c.Reports, c.Tickets, c.ReportRetention = l, b.tickets, time.Minute })
		old.now = start.Add(time.Minute + time.Second)
		r := httptest.NewRequest(http.MethodGet, where, nil)
		r.Header.Set("Authorization", "Bearer "+old.token("u"))
		expect(t, old.do(r), http.StatusGone, "report_expired")
	})
	if n := len(l.asked); n != 0 {
		t.Fatalf("asked %d times", n)
	}
	t.Run("NobodyButSaysSoWhileTheDatabaseIsDown", func(t *testing.T) {
		l.err = fmt.Errorf("%w: SECRET", event.ErrOutage)
		w := b.get("u", where)
		m := expect(t, w, http.StatusServiceUnavailable, "status_unavailable")
		if w.Header().Get("Retry-After") == "" || strings.Contains(fmt.Sprint(m), "SECRET") {
			t.Fatal(m)
		}
	})
}

// waiting asks with ?wait= in the background; the channel gives the answer.
func (b *bench) waiting(path string) <-chan map[string]any {
	answers := make(chan map[string]any, 1)
	go func() { answers <- decoded(b.t, b.get("u", path)) }()
	return answers
}

func TestWait(t *testing.T) {
	t.Run("EndsAtTheNotice", func(t *testing.T) {
		l, n := newLedger(), &notices{make(chan string, 1), make(chan struct{})}
		b := setup(t, func(c *Config) { c.Reports, c.Settled = l, n })
		answer := b.waiting(b.reported("u") + "?wait=25s")
		if id := <-n.waiting; id != b.queue.taken()[0].ID {
			t.Fatal(id)
		}
		<-l.asked
		l.become(ReportStatus{State: Rejected})
		close(n.settled)
		if m := <-answer; m["state"] != "rejected" {
			t.Fatal(m)
		}
	})
	t.Run("LooksByItselfWhenTheNoticeIsLost", func(t *testing.T) {
		l := newLedger()
		b := setup(t, func(c *Config) { c.Reports = l })
		answer := b.waiting(b.reported("u") + "?wait=25")
		for range 3 { // the first, then by itself
			select {
			case <-l.asked:
			case m := <-answer:
				t.Fatal("answered without looking again", m)
			}
		}
		l.become(ReportStatus{State: Verified, File: &file.Snapshot{ID: "f"}})
		if m := <-answer; m["state"] != "verified" {
			t.Fatal(m)
		}
	})
	t.Run("NeverSpinsOnANoticeThatDecidesNothing", func(t *testing.T) {
		l, n := newLedger(), &notices{make(chan string, 1), make(chan struct{})}
		close(n.settled)
		b := setup(t, func(c *Config) { c.Reports, c.Settled = l, n })
		if m := <-b.waiting(b.reported("u") + "?wait=300ms"); m["state"] != "pending" {
			t.Fatal(m)
		}
		if asked := len(l.asked); asked > 3 {
			t.Fatalf("asked %d times", asked)
		}
	})
	t.Run("EndsWhenTheProcessStops", func(t *testing.T) {
		l, draining := newLedger(), make(chan struct{})
		b := setup(t, func(c *Config) { c.Reports, c.Draining = l, draining })
		answer := b.waiting(b.reported("u") + "?wait=25s")
		<-l.asked
		close(draining)
		if m := <-answer; m["state"] != "pending" {
			t.Fatal(m)
		}
		if asked := len(l.asked); asked > 1 {
			t.Fatalf("went on to ask %d times", asked)
		}
	})
	t.Run("EndsWhenTheClientLeaves", func(t *testing.T) {
		l := newLedger()
		b := setup(t, func(c *Config) { c.Reports = l })
		ctx, leave := context.WithCancel(t.Context())
		r := httptest.NewRequest(http.MethodGet, b.reported("u")+"?wait=25s", nil).WithContext(ctx)
		r.Header.Set("Authorization", "Bearer "+b.token("u"))
		done := make(chan struct{})
		go func() { defer close(done); b.do(r) }()
		<-l.asked
		leave()
		<-done
	})
	t.Run("IsCapped", func(t *testing.T) {
		for given, want := range map[string]time.Duration{"": 0, "1h": maxWait, "9999999999": maxWait, "2s": 2 * time.Second, "3": 3 * time.Second} {
			r := httptest.NewRequest(http.MethodGet, "/reports/x?wait="+given, nil)
			if got, err := waitOf(r); err != nil || got != want {
				t.Errorf("%q: %s, %v", given, got, err)
			}
		}
		for _, given := range []string{"-1s", "-5", "soon", "1e9"} {
			r := httptest.NewRequest(http.MethodGet, "/reports/x?wait="+given, nil)
			var p *problem
			if got, err := waitOf(r); !errors.As(err, &p) {
				t.Errorf("%q: %s, %v", given, got, err)
			}
		}
	})
	t.Run("IsForSoManyAtOnceOnly", func(t *testing.T) {
		h := &handler{}
		for range maxWaiting {
			if !h.enterWait() {
				t.Fatal("refused too early")
			}
		}
		if h.enterWait() || h.waiting.Load() != maxWaiting {
			t.Fatal("one too many")
		}
	})
}
