package reconcile

import (
	"fmt"
	"strconv"
	"strings"
)

// noted returns notes with this one in them, once, with how often it was so. A count of
// zero leaves them as they are.
func noted(notes []string, what string, times int) []string {
	if times <= 0 {
		return notes
	}
	sentence := what
	if times > 1 {
		sentence = fmt.Sprintf("%s (%d×)", what, times)
	}
	for i, n := range notes {
		if timesNoted(n, what) > 0 {
			notes[i] = sentence
			return notes
		}
	}
	return append(notes, sentence)
}

// timesNoted is how often the note says that what was so; zero when it says something
// else.
func timesNoted(note, what string) int {
	rest, ok := strings.CutPrefix(note, what)
	if ok && rest == "" {
		return 1
	}
	rest, opens := strings.CutPrefix(rest, " (")
	rest, closes := strings.CutSuffix(rest, "×)")
	n, err := strconv.Atoi(rest)
	if !ok || !opens || !closes || err != nil {
		return 0
	}
	return n
}

// note adds a sentence to the run's notes, or counts it where it stands there already.
func (w *work) note(format string, args ...any) {
	what, before := fmt.Sprintf(format, args...), 0
	for _, n := range w.run.Notes {
		before += timesNoted(n, what)
	}
	w.run.Notes = noted(w.run.Notes, what, before+1)
}

// noteOnce adds a sentence to the run's notes unless it stands there.
func (w *work) noteOnce(format string, args ...any) {
	w.run.Notes = noted(w.run.Notes, fmt.Sprintf(format, args...), 1)
}
