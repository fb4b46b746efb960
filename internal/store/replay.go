package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/rule"
)

// hold is queued first by what a job does in a turn: it need not be the worker's, only
// nobody else may have begun one. An operator's pause does not stop it: what is published
// meanwhile waits in the queue.
func hold(b *pgx.Batch, turn int64) {
	b.Queue(`SELECT turn FROM trueup.leases WHERE name = 'worker' FOR SHARE`).QueryRow(func(row pgx.Row) error {
		var now int64
		if err := row.Scan(&now); err != nil {
			return fmt.Errorf("read turn: %w", err)
		}
		if now != turn {
			return fmt.Errorf("turn %d, now %d: %w", turn, now, event.ErrTurnMoved)
		}
		return nil
	})
	b.Queue(`SELECT set_config('idle_in_transaction_session_timeout', '30s', true), set_config('lock_timeout', '5s', true), ` + flushed)
}

// openJob is a job under its lock.
type openJob struct {
	id, upto, position string
	running            bool
	filter             event.Filter
}

// lockJob takes the turn and the job. Its items are locked after it, so two slices of one
// job are never cut at once.
func lockJob(ctx context.Context, tx pgx.Tx, turn int64, id string) (*openJob, error) {
	b, j := &pgx.Batch{}, &openJob{id: id}
	hold(b, turn)
	b.Queue(`SELECT state = 'running', upto, position, CASE WHEN verb = 'recheck' THEN '{}' ELSE filter END FROM trueup.jobs WHERE id = $1 FOR UPDATE`, id).
		QueryRow(func(row pgx.Row) error {
			err := row.Scan(&j.running, &j.upto, &j.position, &j.filter)
			if errors.Is(err, pgx.ErrNoRows) {
				return fmt.Errorf("job %s: %w", id, event.ErrUnknown)
			}
			return err
		})
	// Published, settled, and the process ended before it could say so.
	b.Queue(confirmSQL(`end_kind <> ''`), id)
	return j, send(ctx, tx, b)
}

// confirmSQL records items of job $1 as published and counts them.
func confirmSQL(which string) string {
	return `WITH sent AS (UPDATE trueup.job_items SET published_at = clock_timestamp() WHERE job_id = $1 AND published_at IS NULL AND ` + which + ` RETURNING 1)
		UPDATE trueup.jobs SET done = done + (SELECT count(*) FROM sent), waiting = '', changed_at = clock_timestamp()
		WHERE id = $1 AND EXISTS (SELECT FROM sent)`
}

// TakeReplays marks up to limit dead letters of the job as replaying, each with the event
// that is to be published for it, and returns these events; none means that nothing is
// left. Events taken before and never confirmed come first, by themselves and with the
// ids they had: they may be published already, and settling one twice is a no-op. A job
// that is cancelled takes no more and hands over only these.
//
// A letter that is replaying is somebody else's, unless its event was published ten
// minutes ago and is known neither to the ledger nor to the retries: then it is sent once
// more, with the id it had.
func (s *Store) TakeReplays(ctx context.Context, turn int64, jobID string, limit int) ([]event.Event, error) {
	var out []event.Event
	err := s.tx(ctx, "take replays", func(ctx context.Context, tx pgx.Tx) error {
		j, err := lockJob(ctx, tx, turn, jobID)
		if err != nil {
			return err
		}
		if out, err = unconfirmed(ctx, tx, jobID, limit); err != nil || len(out) > 0 || !j.running {
			return err
		}
		letters, err := s.nextLetters(ctx, tx, j, s.takeable(j.filter), limit)
		if err != nil || len(letters) == 0 {
			return err
		}
		out = make([]event.Event, len(letters))
		for i := range letters {
			out[i] = replayOf(&letters[i])
		}
		return markReplaying(ctx, tx, j, letters, out)
	})
	return out, err
}

