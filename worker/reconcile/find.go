package reconcile

import (
	"context"
	"fmt"
	"time"

	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/run"
	"github.com/trueup/trueup/worker/reconcile/spool"
)

// keepNobodys is how many rows that are nobody's, and will stay so, a run keeps as
// findings: they are a sum, and a few examples.
const keepNobodys = 1000

// compare merges the sorted listing with the rows and stores what differs.
func (w *work) compare(ctx context.Context) error {
	if err := w.open(ctx); err != nil {
		return err
	}
	if w.spool == nil || !w.mark.Done {
		return w.enter(ctx, run.PhaseList)
	}
	c, err := w.merge(ctx)
	if err != nil {
		return err
	}
	w.run.Listed, w.run.Rows, w.run.Whole = c.files, c.rows, w.mark.Whole
	w.run.Same, w.run.Moved, w.run.Unowned = c.counts[countSame]+int64(c.nobodys), c.counts[countMoved], c.counts[countUnowned]
	c.say(w)
	if err := w.count(ctx); err != nil {
		return err
	}
	w.run.Candidates = ofKind(w.run.Found, run.Orphaned)
	w.Metrics.compared(&w.run)
	return w.enter(ctx, run.PhaseBrake)
}

func (w *work) merge(ctx context.Context) (*comparison, error) {
	sorted, err := w.spool.Sort(ctx)
	if err != nil {
		return nil, err
	}
	c := &comparison{work: w, ctx: ctx, files: sorted.Files(), entries: map[string]spool.Entry{}}
	c.unlisted = fmt.Sprintf("not in ImageKit's listing of %d files that ended at %s", c.files, w.mark.At.UTC().Format(time.RFC3339))
	err = merge(sorted.All(), func(yield func(run.Local) error) error {
		return w.rows.Local(ctx, w.run.ID, w.run.Fence, yield)
	}, c.pair)
	if err != nil {
		return nil, err
	}
	return c, c.flush()
}

// count reads how many findings there are: those of a comparison that was cut short
// count, too.
func (w *work) count(ctx context.Context) error {
	open, ok, err := w.runs.OpenRun(ctx)
	switch {
	case err != nil:
		return err
	case !ok || open.ID != w.run.ID:
		return fmt.Errorf("count the findings: %w", run.ErrEnded)
	}
	w.run.Found, w.run.Unsettled = open.Found, open.Unsettled
	return nil
}

// ofKind sums the findings of a kind over all statuses.
func ofKind(found map[run.FindingKind]map[run.Status]int64, kind run.FindingKind) (n int64) {
	for _, of := range found[kind] {
		n += of
	}
	return n
}

// comparison is a merge under way: it judges pair by pair and stores findings in batches.
type comparison struct {
	*work
	ctx      context.Context // of the one merge that it lives for
	files    int64
	rows     int64
	counts   [countUnjudged + 1]int64
	nobodys  int
	lost     int    // rows that somebody else has deleted
	unlisted string // the evidence against every orphan
	findings []run.Finding
	// entries are the listed files among findings that are compared column by column.
	entries map[string]spool.Entry
}

func (c *comparison) pair(e *spool.Entry, r *run.Local) error {
	if r != nil && r.Live {
		c.rows++
	}
	v := judge(e, r, c.mark.Whole)
	if v.Kind == run.Missing && r != nil && r.Known && !r.Gone {
		c.lost++
	}
	c.counts[v.Count]++
	if v.Reason == run.ReasonNobody {
		if c.nobodys++; c.nobodys > keepNobodys {
			return nil
		}
	}
	if v.Kind == "" {
		return nil
	}
	c.add(v, e, r)
	if len(c.findings) < c.Slice {
		return nil
	}
	return c.flush()
}

func (c *comparison) add(v verdict, e *spool.Entry, r *run.Local) {
	f := run.Finding{Kind: v.Kind, Status: v.Status, Reason: v.Reason, FoundAt: c.Now()}
	if e == nil {
		f.FileID, f.Evidence = r.FileID, []string{c.unlisted}
	} else {
		f.FileID, f.Evidence = e.FileID, []string{c.listedAs(e)}
	}
	if v.Kind == run.Drifted || v.Kind == run.Adopted {
		c.entries[e.FileID] = *e
	}
	c.findings = append(c.findings, f)
}

func (c *comparison) listedAs(e *spool.Entry) string {
	said := fmt.Sprintf("on page %d of ImageKit's listing", e.Page)
	if p, ok := c.spool.Page(e.Page); ok && p.RequestID != "" {
		said += " (request " + p.RequestID + ")"
	}
	if e.Unreadable {
		return said + ", in a form that cannot be believed"
	}
	return said + ", updated " + e.UpdatedAt.Format(time.RFC3339Nano)
}

// flush stores the findings so far.
func (c *comparison) flush() error {
	if len(c.findings) == 0 {
		return c.tell(c.ctx)
	}
	if err := c.differ(); err != nil {
		return err
	}
	if err := c.work.rows.SaveFindings(c.ctx, c.turn, c.run.ID, c.findings); err != nil {
		return err
	}
	c.findings = c.findings[:0]
	clear(c.entries)
	c.moved()
	return c.tell(c.ctx)
}

// differ says of the findings whose rows stand how they differ.
func (c *comparison) differ() error {
	var snapshots []*file.Snapshot
	for _, f := range c.findings {
		e, ok := c.entries[f.FileID]
		if !ok {
			continue
		}
		s, err := c.spool.Snapshot(e)
		if err != nil {
			return err
		}
		snapshots = append(snapshots, s)
	}
	if len(snapshots) == 0 {
		return nil
	}
	columns, err := c.work.rows.Differences(c.ctx, snapshots)
	if err != nil {
		return err
	}
	for i := range c.findings {
		c.findings[i].Columns = columns[c.findings[i].FileID]
	}
	return nil
}

// say notes what was seen and not judged.
func (c *comparison) say(w *work) {
	if n := c.counts[countUnreadable]; n > 0 {
		w.noteOnce("%d files are listed in a form that cannot be believed: their rows stay as they are", n)
	}
	if n := c.counts[countUnjudged]; n > 0 {
		w.noteOnce("%d rows are not in the listing, which is incomplete: they are not judged", n)
	}
	if c.lost > 0 {
		w.noteOnce("%d rows of files that ImageKit has were deleted, and not by trueup", c.lost)
	}
	if c.nobodys > keepNobodys {
		w.noteOnce("of %d rows that are nobody's the first %d are kept as findings", c.nobodys, keepNobodys)
	}
}
