package verify

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/trueup/trueup/internal/file"
)

// oneLook is one call of Look.
type oneLook struct {
	v    *Verifier
	asks []Ask
	// oursBefore: the library was ours after the first 404 of every file that may be
	// removed unannounced. looked is when the look-ups began.
	oursBefore bool
	looked     time.Time
	// slots bounds the calls open at once.
	slots chan struct{}

	// mu guards what the goroutines of the look fill in.
	mu      sync.Mutex
	answers []Answer
	known   map[string]file.Known
	failing []string // files whose trouble may be an outage

	// probing lets one probe at a time find out whether ImageKit answers, or searches;
	// it guards what they found.
	probing     alone
	vouched     time.Time // when the last good probe was sent
	searchSound bool      // a search by id beyond reproach was taken
}

// run plans, asks and fills in the answers.
func (l *oneLook) run(ctx context.Context) error {
	// Files that answered lately come along: one of them may have to be the canary.
	canaries := l.v.recent.within(l.v.CanaryFor, 5, nil)
	fence, err := l.drawFence(ctx, append(l.ids(nil), canaries...))
	if err != nil {
		return err
	}
	// A panic over a canary leaves the files it would have vouched for in place.
	if err := caught(func() error { return l.vouchBefore(ctx) })(); err != nil && panicIn(err) == nil {
		return err
	}
	l.looked = time.Now()
	direct, search := l.plan(fence)
	ctx = inLine(ctx, l.v.Waiting)
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(caught(func() error { return l.byID(groupCtx, direct, fence) }))
	group.Go(caught(func() error { return l.searchThenByID(groupCtx, search, fence) }))
	if err := group.Wait(); err != nil {
		return err
	}
	return l.proveAbsences(ctx)
}

// plan parts the asks into those that need a look-up and those that a hit may
// answer. An id that cannot be one is never asked about: it counts as a 404.
func (l *oneLook) plan(fence file.Fence) (direct, search []int) {
	for i, a := range l.asks {
		switch {
		case !file.ValidID(a.FileID):
			l.answers[i].Observation = &file.Observation{FileID: a.FileID, How: file.LookUp, Fence: fence}
		case searchable(a, l.known[a.FileID]):
			search = append(search, i)
		default:
			direct = append(direct, i)
		}
	}
	byPriority := func(i, j int) int { return int(l.asks[i].Priority - l.asks[j].Priority) }
	slices.SortStableFunc(direct, byPriority)
	slices.SortStableFunc(search, byPriority)
	if len(search) < l.v.SearchAt || !l.v.search.on() {
		return append(direct, search...), nil
	}
	return direct, search
}

// searchThenByID searches, and looks up with a fresh fence what no hit answered.
func (l *oneLook) searchThenByID(ctx context.Context, indexes []int, fence file.Fence) error {
	if len(indexes) == 0 {
		return nil
	}
	left, err := l.searchAll(ctx, indexes, fence)
	if err != nil || len(left) == 0 {
		return err
	}
	fresh, err := l.drawFence(ctx, l.ids(left))
	if err != nil {
		return err
	}
	return l.byID(ctx, left, fresh)
}

// drawFence draws one fence for ids and notes what the rows know of them.
func (l *oneLook) drawFence(ctx context.Context, ids []string) (file.Fence, error) {
	valid := ids[:0:0]
	for _, id := range ids {
		if file.ValidID(id) {
			valid = append(valid, id)
		}
	}
	fence, known, err := l.v.Fences.Fence(ctx, valid)
	if err != nil {
		return file.Fence{}, fmt.Errorf("draw fence: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known == nil {
		l.known = make(map[string]file.Known, len(known))
	}
	for id, k := range known {
		l.known[id] = k
	}
	return fence, nil
}

// ids of the asks at indexes, of all when nil.
func (l *oneLook) ids(indexes []int) []string {
	if indexes == nil {
		ids := make([]string, len(l.asks))
		for i, a := range l.asks {
			ids[i] = a.FileID
		}
		return ids
	}
	ids := make([]string, len(indexes))
	for i, at := range indexes {
		ids[i] = l.asks[at].FileID
	}
	return ids
}

func (l *oneLook) knownOf(id string) file.Known {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.known[id]
}

func (l *oneLook) set(i int, a Answer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answers[i] = a
}

// each runs f for all n, as many at once as slots allow, until one fails.
func (l *oneLook) each(ctx context.Context, n int, f func(ctx context.Context, i int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	for i := range n {
		select {
		case l.slots <- struct{}{}:
		case <-ctx.Done():
			return cmp.Or(group.Wait(), context.Cause(ctx))
		}
		group.Go(caught(func() error {
			defer func() { <-l.slots }()
			return f(ctx, i)
		}))
	}
	return group.Wait()
}
