package walk

import (
	"fmt"
	"time"
)

// accepts decides whether an answer can be one to this query. If not, the same is asked
// again; where that does not help, it goes another way.
func (w *Walk) accepts(s *sight) bool {
	odd := w.odd(s)
	if odd == "" {
		return true
	}
	w.note(odd)
	w.idle++
	w.vain++
	switch {
	case w.idle > maxIdle:
		w.giveUp()
	case w.vain < maxVain:
	case odd == noteOrder || odd == noteOlder:
		// It sorts, or filters, by something else than it shows.
		w.note(noteBySkip)
		w.at.BySkip = true
		return true
	case odd == noteSame:
		w.startOver("ImageKit shows the same page again wherever it is asked to go on: skip is ignored")
	default:
		w.stepBack()
	}
	return false
}

// odd says what an answer has that no answer to this query should have.
func (w *Walk) odd(s *sight) string {
	switch {
	case s.rows > w.at.Again && s.gain == 0:
		return noteSame
	case s.files > 0 && s.earlier == s.files && !w.at.BySkip:
		return noteOlder
	case s.known == 0 && len(w.seen) > 0 && w.joins():
		return noteShrank
	case !s.ordered && !w.at.BySkip:
		return noteOrder
	}
	return ""
}

// advance chooses the next query after an accepted answer.
func (w *Walk) advance(s *sight) {
	next, later := w.later(s)
	switch {
	case w.idle > maxIdle:
		w.giveUp()
	case later && !w.at.BySkip:
		w.move(next)
	case len(s.fresh) > 0 || s.rows >= w.PageSize:
		w.skipOn(s)
	case s.rows > 0 && s.earlier > 0 && !w.at.BySkip:
		// Files older than asked for: their places may be none of this window's, and what
		// is skipped with them never shown. So the last ones have to be shown again.
		again := max(1, min(s.rows-s.earlier, w.PageSize/20))
		w.goTo(w.at.From, w.at.Skip+s.rows-again, again)
	case s.rows > 0:
		w.goTo(w.at.From, w.at.Skip+s.rows, 0)
	case len(w.seen) == 0 && w.vain == 0:
		w.vain++ // an empty library is worth a second question
	default:
		w.end()
	}
}

// later is the window that begins a second before the last second shown.
func (w *Walk) later(s *sight) (from time.Time, ok bool) {
	if s.last < w.first() {
		return time.Time{}, false
	}
	from = time.Unix(max(s.last-1, 0), 0).UTC()
	return from, w.at.From.IsZero() || from.After(w.at.From)
}

// move leaves the window behind, if all that was counted in it was shown.
func (w *Walk) move(from time.Time) {
	if w.displaced() {
		return
	}
	back := w.at.From
	for id, second := range w.seen {
		if second < back.Unix() {
			delete(w.seen, id)
		}
	}
	w.goTo(from, 0, 0)
	w.at.Back = back
	w.startPass(0)
}

// skipOn goes on within the window, so far that some of what was shown comes again.
func (w *Walk) skipOn(s *sight) {
	again := min(max(w.PageSize/20, 1), s.rows/2)
	next := w.at.Skip + s.rows - again
	if next <= w.MaxSkip {
		w.goTo(w.at.From, next, again)
		return
	}
	if from, later := w.later(s); later && s.ordered {
		// Too far to go on by position. The rest can still be read, if not vouched for.
		w.note(noteUnordered)
		w.at.BySkip = false
		w.move(from)
		return
	}
	if w.at.BySkip {
		w.breakOff(fmt.Sprintf("pages stay out of order, and reading by position ends at %d files", w.MaxSkip))
		return
	}
	w.breakOff(fmt.Sprintf("more than %d files were created within two seconds from %s on", w.MaxSkip, w.at.From.Format(time.RFC3339)))
}

// end believes that there are no more files.
func (w *Walk) end() {
	if !w.displaced() {
		w.at.Done = true
	}
}

// displaced starts the window over when it showed fewer files than it counts: then some
// were shown at two positions, and others at none.
func (w *Walk) displaced() bool {
	if w.pass.top-w.pass.base <= len(w.pass.ids)+w.pass.unnamed {
		return false
	}
	if w.pass.number >= maxPasses {
		w.note(noteDisplaced)
		return false
	}
	w.note(noteMoved)
	number := w.pass.number
	w.goTo(w.at.From, 0, 0)
	w.startPass(number)
	return true
}

// stepBack looks for a place that joins what is known.
func (w *Walk) stepBack() {
	switch {
	case w.at.Skip > 0 && w.backs == 0:
		w.backs++
		w.goTo(w.at.From, max(0, w.at.Skip-w.PageSize), w.PageSize)
		w.pass.base = min(w.pass.base, w.at.Skip)
	case w.at.Skip > 0:
		w.startOver("ImageKit does not show again what it has shown")
	case w.backs < maxBacks && !w.at.Back.Equal(w.at.From):
		w.backs++
		// Moving on from there once more would lead here: then by position.
		w.at.BySkip = w.at.BySkip || w.backs == maxBacks
		w.goTo(w.at.Back, 0, 0)
		w.startPass(0)
	default:
		w.breakOff("ImageKit does not show again what it has shown")
	}
}

// startOver reads the window from its beginning, or breaks off when that did not help.
func (w *Walk) startOver(why string) {
	if w.backs >= maxBacks {
		w.breakOff(why)
		return
	}
	w.backs++
	w.goTo(w.at.From, 0, 0)
	w.startPass(0)
}

func (w *Walk) giveUp() {
	w.breakOff(fmt.Sprintf("ImageKit has shown nothing new in %d pages, and no end", maxIdle))
}

func (w *Walk) goTo(from time.Time, skip, again int) {
	w.at.From, w.at.Skip, w.at.Again, w.vain = from, skip, again, 0
}

func (w *Walk) startPass(after int) {
	w.pass = pass{number: after + 1, base: w.at.Skip, top: w.at.Skip, ids: map[string]struct{}{}}
}
