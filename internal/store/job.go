package store

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
)

// ErrKeyReused means that the caller has used the Idempotency-Key for something else.
var ErrKeyReused = errors.New("this Idempotency-Key was used for another request")

// StartJob counts what the job is about and records it, with its audit line, in one
// transaction. j says Verb, Filter or Files, Who, Note and Key; the same caller with the
// same verb and key gets the first job back, or ErrKeyReused where the request differs.
// A job with nothing to do is done at once. Where the filter names ids, it wraps
// event.ErrUnknown for one that is none.
//
// A replay without a state in its filter is about letters that are dead or replaying;
// with ids, or with a state, also about resolved and discarded ones. A discard is only
// ever about dead ones.
func (s *Store) StartJob(ctx context.Context, j event.Job) (event.Job, error) {
	request, err := requestOf(&j)
	if err != nil {
		return event.Job{}, err
	}
	j.ID = newID()
	err = s.tx(ctx, "start job", func(ctx context.Context, tx pgx.Tx) error {
		first, err := s.insertJob(ctx, tx, &j, request)
		if err != nil || first != "" {
			j.ID = first
			return err
		}
		return s.fillJob(ctx, tx, &j)
	})
	if err != nil {
		return event.Job{}, err
	}
	return s.Job(ctx, j.ID)
}

// requestOf checks what is asked for, brings the files into order and hashes it.
func requestOf(j *event.Job) ([]byte, error) {
	switch j.Verb {
	case event.JobReplay, event.JobDiscard:
		if len(j.Files) > 0 {
			return nil, fmt.Errorf("start job: %s takes dead letters, not files", j.Verb)
		}
	case event.JobRecheck:
		if len(j.Files) == 0 {
			return nil, errors.New("start job: recheck needs files")
		}
	default:
		return nil, fmt.Errorf("start job: %q is no verb of a job", j.Verb)
	}
	j.Files = slices.Compact(slices.Sorted(slices.Values(j.Files)))
	for _, id := range j.Files {
		if !file.ValidID(id) {
			return nil, fmt.Errorf("start job: %q cannot be a file id", clean(id))
		}
	}
	b, err := json.Marshal([]any{j.Filter, j.Files})
	if err != nil {
		return nil, fmt.Errorf("start job: %w", err)
	}
	sum := sha256.Sum256(b)
	return sum[:], nil
}

// insertJob writes the job's row, or returns the id of the job that has its key.
func (s *Store) insertJob(ctx context.Context, tx pgx.Tx, j *event.Job, request []byte) (first string, err error) {
	ct, err := tx.Exec(ctx, `INSERT INTO trueup.jobs (id, verb, filter, who, note, key, request) VALUES ($1, $2, $3::text::jsonb, $4, $5, nullif($6, ''), $7)
		ON CONFLICT (who, verb, key) DO NOTHING`, j.ID, string(j.Verb), encode(j.Filter), clean(j.Who), clean(j.Note), clean(j.Key), request)
	if err != nil || ct.RowsAffected() == 1 {
		return "", err
	}
	var same bool
	err = tx.QueryRow(ctx, `SELECT id, request = $4 FROM trueup.jobs WHERE who = $1 AND verb = $2 AND key = $3`,
		clean(j.Who), string(j.Verb), clean(j.Key), request).Scan(&first, &same)
	if err == nil && !same {
		err = ErrKeyReused
	}
	return first, err
}

// fillJob counts the job's items, bounds them and leaves the audit line.
func (s *Store) fillJob(ctx context.Context, tx pgx.Tx, j *event.Job) error {
	filter := any(j.Filter)
	if j.Verb == event.JobRecheck {
		ids := make([]string, len(j.Files))
		for i := range ids {
			ids[i] = newID()
		}
		_, err := tx.Exec(ctx, `INSERT INTO trueup.job_items (job_id, item, event_id) SELECT $1, i.item, i.event_id FROM unnest($2::text[], $3::text[]) AS i(item, event_id)`,
			j.ID, j.Files, ids)
		if err != nil {
			return err
		}
		j.Total = int64(len(j.Files))
		filter = recheckFilter(j.Files)
		_, err = tx.Exec(ctx, `UPDATE trueup.jobs SET total = $2, filter = $3::text::jsonb WHERE id = $1`, j.ID, j.Total, encode(filter))
		if err != nil {
			return err
		}
	} else if err := countJob(ctx, tx, j); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `INSERT INTO trueup.audit (id, who, verb, filter, count, note, key, job_id) VALUES ($1, $2, $3, $4::text::jsonb, $5, $6, nullif($7, ''), $8)`,
		newID(), clean(j.Who), string(j.Verb), encode(filter), j.Total, clean(j.Note), clean(j.Key), j.ID)
	return err
}

