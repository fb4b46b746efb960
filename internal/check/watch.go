package check

import (
	"cmp"
	"slices"
	"time"
)

// Watch judges a campaign step by step, so that what lies between two dumps is seen as
// well. Evidence only grows between steps, except for Dump, Stream and Truth, which are
// those of the step. Make one with NewWatch.
type Watch struct {
	known *known
	last  *step
	gone  map[string]time.Time // tombstones already judged
	live  int                  // most rows that ever stood
	stood map[string]time.Time // by file: the last dump in which it had a row
	// releases of the fuse, as far as dumps show them
	releases []time.Time
	found    Verdict
	steps    int
}

// step is one dump, indexed.
type step struct {
	at      time.Time
	rows    map[string]*Row
	states  map[string]*State
	letters map[string]*DeadLetter
	expired map[string]int64 // by place
}

func newStep(d *Dump) *step {
	s := &step{at: d.At, rows: make(map[string]*Row, len(d.Rows)), states: make(map[string]*State, len(d.States)),
		letters: make(map[string]*DeadLetter, len(d.DeadLetters)), expired: map[string]int64{}}
	for i := range d.Rows {
		s.rows[d.Rows[i].FileID] = &d.Rows[i]
	}
	for i := range d.States {
		s.states[d.States[i].FileID] = &d.States[i]
	}
	for i := range d.DeadLetters {
		s.letters[d.DeadLetters[i].ID] = &d.DeadLetters[i]
	}
	for _, e := range d.Expired {
		s.expired[e.Place] += e.Count
	}
	return s
}

// NewWatch begins to watch a campaign.
func NewWatch() *Watch {
	return &Watch{known: newKnown(), gone: map[string]time.Time{}, stood: map[string]time.Time{}, found: Verdict{Counts: map[string]int64{}}}
}

// Step compares e.Dump with the dump of the step before and returns what is wrong: I5,
// I6, I7, I8 and the letters of I9. The dump must not be changed afterwards.
func (w *Watch) Step(e *Evidence) []Violation {
	before := len(w.found.Violations)
	w.known.learn(e)
	l := &looking{Evidence: e, known: w.known, phase: Safety, verdict: &w.found}
	now := newStep(&e.Dump)
	w.live = max(w.live, len(e.Rows))
	if w.last != nil {
		w.between(l, w.last, now)
	}
	w.removals(l, now)
	w.latched(l, now)
	for id := range now.rows {
		w.stood[id] = now.at
	}
	w.last = now
	w.steps++
	found := slices.Clone(w.found.Violations[before:])
	sortViolations(found)
	return found
}

func (w *Watch) between(l *looking, was, now *step) {
	l.now = I5
	l.count("states", len(was.states))
	for id, s := range was.states {
		w.monotonic(l, id, s, was, now)
	}
	for id, r := range now.rows {
		old, state := was.rows[id], was.states[id]
		if old != nil {
			l.now = I5
			w.younger(l, old, r, was, now)
		} else if state != nil && state.GoneAt != nil {
			l.now = I6
			w.revived(l, r, state, was, now)
		}
	}
	l.now = I9
	for id, d := range was.letters {
		w.kept(l, d, now.letters[id], was, now)
	}
}

// monotonic: what is remembered of a file never gets older.
func (w *Watch) monotonic(l *looking, id string, old *State, was, now *step) {
	s := now.states[id]
	switch {
	case s == nil && now.expired["tombstones"] > was.expired["tombstones"]:
	case s == nil:
		l.wrong(id, "its line of file_state is gone")
	case s.Seen < old.Seen:
		l.wrong(id, "seen went from %d back to %d", old.Seen, s.Seen)
	case old.High != nil && (s.High == nil || s.High.Before(*old.High)):
		l.wrong(id, "high went from %s back to %s", moment(old.High), moment(s.High))
	}
}

// younger: a row moves to an older state of its file only by a look-up that began after
// the row was last written.
func (w *Watch) younger(l *looking, old, r *Row, was, now *step) {
	if r.Xmin != "" && r.Xmin == old.Xmin || l.touched(r.FileID, was.at, now.at) {
		return
	}
	l.count("rows rewritten", 1)
	from, to := l.place(old), l.place(r)
	if from < 0 && l.touched(r.FileID, time.Time{}, now.at) {
		return // what a person wrote is nobody's older state
	}
	back := from >= 0 && to >= 0 && to < from
	if old.RemoteUpdatedAt != nil && r.RemoteUpdatedAt != nil && r.RemoteUpdatedAt.Before(*old.RemoteUpdatedAt) {
		back = true
	}
	if !back {
		return
	}
	since := was.at
	if old.SyncedAt != nil {
		since = *old.SyncedAt
	}
	if !l.lookedUp(r.FileID, since, now.at) {
		l.wrong(r.FileID, "it went from the state of %s back to that of %s, and no look-up by id since %s said so",
			moment(old.RemoteUpdatedAt), moment(r.RemoteUpdatedAt), moment(&since))
	}
}

