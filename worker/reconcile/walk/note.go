package walk

import (
	"fmt"
	"maps"

	"github.com/trueup/trueup/internal/file"
)

// What is noted on the way. Sentences for people, each a constant: they are counted.
const (
	noteOrder     = "a page was not in the order of creation"
	noteOlder     = "a page answered another question"
	noteTwice     = "a page showed a file twice"
	noteSame      = "a page came again where others should follow"
	noteShort     = "a page was shorter than the listing"
	noteShrank    = "the listing shrank, or jumped, while it was read"
	noteMoved     = "files changed places while they were read"
	noteForeign   = "a page showed something else than files"
	noteEarlier   = "a page showed files older than asked for"
	noteBySkip    = "the rest was read by position, because windows of time did not hold"
	noteNameless  = "a row could not be told from any file"
	noteDisplaced = "the listing counts more files than it shows"
	noteUnordered = "the order of creation could not be relied on"
)

// doubtful says which notes keep a listing from being whole: after each of them there
// may be a file that ImageKit holds and the walk has not seen.
func doubtful(note string) bool {
	return note == noteNameless || note == noteDisplaced || note == noteUnordered
}

// Broken ends a walk: what comes after this place cannot be read, or not be trusted.
type Broken struct {
	// Why is a sentence for people.
	Why string
	// Fault is ImageKit's refusal; nil where it answered and the answers do not agree.
	Fault *file.Fault
}

func (b *Broken) Error() string {
	if b.Fault != nil {
		return fmt.Sprintf("the listing is broken: %s: %v", b.Why, b.Fault)
	}
	return "the listing is broken: " + b.Why
}

func (b *Broken) Unwrap() error {
	if b.Fault == nil {
		return nil
	}
	return b.Fault
}

// Notes are all that was odd so far, by sentence, with how often.
func (w *Walk) Notes() map[string]int { return maps.Clone(w.at.Notes) }

func (w *Walk) note(n string) {
	if w.at.Notes == nil {
		w.at.Notes = map[string]int{}
	}
	w.at.Notes[n]++
}

// Whole reports whether the end is proven and no note makes that doubtful.
func (w *Walk) Whole() bool { return w.at.Whole() }

// Whole is the same for a walk that is resumed here.
func (c Cursor) Whole() bool {
	for n := range c.Notes {
		if doubtful(n) {
			return false
		}
	}
	return c.Done
}
