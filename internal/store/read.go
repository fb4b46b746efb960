package store

import (
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/rule"
)

func itoa(n int) string { return strconv.Itoa(n) }

// stateColumns are read of file_state, in the order scanStanding expects.
const stateColumns = `s.file_id IS NOT NULL, coalesce(s.seen, 0), nullif(s.high, '-infinity'), s.hash, s.gone_at IS NOT NULL,
	coalesce(s.suspect_fence, 0), s.suspect_at, s.counted_at, coalesce(s.owner, ''), coalesce(s.owner_kind, ''), s.owner_at,
	coalesce(s.owner_event, ''), coalesce(s.claim_open, false), coalesce(s.ticket, ''), coalesce(s.flags, '{}'),
	coalesce(s.rewritten, false)`

// readSQL reads file_state and the row of each file, and the hash of what is proposed
// unless that is known from the first read.
func (m *mapping) readSQL(proposed bool) string {
	from, hash := "unnest($1::text[]) AS i(file_id)", "0::bigint"
	if proposed {
		from, hash = m.proposals(), m.rowHash("i")
	}
	return `SELECT i.file_id, ` + stateColumns + `,
	f.file_id IS NOT NULL, coalesce(f.user_id, ''), CASE WHEN f.file_id IS NULL THEN 0 ELSE ` + m.rowHash("f") + ` END,
	` + hash + `, clock_timestamp()
FROM ` + from + `
` + besideFile
}

// besideFile joins to i(file_id) what file_state (s) and the table (f) hold, one file
// after the other by their indexes. A plain join leaves the planner to read tables of
// middling size whole, for every batch: measured, that was most of a settlement's time.
const besideFile = `LEFT JOIN LATERAL (SELECT s.* FROM trueup.file_state s WHERE s.file_id = i.file_id LIMIT 1) s ON true
LEFT JOIN LATERAL (SELECT f.* FROM public.imagekit_files f WHERE f.file_id = i.file_id LIMIT 1) f ON true`

// scanStanding reads one row of readSQL.
func scanStanding(rows pgx.Rows) (*rule.Standing, error) {
	var s rule.Standing
	var high, suspectAt, countedAt, ownerAt *time.Time
	var kind string
	err := rows.Scan(&s.FileID, &s.Known, &s.Seen, &high, &s.Hash, &s.Gone, &s.SuspectFence, &suspectAt, &countedAt,
		&s.Owner.User, &kind, &ownerAt, &s.Owner.Event, &s.Owner.Open, &s.Owner.Ticket, &s.Owner.Flags, &s.Rewritten,
		&s.Live, &s.LiveUser, &s.LiveHash, &s.Proposed, &s.Now)
	if err != nil {
		return nil, err
	}
	s.Owner.Kind = file.OwnerKind(kind)
	s.High, s.Owner.At, s.CountedAt = orZero(high), orZero(ownerAt), orZero(countedAt)
	s.SuspectAt, s.Suspect = orZero(suspectAt), suspectAt != nil
	return &s, nil
}

func orZero(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

// collectStandings reads all rows of readSQL into m, keeping the proposed hashes that
// stand there already when the statement had none.
func collectStandings(into map[string]*rule.Standing, proposed bool) func(pgx.Rows) error {
	return func(rows pgx.Rows) error {
		for rows.Next() {
			s, err := scanStanding(rows)
			if err != nil {
				return err
			}
			if before := into[s.FileID]; before != nil && !proposed {
				s.Proposed = before.Proposed
			}
			into[s.FileID] = s
		}
		return rows.Err()
	}
}
