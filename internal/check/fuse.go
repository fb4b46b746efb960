package check

import (
	"slices"
	"time"
)

// The fuse: in a run more than max(10, 1 %) of the live rows, in a day more than
// max(10, 5 %), and nothing unsigned is removed any more.
const (
	fuseFloor = 10
	perRun    = 100 // one in a hundred
	perDay    = 20  // one in twenty
	day       = 24 * time.Hour
)

// latched: while the fuse is latched, nothing is removed without a signed file.deleted.
func (w *Watch) latched(l *looking, now *step) {
	l.now = I8
	if l.Fuse != nil && l.Fuse.ReleasedAt != nil && !slices.Contains(w.releases, *l.Fuse.ReleasedAt) {
		w.releases = append(w.releases, *l.Fuse.ReleasedAt)
	}
	if l.Fuse == nil || l.Fuse.LatchedAt == nil {
		return
	}
	l.count("steps with the fuse latched", 1)
	since := *l.Fuse.LatchedAt
	for id, s := range now.states {
		if s.GoneAt == nil || s.GoneWhy != whyConfirmed || !s.GoneAt.After(since) || w.told(id, *s.GoneAt) || l.expected(id) {
			continue
		}
		l.wrong(id, "it was removed at %s without a signed file.deleted; the fuse was latched at %s", moment(s.GoneAt), moment(&since))
	}
}

// told reports whether this removal under the latched fuse was reported before.
func (w *Watch) told(id string, at time.Time) bool {
	if w.last == nil {
		return false
	}
	s := w.last.states[id]
	return s != nil && s.GoneAt != nil && s.GoneAt.Equal(at)
}

// expected: an operator has named the number of this run's deletions, and the file is one
// of its orphans.
func (l *looking) expected(id string) bool {
	for i := range l.Runs {
		r := &l.Runs[i]
		if r.ExpectedDeletions == nil {
			continue
		}
		if slices.ContainsFunc(l.Findings, func(f Finding) bool { return f.RunID == r.ID && f.FileID == id && f.Kind == "orphaned" }) {
			return true
		}
	}
	return false
}

// lookAtFuse counts unsigned removals by what ImageKit's log says of their candidates. A
// release begins the count anew.
func lookAtFuse(l *looking) {
	removals := map[int][]time.Time{} // by how many releases came before
	for i := range l.States {
		s := &l.States[i]
		if s.GoneAt == nil || s.GoneWhy != whyConfirmed || l.expected(s.FileID) {
			continue
		}
		at := l.candidacy(s.FileID, *s.GoneAt)
		if l.deletedByHand(s.FileID, l.stood[s.FileID], *s.GoneAt) {
			continue // there was no row left to remove
		}
		after := 0
		for _, r := range l.releases {
			if r.Before(at) {
				after++
			}
		}
		removals[after] = append(removals[after], at)
		l.count("unsigned removals", 1)
	}
	for _, candidates := range removals {
		l.day(candidates)
	}
	l.runs()
}

func (l *looking) deletedByHand(id string, from, to time.Time) bool {
	return slices.ContainsFunc(slices.Concat(l.hands[id], l.hands[""]), func(h Hand) bool {
		return h.Kind == HandDelete && !h.At.Before(from) && !h.At.After(to)
	})
}

func (l *looking) day(candidates []time.Time) {
	slices.SortFunc(candidates, time.Time.Compare)
	most := max(fuseFloor, l.live/perDay)
	for i, j := 0, 0; j < len(candidates); j++ {
		for candidates[j].Sub(candidates[i]) >= day {
			i++
		}
		if n := j - i + 1; n > most {
			l.wrong("", "%d rows became candidates within the day before %s and were removed unsigned; the fuse allows %d", n, moment(&candidates[j]), most)
			return
		}
	}
}

// candidacy is when ImageKit first denied the file: the first 404 since it was last
// shown by id.
func (l *looking) candidacy(id string, at time.Time) time.Time {
	var shown time.Time
	for _, r := range l.present[id] {
		if r.At.Before(at) && r.At.After(shown) {
			shown = r.At
		}
	}
	first := at
	for _, r := range l.absent[id] {
		if r.At.After(shown) && r.At.Before(first) {
			first = r.At
		}
	}
	return first
}

// runs: no run removed more than it may, and none more than an operator expected.
func (l *looking) runs() {
	states := newStep(&l.Dump).states
	removed := map[string]int64{}
	for _, f := range l.Findings {
		s := states[f.FileID]
		if f.Kind == "orphaned" && f.Status == "repaired" && s != nil && s.GoneAt != nil && s.GoneWhy == whyConfirmed {
			removed[f.RunID]++
		}
	}
	l.count("runs", len(l.Runs))
	for i := range l.Runs {
		r := &l.Runs[i]
		most := max(fuseFloor, r.Rows/perRun)
		if r.ExpectedDeletions != nil {
			most = *r.ExpectedDeletions
		}
		if n := removed[r.ID]; n > most {
			l.wrong(r.ID, "the run removed %d rows unsigned; %d are allowed", n, most)
		}
	}
}
