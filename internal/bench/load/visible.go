package load

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"         //nolint:depguard // it stands for an application that reads its table
	"github.com/jackc/pgx/v5/pgxpool" //nolint:depguard // as above
)

// watcher looks at the table as the application would.
type watcher struct{ pool *pgxpool.Pool }

// lookEvery is how often a row that is awaited is looked for; a latency is known no
// better than that.
const lookEvery = 500 * time.Microsecond

// visibleWithin bounds the wait for one row.
const visibleWithin = 30 * time.Second

// watcher connects beforehand, so that no latency has a log-in in it; nil where the
// job watches no rows.
func (j *Job) watcher(ctx context.Context) (*watcher, error) {
	if j.Database == "" {
		return nil, nil
	}
	c, err := pgxpool.ParseConfig(j.Database)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	c.MaxConns, c.MinConns = int32(j.Connections), int32(j.Connections)
	pool, err := pgxpool.NewWithConfig(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	w := &watcher{pool: pool}
	for range j.Connections {
		if _, err := w.stands(ctx, ""); err != nil {
			pool.Close()
			return nil, fmt.Errorf("load: %w", err)
		}
	}
	return w, nil
}

func (w *watcher) close() {
	if w != nil {
		w.pool.Close()
	}
}

func (w *watcher) await(ctx context.Context, fileID string) error {
	ctx, cancel := context.WithTimeout(ctx, visibleWithin)
	defer cancel()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if there, err := w.stands(ctx, fileID); there || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (w *watcher) stands(ctx context.Context, fileID string) (bool, error) {
	var one int
	err := w.pool.QueryRow(ctx, `SELECT 1 FROM public.imagekit_files WHERE file_id = $1`, fileID).Scan(&one)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}
