package reconcile

import (
	"context"
	"fmt"

	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/run"
	"github.com/trueup/trueup/worker/reconcile/spool"
)

// repairable are the findings that a hit may answer.
func repairable() []run.FindingKind {
	return []run.FindingKind{run.Missing, run.Drifted, run.Adopted, run.Unowned}
}

// repair answers the findings: what a hit may decide is written, and the rest, with every
// orphan that the fuse lets through, becomes events.
func (w *work) repair(ctx context.Context) error {
	if w.run.Phase == run.PhaseRepair && !w.written {
		if err := w.write(ctx); err != nil {
			return err
		}
		w.written = true
	}
	if err := w.publish(ctx, repairable()); err != nil {
		return err
	}
	if err := w.publish(ctx, []run.FindingKind{run.Orphaned}); err != nil {
		return err
	}
	if w.run.Phase == run.PhaseRepair {
		if err := w.enter(ctx, run.PhaseSettle); err != nil {
			return err
		}
	}
	return w.settle(ctx)
}

// write goes through the open findings in the order of their ids.
func (w *work) write(ctx context.Context) error {
	for after := ""; ; {
		findings, err := w.rows.OpenFindings(ctx, w.run.ID, repairable(), after, w.Slice)
		if err != nil || len(findings) == 0 {
			return err
		}
		hits, err := w.hits(ctx, after, findings)
		if err != nil {
			return err
		}
		if len(hits) > 0 {
			did, err := w.rows.Repair(ctx, w.turn, w.run.ID, w.run.Fence, hits)
			if err != nil {
				return fmt.Errorf("repair %d files from %s on: %w", len(hits), hits[0].FileID, err)
			}
			w.Metrics.repaired(did)
		}
		after = findings[len(findings)-1].FileID
		w.moved()
		if err := w.tell(ctx); err != nil {
			return err
		}
	}
}

// hits are what ImageKit says of the files of these findings: from the listing as long
// as that is fresh, else asked again. A file of which there is none becomes an event.
func (w *work) hits(ctx context.Context, after string, findings []run.Finding) ([]file.Observation, error) {
	if err := w.open(ctx); err != nil {
		return nil, err
	}
	if w.spool != nil && w.mark.Done && w.Now().Sub(w.mark.At) < w.PlanFresh {
		return w.listedHits(ctx, after, findings)
	}
	w.noteOnce("the listing is old or elsewhere: its findings were asked for again")
	if w.Ask == nil {
		return nil, nil
	}
	ids := make([]string, len(findings))
	for i, f := range findings {
		ids[i] = f.FileID
	}
	hits, err := w.Ask(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("ask for %d files again: %w", len(ids), err)
	}
	return hits, nil
}

// listedHits finds the files in the sorted listing, which is in the same order, from where
// the slice before ended. Each hit has the fence and the request of the page that showed
// it.
func (w *work) listedHits(ctx context.Context, after string, findings []run.Finding) ([]file.Observation, error) {
	sorted, err := w.spool.Sort(ctx)
	if err != nil {
		return nil, err
	}
	hits, next := make([]file.Observation, 0, len(findings)), 0
	for e, err := range sorted.After(after) {
		if err != nil {
			return nil, err
		}
		for next < len(findings) && findings[next].FileID < e.FileID {
			next++ // not listed
		}
		if next == len(findings) {
			break
		}
		if findings[next].FileID != e.FileID || e.Unreadable {
			continue
		}
		hit, err := w.hit(e)
		if err != nil {
			return nil, err
		}
		hits = append(hits, hit)
	}
	return hits, nil
}

func (w *work) hit(e spool.Entry) (file.Observation, error) {
	s, err := w.spool.Snapshot(e)
	if err != nil {
		return file.Observation{}, err
	}
	o := file.Observation{FileID: e.FileID, How: file.Hit, Fence: file.Fence{Number: w.run.Fence, At: w.mark.At}, Snapshot: s, Proof: w.Prove(s), Status: 200}
	if p, ok := w.spool.Page(e.Page); ok {
		o.Fence.Number, o.RequestID = max(p.Fence, w.run.Fence), p.RequestID
	}
	return o, nil
}
