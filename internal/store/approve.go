package store

import (
	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/rule"
)

// queueRunLines reads the findings of the events that runs have sent. Only a line that is
// open, of a run that nobody has cancelled, is exempt from anything, and of the fuse only
// an orphan: no more files than the operator was shown.
func queueRunLines(g *rule.Facts, b *pgx.Batch, c *settlement) {
	var ids []string
	for _, p := range c.Pending {
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
		var l rule.FindingLine
		_, err := pgx.ForEachRow(rows, []any{&id, &l.RunID, &l.FileID, &l.Kind, &l.Expected, &l.Accepted}, func() error {
			g.Lines[id] = l
			return nil
		})
		return err
	})
}

// queueFindings tells the findings of runs what became of their events. One that an
// earlier look has repaired already stays repaired.
func (w *writing) queueFindings(b *pgx.Batch) {
	var ids, statuses, reasons, evidence []string
	var over []bool
	for i := range w.ends {
		e := &w.ends[i]
		l, ok := w.g.Lines[e.ID]
		if !ok {
			continue
		}
		status, reason := rule.Becomes(l.Kind, e)
		ids, over = append(ids, e.ID), append(over, e.End.Kind != event.Retry)
		statuses, reasons = append(statuses, string(status)), append(reasons, reason)
		evidence = append(evidence, clean(w.secrets.Text(e.Sentence())))
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
		WHERE f.event_id = i.event_id`, ids, statuses, reasons, evidence, over, rule.EvidenceKept)
}
