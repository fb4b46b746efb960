package verify

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/trueup/trueup/internal/file"
)

// noSuchFile is shaped like every fileId seen and names none.
const noSuchFile = "000000000000000000000000"

// searchState is what was learned about searching by id.
type searchState struct {
	mu       sync.Mutex
	offUntil time.Time
	// size is the largest chunk to ask for until sizeUntil; zero means no limit.
	size      int
	sizeUntil time.Time
}

func (s *searchState) on() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !time.Now().Before(s.offUntil)
}

func (s *searchState) off(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offUntil = time.Now().Add(d)
}

func (s *searchState) chunk(most int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.size > 0 && time.Now().Before(s.sizeUntil) {
		return min(s.size, most)
	}
	return most
}

func (s *searchState) shrink(size int, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.size, s.sizeUntil = max(size, 1), time.Now().Add(d)
}

// searchAll searches for the files at indexes and returns those that no hit
// answered, for whatever reason: not one of them proves anything.
func (l *oneLook) searchAll(ctx context.Context, indexes []int, fence file.Fence) (left []int, err error) {
	chunks := slices.Collect(slices.Chunk(indexes, l.v.search.chunk(l.v.Chunk)))
	err = l.each(ctx, len(chunks), func(ctx context.Context, n int) error {
		err := caught(func() error {
			_, err := l.searchChunk(ctx, chunks[n], fence)
			return err
		})()
		if panicIn(err) != nil {
			err = nil // one of the chunk is poison; the look-ups tell which
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, i := range indexes {
		if l.answers[i] == (Answer{}) {
			left = append(left, i)
		}
	}
	return left, nil
}

// searchChunk asks for one chunk, in halves when ImageKit refuses the whole. It
// returns the largest number of ids that was taken at once, 0 when not all were.
func (l *oneLook) searchChunk(ctx context.Context, indexes []int, fence file.Fence) (size int, err error) {
	if !l.v.search.on() {
		return 0, nil
	}
	priority := l.asks[indexes[0]].Priority
	answer, fault, err := l.v.searchFor(ctx, priority, l.ids(indexes))
	switch {
	case err != nil:
		return 0, err
	case fault == nil:
		l.take(indexes, fence, answer)
		return len(indexes), nil
	case fault.Kind == file.TimedOut:
		// Look-ups may well go on; a search that hangs must not hold up every batch.
		l.v.search.off(l.v.ProbeAgain / 20)
		return 0, nil
	case fault.Kind != file.BadRequest || len(indexes) == 1:
		return 0, nil // whether that is an outage, a look-up tells
	}
	if off, err := l.searchIsOff(ctx, priority); off || err != nil {
		return 0, err
	}
	return l.searchHalves(ctx, indexes, fence)
}

func (l *oneLook) searchHalves(ctx context.Context, indexes []int, fence file.Fence) (int, error) {
	half := (len(indexes) + 1) / 2
	first, err := l.searchChunk(ctx, indexes[:half], fence)
	if err != nil {
		return 0, err
	}
	second, err := l.searchChunk(ctx, indexes[half:], fence)
	if err != nil || first == 0 || second == 0 {
		return 0, err
	}
	// It was the size, and not one bad id among them.
	l.v.search.shrink(max(first, second), l.v.ProbeAgain)
	return max(first, second), nil
}

// searchIsOff asks ImageKit once in each Look that meets a refusal whether it
// searches by id at all.
func (l *oneLook) searchIsOff(ctx context.Context, p Priority) (bool, error) {
	if err := l.probing.lock(ctx); err != nil {
		return false, err
	}
	defer l.probing.unlock()
	if l.searchSound || !l.v.search.on() {
		return !l.searchSound, nil
	}
	off, err := l.v.searchIsOff(ctx, p)
	l.searchSound = !off && err == nil
	return off, err
}

// take fills in the answers that these hits may give.
func (l *oneLook) take(indexes []int, fence file.Fence, answer file.Answer) {
	at := make(map[string]int, len(indexes))
	for _, i := range indexes {
		at[l.asks[i].FileID] = i
	}
	for n := range answer.Snapshots {
		hit := &answer.Snapshots[n]
		i, asked := at[hit.ID]
		if !asked {
			continue
		}
		if p := panicIn(caught(func() error { l.takeHit(i, fence, hit, answer); return nil })()); p != nil {
			l.v.Metrics.answered("panic")
			l.set(i, Answer{Fault: p.fault()})
		}
	}
}

func (l *oneLook) takeHit(i int, fence file.Fence, hit *file.Snapshot, answer file.Answer) {
	if hitAnswers(l.asks[i], l.knownOf(hit.ID), *hit) {
		l.v.Metrics.answered("hit")
		l.set(i, Answer{Observation: l.v.observed(file.Hit, fence, hit, answer)})
	}
}

func (v *Verifier) searchFor(ctx context.Context, p Priority, ids []string) (file.Answer, *file.Fault, error) {
	return v.ask(ctx, p, "search", v.Tries, v.Patience, func(ctx context.Context) (file.Answer, error) {
		return v.Library.Search(ctx, ids)
	})
}

// searchIsOff tells a question that is too long, or holds an id ImageKit does not
// like, from a library that does not search by id at all: only the last refuses an
// id that is beyond reproach, too.
func (v *Verifier) searchIsOff(ctx context.Context, p Priority) (bool, error) {
	_, fault, err := v.searchFor(ctx, p, []string{noSuchFile})
	if fault != nil && fault.Kind == file.BadRequest {
		v.search.off(v.ProbeAgain)
		return true, err
	}
	return false, err
}

// ProbeSearch finds out whether ImageKit understands a search by id, and keeps it
// in mind. An error means that it could not be found out; then the first batch
// finds out.
func (v *Verifier) ProbeSearch(ctx context.Context) (bool, error) {
	_, fault, err := v.searchFor(ctx, Live, []string{noSuchFile})
	switch {
	case err != nil:
		return false, err
	case fault == nil:
		v.search.off(0)
		return true, nil
	case fault.Kind == file.BadRequest:
		v.search.off(v.ProbeAgain)
		return false, nil
	}
	return false, fmt.Errorf("probe the search by id: %w", fault)
}
