// Package collect gathers evidence for the checker from real parts: the database, the
// stream, ImageKit's stand-in. It is apart from trueup for the same reason as the
// checker is: it imports nothing of what is judged and reads every table with SQL of its
// own.
//
// Its one invariant: it changes nothing. The database is read in one read-only snapshot,
// the stream without a consumer that acknowledges, and a stopped queue from a copy of
// its directory.
package collect

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/check"
)

// Database is everything that public.imagekit_files and schema trueup hold now.
func Database(ctx context.Context, url string) (check.Dump, error) {
	c, err := pgx.ParseConfig(url)
	if err != nil {
		return check.Dump{}, fmt.Errorf("collect from the database: %w", err)
	}
	// A pooler may be in between: nothing here needs a session.
	c.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	c.RuntimeParams["application_name"] = "trueup-check"
	conn, err := pgx.ConnectConfig(ctx, c)
	if err != nil {
		return check.Dump{}, fmt.Errorf("collect from the database: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var d check.Dump
	err = pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		d, err = read(ctx, tx)
		return err
	})
	if err != nil {
		return check.Dump{}, fmt.Errorf("collect from the database: %w", err)
	}
	return d, nil
}

func read(ctx context.Context, tx pgx.Tx) (d check.Dump, err error) {
	if _, err := tx.Exec(ctx, `SET LOCAL statement_timeout = '10min'`); err != nil {
		return d, err
	}
	if err := tx.QueryRow(ctx, `SELECT now()`).Scan(&d.At); err != nil { // takes the snapshot
		return d, err
	}
	for _, read := range []func(context.Context, pgx.Tx, *check.Dump) error{
		rows, states, ledger, retries, letters, runs, findings, audit, fuse, expired,
	} {
		if err := read(ctx, tx, &d); err != nil {
			return d, err
		}
	}
	return d, nil
}

// table reads one query's rows, each scanned by scan; never nil.
func table[T any](ctx context.Context, tx pgx.Tx, sql string, scan func(pgx.CollectableRow) (T, error)) ([]T, error) {
	r, err := tx.Query(ctx, sql)
	if err != nil {
		return nil, err
	}
	out, err := pgx.CollectRows(r, scan)
	if out == nil {
		out = []T{}
	}
	return out, err
}

// rows reads the table through to_jsonb, because an application may lack columns, or have
// others of its own.
func rows(ctx context.Context, tx pgx.Tx, d *check.Dump) (err error) {
	d.Rows, err = table(ctx, tx, `SELECT f.xmin::text, to_jsonb(f)::text FROM public.imagekit_files f ORDER BY f.file_id COLLATE "C"`,
		func(row pgx.CollectableRow) (check.Row, error) {
			var xmin, text string
			if err := row.Scan(&xmin, &text); err != nil {
				return check.Row{}, err
			}
			return scanRow(xmin, text)
		})
	return err
}

func scanRow(xmin, text string) (check.Row, error) {
	var v struct {
		ID              json.Number     `json:"id"`
		FileID          string          `json:"file_id"`
		FileURL         string          `json:"file_url"`
		UserID          string          `json:"user_id"`
		UploadTimestamp *stamp          `json:"upload_timestamp"`
		FileName        *string         `json:"file_name"`
		FilePath        *string         `json:"file_path"`
		FileType        *string         `json:"file_type"`
		MIME            *string         `json:"mime"`
		SizeBytes       *int64          `json:"size_bytes"`
		Width           *int64          `json:"width"`
		Height          *int64          `json:"height"`
		ThumbnailURL    *string         `json:"thumbnail_url"`
		Tags            []string        `json:"tags"`
		CustomMetadata  json.RawMessage `json:"custom_metadata"`
		VersionID       *string         `json:"version_id"`
		IsPrivate       *bool           `json:"is_private"`
		RemoteUpdatedAt *stamp          `json:"remote_updated_at"`
		SyncedAt        *stamp          `json:"synced_at"`
	}
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return check.Row{}, fmt.Errorf("a row of imagekit_files: %w", err)
	}
	r := check.Row{
		FileID: v.FileID, FileURL: v.FileURL, UserID: v.UserID, UploadTimestamp: v.UploadTimestamp.time(), FileName: v.FileName, FilePath: v.FilePath,
		FileType: v.FileType, MIME: v.MIME, SizeBytes: v.SizeBytes, Width: v.Width, Height: v.Height, ThumbnailURL: v.ThumbnailURL, Tags: v.Tags,
		VersionID: v.VersionID, IsPrivate: v.IsPrivate, RemoteUpdatedAt: v.RemoteUpdatedAt.time(), SyncedAt: v.SyncedAt.time(), Xmin: xmin,
	}
	r.ID, _ = v.ID.Int64() // an application may have an id of another type
	if len(v.CustomMetadata) > 0 && string(v.CustomMetadata) != "null" {
		r.CustomMetadata = v.CustomMetadata
	}
	return r, nil
}

// stamp is a column's time. What no calendar has (a person may write infinity) becomes
// the zero time, which equals nothing of ImageKit's.
type stamp time.Time

func (s *stamp) UnmarshalJSON(text []byte) error {
	t, err := time.Parse(`"`+time.RFC3339Nano+`"`, string(text))
	if err == nil {
		*s = stamp(t.UTC())
	}
	return nil
}

func (s *stamp) time() *time.Time { return (*time.Time)(s) }

func utc(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	u := t.UTC()
	return &u
}
