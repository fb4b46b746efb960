package store

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/oklog/ulid/v2"

	"github.com/trueup/trueup/internal/event"
)

// Retention is how long what has ended is remembered, by the database's clock.
type Retention struct {
	// Dead letters by who must act, from their last change; one that is replaying is
	// never deleted. Zero means 90 days; for trueup's own faults a year.
	Caller, ImageKit, Database, Trueup time.Duration
	// Ledger lines; zero means a year.
	Ledger time.Duration
	// Tombstones; zero means two years. They must outlive every dead letter, with the
	// time its retries take: config sees to it.
	Tombstones time.Duration
}

func (r Retention) withDefaults() Retention {
	const day = 24 * time.Hour
	return Retention{
		Caller: cmp.Or(r.Caller, 90*day), ImageKit: cmp.Or(r.ImageKit, 90*day), Database: cmp.Or(r.Database, 90*day), Trueup: cmp.Or(r.Trueup, 365*day),
		Ledger: cmp.Or(r.Ledger, 365*day), Tombstones: cmp.Or(r.Tombstones, 730*day),
	}
}

// A slice of clean-up: at most so many rows of each table, at most so often. The classes
// of dead letters share theirs evenly, so that none displaces another.
const (
	cleanRows  = 500
	cleanEvery = time.Minute
)

// cleanNow says whether the settlement that asks should take a slice along. Whoever asks
// first gets it, and when its transaction fails nobody does until the next minute.
func (s *Store) cleanNow() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.cleaned) < cleanEvery {
		return false
	}
	s.cleaned = time.Now()
	return true
}

// queueClean deletes a slice of what is past its retention, and counts it.
func (r Retention) queueClean(b *pgx.Batch) {
	for _, c := range []struct {
		class event.Class
		keep  time.Duration
	}{{event.ClassCaller, r.Caller}, {event.ClassImageKit, r.ImageKit}, {event.ClassDatabase, r.Database}, {event.ClassTrueup, r.Trueup}} {
		b.Queue(`WITH old AS (SELECT id FROM trueup.dead_letters WHERE class = $1 AND state <> 'replaying' AND updated_at < `+ago("$2")+`
				ORDER BY updated_at LIMIT $3 FOR UPDATE SKIP LOCKED),
			gone AS (DELETE FROM trueup.dead_letters d USING old WHERE d.id = old.id RETURNING d.state, d.class)
			`+countGone("dead_letters", "state", "class"), string(c.class), c.keep.Microseconds(), cleanRows/4)
	}
	// Ids are ULIDs, drawn before the line was written: they lead to the old ones. A line
	// that says "dead" stays as long as its letter.
	b.Queue(`WITH old AS (SELECT l.id FROM trueup.ledger l WHERE l.id < $1 AND l.at < `+ago("$2")+`
			AND NOT (l.end_kind = 'dead' AND EXISTS (SELECT FROM trueup.dead_letters d WHERE d.event_id = l.id)) ORDER BY l.id LIMIT $3),
		gone AS (DELETE FROM trueup.ledger l USING old WHERE l.id = old.id RETURNING l.end_kind)
		`+countGone("ledger", "end_kind", "''"), firstID(r.Ledger), r.Ledger.Microseconds(), cleanRows)
	b.Queue(`WITH old AS (SELECT s.file_id FROM trueup.file_state s WHERE s.gone_at < `+ago("$1")+`
			AND NOT EXISTS (SELECT FROM public.imagekit_files f WHERE f.file_id = s.file_id)
			AND NOT EXISTS (SELECT FROM trueup.retries r WHERE r.file_id = s.file_id)
			AND NOT EXISTS (SELECT FROM trueup.dead_letters d WHERE d.file_id = s.file_id AND d.state IN ('dead', 'replaying'))
			ORDER BY s.gone_at LIMIT $2 FOR UPDATE OF s SKIP LOCKED),
		gone AS (DELETE FROM trueup.file_state s USING old WHERE s.file_id = old.file_id RETURNING 1)
		`+countGone("tombstones", "''", "''"), r.Tombstones.Microseconds(), cleanRows)
	b.Queue(`DELETE FROM trueup.job_items i USING (SELECT i.job_id, i.item FROM trueup.jobs j JOIN trueup.job_items i ON i.job_id = j.id
		WHERE j.id < $1 AND j.finished_at < `+ago("$2")+` LIMIT $3) old WHERE i.job_id = old.job_id AND i.item = old.item`, firstID(r.Ledger), r.Ledger.Microseconds(), cleanRows)
	b.Queue(`DELETE FROM trueup.jobs j WHERE j.id < $1 AND j.finished_at < `+ago("$2")+` AND NOT EXISTS (SELECT FROM trueup.job_items i WHERE i.job_id = j.id)`,
		firstID(r.Ledger), r.Ledger.Microseconds())
	r.queueCleanRuns(b, cleanRows)
}