// replayOf is the event that sends the letter through again: new work with the old
// event's time and user. A letter that waits in vain keeps its event.
func replayOf(d *event.DeadLetter) event.Event {
	id := d.ReplayEvent
	if d.State != event.LetterReplaying || id == "" {
		id = newID()
	}
	return event.Event{
		ID: id, Source: event.Replay, Origin: d.Origin, Kind: d.Kind, FileID: d.FileID, User: d.User, AcceptedAt: d.AcceptedAt,
		UpdatedAt: d.UpdatedAt, WebhookID: d.WebhookID, DeadLetter: d.ID, Headers: d.Headers, Body: d.Body,
	}
}

// takeable says which letters a replay may take now. One without a file (an envelope that
// could not be decoded) names nothing that could be looked up.
func (s *Store) takeable(f event.Filter) string {
	ended := ""
	if explicit(f) {
		ended = ` OR d.state IN ('resolved', 'discarded')`
	}
	lost := fmt.Sprintf(`clock_timestamp() - interval '%d milliseconds'`, s.cfg.ReplayLost.Milliseconds())
	return `d.file_id <> '' AND (d.state = 'dead'` + ended + ` OR d.state = 'replaying' AND d.updated_at < ` + lost + `
		AND NOT EXISTS (SELECT FROM trueup.ledger l WHERE l.id = d.replay_event)
		AND NOT EXISTS (SELECT FROM trueup.retries r WHERE r.event_id = d.replay_event)
		AND NOT EXISTS (SELECT FROM trueup.job_items i WHERE i.event_id = d.replay_event AND i.published_at >= ` + lost + `))`
}

// nextLetters locks the job's next letters. Those that another transaction takes first
// are seen as they are then, and skipped.
func (s *Store) nextLetters(ctx context.Context, tx pgx.Tx, j *openJob, which string, limit int) ([]event.DeadLetter, error) {
	c := matching(j.filter)
	c.and("d.id > ?", j.position)
	c.and("d.id <= ?", j.upto)
	c.parts = append(c.parts, which)
	rows, err := tx.Query(ctx, `SELECT `+wholeColumns+` FROM trueup.dead_letters d`+c.where()+` ORDER BY d.id LIMIT `+itoa(limit)+` FOR UPDATE OF d`, c.args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scanWhole)
}

func markReplaying(ctx context.Context, tx pgx.Tx, j *openJob, letters []event.DeadLetter, events []event.Event) error {
	items, ids := make([]string, len(letters)), make([]string, len(letters))
	for i := range letters {
		items[i], ids[i] = letters[i].ID, events[i].ID
	}
	b := &pgx.Batch{}
	exactly(b, len(items), `UPDATE trueup.dead_letters d SET state = 'replaying', replay_event = i.event_id, updated_at = clock_timestamp()
		FROM unnest($1::text[], $2::text[]) AS i(id, event_id) WHERE d.id = i.id`, items, ids)
	exactly(b, len(items), `INSERT INTO trueup.job_items (job_id, item, event_id) SELECT $1, i.item, i.event_id FROM unnest($2::text[], $3::text[]) AS i(item, event_id)`,
		j.id, items, ids)
	queuePosition(b, j.id, items[len(items)-1], 0)
	return send(ctx, tx, b)
}

func queuePosition(b *pgx.Batch, jobID, position string, done int) {
	exactly(b, 1, `UPDATE trueup.jobs SET position = $2, done = done + $3, waiting = '', changed_at = clock_timestamp() WHERE id = $1`, jobID, position, done)
}

// unconfirmed are the events that the job has taken and not said to be published.
func unconfirmed(ctx context.Context, tx pgx.Tx, jobID string, limit int) ([]event.Event, error) {
	rows, err := tx.Query(ctx, `SELECT `+wholeColumns+`, i.event_id FROM trueup.job_items i JOIN trueup.dead_letters d ON d.id = i.item
		WHERE i.job_id = $1 AND i.published_at IS NULL AND i.end_kind = '' ORDER BY i.item LIMIT `+itoa(limit), jobID)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (event.Event, error) {
		var headers map[string]string
		var body []byte
		var masked []event.Span
		var id string
		d, err := scanLetter(row, &headers, &body, &masked, &id)
		d.Headers, d.Body = headers, body
		e := replayOf(&d)
		e.ID = id
		return e, err
	})
}

