package store

import (
	"context"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/run"
)

// The sample that known files are chosen from: so many rows from each of so many random
// blocks on, so that it is cheap in a table of any size and does not lie in what one
// statement of somebody's has put there.
const (
	samplePlaces = 8
	samplePlace  = 25
)

// sampleSQL is a sample of a table; $1 are samplePlaces random numbers below one. The
// start of the table is in it, for places after its last row.
func sampleSQL(table, columns string) string {
	parts := []string{`(SELECT ` + columns + ` FROM ` + table + ` t LIMIT ` + itoa(samplePlace) + `)`}
	for i := range samplePlaces {
		parts = append(parts, `(SELECT `+columns+` FROM `+table+` t WHERE t.ctid >= (SELECT format('(%s,0)',
			floor(($1::float8[])[`+itoa(i+1)+`] * pg_relation_size('`+table+`') / current_setting('block_size')::int))::tid) LIMIT `+itoa(samplePlace)+`)`)
	}
	return `(SELECT DISTINCT ON (sample.file_id) sample.* FROM (` + strings.Join(parts, " UNION ALL ") + `) sample)`
}

// knownSQL ranks rows by how sure it is that ImageKit has answered for them: content as we
// wrote it last, then any, then those that a 404 or a tombstone makes doubtful. These
// count too: with a key of another account, every row becomes suspect in time.
func (m *mapping) knownSQL() string {
	columns, created := "t.file_id", "NULL::timestamptz"
	for _, c := range m.columns {
		columns += ", t." + c.name
	}
	if m.types["upload_timestamp"] != "" {
		created = "CASE WHEN k.rank = 0 THEN k.upload_timestamp END"
	}
	return `WITH f AS MATERIALIZED ` + sampleSQL("public.imagekit_files", columns) + `, k AS (
	SELECT f.*, CASE WHEN s.suspect_at IS NOT NULL OR s.gone_at IS NOT NULL THEN 2 WHEN s.hash = ` + m.rowHash("f") + ` THEN 0 ELSE 1 END AS rank
	FROM f LEFT JOIN trueup.file_state s ON s.file_id = f.file_id WHERE ` + notAnnounced + `)
SELECT k.file_id, ` + created + ` FROM k ORDER BY k.rank, random() LIMIT $2`
}

// rememberedSQL is for a table that somebody has emptied: what file_state remembers.
func rememberedSQL() string {
	return `SELECT f.file_id, NULL::timestamptz FROM ` + sampleSQL("trueup.file_state", "t.file_id, t.gone_at, t.suspect_at") + ` f
WHERE f.gone_at IS NULL AND ` + notAnnounced + ` ORDER BY f.suspect_at IS NOT NULL, random() LIMIT $2`
}

// KnownFiles are up to n files that tell our account from another: live rows chosen at
// random, those that we have verified first. CreatedAt is known of these only. Where no row
// stands they are files that had one. Files announced deleted are none.
func (s *Store) KnownFiles(ctx context.Context, n int) ([]run.KnownFile, error) {
	places := make([]float64, samplePlaces)
	for i := range places {
		places[i] = rand.Float64()
	}
	var out []run.KnownFile
	err := s.tx(ctx, "choose known files", func(ctx context.Context, tx pgx.Tx) error {
		m, err := s.mapping(ctx, tx)
		if err != nil {
			return err
		}
		for _, sql := range []string{m.known, rememberedSQL()} {
			rows, err := tx.Query(ctx, sql, places, n)
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
