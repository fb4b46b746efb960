package simulate

import (
	"fmt"
	"hash"
	"hash/fnv"
	"sync"
	"time"
)

// trace is everything that happened, in order: the digest of all of it tells whether a
// run was repeated exactly, the tail tells the story of a failure.
type trace struct {
	began time.Time

	mu     sync.Mutex // guards what follows
	digest hash.Hash64
	lines  int
	whole  bool // keep every line
	tail   []string
}

// storyLength is how many lines a failing run prints, at most.
const storyLength = 400

func newTrace(began time.Time, whole bool) *trace {
	return &trace{began: began, digest: fnv.New64a(), whole: whole}
}

// say adds one line. What it says may not depend on anything but the run.
func (t *trace) say(who, format string, args ...any) {
	line := fmt.Sprintf("%14.6f %-10s ", time.Since(t.began).Seconds(), who) + fmt.Sprintf(format, args...)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines++
	_, _ = t.digest.Write([]byte(line))
	t.tail = append(t.tail, line)
	if !t.whole && len(t.tail) >= 2*storyLength {
		t.tail = append(t.tail[:0], t.tail[len(t.tail)-storyLength:]...)
	}
}

// story is the end of it, or all of it where it was kept whole.
func (t *trace) story() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.whole || len(t.tail) <= storyLength {
		return append([]string(nil), t.tail...)
	}
	return append([]string(nil), t.tail[len(t.tail)-storyLength:]...)
}

func (t *trace) sum() (digest uint64, lines int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.digest.Sum64(), t.lines
}
