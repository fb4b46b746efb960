package store

import (
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/rule"
)

// eventArrays are the columns that retries and dead letters share: the whole event.
type eventArrays struct {
	ids, files, sources, origins, kinds, users, webhooks, letters, headers, attempts []string
	accepted, updated                                                                []*time.Time
	bodies                                                                           [][]byte
}

func (a *eventArrays) add(e *rule.Ended) {
	a.ids, a.files = append(a.ids, e.ID), append(a.files, e.FileID)
	a.sources, a.origins = append(a.sources, string(e.Source)), append(a.origins, string(e.Origin))
	a.kinds, a.users = append(a.kinds, clean(e.Kind)), append(a.users, e.User)
	a.webhooks, a.letters = append(a.webhooks, clean(e.WebhookID)), append(a.letters, e.DeadLetter)
	headers := e.Headers
	if headers == nil {
		headers = map[string]string{}
	}
	a.headers, a.attempts = append(a.headers, encode(headers)), append(a.attempts, encode(e.History()))
	a.accepted, a.updated = append(a.accepted, ptr(rule.Micros(e.AcceptedAt))), append(a.updated, moment(e.UpdatedAt))
	body := e.Body
	if body == nil {
		body = []byte{}
	}
	a.bodies = append(a.bodies, body)
}

func (a *eventArrays) args() []any {
	return []any{a.ids, a.files, a.sources, a.origins, a.kinds, a.users, a.webhooks, a.letters, a.headers, a.attempts, a.accepted, a.updated, a.bodies}
}

// eventInput is the FROM item over args, then more columns from $14 on.
func eventInput(moreArrays, moreNames string) string {
	return `unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[],
		$11::timestamptz[], $12::timestamptz[], $13::bytea[], ` + moreArrays + `)
	AS i(event_id, file_id, source, origin, kind, user_id, webhook_id, dead_letter, headers, attempts, accepted_at, updated_at, body, ` + moreNames + `)`
}

// queueRetries sets aside what must wait and forgets what waited and has ended.
func (w *writing) queueRetries(b *pgx.Batch) {
	var in eventArrays
	var tries []int
	var waited, after []int64
	var reasons, over []string
	for i := range w.ends {
		e := &w.ends[i]
		switch {
		case e.End.Kind == event.Retry:
			in.add(e)
			tries, reasons = append(tries, e.Tries+1), append(reasons, e.End.Reason)
			waited, after = append(waited, (e.Waited+e.End.After).Milliseconds()), append(after, e.End.After.Microseconds())
		case e.Retried:
			over = append(over, e.ID)
		}
	}
	if len(in.ids) > 0 {
		exactly(b, len(in.ids), `INSERT INTO trueup.retries AS r (event_id, file_id, source, origin, kind, user_id, webhook_id, dead_letter, headers, attempts,
				accepted_at, updated_at, body, tries, waited_ms, due_at, reason)
			SELECT i.event_id, i.file_id, i.source, i.origin, i.kind, i.user_id, i.webhook_id, i.dead_letter, i.headers::jsonb, i.attempts::jsonb,
				i.accepted_at, i.updated_at, i.body, i.tries, i.waited_ms, clock_timestamp() + i.after * interval '1 microsecond', i.reason
			FROM `+eventInput("$14::int[], $15::bigint[], $16::bigint[], $17::text[]", "tries, waited_ms, after, reason")+`
			ON CONFLICT (event_id) DO UPDATE SET attempts = excluded.attempts, tries = excluded.tries, waited_ms = excluded.waited_ms,
				due_at = excluded.due_at, reason = excluded.reason`,
			append(in.args(), tries, waited, after, reasons)...)
	}
	if len(over) > 0 {
		b.Queue(`DELETE FROM trueup.retries WHERE event_id = ANY($1)`, over)
	}
}

// queueDead parks what died, and tells dead letters what became of their replays.
func (w *writing) queueDead(b *pgx.Batch) {
	var in eventArrays
	var ids, classes, reasons, notes, masked []string
	for i := range w.ends {
		e := w.ends[i] // a copy: what is masked here stays as it is elsewhere
		if _, known := w.g.Originals[e.DeadLetter]; e.DeadLetter != "" && known {
			w.queueReplayed(b, &e)
			continue
		}
		if e.End.Kind == event.Dead {
			spans := w.secrets.Hide(&e)
			in.add(&e)
			masked = append(masked, encode(spans))
			ids, classes = append(ids, newID()), append(classes, string(e.End.Class))
			reasons, notes = append(reasons, e.End.Reason), append(notes, clean(e.End.Note))
		}
	}
	if len(ids) == 0 {
		return
	}
	exactly(b, len(ids), `INSERT INTO trueup.dead_letters (id, event_id, file_id, source, origin, kind, user_id, webhook_id, headers, attempts,
			accepted_at, updated_at_remote, body, class, reason, note, masked)
		SELECT i.id, i.event_id, i.file_id, i.source, i.origin, i.kind, i.user_id, i.webhook_id, i.headers::jsonb, i.attempts::jsonb,
			i.accepted_at, i.updated_at, i.body, i.class, i.reason, i.note, i.masked::jsonb
		FROM `+eventInput("$14::text[], $15::text[], $16::text[], $17::text[], $18::text[]", "id, class, reason, note, masked")+`
		ON CONFLICT (event_id) DO NOTHING`, append(in.args(), ids, classes, reasons, notes, masked)...)
}

// queueReplayed resolves a dead letter whose replay has ended, or lengthens its history.
func (w *writing) queueReplayed(b *pgx.Batch, e *rule.Ended) {
	w.secrets.Hide(e)
	entry := encode([]map[string]any{{"event": e.ID, "end": e.End.Kind, "reason": e.End.Reason, "note": e.End.Note, "outcome": e.Result.Outcome}})
	switch e.End.Kind {
	case event.Retry:
	case event.Dead:
		b.Queue(`UPDATE trueup.dead_letters SET state = 'dead', replay_event = $2, updated_at = clock_timestamp(), class = $3, reason = $4, note = $5,
				attempts = attempts || $6::jsonb, history = history || jsonb_set($7::jsonb, '{0,at}', to_jsonb(clock_timestamp()))
			WHERE id = $1`, e.DeadLetter, e.ID, string(e.End.Class), e.End.Reason, clean(e.End.Note), encode(e.History()), entry)
	default:
		b.Queue(`UPDATE trueup.dead_letters SET state = 'resolved', replay_event = $2, updated_at = clock_timestamp(),
				history = history || jsonb_set($3::jsonb, '{0,at}', to_jsonb(clock_timestamp()))
			WHERE id = $1`, e.DeadLetter, e.ID, entry)
	}
}

// queueItems tells the jobs that sent these events how they ended.
func (w *writing) queueItems(b *pgx.Batch) {
	var ids, ends, reasons []string
	for _, e := range w.ends {
		if e.Source == event.Replay && e.End.Kind != event.Retry {
			ids, ends, reasons = append(ids, e.ID), append(ends, string(e.End.Kind)), append(reasons, e.End.Reason)
		}
	}
	if len(ids) > 0 {
		b.Queue(`UPDATE trueup.job_items j SET end_kind = i.end_kind, reason = i.reason, ended_at = clock_timestamp()
			FROM unnest($1::text[], $2::text[], $3::text[]) AS i(event_id, end_kind, reason) WHERE j.event_id = i.event_id`, ids, ends, reasons)
	}
}