// cleanAfter is the slice that goes when a run has ended: what one run left, another may
// take away.
const cleanAfter = 20 * cleanRows

// keepRuns is how many runs keep their findings.
const keepRuns = 30

// oldestFound is the oldest run that has findings: the one to clean next, if any is.
const oldestFound = `(SELECT run_id FROM trueup.findings ORDER BY run_id, file_id LIMIT 1)`

// queueCleanRuns deletes a slice of the findings of the oldest run that has some, when it
// is past its retention or not among the youngest, and the runs past it that have none. A
// run's counts are kept before the first of its findings goes; one under way keeps all,
// and with it those after it.
func (r Retention) queueCleanRuns(b *pgx.Batch, limit int) {
	id, keep := firstID(r.Ledger), r.Ledger.Microseconds()
	b.Queue(`UPDATE trueup.runs r SET found = (SELECT jsonb_object_agg(k.kind, k.counts) FROM (SELECT kind, jsonb_object_agg(status, n) AS counts
				FROM (SELECT kind, status, count(*) AS n FROM trueup.findings WHERE run_id = r.id GROUP BY kind, status) g GROUP BY kind) k)
		WHERE r.id = (SELECT o.id FROM trueup.runs o WHERE o.id = `+oldestFound+` AND o.found IS NULL AND o.state NOT IN ('running', 'applying')
			AND (o.id < (SELECT id FROM trueup.runs ORDER BY id DESC OFFSET $1 LIMIT 1) OR o.id < $2 AND o.finished_at < `+ago("$3")+`)
			FOR UPDATE SKIP LOCKED)`, keepRuns-1, id, keep)
	b.Queue(`DELETE FROM trueup.findings WHERE ctid = ANY(ARRAY(SELECT f.ctid FROM trueup.findings f
		WHERE f.run_id = (SELECT r.id FROM trueup.runs r WHERE r.id = `+oldestFound+` AND r.found IS NOT NULL) LIMIT $1))`, limit)
	b.Queue(`DELETE FROM trueup.runs r WHERE r.id < $1 AND r.state NOT IN ('running', 'applying') AND r.finished_at < `+ago("$2")+`
		AND NOT EXISTS (SELECT FROM trueup.findings f WHERE f.run_id = r.id)`, id, keep)
}

// cleanAfterRun takes a slice along when a run has ended. What fails is left to the next.
func (s *Store) cleanAfterRun(ctx context.Context) {
	err := s.tx(ctx, "clean up runs", func(ctx context.Context, tx pgx.Tx) error {
		b := &pgx.Batch{}
		s.cfg.Retain.queueCleanRuns(b, cleanAfter)
		return send(ctx, tx, b)
	})
	if err != nil {
		s.log.WarnContext(ctx, "findings of old runs were not cleaned up", "error", err)
	}
}

func ago(micros string) string {
	return "clock_timestamp() - " + micros + "::bigint * interval '1 microsecond'"
}

// countGone ends a statement that deletes into `gone`.
func countGone(place, state, class string) string {
	return fmt.Sprintf(`INSERT INTO trueup.expired_counts AS c (place, state, class, count) SELECT '%s', g.state, g.class, count(*)
		FROM (SELECT %s AS state, %s AS class FROM gone) g GROUP BY g.state, g.class
		ON CONFLICT (place, state, class) DO UPDATE SET count = c.count + excluded.count`, place, state, class)
}

// firstID is a ULID above all that were drawn so long ago. It has no margin for clocks: each
// slice would look at as much of the ledger as the margin is long, every minute. What a
// clock that is ahead has drawn goes as much later.
func firstID(age time.Duration) string {
	var id ulid.ULID
	_ = id.SetTime(ulid.Timestamp(time.Now().Add(-age)))
	return id.String()
}
