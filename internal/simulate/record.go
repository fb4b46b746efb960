package simulate

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/trueup/trueup/internal/check"
)

// record is what the world has seen and was told, beside what can be read from the
// database, the stream and the library: the evidence that nobody else keeps.
type record struct {
	mu     sync.Mutex // guards what follows
	acks   []check.Ack
	lies   []check.Lie
	hands  []check.Hand
	starts []time.Time
	wrongs []check.Violation
	series []check.Dump
	counts map[string]int64
}

func newRecord() *record { return &record{counts: map[string]int64{}} }

func (r *record) count(what string, n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts[what] += n
}

func (r *record) ack(a check.Ack) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.acks = append(r.acks, a)
}

func (r *record) lie(file string, from, to time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lies = append(r.lies, check.Lie{FileID: file, From: from, To: to})
}

func (r *record) hand(h check.Hand) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h.At = time.Now()
	r.hands = append(r.hands, h)
}

func (r *record) started() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.starts = append(r.starts, time.Now())
}

// wrong notes something that no invariant names and that may not be all the same: a
// process that ends by itself, an answer that contradicts another.
func (r *record) wrong(subject, says string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wrongs = append(r.wrongs, check.Violation{Invariant: "world", Subject: subject, Says: fmt.Sprintf(says, args...)})
}

// sorted are the acks by when they were sent.
func (r *record) sorted() []check.Ack {
	r.mu.Lock()
	defer r.mu.Unlock()
	acks := gathered(r.acks)
	slices.SortStableFunc(acks, func(a, b check.Ack) int { return a.SentAt.Compare(b.SentAt) })
	return acks
}
