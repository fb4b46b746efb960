package verify

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/trueup/trueup/internal/file"
)

// recentSize is how many files that answered are remembered.
const recentSize = 64

// recent remembers which files answered 200 by id last, newest last. Times are
// monotonic: a clock that jumps makes nothing older or younger. How old an answer is
// counts from when it was asked for: it may have been long on its way.
type recent struct {
	mu   sync.Mutex
	seen []seenAt
}

type seenAt struct {
	id        string
	sent, got time.Time
}

func (r *recent) saw(id string, sent time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop(id)
	if len(r.seen) == recentSize {
		r.seen = slices.Delete(r.seen, 0, 1)
	}
	r.seen = append(r.seen, seenAt{id, sent, time.Now()})
}

func (r *recent) forget(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop(id)
}

// drop removes id; the caller holds mu.
func (r *recent) drop(id string) {
	r.seen = slices.DeleteFunc(r.seen, func(s seenAt) bool { return s.id == id })
}

// within names up to n files that answered a question of at most age ago (zero:
// whenever), the newest first, other than those in except.
func (r *recent) within(age time.Duration, n int, except []string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var ids []string
	for _, s := range slices.Backward(r.seen) {
		if len(ids) == n {
			break
		}
		if !slices.Contains(except, s.id) && (age <= 0 || time.Since(s.sent) <= age) {
			ids = append(ids, s.id)
		}
	}
	return ids
}

// sawOtherSince reports whether a file other than id answered after t.
func (r *recent) sawOtherSince(t time.Time, id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.seen, func(s seenAt) bool { return s.id != id && s.got.After(t) })
}

// unannounced says whether a look at this file may remove it although nobody has said
// that it is gone.
func (l *oneLook) unannounced(a Ask) bool { return !a.Announced && l.known[a.FileID].Suspect }

// vouchBefore finds out, for files that may be removed unannounced, whether the library was
// ours between their first 404 and this look. With what vouches after the look, nothing
// that happened to the whole library can have answered both 404s, unless it ended between
// them and came back.
func (l *oneLook) vouchBefore(ctx context.Context) error {
	var except []string
	needed, priority, age := false, Run, l.v.CanaryFor
	for _, a := range l.asks {
		if a.Announced || l.known[a.FileID].Suspect {
			except = append(except, a.FileID)
		}
		if l.unannounced(a) {
			needed, priority, age = true, min(priority, a.Priority), min(age, max(l.known[a.FileID].SuspectFor, 1))
		}
	}
	if !needed {
		return nil
	}
	_, vouched, err := l.canary(ctx, priority, except, age)
	l.oursBefore = vouched
	return err
}

// proveAbsences gives every absence that might remove something the proof that the
// key still sees our library.
func (l *oneLook) proveAbsences(ctx context.Context) error {
	var needy []int
	var except []string // whatever is missing or announced missing vouches for nothing
	priority, age := Run, l.v.CanaryFor
	for i, a := range l.asks {
		o := l.answers[i].Observation
		absent := o != nil && !o.Present()
		if absent || a.Announced {
			except = append(except, a.FileID)
		}
		if absent && needsCanary(a, l.known[a.FileID]) {
			needy = append(needy, i)
			priority = min(priority, a.Priority)
			if !a.Announced {
				// What answered before this look says nothing of the library that denied
				// the file in it.
				age = max(time.Since(l.looked), 1)
			}
		}
	}
	if len(needy) == 0 {
		return nil
	}
	var canary file.Canary
	err := caught(func() (err error) {
		canary, _, err = l.canary(ctx, priority, except, age)
		return err
	})()
	if p := panicIn(err); p != nil {
		for _, i := range needy {
			l.answers[i] = Answer{Fault: p.fault()}
		}
		return nil
	}
	for _, i := range needy {
		if l.oursBefore || !l.unannounced(l.asks[i]) {
			l.answers[i].Observation.Canary = canary
		}
	}
	return err
}

// canary names files that answered a question of at most age ago. Where none of them is
// known to be a sound live row it asks for up to five such rows; where there is no such row
// at all, whether a listing answers. vouched says that one of these did.
func (l *oneLook) canary(ctx context.Context, p Priority, except []string, age time.Duration) (c file.Canary, vouched bool, err error) {
	c.FileIDs = l.v.recent.within(age, 16, except)
	for _, id := range c.FileIDs {
		if k := l.known[id]; k.Live && !k.Suspect {
			return c, true, nil
		}
	}
	rows, err := l.v.LiveFiles(ctx, 5, except)
	if err != nil {
		return file.Canary{}, false, fmt.Errorf("find a canary: %w", err)
	}
	if len(rows) == 0 {
		c.EmptyLibrary, err = l.v.listed(ctx, p, min(age, l.v.CanaryFor/2))
		return c, c.EmptyLibrary, err
	}
	for _, id := range rows {
		_, fault, _, err := l.v.details(ctx, p, id)
		if err != nil {
			return file.Canary{}, false, err
		}
		if fault == nil {
			c.FileIDs = append(c.FileIDs, id)
			return c, true, nil
		}
	}
	return c, false, nil
}

// listed reports whether GET /v1/files?limit=1 answers, or did when it was asked at most
// age ago.
func (v *Verifier) listed(ctx context.Context, p Priority, age time.Duration) (bool, error) {
	if err := v.listing.lock(ctx); err != nil {
		return false, err
	}
	defer v.listing.unlock()
	if !v.listedAt.IsZero() && time.Since(v.listedAt) < age {
		return true, nil
	}
	asked := time.Now()
	_, fault, err := v.ask(ctx, p, "list", v.Tries, v.Patience, v.Library.ListOne)
	if err == nil && fault == nil {
		v.listedAt = asked
	}
	return err == nil && fault == nil, err
}
