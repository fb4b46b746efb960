package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/run"
)

// Report is what one user may know of one report.
type Report struct {
	// State is pending, verified or rejected.
	State string `json:"state"`
	// Reason is not_claimable where State is rejected, whatever the true one was.
	Reason string `json:"reason,omitempty"`
	// File is the row, where the caller is its owner and it is live; without its version.
	File *file.Snapshot `json:"file,omitempty"`
}

// Report answers for one event and one user; for anybody else's event it it is pending, as
// for one that is not settled. It needs no right on any table.
func (s *Store) Report(ctx context.Context, eventID, user string) (Report, error) {
	var r Report
	err := s.try(ctx, "read report", func(ctx context.Context) error {
		var shown *string
		err := s.pool.QueryRow(ctx, `SELECT state, reason, file::text FROM trueup.report($1, $2)`, eventID, user).Scan(&r.State, &r.Reason, &shown)
		if err != nil || shown == nil {
			return err
		}
		r.File, err = shownFile(*shown)
		return err
	})
	return r, err
}

// shownFile reads what trueup.report shows of a row.
func shownFile(text string) (*file.Snapshot, error) {
	var v struct {
		FileID, URL                          string
		Name, Path, Type, MIME, ThumbnailURL *string
		Size                                 *int64
		Width, Height                        *int32
		Tags                                 []string
		CustomMetadata                       json.RawMessage
		IsPrivate                            *bool
		CreatedAt, UpdatedAt                 time.Time
	}
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return nil, fmt.Errorf("decode row: %w", err)
	}
	return &file.Snapshot{
		ID: v.FileID, URL: v.URL, Name: v.Name, Path: v.Path, Type: v.Type, MIME: v.MIME, SizeBytes: v.Size, Width: v.Width, Height: v.Height,
		ThumbnailURL: v.ThumbnailURL, Tags: v.Tags, CustomMetadata: v.CustomMetadata, IsPrivate: v.IsPrivate,
		CreatedAt: v.CreatedAt.UTC(), UpdatedAt: v.UpdatedAt.UTC(),
	}, nil
}

func raw(s *string) json.RawMessage {
	if s == nil {
		return nil
	}
	return json.RawMessage(*s)
}

// Status is the state of the database's part of the service.
type Status struct {
	Turn    int64  `json:"turn"`
	Schema  int64  `json:"schema"` // version of the last migration
	Paused  Paused `json:"paused"`
	Retries struct {
		Count   int64     `json:"count"`
		NextDue time.Time `json:"nextDue,omitzero"`
	} `json:"retries"`
	// Dead counts the dead letters not resolved, by class.
	Dead map[string]int64 `json:"dead"`
	// Expired counts, by class, those that retention deleted while they were dead.
	Expired map[string]int64 `json:"expired"`
	// LiveRows is the planner's estimate, or the exact count of a small table.
	LiveRows int64 `json:"liveRows"`
	Fuse     Fuse  `json:"fuse"`
	// Columns are those of imagekit_files that the service fills.
	Columns []string `json:"columns"`
	// Run is the youngest reconciliation run; nil when there was none.
	Run     *run.Run     `json:"run,omitempty"`
	Account AccountDoubt `json:"account"`
}

// AccountDoubt says whether ImageKit's account is the one whose files we know.
type AccountDoubt struct {
	// Doubt is why it is not confirmed; empty when nothing speaks against it.
	Doubt string    `json:"doubt,omitempty"`
	Since time.Time `json:"since,omitzero"`
	Run   string    `json:"run,omitempty"` // the run that found out
	// Last is the one that was confirmed last.
	Last run.Account `json:"last"`
}

// Fuse is the brake on unsigned deletions.
type Fuse struct {
	Latched bool      `json:"latched"`
	At      time.Time `json:"at,omitzero"`
	Why     string    `json:"why,omitempty"`
	// Candidates are the unsigned absences of the last day.
	Candidates int64 `json:"candidates"`
	// Run latched it; empty where no run did.
	Run string `json:"run,omitempty"`
}

