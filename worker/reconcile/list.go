package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/run"
	"github.com/trueup/trueup/worker/reconcile/spool"
	"github.com/trueup/trueup/worker/reconcile/walk"
)

// mark is what the spool keeps with a page: how to go on after it, or that there is
// nothing to go on to.
type mark struct {
	Walk  walk.Cursor `json:"walk"`
	Calls int64       `json:"calls"` // list calls of the run up to here
	// Done: the listing is over; whole, or Broken says why not, and Refused that ImageKit
	// did not let us in.
	Done    bool      `json:"done,omitempty"`
	Whole   bool      `json:"whole,omitempty"`
	Broken  string    `json:"broken,omitempty"`
	Refused bool      `json:"refused,omitempty"`
	At      time.Time `json:"at"`
}

// list spools what is left of the listing.
func (w *work) list(ctx context.Context) error {
	if err := w.open(ctx); err != nil {
		return err
	}
	if w.spool == nil {
		if err := w.begin(ctx); err != nil {
			return err
		}
	}
	if !w.mark.Done {
		if err := w.follow(ctx); err != nil {
			return err
		}
	}
	w.run.Whole = w.mark.Whole
	if !w.run.Whole {
		w.noteOnce("%s%s", incomplete, w.mark.Broken)
	}
	if w.run.Listed == 0 && !w.run.Whole {
		return w.listedNothing(ctx)
	}
	if err := w.stillOurs(ctx); err != nil {
		return err
	}
	return w.enter(ctx, run.PhaseCompare)
}

// incomplete begins the note on a listing that is not whole.
const incomplete = "the listing is incomplete: "

// whyIncomplete is what that note says.
func (w *work) whyIncomplete() string {
	for _, n := range w.run.Notes {
		if why, ok := strings.CutPrefix(n, incomplete); ok {
			return why
		}
	}
	return "why is not known any more"
}

// listedNothing ends a run that has nothing to compare. Where ImageKit was away for a
// while, the next run may do better; where it refuses us, the fuse is latched.
func (w *work) listedNothing(ctx context.Context) error {
	if w.mark.Refused && !w.planning() {
		if err := w.latch(ctx, w.mark.Broken); err != nil {
			return err
		}
	}
	return w.finish(ctx, run.Failed, "nothing was listed: "+w.mark.Broken)
}

// follow walks the listing from where the spool ends. While one page is hashed and
// written, the next is asked for.
func (w *work) follow(ctx context.Context) error {
	if w.walk == nil {
		next, err := walk.New(walk.Config{Lister: w.Library, Cursor: w.mark.Walk, Recent: w.spool.LastIDs(), PageSize: w.pageSize})
		if err != nil {
			return err
		}
		w.walk, w.calls = next, max(w.run.Calls, w.mark.Calls)
	}
	ctx, stop := context.WithCancel(ctx)
	pages := make(chan fetched)
	go w.fetch(ctx, w.walk, w.mark.Walk, pages)
	defer func() { // the fetcher has ended when this returns
		stop()
		for range pages { // what was fetched and not kept is fetched again
		}
	}()
	for p := range pages {
		if p.err != nil {
			return p.err // every page before is kept: this walk may go on
		}
		if err := w.keep(ctx, &p); err != nil {
			w.walk = nil // it is ahead of the spool
			return err
		}
	}
	return context.Cause(ctx)
}

// fetched is one page on its way to the spool, or why there is none.
type fetched struct {
	fence int64
	page  walk.Page
	mark  mark
	err   error
}

// fetch reads pages until the listing is over or does not go on. It begins at a place
// and touches nothing of the run.
func (w *work) fetch(ctx context.Context, from *walk.Walk, at walk.Cursor, to chan<- fetched) {
	defer close(to)
	before := w.calls
	for {
		p := fetchOne(ctx, w.rows, from, at)
		at = p.mark.Walk
		p.mark.Calls, p.mark.At = before+int64(from.Calls()), w.Now()
		select {
		case to <- p:
		case <-ctx.Done():
			return
		}
		if p.err != nil || p.mark.Done || ctx.Err() != nil {
			return
		}
	}
}

