package rows

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/run"
)

// of are the findings of a run that which wants, in the byte order of the ids.
func (db *Database) findingsOf(runID string, which func(*finding) bool) (out []*finding) {
	all := db.findings[runID]
	for _, id := range sorted(all) {
		if which(all[id]) {
			out = append(out, all[id])
		}
	}
	return out
}

func (f *finding) told() run.Finding {
	out := f.Finding
	out.Columns, out.Evidence = slices.Clone(f.Columns), append([]string{}, f.Evidence...)
	return out
}

// SaveFindings stores findings; those of files that the run has one of already are left as
// they are.
func (d *Door) SaveFindings(ctx context.Context, turn int64, runID string, findings []run.Finding) error {
	return d.inRun(ctx, "SaveFindings", turn, runID, func(*keptRun) error {
		for _, f := range findings {
			if d.db.findings[runID][f.FileID] != nil {
				continue
			}
			f.Columns, f.Evidence, f.Event, f.FoundAt, f.ChangedAt = slices.Clone(f.Columns), slices.Clone(f.Evidence), "", now(), now()
			if f.Status == "" {
				f.Status = run.Found
			}
			d.db.findings[runID][f.FileID] = &finding{Finding: f, runID: runID}
		}
		return nil
	})
}

// OpenFindings are findings of these kinds with status found and without an event, in the
// byte order of the ids, after one of them.
func (d *Door) OpenFindings(ctx context.Context, runID string, kinds []run.FindingKind, after string, limit int) (out []run.Finding, err error) {
	err = d.do(ctx, "OpenFindings", runID, func() error {
		out = nil
		for _, f := range d.db.nextOpen(runID, kinds, after, limit) {
			out = append(out, f.told())
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (db *Database) nextOpen(runID string, kinds []run.FindingKind, after string, limit int) []*finding {
	all := db.findingsOf(runID, func(f *finding) bool { return f.open() && f.FileID > after && slices.Contains(kinds, f.Kind) })
	return all[:min(limit, len(all))]
}

// CloseFindings gives all findings of these kinds that are open and without an event this
// status, and says how many. One call closes them all: what PostgreSQL does slice by slice
// is seen here as one transaction.
func (d *Door) CloseFindings(ctx context.Context, turn int64, runID string, kinds []run.FindingKind, status run.Status, reason string) (n int64, err error) {
	err = d.inRun(ctx, "CloseFindings", turn, runID, func(*keptRun) error {
		all := d.db.nextOpen(runID, kinds, "", len(d.db.findings[runID]))
		for _, f := range all {
			f.Status, f.Reason, f.ChangedAt = status, reason, now()
		}
		n = int64(len(all))
		return nil
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// TakeFindings draws event ids for up to limit open findings of these kinds and returns
// the events to publish; first, by themselves, those drawn before and never confirmed,
// last orphans that only the fuse refused.
func (d *Door) TakeFindings(ctx context.Context, turn int64, runID string, kinds []run.FindingKind, limit int) (out []event.Event, err error) {
	err = d.inRun(ctx, "TakeFindings", turn, runID, func(*keptRun) error {
		out = nil
		drawn := d.db.findingsOf(runID, func(f *finding) bool { return f.unsettled() && f.published.IsZero() })
		if drawn = drawn[:min(limit, len(drawn))]; len(drawn) > 0 {
			out = eventsOf(drawn)
			return nil
		}
		if out = d.db.drawEvents(runID, kinds, limit); len(out) == 0 && slices.Contains(kinds, run.Orphaned) {
			d.db.reopen(runID, limit)
			out = d.db.drawEvents(runID, kinds, limit)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (db *Database) drawEvents(runID string, kinds []run.FindingKind, limit int) []event.Event {
	all := db.nextOpen(runID, kinds, "", limit)
	for _, f := range all {
		f.Event, f.ChangedAt = db.newID(), now()
		db.asked[f.Event] = f
	}
	return eventsOf(all)
}

// eventsOf ask about findings, accepted when their ids were drawn.
func eventsOf(findings []*finding) []event.Event {
	var out []event.Event
	for _, f := range findings {
		out = append(out, event.Event{ID: f.Event, Source: event.Reconcile, Origin: event.Reconcile, Kind: event.KindRecheck, FileID: f.FileID, AcceptedAt: f.ChangedAt})
	}
	return out
}

// reopen gives up to limit orphans that only the fuse refused their chance, when an
// operator has released it for this run.
func (db *Database) reopen(runID string, limit int) {
	if r := db.runs[runID]; r == nil || r.ExpectedDeletions == nil || !db.fuse.latchedAt.IsZero() {
		return
	}
	all := db.findingsOf(runID, func(f *finding) bool {
		return f.Kind == run.Orphaned && f.Status == run.Refused && f.Reason == run.ReasonFuse && !f.unsettled()
	})
	for _, f := range all[:min(limit, len(all))] {
		delete(db.asked, f.Event)
		f.Status, f.Reason, f.Event, f.ChangedAt = run.Found, "", "", now()
		f.published, f.endedAt = time.Time{}, time.Time{}
	}
}

// ConfirmFindings records that these events of the run were published.
func (d *Door) ConfirmFindings(ctx context.Context, turn int64, runID string, eventIDs []string) error {
	return d.inRun(ctx, "ConfirmFindings", turn, runID, func(*keptRun) error {
		for _, id := range eventIDs {
			if f := d.db.asked[id]; f != nil && f.runID == runID && f.published.IsZero() {
				f.published = now()
			}
		}
		return nil
	})
}

// Unsettled is how many of the run's events have not come to their end.
func (d *Door) Unsettled(ctx context.Context, runID string) (n int64, err error) {
	err = d.do(ctx, "Unsettled", runID, func() error {
		n = int64(len(d.db.findingsOf(runID, (*finding).unsettled)))
		return nil
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// Findings returns up to limit findings of a run that the filter matches, after one of
// them. It wraps event.ErrUnknown where there is no run.
func (d *Door) Findings(ctx context.Context, runID string, f run.FindingFilter, after string, limit int) (out []run.Finding, err error) {
	err = d.do(ctx, "Findings", runID, func() error {
		out = nil
		if d.db.runs[runID] == nil {
			return fmt.Errorf("run %s: %w", runID, event.ErrUnknown)
		}
		for _, found := range d.db.findingsOf(runID, func(had *finding) bool {
			return had.FileID > after && (f.Kind == "" || had.Kind == f.Kind) && (f.Status == "" || had.Status == f.Status)
		}) {
			if len(out) < limit {
				out = append(out, found.told())
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