// place is the last of the file's states that the row shows; -1 when it is none.
func (l *looking) place(r *Row) int {
	s := l.files[r.FileID]
	if s == nil {
		return -1
	}
	for i, p := range slices.Backward(s.versions) {
		if p != nil && len(differences(&p.row, r, l.settings.Columns)) == 0 {
			return i
		}
	}
	return -1
}

// lookedUp reports whether a look-up by id showed the file between two moments.
func (l *looking) lookedUp(id string, from, to time.Time) bool {
	from, to = from.Add(-l.settings.Skew), to.Add(l.settings.Skew)
	return slices.ContainsFunc(l.present[id], func(r *Request) bool { return !r.At.Before(from) && !r.At.After(to) })
}

// revived: only a look-up by id lifts a tombstone.
func (w *Watch) revived(l *looking, r *Row, state *State, was, now *step) {
	l.count("revivals", 1)
	if l.touched(r.FileID, was.at, now.at) {
		return
	}
	if !l.lookedUp(r.FileID, *state.GoneAt, now.at) {
		l.wrong(r.FileID, "it was confirmed deleted at %s and has a row again, and no look-up by id has shown it since", moment(state.GoneAt))
	}
}

// kept: a dead letter loses nothing, neither itself nor its history.
func (w *Watch) kept(l *looking, old, d *DeadLetter, was, now *step) {
	l.count("letters kept", 1)
	switch {
	case d == nil && now.expired["dead_letters"] > was.expired["dead_letters"]:
	case d == nil:
		l.wrong(old.ID, "the dead letter of event %s is gone (it was %s)", old.EventID, old.State)
	case len(d.Attempts) < len(old.Attempts) || entries(d.History) < entries(old.History):
		l.wrong(old.ID, "its history became shorter: %d attempts and %d replays, before %d and %d",
			len(d.Attempts), entries(d.History), len(old.Attempts), entries(old.History))
	case string(d.Body) != string(old.Body) || d.EventID != old.EventID || !d.AcceptedAt.Equal(old.AcceptedAt) || d.User != old.User:
		l.wrong(old.ID, "its event is not the same any more")
	}
}

// Verdict judges e with everything that the steps have found. The last step must have
// been that of e.Dump.
func (w *Watch) Verdict(e *Evidence, phase Phase) Verdict {
	w.known.learn(e)
	v := Verdict{Counts: map[string]int64{"steps": int64(w.steps)}, Unchecked: e.Without}
	for name, n := range w.found.Counts {
		v.Counts[name] = n
	}
	without := func(i Invariant) bool { return slices.Contains(e.Without, i) }
	for _, f := range w.found.Violations {
		if !without(f.Invariant) {
			v.Violations = append(v.Violations, f)
		}
	}
	l := &looking{Evidence: e, known: w.known, phase: phase, verdict: &v, live: w.live, releases: w.releases, stood: w.stood}
	for _, c := range checks() {
		if without(c.invariant) || c.settled && phase != Settled {
			continue
		}
		l.now = c.invariant
		lack := c.needs(e)
		if lack == "Series" && w.steps > 1 {
			lack = "" // it was watched
		}
		if lack != "" {
			l.wrong("", "no evidence for %s: %s", c.invariant, lack)
		} else if c.look != nil {
			c.look(l)
		}
	}
	for _, u := range w.known.unread {
		v.Violations = append(v.Violations, Violation{I2, "", "the evidence itself does not read: " + u})
	}
	sortViolations(v.Violations)
	return v
}

// sortViolations makes one campaign tell the same story each time.
func sortViolations(all []Violation) {
	slices.SortFunc(all, func(a, b Violation) int {
		return cmp.Or(cmp.Compare(len(a.Invariant), len(b.Invariant)), cmp.Compare(a.Invariant, b.Invariant), cmp.Compare(a.Subject, b.Subject), cmp.Compare(a.Says, b.Says))
	})
}
