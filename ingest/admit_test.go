package ingest

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trueup/trueup/internal/event"
)

// slow is a queue that stores nothing until it is told to.
type slow struct {
	stored chan struct{}
	inside atomic.Int64
}

func (s *slow) Publish(ctx context.Context, _ []event.Event) error {
	s.inside.Add(1)
	defer s.inside.Add(-1)
	select {
	case <-s.stored:
		return nil
	case <-ctx.Done():
		return event.ErrNotAccepted
	}
}

// TestOverloadIsToldSoon: as many requests as are worked on at once reach the queue, the
// next ones wait a moment, and then have their answer while the others still wait.
func TestOverloadIsToldSoon(t *testing.T) {
	for name, request := range map[string]func(b *bench) *httptest.ResponseRecorder{
		"Webhook": func(b *bench) *httptest.ResponseRecorder { return b.do(b.delivery(deletion)) },
		"Report":  func(b *bench) *httptest.ResponseRecorder { return b.report("u", report) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := &slow{stored: make(chan struct{})}
				b := setup(t, func(c *Config) { c.Queue = q; c.UserRate = -1 })
				const late = 3
				answers, began := make(chan *httptest.ResponseRecorder, atOnce+late), time.Now()
				for range atOnce + late {
					go func() { answers <- request(b) }()
				}
				for range late {
					w := <-answers
					if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "overloaded") || w.Header().Get("Retry-After") == "" {
						t.Fatalf("%d %s with %v", w.Code, w.Body, w.Header())
					}
				}
				if took := time.Since(began); took != admitWithin {
					t.Errorf("the others were told after %s, not %s", took, admitWithin)
				}
				if n := q.inside.Load(); n != atOnce {
					t.Errorf("%d requests have reached the queue, not %d", n, atOnce)
				}
				go func() { answers <- request(b) }()
				synctest.Wait()
				close(q.stored)
				for range atOnce + 1 {
					if w := <-answers; w.Code/100 != 2 {
						t.Fatalf("%d %s", w.Code, w.Body)
					}
				}
			})
		})
	}
}

// TestNoPlaceIsHeldByABodyThatDoesNotCome: whoever sends slowly keeps nobody out.
func TestNoPlaceIsHeldByABodyThatDoesNotCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, nil)
		never := make(chan struct{})
		for range atOnce {
			go func() {
				r := b.delivery(deletion)
				r.Body = blocked{never}
				b.do(r)
			}()
		}
		synctest.Wait()
		if w := b.do(b.delivery(deletion)); w.Code != http.StatusOK {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		close(never)
		synctest.Wait()
	})
}

// blocked is a body of which nothing comes until the sender is gone.
type blocked struct{ gone chan struct{} }

func (b blocked) Read([]byte) (int, error) { <-b.gone; return 0, context.Canceled }
func (b blocked) Close() error             { return nil }

// TestComplaintsAreFew: a queue that is down for thousands of requests fills no disk, and
// the log says how many it left out.
func TestComplaintsAreFew(t *testing.T) {
	var log bytes.Buffer
	b := setup(t, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	b.queue.before = event.ErrNotAccepted
	for range 500 {
		b.do(b.delivery(deletion))
	}
	if n := strings.Count(log.String(), "request not served"); n != complaints {
		t.Errorf("%d lines for 500 requests, want %d", n, complaints)
	}
	b.now = b.now.Add(time.Second)
	b.do(b.delivery(deletion))
	if want := fmt.Sprintf("unlogged=%d\n", 500-complaints); !strings.HasSuffix(log.String(), want) {
		t.Errorf("the last line does not end with %q: %s", want, log.String()[max(0, log.Len()-200):])
	}
}
