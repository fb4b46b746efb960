package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/sethvargo/go-retry"

	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/worker/reconcile/spool"
	"github.com/trueup/trueup/worker/reconcile/walk"
)

// list spools the whole listing, or as much of it as can be had.
func (a *audit) list(ctx context.Context) error {
	a.show(func(p *AuditProgress) { p.Phase = "list" })
	w, err := walk.New(walk.Config{Lister: a.c.Library})
	if err != nil {
		return err
	}
	fault, err := a.walk(ctx, w)
	if err != nil {
		return err
	}
	a.Whole, a.Calls = w.Whole(), int64(w.Calls())
	notes := w.Notes()
	for _, what := range slices.Sorted(maps.Keys(notes)) {
		a.Notes = noted(a.Notes, what, notes[what])
	}
	switch {
	case fault != nil:
		a.Broken = fault.Error()
	case !a.Whole:
		a.Broken = "something in it was doubtful"
	}
	switch {
	case fault == nil || a.Files > 0:
		return nil
	case refuses(faultIn(fault)):
		return fmt.Errorf("%w: ImageKit refuses the private key: %w", ErrNotRecognised, fault)
	}
	return fmt.Errorf("nothing could be listed: %w", fault)
}

func faultIn(err error) (f *file.Fault) {
	errors.As(err, &f)
	return f
}

// walk reads to the end. The first result is why it ended before, the second an error of
// ours.
func (a *audit) walk(ctx context.Context, w *walk.Walk) (fault, err error) {
	number := int64(0)
	for {
		page, err := a.next(ctx, w)
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case errors.Is(err, io.EOF):
			return nil, nil
		case err != nil:
			return err, nil
		}
		if number++; len(page.Files)+len(page.Unreadable) > 0 {
			if err := a.keep(ctx, number, page); err != nil {
				return nil, err
			}
		}
		a.show(func(p *AuditProgress) { p.Files = a.Files })
	}
}

// next waits for a page while ImageKit is away, as long as patience lasts.
func (a *audit) next(ctx context.Context, w *walk.Walk) (page walk.Page, err error) {
	pauses := retry.WithMaxDuration(a.c.Patience, retry.WithCappedDuration(15*time.Second, retry.NewExponential(time.Second)))
	err = retry.Do(ctx, pauses, func(ctx context.Context) error {
		var err error
		page, err = w.Next(ctx)
		if fault := faultIn(err); fault != nil && fault.Transient() {
			a.show(func(p *AuditProgress) { p.Waiting = fault.Error() })
			return retry.RetryableError(err)
		}
		return err
	})
	a.shown.Waiting = ""
	return page, err
}

// keep spools a page.
func (a *audit) keep(ctx context.Context, number int64, page walk.Page) error {
	snapshots := make([]*file.Snapshot, len(page.Files))
	for i := range page.Files {
		snapshots[i] = &page.Files[i]
	}
	hashes, err := a.c.Rows.Hash(ctx, snapshots)
	if err != nil {
		return err
	}
	lines := make([]spool.Line, 0, len(page.Files)+len(page.Unreadable))
	for i, s := range snapshots {
		lines = append(lines, spool.Line{FileID: s.ID, UpdatedAt: s.UpdatedAt, Hash: hashes[i], Ticketed: len(s.Tickets) > 0, Snapshot: s})
	}
	for _, id := range page.Unreadable {
		lines = append(lines, spool.Line{FileID: id, Unreadable: true})
	}
	a.Files += int64(len(lines))
	a.Unreadable += int64(len(page.Unreadable))
	return a.spool.Append(spool.Page{Number: number, Cursor: json.RawMessage("null"), Lines: lines})
}

// lookUp asks by id for rows that the listing does not show: only that tells whether a
// file is gone.
func (a *audit) lookUp(ctx context.Context) error {
	ask := a.unlisted
	if a.matched == 0 {
		// Most likely another account's: a few answers tell.
		ask = ask[:min(len(ask), 5*askKnown)]
	}
	slices.Sort(ask)
	a.show(func(p *AuditProgress) { p.Phase, p.Sampled, p.Rows = "look up", int64(len(ask)), a.Rows })
	for _, id := range ask {
		_, err := a.c.Library.Details(ctx, id)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		a.Asked++
		switch fault := faultIn(err); {
		case err == nil:
			a.There++
		case fault == nil:
			return fmt.Errorf("look up %s: %w", id, err)
		case fault.Absent():
			a.Gone++
			a.example(&a.Of.Deleted, id)
		default:
			a.Unclear++
			if refuses(fault) {
				a.Notes = append(a.Notes, "looking up by id was refused: "+fault.Error())
				return nil
			}
		}
		a.show(func(p *AuditProgress) { p.Asked = a.Asked })
	}
	return nil
}

// conclude says how many rows point at deleted files; or that nothing can be said.
func (a *audit) conclude() error {
	comparable := a.matched + a.Unlisted
	if comparable > 0 && a.matched == 0 && a.There == 0 {
		return fmt.Errorf("%w: ImageKit lists %d files with this key, and not one of the table's %d rows names one of them, nor did any of %d looked up by id answer; "+
			"either the key is another account's, or every file of this table is gone", ErrNotRecognised, a.Files, comparable, a.Asked)
	}
	switch {
	case a.Asked == a.Unlisted:
		a.Deleted = a.Gone
	case a.Whole: // a sample; the others are what the listing says they are
		a.Sampled = true
		a.Deleted = a.Unlisted - a.There
	default:
		a.Sampled = true
		a.Deleted = a.Gone
	}
	if a.Unclear > 0 {
		a.Notes = noted(a.Notes, "a look-up by id gave no answer", int(a.Unclear))
	}
	return nil
}
