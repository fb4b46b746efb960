package reconcile

import (
	"cmp"
	"slices"
	"time"

	"github.com/trueup/trueup/internal/file"
)

// A page as long as it can be, and how far pages overlap where they can only be told
// apart by how much to skip.
const (
	fullPage    = 1000
	skipOverlap = 50
)

// window is where the next page of a poll begins.
type window struct {
	from time.Time // to the second
	skip int
	was  [2]string // first and last id of the page before
}

// next moves on after a page and says whether to ask at all. A window begins at the
// second the page before ended in; where that is no progress (a burst within a second,
// a page out of order) it skips. largest is the longest page seen: what caps pages
// below 1,000 fills them at that.
func (w *window) next(a file.Answer, news, largest int) bool {
	full := a.Rows >= max(100, min(fullPage, largest))
	if a.Rows == 0 || !full && news == 0 {
		return false
	}
	ordered, last := inOrder(a.Snapshots)
	if last = last.Truncate(time.Second); ordered && last.After(w.from) {
		w.from, w.skip, w.was = last, 0, [2]string{}
		return true
	}
	is := ends(a.Snapshots)
	again := is == w.was && is != [2]string{}
	w.was = is
	if w.skip += a.Rows; a.Rows > skipOverlap {
		w.skip -= skipOverlap
	}
	return !again
}

func ends(s []file.Snapshot) (e [2]string) {
	if len(s) > 0 {
		e = [2]string{s[0].ID, s[len(s)-1].ID}
	}
	return e
}

// inOrder reports whether a page goes up by updatedAt, and its latest.
func inOrder(s []file.Snapshot) (ordered bool, last time.Time) {
	ordered = slices.IsSortedFunc(s, func(a, b file.Snapshot) int { return a.UpdatedAt.Compare(b.UpdatedAt) })
	for i := range s {
		last = later(last, s[i].UpdatedAt)
	}
	return ordered, last
}

// memory is the hits that were fed, as far back as they can come again.
type memory map[sight]struct{}

// sight is one version of one file.
type sight struct {
	id string
	at int64 // updatedAt in microseconds
}

func sightOf(s *file.Snapshot) sight { return sight{s.ID, s.UpdatedAt.UnixMicro()} }

// news are the hits of a page that were not fed and are not older than since; of a file
// that is there twice the newest.
func (m memory) news(page []file.Snapshot, since time.Time) []*file.Snapshot {
	var out []*file.Snapshot
	at := map[string]int{}
	for i := range page {
		s := &page[i]
		if _, fed := m[sightOf(s)]; fed || s.UpdatedAt.Before(since.Truncate(time.Second)) {
			continue
		}
		switch j, twice := at[s.ID]; {
		case !twice:
			at[s.ID] = len(out)
			out = append(out, s)
		case s.UpdatedAt.After(out[j].UpdatedAt):
			m.remember(out[j : j+1]) // a newer one stands for it
			out[j] = s
		default:
			m.remember([]*file.Snapshot{s})
		}
	}
	return out
}

func (m memory) remember(hits []*file.Snapshot) {
	for _, s := range hits {
		m[sightOf(s)] = struct{}{}
	}
}

// forget drops what was updated before since, then the oldest beyond keep, and returns
// the time before which a hit counts as fed.
func (m memory) forget(since time.Time, keep int) (floor time.Time) {
	old := since.Truncate(time.Second).UnixMicro()
	for k := range m {
		if k.at < old {
			delete(m, k)
		}
	}
	if len(m) <= keep {
		return since
	}
	all := make([]sight, 0, len(m))
	for k := range m {
		all = append(all, k)
	}
	slices.SortFunc(all, func(a, b sight) int { return cmp.Compare(a.at, b.at) })
	// To the second, as the next window begins at one.
	floor = time.UnixMicro(all[len(all)-keep].at).Truncate(time.Second).Add(time.Second)
	for _, k := range all {
		if k.at < floor.UnixMicro() {
			delete(m, k)
		}
	}
	return floor.UTC()
}