// recheckFilter is what the audit keeps of a list of files: the job's items have it whole.
func recheckFilter(files []string) map[string]any {
	out := map[string]any{"files": files[:min(len(files), 100)], "count": len(files)}
	if len(files) == 1 {
		out["file"] = files[0]
	}
	return out
}

func countJob(ctx context.Context, tx pgx.Tx, j *event.Job) error {
	if err := knownLetters(ctx, tx, j.Filter.IDs); err != nil {
		return err
	}
	var upto string
	if err := tx.QueryRow(ctx, lastLetterSQL).Scan(&upto); err != nil {
		return err
	}
	c := matching(j.Filter)
	c.and("d.id <= ?", upto)
	c.parts = append(c.parts, about(j.Verb, j.Filter))
	if err := tx.QueryRow(ctx, `SELECT count(*) FROM trueup.dead_letters d`+c.where(), c.args...).Scan(&j.Total); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `UPDATE trueup.jobs SET upto = $2, total = $3::bigint, state = CASE WHEN $3::bigint = 0 THEN 'done' ELSE state END,
		finished_at = CASE WHEN $3::bigint = 0 THEN clock_timestamp() END WHERE id = $1`, j.ID, upto, j.Total)
	return err
}

// about says which letters a job counts as its own when it begins.
func about(verb event.JobVerb, f event.Filter) string {
	switch {
	case verb == event.JobDiscard:
		return `d.state = 'dead'`
	case explicit(f):
		return `true`
	}
	return `d.state IN ('dead', 'replaying')`
}

// explicit: who names letters or a state means those, also where they have ended.
func explicit(f event.Filter) bool { return len(f.IDs) > 0 || f.State != "" }

const jobColumns = `id, verb, filter::text, who, note, coalesce(key, ''), state, total, done, skipped, waiting, error, created_at, changed_at, finished_at`

func scanJob(row pgx.CollectableRow) (event.Job, error) {
	var j event.Job
	var filter string
	var finished *time.Time
	err := row.Scan(&j.ID, &j.Verb, &filter, &j.Who, &j.Note, &j.Key, &j.State, &j.Total, &j.Done, &j.Skipped, &j.Waiting, &j.Error,
		&j.CreatedAt, &j.ChangedAt, &finished)
	if err != nil {
		return j, fmt.Errorf("scan job: %w", err)
	}
	j.CreatedAt, j.ChangedAt, j.FinishedAt = j.CreatedAt.UTC(), j.ChangedAt.UTC(), orZero(finished)
	if j.Verb == event.JobRecheck {
		var files struct{ Files []string }
		err = json.Unmarshal([]byte(filter), &files)
		j.Files = files.Files
	} else {
		err = json.Unmarshal([]byte(filter), &j.Filter)
	}
	return j, err
}

// Job returns one job with what became of its items so far. Of a recheck's files it names
// the first hundred. It wraps event.ErrUnknown where there is none.
func (s *Store) Job(ctx context.Context, id string) (event.Job, error) {
	all, err := s.jobs(ctx, true, `WHERE id = $1`, id)
	switch {
	case err != nil:
		return event.Job{}, err
	case len(all) == 0:
		return event.Job{}, fmt.Errorf("job %s: %w", id, event.ErrUnknown)
	}
	return all[0], nil
}

// Jobs returns up to limit jobs, the youngest first, older than the id given; empty
// means from the youngest.
func (s *Store) Jobs(ctx context.Context, after string, limit int) ([]event.Job, error) {
	return s.jobs(ctx, true, `WHERE $1 = '' OR id < $1 ORDER BY id DESC LIMIT $2`, after, limit)
}

// OpenJobs returns the jobs that still have something to publish, oldest first: those
// running, and replays cancelled between taking events and publishing them, which
// TakeReplays hands over once more. Their outcomes are not counted.
func (s *Store) OpenJobs(ctx context.Context) ([]event.Job, error) {
	return s.jobs(ctx, false, `WHERE state = 'running' OR state = 'cancelled' AND verb = 'replay' AND EXISTS
		(SELECT FROM trueup.job_items i WHERE i.job_id = jobs.id AND i.published_at IS NULL AND i.end_kind = '') ORDER BY id`)
}

