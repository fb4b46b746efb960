package reconcile

import (
	"errors"
	"fmt"
	"iter"

	"github.com/trueup/trueup/internal/run"
	"github.com/trueup/trueup/worker/reconcile/spool"
)

// verdict is what the comparison says of one file.
type verdict struct {
	// Kind is empty where there is nothing to say.
	Kind   run.FindingKind
	Status run.Status
	Reason string
	// Count names the sum this file belongs to.
	Count count
}

// count is one of the sums of a comparison, into one of which every file falls.
type count int

const (
	countNone count = iota
	countSame
	countMoved
	countUnowned // the same content, and nobody's
	countUnreadable
	countUnjudged // a row that an incomplete listing does not show
)

// judge compares both sides of one file; either may be nil. Pure. A row that was written
// after the run's fence is not judged, and a row that the listing does not show only
// when the listing is whole.
func judge(l *spool.Entry, r *run.Local, whole bool) verdict {
	switch {
	case r != nil && r.Moved:
		return verdict{Count: countMoved}
	case l == nil:
		return judgeUnlisted(r, whole)
	case r == nil || !r.Live:
		if l.Unreadable {
			return verdict{Kind: run.Missing, Status: run.Skipped, Reason: run.ReasonUnreadable, Count: countUnreadable}
		}
		return verdict{Kind: run.Missing, Status: run.Found}
	case l.Unreadable:
		return verdict{Count: countUnreadable}
	case !r.Known:
		return verdict{Kind: run.Adopted, Status: run.Found}
	case r.Hash != l.Hash || !r.Followed:
		return verdict{Kind: run.Drifted, Status: run.Found}
	case r.Unowned && l.Ticketed:
		return verdict{Kind: run.Unowned, Status: run.Found, Count: countUnowned}
	case r.Unowned:
		return verdict{Kind: run.Unowned, Status: run.Skipped, Reason: run.ReasonNobody, Count: countUnowned}
	}
	return verdict{Count: countSame}
}

func judgeUnlisted(r *run.Local, whole bool) verdict {
	switch {
	case r == nil || !r.Live:
		return verdict{}
	case !whole:
		return verdict{Count: countUnjudged}
	}
	return verdict{Kind: run.Orphaned, Status: run.Found}
}

// errDisorder means that one side did not come in the byte order of the ids: whatever
// would be found then might not be so.
var errDisorder = errors.New("not in order")

// merge brings both sides of every file together, each given in the byte order of the
// ids, and calls pair once for each file with what there is of it. It reads each side
// once and keeps nothing. An error of either side, or of pair, ends it.
func merge(listing iter.Seq2[spool.Entry, error], local func(yield func(run.Local) error) error, pair func(*spool.Entry, *run.Local) error) error {
	next, stop := iter.Pull2(listing)
	defer stop()
	m := &merging{next: next, pair: pair}
	if err := m.advance(); err != nil {
		return err
	}
	if err := local(m.row); err != nil {
		return err
	}
	for m.more {
		if err := m.unmatched(); err != nil {
			return err
		}
	}
	return nil
}

// merging is a merge under way: head is the first listed file that has not been paired.
type merging struct {
	next func() (spool.Entry, error, bool)
	pair func(*spool.Entry, *run.Local) error
	head spool.Entry
	more bool
	last *string // id of the last row; an application may have written an empty one
}

// row pairs a row, after all listed files before it.
func (m *merging) row(r run.Local) error {
	if m.last != nil && r.FileID <= *m.last {
		return fmt.Errorf("compare: row %q after %q: %w", r.FileID, *m.last, errDisorder)
	}
	m.last = &r.FileID
	for m.more && m.head.FileID < r.FileID {
		if err := m.unmatched(); err != nil {
			return err
		}
	}
	if !m.more || m.head.FileID != r.FileID {
		return m.pair(nil, &r)
	}
	if err := m.pair(&m.head, &r); err != nil {
		return err
	}
	return m.advance()
}

func (m *merging) unmatched() error {
	if err := m.pair(&m.head, nil); err != nil {
		return err
	}
	return m.advance()
}

func (m *merging) advance() error {
	before := m.head.FileID // empty before the first
	head, err, more := m.next()
	m.head, m.more = head, more
	switch {
	case !more:
		return nil
	case err != nil:
		return fmt.Errorf("read the sorted listing: %w", err)
	case head.FileID <= before:
		return fmt.Errorf("compare: listed %s after %s: %w", head.FileID, before, errDisorder)
	}
	return nil
}
