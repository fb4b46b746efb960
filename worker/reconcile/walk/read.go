package walk

import (
	"github.com/trueup/trueup/internal/file"
)

// sight is one answer, compared with what is known. It changes nothing.
type sight struct {
	rows       int
	fresh      []file.Snapshot // files not known, each once
	unreadable []string        // ids not known, each once
	ids        map[string]int64
	known      int // ids that were given out before
	gain       int // rows that this pass has not had
	news       int // fresh files of this window
	idless     int // rows without an id of ours
	nameless   int // those of them that may be files
	twice      int // rows that repeat a row of the same page
	earlier    int // files older than asked for
	files      int
	ordered    bool
	last       int64 // the latest second shown in this window; before the window: none
}

func (w *Walk) read(a *file.Answer) sight {
	read := len(a.Snapshots) + len(a.Unreadable)
	s := sight{
		rows: max(a.Rows, read+a.Nameless), nameless: a.Nameless, files: len(a.Snapshots),
		ids: make(map[string]int64, read), ordered: true, last: w.first() - 1,
	}
	s.idless = s.rows - read
	s.gain = s.idless
	before := int64(0)
	for i := range a.Snapshots {
		w.readFile(&s, &a.Snapshots[i], &before)
	}
	for _, id := range a.Unreadable {
		if w.readID(&s, id, max(s.last, w.first())) {
			s.unreadable = append(s.unreadable, id)
		}
	}
	return s
}

func (w *Walk) readFile(s *sight, f *file.Snapshot, before *int64) {
	// Seconds, not fractions: what sorts by the second is in order, and windows begin
	// with whole seconds.
	second := f.CreatedAt.Unix()
	s.ordered = s.ordered && second >= *before
	*before = max(*before, second)
	if second < w.first() {
		s.earlier++
	} else {
		s.last = max(s.last, second)
	}
	if !w.readID(s, f.ID, second) {
		return
	}
	s.fresh = append(s.fresh, *f)
	if second >= w.first() {
		s.news++
	}
}

// readID enters an id and reports whether it is fresh.
func (w *Walk) readID(s *sight, id string, second int64) bool {
	if _, again := s.ids[id]; again {
		s.twice++
		return false
	}
	s.ids[id] = second
	if _, had := w.pass.ids[id]; !had {
		s.gain++
	}
	if _, known := w.seen[id]; known {
		s.known++
		return false
	}
	return true
}

// first is the second with which the window begins.
func (w *Walk) first() int64 {
	if w.at.From.IsZero() {
		return -1 << 62
	}
	return w.at.From.Unix()
}

// joins reports whether the query must show something that is known.
func (w *Walk) joins() bool { return w.at.Skip == 0 || w.at.Again > 0 }

// take enters an accepted answer into what is known.
func (w *Walk) take(s *sight) {
	for id, second := range s.ids {
		w.seen[id] = max(w.seen[id], second)
		w.pass.ids[id] = struct{}{}
	}
	w.pass.top = max(w.pass.top, w.at.Skip+s.rows)
	w.pass.unnamed += s.idless + s.twice
	w.idle++
	if s.news > 0 {
		w.idle, w.backs = 0, 0
	}
	w.noteRows(s)
}

func (w *Walk) noteRows(s *sight) {
	if !w.joins() && s.rows > 0 {
		w.note(noteShort)
	}
	if s.twice > 0 {
		w.note(noteTwice)
	}
	if s.earlier > 0 {
		w.note(noteEarlier)
	}
	if s.nameless > 0 {
		w.note(noteNameless)
	}
	if s.idless > s.nameless {
		w.note(noteForeign)
	}
}