// ConfirmReplays records that these events of the job were published: durably, or
// perhaps, where the queue's answer got lost. Confirming twice counts once.
func (s *Store) ConfirmReplays(ctx context.Context, turn int64, jobID string, eventIDs []string) error {
	return s.tx(ctx, "confirm replays", func(ctx context.Context, tx pgx.Tx) error {
		b := &pgx.Batch{}
		hold(b, turn)
		b.Queue(confirmSQL(`event_id = ANY($2)`), jobID, nonNil(eventIDs))
		return send(ctx, tx, b)
	})
}

// TakeRechecks returns up to limit events of a recheck job that were not published yet,
// the same ones until they are confirmed; none means that nothing is left.
func (s *Store) TakeRechecks(ctx context.Context, turn int64, jobID string, limit int) ([]event.Event, error) {
	var out []event.Event
	err := s.tx(ctx, "take rechecks", func(ctx context.Context, tx pgx.Tx) error {
		out = nil
		j, err := lockJob(ctx, tx, turn, jobID)
		if err != nil || !j.running {
			return err
		}
		rows, err := tx.Query(ctx, `SELECT item, event_id, taken_at FROM trueup.job_items WHERE job_id = $1 AND published_at IS NULL AND end_kind = ''
			ORDER BY item LIMIT `+itoa(limit), jobID)
		if err != nil {
			return err
		}
		out, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (event.Event, error) {
			e := event.Event{Source: event.Replay, Origin: event.Reconcile, Kind: event.KindRecheck}
			var at time.Time
			err := row.Scan(&e.FileID, &e.ID, &at)
			e.AcceptedAt = at.UTC()
			return e, err
		})
		return err
	})
	return out, err
}

// ConfirmRechecks records that these events of the job were published.
func (s *Store) ConfirmRechecks(ctx context.Context, turn int64, jobID string, eventIDs []string) error {
	return s.ConfirmReplays(ctx, turn, jobID, eventIDs)
}

// DiscardSlice marks up to limit dead letters of the job as discarded, each with a line
// in its file's ledger, and says how many and whether nothing is left.
func (s *Store) DiscardSlice(ctx context.Context, turn int64, jobID string, limit int) (n int, done bool, err error) {
	err = s.tx(ctx, "discard", func(ctx context.Context, tx pgx.Tx) error {
		n, done = 0, true
		j, err := lockJob(ctx, tx, turn, jobID)
		if err != nil || !j.running {
			return err
		}
		letters, err := s.nextLetters(ctx, tx, j, `d.state = 'dead'`, limit)
		if err != nil || len(letters) == 0 {
			return err
		}
		n, done = len(letters), len(letters) < limit
		return discard(ctx, tx, j, letters)
	})
	return n, done, err
}

func discard(ctx context.Context, tx pgx.Tx, j *openJob, letters []event.DeadLetter) error {
	var who, note string
	if err := tx.QueryRow(ctx, `SELECT who, note FROM trueup.jobs WHERE id = $1`, j.id).Scan(&who, &note); err != nil {
		return err
	}
	ids, lines := make([]string, len(letters)), make([]rule.Line, len(letters))
	for i, d := range letters {
		ids[i] = d.ID
		lines[i] = rule.Line{FileID: d.FileID, Source: "operator", Origin: string(d.Origin), Kind: "discard", User: d.User,
			Reason: d.Reason, End: string(event.Discarded),
			Detail: map[string]any{"who": who, "note": note, "job": j.id, "deadLetter": d.ID, "event": d.EventID}}
	}
	b := &pgx.Batch{}
	exactly(b, len(ids), `UPDATE trueup.dead_letters SET state = 'discarded', updated_at = clock_timestamp() WHERE id = ANY($1)`, ids)
	queueLines(b, lines)
	queuePosition(b, j.id, ids[len(ids)-1], len(ids))
	return send(ctx, tx, b)
}
