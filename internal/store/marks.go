package store

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/event"
)

// Marks says which of these events have a trial mark standing; it leaves none.
func (s *Store) Marks(ctx context.Context, ids []string) (map[string]event.Mark, error) {
	var standing map[string]event.Mark
	err := s.try(ctx, "read trial marks", func(ctx context.Context) error {
		rows, err := s.pool.Query(ctx, `SELECT event_id, marks, stack FROM trueup.trial_marks WHERE event_id = ANY($1)`, nonNil(ids))
		if err != nil {
			return err
		}
		standing = map[string]event.Mark{}
		var id string
		var m event.Mark
		_, err = pgx.ForEachRow(rows, []any{&id, &m.Survived, &m.Stack}, func() error { standing[id] = m; return nil })
		return err
	})
	return standing, err
}
