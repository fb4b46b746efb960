package store

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/rule"
	"github.com/trueup/trueup/internal/run"
)

// Repair writes what was seen of files that are there, by the order rule and through the
// settling path that events take, and says what became of each file. With a run it holds
// the run's row, judges nothing that was written after fence, and closes the findings in
// the same transaction: what is to be looked up by id stays found. Without one (an empty
// runID) there are no findings, and no fence to keep to. It never removes a row.
//
// Repairing the same again writes nothing. Errors wrap event.ErrTurnMoved,
// event.ErrPaused, event.ErrOutage, and run.ErrEnded where the run is not under way. An answer
// whose values the database refuses is to be looked up by id, too: its event becomes the
// dead letter that says why.
func (s *Store) Repair(ctx context.Context, turn int64, runID string, fence int64, seen []file.Observation) (map[string]run.Repair, error) {
	out := make(map[string]run.Repair, len(seen))
	present := make([]file.Observation, 0, len(seen))
	for _, o := range seen {
		if out[o.FileID] = run.RepairAsk; o.Present() {
			present = append(present, o)
		}
	}
	err := halving(present, func(part []file.Observation) error {
		c := &settlement{turn: turn, Call: rule.NewCall(nil, part, nil)}
		if runID != "" {
			c.Run = &rule.Repairing{ID: runID, Fence: fence}
		}
		return s.repair(ctx, c, out)
	}, func(file.Observation, error) {})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (s *Store) repair(ctx context.Context, c *settlement, into map[string]run.Repair) error {
	var files []*rule.FilePlan
	err := s.tx(ctx, "repair", func(ctx context.Context, tx pgx.Tx) error {
		w, _, err := s.settle(ctx, tx, c)
		if err == nil {
			files = w.files
		}
		return err
	})
	for _, f := range files {
		into[f.Obs.FileID] = f.Repaired()
	}
	return err
}

// queueRepaired closes the findings of what was decided, a statement for each way of
// closing. They are found one by one by their key, and what else must hold is asked where no
// index answers it: otherwise the planner reads all open findings of a run that nobody has
// analyzed yet, in every call.
func (w *writing) queueRepaired(b *pgx.Batch) {
	if w.call.Run == nil {
		return
	}
	type way struct{ status, reason string }
	var ways []way
	closed := map[way][]string{}
	for _, f := range w.files {
		if f.Repaired() == run.RepairAsk {
			continue
		}
		status, reason := f.Closes("")
		how := way{string(status), reason}
		if closed[how] == nil {
			ways = append(ways, how)
		}
		closed[how] = append(closed[how], f.Obs.FileID)
	}
	for _, how := range ways {
		// What a repair makes of each kind, as rule.Closes has it: the kind is known here only.
		b.Queue(`UPDATE trueup.findings SET status = $3, updated_at = clock_timestamp(), reason = CASE WHEN kind = 'unowned' AND $4 = $5 THEN $6 ELSE $4 END
			WHERE ctid = ANY(ARRAY(SELECT f.place FROM unnest($2::text[]) AS i(file_id) CROSS JOIN LATERAL
				(SELECT ctid AS place FROM trueup.findings WHERE run_id = $1 AND file_id = i.file_id LIMIT 1) f))
				AND CASE WHEN status = 'found' THEN event_id IS NULL ELSE false END`,
			w.call.Run.ID, closed[how], how.status, how.reason, run.ReasonSameByNow, run.ReasonNobody)
	}
}
