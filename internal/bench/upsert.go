package bench

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"         //nolint:depguard // the ceiling is SQL without a store
	"github.com/jackc/pgx/v5/pgxpool" //nolint:depguard // as above
	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"
)

// upsert is the ceiling of the write path: as many rows at once, over as many
// connections, into the same three tables with the same indexes (row, state, ledger
// line), in a transaction each; and nothing is read, judged, fenced or locked before.
type upsert struct{ pool *pgxpool.Pool }

const (
	upsertBatch   = 500 // as the worker gathers
	upsertWriters = 4   // as many as the worker has batches in flight
)

func newUpsert(ctx context.Context, database string) (*upsert, error) {
	c, err := pgxpool.ParseConfig(database)
	if err != nil {
		return nil, err
	}
	c.MaxConns = upsertWriters
	pool, err := pgxpool.NewWithConfig(ctx, c)
	return &upsert{pool}, err
}

// bareRows are the columns of a batch.
type bareRows struct {
	id, url, name, path, thumbnail, version, event []string
	created                                        []time.Time
	size                                           []int64
}

func (b *bareRows) add(fileID string, at time.Time) {
	name := "gen0_" + fileID[:6] + ".png"
	b.id, b.version = append(b.id, fileID), append(b.version, fileID)
	b.name, b.path = append(b.name, name), append(b.path, "/b1/"+name)
	b.url = append(b.url, "http://127.0.0.1:40000/demo_id/b1/"+name)
	b.thumbnail = append(b.thumbnail, "http://127.0.0.1:40000/demo_id/tr:n-ik_ml_thumbnail/b1/"+name)
	b.event = append(b.event, ulid.Make().String())
	b.created, b.size = append(b.created, at), append(b.size, 1234)
}

const upsertRow = `INSERT INTO public.imagekit_files AS f (file_id, file_url, user_id, upload_timestamp, file_name, file_path, file_type, mime,
	size_bytes, width, height, thumbnail_url, version_id, is_private, remote_updated_at, synced_at)
SELECT i.file_id, i.url, '', i.created, i.name, i.path, 'image', 'image/png', i.size, 64, 64, i.thumbnail, i.version, false, i.created, clock_timestamp()
FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::text[])
	AS i(file_id, url, created, name, path, size, thumbnail, version)
ON CONFLICT (file_id) DO UPDATE SET file_url = excluded.file_url, upload_timestamp = excluded.upload_timestamp, file_name = excluded.file_name,
	file_path = excluded.file_path, size_bytes = excluded.size_bytes, thumbnail_url = excluded.thumbnail_url, version_id = excluded.version_id,
	remote_updated_at = excluded.remote_updated_at, synced_at = excluded.synced_at`

const upsertState = `INSERT INTO trueup.file_state AS s (file_id, seen, high, hash)
SELECT i.file_id, nextval('trueup.fence'), i.created, 1 FROM unnest($1::text[], $2::timestamptz[]) AS i(file_id, created)
ON CONFLICT (file_id) DO UPDATE SET seen = excluded.seen, high = excluded.high, hash = excluded.hash`

const insertLine = `INSERT INTO trueup.ledger (id, file_id, source, origin, kind, accepted_at, verdict, outcome, reason, end_kind, fence, status, request_id)
SELECT i.event, i.file_id, 'webhook', 'webhook', 'file.created', i.created, 'present', 'applied', 'new', 'done', 1, 200, i.event
FROM unnest($1::text[], $2::text[], $3::timestamptz[]) AS i(event, file_id, created)`

func (u *upsert) write(ctx context.Context, r *bareRows) error {
	return pgx.BeginFunc(ctx, u.pool, func(tx pgx.Tx) error {
		b := &pgx.Batch{}
		b.Queue(upsertState, r.id, r.created)
		b.Queue(upsertRow, r.id, r.url, r.created, r.name, r.path, r.size, r.thumbnail, r.version)
		b.Queue(insertLine, r.event, r.id, r.created)
		return tx.SendBatch(ctx, b).Close()
	})
}

// rate writes n files never seen and returns files per second.
func (u *upsert) rate(ctx context.Context, n int, seed uint64) (float64, error) {
	batches, at := bareBatches(n, seed), atomic.Int64{}
	g, ctx := errgroup.WithContext(ctx)
	began := time.Now()
	for range upsertWriters {
		g.Go(func() error {
			for {
				i := int(at.Add(1)) - 1
				if i >= len(batches) {
					return nil
				}
				if err := u.write(ctx, batches[i]); err != nil {
					return fmt.Errorf("bare upsert: %w", err)
				}
			}
		})
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	return float64(n) / time.Since(began).Seconds(), nil
}

// bareBatches are n files with ids as random as those of the library.
func bareBatches(n int, seed uint64) []*bareRows {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	random, now := rand.NewChaCha8(key), time.Now().UTC().Truncate(time.Microsecond)
	var out []*bareRows
	for i := range n {
		if i%upsertBatch == 0 {
			out = append(out, &bareRows{})
		}
		var id [12]byte
		_, _ = random.Read(id[:]) // never fails
		out[len(out)-1].add(hex.EncodeToString(id[:]), now)
	}
	return out
}
