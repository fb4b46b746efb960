package store

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/event"
)

// Trials gives the trial mark, which may be none, of each event that still has to be
// settled; one that has reached its end, or waits as a retry and comes from an envelope
// once more, is left out. It leaves no mark.
func (s *Store) Trials(ctx context.Context, pending []event.Pending) (map[string]event.Mark, error) {
	ids, retried := make([]string, len(pending)), make(map[string]bool, len(pending))
	for i, p := range pending {
		ids[i], retried[p.ID] = p.ID, p.Retried
	}
	var marks map[string]event.Mark
	err := s.try(ctx, "read trial marks", func(ctx context.Context) error {
		rows, err := s.pool.Query(ctx, `SELECT i.id, `+whereEventIs+`, coalesce(t.marks, 0), coalesce(t.stack, '')
			FROM unnest($1::text[]) AS i(id) `+besideEvent+` LEFT JOIN trueup.trial_marks t ON t.event_id = i.id`, ids)
		if err != nil {
			return err
		}
		marks = make(map[string]event.Mark, len(ids))
		var id string
		var over, waits bool
		var m event.Mark
		_, err = pgx.ForEachRow(rows, []any{&id, &over, &waits, &m.Survived, &m.Stack}, func() error {
			if !over && waits == retried[id] {
				marks[id] = m
			}
			return nil
		})
		return err
	})
	return marks, err
}