// fetchOne draws a page's fence before it asks for the page.
func fetchOne(ctx context.Context, rows Rows, from *walk.Walk, at walk.Cursor) fetched {
	fence, _, err := rows.Fence(ctx, nil)
	if err != nil {
		return fetched{err: err}
	}
	p := fetched{fence: fence.Number}
	p.page, err = from.Next(ctx)
	var broken *walk.Broken
	switch {
	case errors.As(err, &broken):
		p.mark = mark{Walk: at, Done: true, Broken: broken.Error(), Refused: refuses(broken.Fault)}
		p.mark.Walk.Notes = from.Notes()
	case err != nil && !errors.Is(err, io.EOF):
		return fetched{err: fmt.Errorf("list: %w", err)}
	default:
		p.mark = mark{Walk: p.page.Cursor, Done: p.page.Last || err != nil, Whole: from.Whole()}
		if p.mark.Done && !p.mark.Whole {
			p.mark.Broken = "it came to an end, but what was noted on the way makes that doubtful"
		}
	}
	return p
}

// keep hashes a page and appends it to the spool.
func (w *work) keep(ctx context.Context, p *fetched) error {
	if err := w.tell(ctx); err != nil { // the spool never gets far ahead of the database
		return err
	}
	lines, err := w.lines(ctx, &p.page)
	if err != nil {
		return err
	}
	if err := w.append(p, lines); err != nil {
		return err
	}
	w.moved()
	return nil
}

// lines are a page's files as they are compared.
func (w *work) lines(ctx context.Context, p *walk.Page) ([]spool.Line, error) {
	snapshots := make([]*file.Snapshot, len(p.Files))
	for i := range p.Files {
		snapshots[i] = &p.Files[i]
	}
	var hashes []int64
	if len(snapshots) > 0 {
		var err error
		if hashes, err = w.rows.Hash(ctx, snapshots); err != nil {
			return nil, err
		}
		if len(hashes) != len(snapshots) {
			return nil, fmt.Errorf("%d files have %d hashes", len(snapshots), len(hashes))
		}
	}
	lines := make([]spool.Line, 0, len(snapshots)+len(p.Unreadable))
	for i, s := range snapshots {
		lines = append(lines, spool.Line{FileID: s.ID, UpdatedAt: s.UpdatedAt, Hash: hashes[i], Ticketed: len(s.Tickets) > 0, Snapshot: s})
	}
	for _, id := range p.Unreadable {
		lines = append(lines, spool.Line{FileID: id, Unreadable: true})
	}
	return lines, nil
}

// append makes the page durable; from then on it is not listed again.
func (w *work) append(p *fetched, lines []spool.Line) error {
	cursor, err := json.Marshal(p.mark)
	if err != nil {
		return fmt.Errorf("encode the walk's place: %w", err)
	}
	page := spool.Page{Number: w.spool.Pages() + 1, Fence: p.fence, RequestID: p.page.RequestID, Cursor: cursor, Lines: lines}
	if err := w.spool.Append(page); err != nil {
		return err
	}
	w.mark = p.mark
	w.kept()
	return nil
}

// kept takes over into the run how far the spool is.
func (w *work) kept() {
	w.run.Slices, w.run.Listed = w.spool.Pages(), w.spool.Files()
	w.Metrics.called(max(0, w.mark.Calls-w.run.Calls))
	w.run.Calls = max(w.run.Calls, w.mark.Calls)
	notes := w.mark.Walk.Notes
	for _, what := range slices.Sorted(maps.Keys(notes)) {
		w.run.Notes = noted(w.run.Notes, what, notes[what])
	}
}

// breakOff ends a listing that does not go on: what is there is compared, and nothing
// that is not there is judged.
func (w *work) breakOff(why string) error {
	last, _ := w.spool.Last()
	over := mark{Walk: w.mark.Walk, Calls: w.mark.Calls, Done: true, Broken: why, At: w.Now()}
	w.walk = nil
	return w.append(&fetched{fence: last.Fence, mark: over}, nil)
}