func (s *Store) jobs(ctx context.Context, outcomes bool, which string, args ...any) ([]event.Job, error) {
	var out []event.Job
	err := s.tx(ctx, "read jobs", func(ctx context.Context, tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `SELECT `+jobColumns+` FROM trueup.jobs `+which, args...)
		if err != nil {
			return err
		}
		if out, err = pgx.CollectRows(rows, scanJob); err != nil || len(out) == 0 || !outcomes {
			return err
		}
		return addOutcomes(ctx, tx, out)
	})
	return out, err
}

// addOutcomes counts what became of what the jobs sent.
func addOutcomes(ctx context.Context, tx pgx.Tx, jobs []event.Job) error {
	byID := map[string]*event.Job{}
	for i := range jobs {
		byID[jobs[i].ID] = &jobs[i]
	}
	rows, err := tx.Query(ctx, `SELECT job_id, end_kind, reason, count(*) FROM trueup.job_items WHERE job_id = ANY($1) GROUP BY job_id, end_kind, reason`,
		slices.Collect(maps.Keys(byID)))
	if err != nil {
		return err
	}
	var id, reason string
	var end event.EndKind
	var n int64
	_, err = pgx.ForEachRow(rows, []any{&id, &end, &reason, &n}, func() error {
		j := byID[id]
		if j.Outcomes == nil {
			j.Outcomes, j.Reasons = map[string]int64{}, map[string]int64{}
		}
		j.Outcomes[outcomeWord(j.Verb, end)] += n
		if end == event.Dead || end == event.Rejected {
			j.Reasons[reason] += n
		}
		return nil
	})
	return err
}

// outcomeWord is "resolved", "dead" or "replaying" for a letter; the end, or "pending",
// for a recheck.
func outcomeWord(verb event.JobVerb, end event.EndKind) string {
	switch {
	case verb == event.JobRecheck && end == "":
		return "pending"
	case verb == event.JobRecheck || end == event.Dead:
		return string(end)
	case end == "":
		return string(event.LetterReplaying)
	}
	return string(event.LetterResolved)
}

// CancelJob stops a running job: it takes nothing more, and what it has taken goes its
// way. A job that is over stays as it is. It wraps event.ErrUnknown.
func (s *Store) CancelJob(ctx context.Context, id string, act Act) (event.Job, error) {
	err := s.tx(ctx, "cancel job", func(ctx context.Context, tx pgx.Tx) error {
		ct, err := tx.Exec(ctx, `UPDATE trueup.jobs SET state = 'cancelled', waiting = '', changed_at = clock_timestamp(), finished_at = clock_timestamp()
			WHERE id = $1 AND state = 'running'`, id)
		if err != nil || ct.RowsAffected() == 0 {
			return err
		}
		_, err = audit(ctx, tx, act, "cancel", map[string]any{"job": id})
		return err
	})
	if err != nil {
		return event.Job{}, err
	}
	return s.Job(ctx, id)
}

// SetJobWaiting says in one sentence what a running job waits for; empty: it moves.
func (s *Store) SetJobWaiting(ctx context.Context, jobID, text string) error {
	return s.try(ctx, "say what a job waits for", func(ctx context.Context) error {
		_, err := s.pool.Exec(ctx, `UPDATE trueup.jobs SET waiting = $2, changed_at = clock_timestamp()
			WHERE id = $1 AND waiting <> $2 AND (state = 'running' OR $2 = '')`, jobID, clean(text))
		return err
	})
}

// FinishJob ends a running job. Of a job that is done, whatever it did not do was
// somebody else's by then.
func (s *Store) FinishJob(ctx context.Context, turn int64, jobID string, state event.JobState, why string) error {
	return s.tx(ctx, "finish job", func(ctx context.Context, tx pgx.Tx) error {
		b := &pgx.Batch{}
		hold(b, turn)
		b.Queue(`UPDATE trueup.jobs SET state = $2::text, error = $3, waiting = '', skipped = CASE WHEN $2::text = 'done' THEN greatest(total - done, 0) ELSE skipped END,
			changed_at = clock_timestamp(), finished_at = clock_timestamp() WHERE id = $1 AND state = 'running'`, jobID, string(state), clean(why))
		return send(ctx, tx, b)
	})
}

// Outstanding counts the events that a job has taken, or published, and that are not
// settled. For a recheck only published ones count.
func (s *Store) Outstanding(ctx context.Context, jobID string) (n int, err error) {
	err = s.try(ctx, "count outstanding events", func(ctx context.Context) error {
		return s.pool.QueryRow(ctx, `SELECT count(*) FROM trueup.job_items i JOIN trueup.jobs j ON j.id = i.job_id
			WHERE i.job_id = $1 AND i.end_kind = '' AND (j.verb <> 'recheck' OR i.published_at IS NOT NULL)`, jobID).Scan(&n)
	})
	return n, err
}
