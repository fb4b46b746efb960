package walk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"time"

	"github.com/trueup/trueup/internal/file"
)

// Lister is ImageKit's listing: files with createdAt at or after from (to the second;
// zero means all), oldest first, less the first skip. Errors are *file.Fault or the
// context's.
type Lister interface {
	ListCreated(ctx context.Context, from time.Time, skip int) (file.Answer, error)
}

// Config of a Walk. Lister is required.
type Config struct {
	Lister Lister
	// Cursor is where to go on; zero means the beginning.
	Cursor Cursor
	// Recent are ids that were given out before Cursor, those of the last page at least:
	// what the next query shows again is told by them. None means that a jump of the first
	// query goes unnoticed, and that some files may come twice.
	Recent []string
	// PageSize is how many rows a full page has; zero means 1,000.
	PageSize int
	// MaxSkip is the furthest that is ever skipped; zero means 100,000. ImageKit states no
	// limit, and no listing by position stays true for so long.
	MaxSkip int
}

// Cursor is a place in the walk, small, and fit for JSON.
type Cursor struct {
	// From and Skip are the query to ask next.
	From time.Time `json:"from,omitzero"`
	Skip int       `json:"skip,omitempty"`
	// Back is where the window before began: where to go when this one does not join.
	Back time.Time `json:"back,omitzero"`
	// Again is how many rows the query repeats where it skips; zero means that it only
	// looks whether there is more.
	Again int `json:"again,omitempty"`
	// BySkip: pages stay out of order, or show what was not asked for, so that no window
	// can be moved.
	BySkip bool `json:"bySkip,omitempty"`
	// Done: the end is proven.
	Done bool `json:"done,omitempty"`
	// Notes so far.
	Notes map[string]int `json:"notes,omitempty"`
}

// Page is what one step of the walk brought.
type Page struct {
	// Files are those not given out before, in ImageKit's order. A file that is shown
	// again out of turn, much later, may come again.
	Files []file.Snapshot
	// Unreadable are ids of files that are listed in a form that cannot be believed.
	Unreadable []string
	// Status and RequestID are of the answer that showed them.
	Status    int
	RequestID string
	// Cursor resumes after this page.
	Cursor Cursor
	// Last: the end is proven; this page may be empty.
	Last bool
}

// Walk is one reading of the listing. It is for one goroutine.
type Walk struct {
	Config
	at Cursor
	// seen are the ids that this window or the one before may show again, with the second
	// they were created in.
	seen map[string]int64
	pass pass
	// vain counts the answers to this very query that were not accepted; backs the steps
	// back, and idle the calls, since there was news.
	vain, backs, idle int
	calls             int
	broken            *Broken
}

// pass is one reading of a window by position.
type pass struct {
	number    int
	base, top int                 // the positions read, without a gap
	ids       map[string]struct{} // shown at them
	unnamed   int                 // positions that showed no id of their own
}

// limits of patience with a listing that gets nowhere.
const (
	maxVain   = 3   // answers to one query
	maxBacks  = 2   // steps back without news
	maxPasses = 3   // readings of one window
	maxIdle   = 400 // calls without news: more than three passes over MaxSkip
)

// New returns a walk. It asks nothing.
func New(c Config) (*Walk, error) {
	if c.Lister == nil {
		return nil, errors.New("walk: Lister is required")
	}
	c.PageSize = cmp.Or(c.PageSize, 1000)
	c.MaxSkip = cmp.Or(c.MaxSkip, 100_000)
	w := &Walk{Config: c, at: c.Cursor, seen: make(map[string]int64, 2*c.PageSize)}
	w.at.Notes = maps.Clone(c.Cursor.Notes)
	for _, id := range c.Recent {
		w.seen[id] = w.at.From.Unix()
	}
	w.startPass(0)
	return w, nil
}

// Calls is how many list calls were made, failed ones included.
func (w *Walk) Calls() int { return w.calls }

// Next goes on until there is something to tell. io.EOF comes after the last page. A
// *Broken means that the walk cannot go on, ever. Any other error is the listing's own,
// for the moment: nothing is lost, and Next may be called again.
func (w *Walk) Next(ctx context.Context) (Page, error) {
	for {
		switch {
		case w.broken != nil:
			return Page{}, w.broken
		case w.at.Done:
			return Page{}, io.EOF
		}
		page, err := w.step(ctx)
		if err != nil {
			return Page{}, err
		}
		if w.at.Done || len(page.Files)+len(page.Unreadable) > 0 {
			page.Cursor, page.Last = w.at, w.at.Done
			page.Cursor.Notes = w.Notes()
			return page, nil
		}
	}
}

// step makes one call and decides on the next.
func (w *Walk) step(ctx context.Context) (Page, error) {
	w.calls++
	answer, err := w.Lister.ListCreated(ctx, w.at.From, w.at.Skip)
	if err != nil {
		return Page{}, w.refused(err)
	}
	s := w.read(&answer)
	if !w.accepts(&s) {
		return Page{}, nil
	}
	w.take(&s)
	w.advance(&s)
	return Page{Files: s.fresh, Unreadable: s.unreadable, Status: answer.Status, RequestID: answer.RequestID}, nil
}

// refused tells a refusal that will stay from a fault of the moment.
func (w *Walk) refused(err error) error {
	var fault *file.Fault
	if !errors.As(err, &fault) || fault.Transient() {
		return err
	}
	switch {
	case fault.Kind == file.Unauthorized || fault.Kind == file.Forbidden:
		w.breakOff("ImageKit does not let us in")
	case w.at.Skip > 0:
		w.breakOff(fmt.Sprintf("ImageKit refuses to skip %d files", w.at.Skip))
	default:
		w.breakOff("ImageKit refuses the query")
	}
	w.broken.Fault = fault
	return w.broken
}

func (w *Walk) breakOff(why string) { w.broken = &Broken{Why: why} }
