package store

import (
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/run"
)

// lineOfRun is the finding that an event of a run asks about, with what an operator has
// said of that run.
type lineOfRun struct {
	runID, fileID string
	kind          run.FindingKind
	// expected: its absence is one of the number that `apply --expect-deletions` named.
	expected bool
	// accepted: `apply --accept-account` has vouched for the account.
	accepted bool
}

// queueRunLines reads the findings of the events that runs have sent. Only a line that is
// open, of a run that nobody has cancelled, is exempt from anything, and of the fuse only
// an orphan: no more files than the operator was shown.
func (g *gathered) queueRunLines(b *pgx.Batch, c *settlement) {
	var ids []string
	for _, p := range c.pending {
		if p.Source == event.Reconcile {
			ids = append(ids, p.ID)
		}
	}
	if len(ids) == 0 {
		return
	}
	b.Queue(`SELECT f.event_id, f.run_id, f.file_id, f.kind,
			f.status = 'found' AND r.state <> 'cancelled' AND f.kind = 'orphaned' AND r.expected_deletions IS NOT NULL,
			f.status = 'found' AND r.state <> 'cancelled' AND r.account_accepted_by <> ''
		FROM trueup.findings f JOIN trueup.runs r ON r.id = f.run_id WHERE f.event_id = ANY($1)`, ids).Query(func(rows pgx.Rows) error {
		var id string
		var l lineOfRun
		_, err := pgx.ForEachRow(rows, []any{&id, &l.runID, &l.fileID, &l.kind, &l.expected, &l.accepted}, func() error {
			g.lines[id] = l
			return nil
		})
		return err
	})
}

// vouched says what operators have said of this file's absence: events are those of the
// file that need an end.
func (g *gathered) vouched(fileID string, events []event.Pending) (expected, accepted bool) {
	for _, p := range events {
		if l, ok := g.lines[p.ID]; ok && l.fileID == fileID {
			expected, accepted = expected || l.expected, accepted || l.accepted
		}
	}
	return expected, accepted
}

// evidenceKept is how many sentences a finding keeps of look-ups that did not end its
// event.
const evidenceKept = 20

// queueFindings tells the findings of runs what became of their events. One that an
// earlier look has repaired already stays repaired.
func (w *writing) queueFindings(b *pgx.Batch) {
	var ids, statuses, reasons, evidence []string
	var over []bool
	for i := range w.ends {
		e := &w.ends[i]
		l, ok := w.g.lines[e.ID]
		if !ok {
			continue
		}
		status, reason := becomes(l.kind, e)
		ids, over = append(ids, e.ID), append(over, e.end.Kind != event.Retry)
		statuses, reasons = append(statuses, string(status)), append(reasons, reason)
		evidence = append(evidence, clean(w.secrets.text(sentence(e))))
	}
	if len(ids) == 0 {
		return
	}
	b.Queue(`UPDATE trueup.findings f SET updated_at = clock_timestamp(),
			status = CASE WHEN f.status = 'found' THEN i.status ELSE f.status END,
			reason = CASE WHEN f.status = 'found' THEN i.reason ELSE f.reason END,
			evidence = CASE WHEN i.evidence = '' OR NOT i.over AND jsonb_array_length(f.evidence) >= $6 THEN f.evidence ELSE f.evidence || to_jsonb(i.evidence) END,
			ended_at = CASE WHEN i.over THEN clock_timestamp() ELSE f.ended_at END
		FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bool[]) AS i(event_id, status, reason, evidence, over)
		WHERE f.event_id = i.event_id`, ids, statuses, reasons, evidence, over, evidenceKept)
}

// becomes is the status of a finding of this kind after what was decided of its event.
func becomes(kind run.FindingKind, e *ended) (run.Status, string) {
	present := e.obs != nil && e.obs.Present()
	wrote := e.result.Outcome == file.Applied || e.result.Outcome == file.Tombstoned
	switch {
	case e.end.Kind == event.Retry && present && wrote && kind != run.Orphaned:
		return run.Repaired, string(e.result.Reason)
	case e.end.Kind == event.Retry:
		return run.Found, ""
	case e.end.Kind == event.Dead || e.obs == nil:
		return run.Refused, e.end.Reason
	case present && kind == run.Orphaned:
		return run.Skipped, run.ReasonPresent
	case wrote, !present && !e.result.Live:
		return run.Repaired, e.end.Reason
	case e.end.Kind == event.Done && kind == run.Unowned:
		return run.Skipped, run.ReasonNobody
	case e.end.Kind == event.Done:
		return run.Skipped, run.ReasonSameByNow
	default:
		return run.Refused, e.end.Reason
	}
}

// sentence is what this look adds to the finding's evidence; empty where ImageKit was not
// heard.
func sentence(e *ended) string {
	if e.obs != nil {
		by := "looked up by id"
		if e.obs.How == file.Hit {
			by = "found by a search"
		}
		s := fmt.Sprintf("%s, %s: ImageKit answered %d", e.obs.Fence.At.UTC().Format(time.RFC3339), by, e.obs.Status)
		if e.obs.RequestID != "" {
			s += " (request " + e.obs.RequestID + ")"
		}
		return s
	}
	if e.end.Kind == event.Dead {
		return "given up: " + e.end.Reason
	}
	return ""
}
