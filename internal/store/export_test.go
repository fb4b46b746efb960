package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

func FirstID(age time.Duration) string { return firstID(age) }

// Query runs SQL as a transaction of the store would: with its role, and inside a run
// where one is named.
func (s *Store) Query(ctx context.Context, turn int64, runID, sql string) (out string, err error) {
	f := func(ctx context.Context, tx pgx.Tx) error { return tx.QueryRow(ctx, sql).Scan(&out) }
	if runID == "" {
		return out, s.tx(ctx, "query", f)
	}
	return out, s.inRun(ctx, "query", turn, runID, shared, f)
}
