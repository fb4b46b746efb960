package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/run"
)

// LatchFuse latches the fuse for everybody, naming the run. One that is latched already
// keeps its own reason.
func (s *Store) LatchFuse(ctx context.Context, turn int64, runID, why string) error {
	return s.inRun(ctx, "latch fuse", turn, runID, shared, func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE trueup.fuse SET latched_at = clock_timestamp(), why = $1, run_id = $2 WHERE latched_at IS NULL`, clean(why), runID)
		return err
	})
}

// queueRelease releases the fuse and lets the day's count begin anew.
func queueRelease(b *pgx.Batch, who string) {
	b.Queue(`UPDATE trueup.fuse SET latched_at = NULL, why = '', run_id = NULL, released_at = clock_timestamp(), released_by = $1`, who)
	b.Queue(`DELETE FROM trueup.fuse_hours`)
}

// Fuse says whether the fuse is latched, how many candidates the last day had, and how
// many live rows there are, counted.
func (s *Store) Fuse(ctx context.Context) (latched bool, today, live int64, err error) {
	err = s.tx(ctx, "read fuse", func(ctx context.Context, tx pgx.Tx) error {
		return tx.QueryRow(ctx, `SELECT latched_at IS NOT NULL, (SELECT coalesce(sum(candidates), 0) FROM trueup.fuse_hours
			WHERE hour >= date_trunc('hour', clock_timestamp() - interval '24 hours')), (SELECT count(*) FROM public.imagekit_files) FROM trueup.fuse`).
			Scan(&latched, &today, &live)
	})
	return latched, today, live, err
}

// DoubtAccount notes that the account is not confirmed; doubt keeps the time it began.
// An empty why ends it, and the account that the run has saved as confirmed is the last
// one from then on.
func (s *Store) DoubtAccount(ctx context.Context, turn int64, runID, why string) error {
	return s.inRun(ctx, "doubt account", turn, runID, shared, func(ctx context.Context, tx pgx.Tx) error {
		b := &pgx.Batch{}
		if why == "" {
			queueTrustAccount(b, runID)
		} else {
			b.Queue(`UPDATE trueup.fuse SET account_doubt = $1, account_run = $2, account_doubted_at = coalesce(account_doubted_at, clock_timestamp())`, clean(why), runID)
		}
		return send(ctx, tx, b)
	})
}

// queueTrustAccount ends the doubt and remembers the run's account, if that is confirmed.
func queueTrustAccount(b *pgx.Batch, runID string) {
	b.Queue(`UPDATE trueup.fuse SET account_doubt = '', account_doubted_at = NULL, account_run = NULL,
		account = coalesce((SELECT r.identity FROM trueup.runs r WHERE r.id = $1 AND r.identity @> '{"confirmed": true}'), account)`, runID)
}

// Account is the account that was confirmed last, and why it is doubted now; empty when
// it is not.
func (s *Store) Account(ctx context.Context) (last run.Account, doubt string, err error) {
	err = s.tx(ctx, "read account", func(ctx context.Context, tx pgx.Tx) error {
		last = run.Account{}
		return tx.QueryRow(ctx, `SELECT account, account_doubt FROM trueup.fuse`).Scan(&last, &doubt)
	})
	return last, doubt, err
}

// PollPosition is the highest updatedAt that was polled; zero when none was.
func (s *Store) PollPosition(ctx context.Context) (time.Time, error) {
	var at *time.Time
	err := s.try(ctx, "read poll position", func(ctx context.Context) error {
		return s.pool.QueryRow(ctx, `SELECT position FROM trueup.poll`).Scan(&at)
	})
	return orZero(at), err
}

// SavePollPosition stores how far polling has come.
func (s *Store) SavePollPosition(ctx context.Context, turn int64, at time.Time) error {
	return s.tx(ctx, "save poll position", func(ctx context.Context, tx pgx.Tx) error {
		b := &pgx.Batch{}
		guard(b, turn, false)
		b.Queue(`UPDATE trueup.poll SET position = $1`, moment(at))
		return send(ctx, tx, b)
	})
}
