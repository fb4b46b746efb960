package service

import (
	"context"
	"strings"
	"sync"
)

// Topics of notices. A notice may be lost: whoever waits for one also looks.
const (
	topicSettled = "settled" // payload: event ids, separated by spaces
	topicControl = "control" // payload: "pause" or "resume"
	topicJobs    = "jobs"    // no payload: an operator's job has begun or was cancelled
)

// settledNotices wakes those who wait for a report.
type settledNotices struct {
	mu      sync.Mutex
	waiting map[string]map[chan struct{}]struct{} // by event id
}

func newSettledNotices() *settledNotices {
	return &settledNotices{waiting: map[string]map[chan struct{}]struct{}{}}
}

// Wait returns nil when the event was announced as settled, else the context's error.
func (s *settledNotices) Wait(ctx context.Context, eventID string) error {
	woken := make(chan struct{})
	s.mu.Lock()
	if s.waiting[eventID] == nil {
		s.waiting[eventID] = map[chan struct{}]struct{}{}
	}
	s.waiting[eventID][woken] = struct{}{}
	s.mu.Unlock()
	defer s.forget(eventID, woken)
	select {
	case <-woken:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *settledNotices) forget(eventID string, woken chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.waiting[eventID], woken)
	if len(s.waiting[eventID]) == 0 {
		delete(s.waiting, eventID)
	}
}

// heard takes a notice's payload.
func (s *settledNotices) heard(payload []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range strings.Fields(string(payload)) {
		for woken := range s.waiting[id] {
			close(woken)
		}
		delete(s.waiting, id)
	}
}
