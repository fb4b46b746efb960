package emulator

import (
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// stats counts since start or reset; nothing here survives a restart.
type stats struct {
	limited, faults, early                                    atomic.Int64
	sent, acked, failed, dropped, duplicated, scheduled, gave atomic.Int64

	mu       sync.Mutex // guards requests
	requests map[string]int64

	recent     recall[logged]
	deliveries recall[delivered]
	history    recall[happened]
}

// logged is one line of GET /_emulator/requests.
type logged struct {
	N         int64     `json:"n"`
	At        time.Time `json:"at"`
	Method    string    `json:"method"`
	Path      string    `json:"path"`
	Query     string    `json:"query,omitempty"`
	Endpoint  string    `json:"endpoint"`
	Status    int       `json:"status"`
	Fault     int       `json:"fault,omitempty"` // the number of the fault that fired
	RequestID string    `json:"requestId"`
	Took      Duration  `json:"took"`
	Agent     string    `json:"agent,omitempty"`
	// Body is the shape of the answer's: object, array or text.
	Body string `json:"body,omitempty"`
	// Reset is X-RateLimit-Reset of a 429, as sent.
	Reset string `json:"reset,omitempty"`
	// Cut: the answer did not go out whole, or its reader had left by then.
	Cut bool `json:"cut,omitempty"`
}

func newStats() *stats { return &stats{requests: map[string]int64{}} }

func (s *stats) count(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests[name]++
}

func (s *stats) reset() {
	for _, n := range []*atomic.Int64{&s.limited, &s.faults, &s.early, &s.sent, &s.acked, &s.failed, &s.dropped, &s.duplicated, &s.scheduled, &s.gave} {
		n.Store(0)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.requests)
	s.recent.reset()
	s.deliveries.reset()
	s.history.reset()
}

// show is GET /_emulator/stats.
func (e *Emulator) showStats(*http.Request) answer {
	e.mu.RLock()
	pending, files, folders := len(e.lib.hooks), len(e.lib.files), len(e.lib.folders)
	for _, g := range e.lib.generations {
		files += g.live()
	}
	e.mu.RUnlock()
	s := e.stats
	s.mu.Lock()
	defer s.mu.Unlock()
	requests := make(map[string]int64, len(s.requests))
	for k, v := range s.requests {
		requests[k] = v
	}
	return ok(map[string]any{
		"requests": requests, "rateLimited": s.limited.Load(), "early": s.early.Load(), "faults": s.faults.Load(),
		"webhooks": map[string]int64{
			"sent": s.sent.Load(), "acked": s.acked.Load(), "failed": s.failed.Load(), "dropped": s.dropped.Load(),
			"duplicated": s.duplicated.Load(), "retried": s.scheduled.Load(), "givenUp": s.gave.Load(), "pending": int64(pending),
		},
		"library": map[string]int{"files": files, "folders": folders},
	})
}

// showRequests is GET /_emulator/requests, in the order in which they were about to be answered.
func (e *Emulator) showRequests(r *http.Request) answer {
	return recalled(r, &e.stats.recent, func(n int64, l *logged) logged {
		out := *l
		out.N = n
		return out
	})
}