// Status reads it all.
func (s *Store) Status(ctx context.Context) (Status, error) {
	var out Status
	err := s.tx(ctx, "read status", func(ctx context.Context, tx pgx.Tx) (err error) {
		if out, err = readStatus(ctx, tx); err != nil {
			return err
		}
		last, err := readRuns(ctx, tx, true, `ORDER BY id DESC LIMIT 1`)
		if len(last) > 0 {
			out.Run = &last[0]
		}
		return err
	})
	return out, err
}

func readStatus(ctx context.Context, tx pgx.Tx) (Status, error) {
	out, b := Status{Dead: map[string]int64{}, Expired: map[string]int64{}}, &pgx.Batch{}
	b.Queue(`SELECT turn, paused, paused_by, paused_note, paused_at FROM trueup.leases WHERE name = 'worker'`).QueryRow(func(row pgx.Row) error {
		var at *time.Time
		err := row.Scan(&out.Turn, &out.Paused.Paused, &out.Paused.By, &out.Paused.Note, &at)
		out.Paused.At = orZero(at)
		return err
	})
	b.Queue(`SELECT coalesce(max(version_id) FILTER (WHERE is_applied), 0) FROM trueup.goose_version`).QueryRow(func(row pgx.Row) error { return row.Scan(&out.Schema) })
	b.Queue(`SELECT count(*), min(due_at) FROM trueup.retries`).QueryRow(func(row pgx.Row) error {
		var due *time.Time
		err := row.Scan(&out.Retries.Count, &due)
		out.Retries.NextDue = orZero(due)
		return err
	})
	b.Queue(`SELECT class, count(*) FROM trueup.dead_letters WHERE state IN ('dead', 'replaying') GROUP BY class`).Query(func(rows pgx.Rows) error {
		var class string
		var n int64
		_, err := pgx.ForEachRow(rows, []any{&class, &n}, func() error { out.Dead[class] = n; return nil })
		return err
	})
	b.Queue(`SELECT class, count FROM trueup.expired_counts WHERE place = 'dead_letters' AND state = 'dead'`).Query(func(rows pgx.Rows) error {
		var class string
		var n int64
		_, err := pgx.ForEachRow(rows, []any{&class, &n}, func() error { out.Expired[class] = n; return nil })
		return err
	})
	// Exact up to 10,000; above, the planner's figure, which costs nothing.
	b.Queue(`SELECT CASE WHEN n < 10000 THEN n ELSE greatest(n, e) END FROM
		(SELECT count(*) AS n FROM (SELECT FROM public.imagekit_files LIMIT 10000) l) c,
		(SELECT reltuples::bigint AS e FROM pg_catalog.pg_class WHERE oid = 'public.imagekit_files'::regclass) r`).
		QueryRow(func(row pgx.Row) error { return row.Scan(&out.LiveRows) })
	b.Queue(`SELECT latched_at, why, coalesce(run_id, ''), account, account_doubt, account_doubted_at, coalesce(account_run, ''), (SELECT coalesce(sum(candidates), 0) FROM trueup.fuse_hours
		WHERE hour >= date_trunc('hour', clock_timestamp() - interval '24 hours')) FROM trueup.fuse`).QueryRow(func(row pgx.Row) error {
		var at, since *time.Time
		err := row.Scan(&at, &out.Fuse.Why, &out.Fuse.Run, &out.Account.Last, &out.Account.Doubt, &since, &out.Account.Run, &out.Fuse.Candidates)
		out.Fuse.At, out.Fuse.Latched, out.Account.Since = orZero(at), at != nil, orZero(since)
		return err
	})
	b.Queue(`SELECT name FROM trueup.mapped_columns ORDER BY name`).Query(func(rows pgx.Rows) (err error) {
		out.Columns, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	return out, send(ctx, tx, b)
}
