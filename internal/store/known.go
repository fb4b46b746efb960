package store

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/run"
)

// knownSample is how many rows are considered; only they are read.
const knownSample = 200

// sampleSQL is up to $2 rows of table t from a random block on, and from its start after
// its end: $1 is a random number below one.
func sampleSQL(table, columns string) string {
	from := `(SELECT format('(%s,0)', floor($1::float8 * pg_relation_size('` + table + `') / current_setting('block_size')::int))::tid)`
	part := func(op string) string {
		return `(SELECT ` + columns + ` FROM ` + table + ` t WHERE t.ctid ` + op + ` ` + from + ` LIMIT $2)`
	}
	return `(SELECT * FROM (` + part(">=") + ` UNION ALL ` + part("<") + `) both LIMIT $2)`
}

// knownSQL ranks rows by how sure it is that ImageKit has answered for them: content as we
// wrote it last, then any, then those that a 404 or a tombstone makes doubtful. These
// count too: with a key of another account, every row becomes suspect in time.
func (m *mapping) knownSQL() string {
	created := "NULL::timestamptz"
	if m.types["upload_timestamp"] != "" {
		created = "CASE WHEN k.rank = 0 THEN k.upload_timestamp END"
	}
	columns := "t.file_id"
	for _, c := range m.columns {
		columns += ", t." + c.name
	}
	return `WITH f AS MATERIALIZED ` + sampleSQL("public.imagekit_files", columns) + `, k AS (
	SELECT f.*, CASE WHEN s.suspect_at IS NOT NULL OR s.gone_at IS NOT NULL THEN 2 WHEN s.hash = ` + m.rowHash("f") + ` THEN 0 ELSE 1 END AS rank
	FROM f LEFT JOIN trueup.file_state s ON s.file_id = f.file_id WHERE ` + notAnnounced + `)
SELECT k.file_id, ` + created + ` FROM k ORDER BY k.rank, random() LIMIT $3`
}

// rememberedSQL is for a table that has been emptied: what file_state remembers as live.
var rememberedSQL = `SELECT f.file_id, NULL::timestamptz FROM ` + sampleSQL("trueup.file_state", "t.file_id, t.gone_at") + ` f
WHERE f.gone_at IS NULL AND ` + notAnnounced + ` ORDER BY random() LIMIT $3`

// KnownFiles are up to n files that tell our account from another: live rows chosen at
// random, those that we have verified first. CreatedAt is known of these only. Where no row
// stands they are files that had one. Files announced deleted are none.
func (s *Store) KnownFiles(ctx context.Context, n int) ([]run.KnownFile, error) {
	var out []run.KnownFile
	err := s.tx(ctx, "choose known files", func(ctx context.Context, tx pgx.Tx) error {
		m, err := s.mapping(ctx, tx)
		if err != nil {
			return err
		}
		for _, sql := range []string{m.known, rememberedSQL} {
			rows, err := tx.Query(ctx, sql, rand.Float64(), knownSample, n)
			if err != nil {
				return err
			}
			if out, err = pgx.CollectRows(rows, scanKnown); err != nil || len(out) > 0 {
				return err
			}
		}
		return nil
	})
	return out, err
}

func scanKnown(row pgx.CollectableRow) (k run.KnownFile, err error) {
	var created *time.Time
	err = row.Scan(&k.FileID, &created)
	k.CreatedAt = orZero(created)
	return k, err
}
