package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/rule"
)

// ErrTooOld means that a letter is older than this installation remembers deleted files.
var ErrTooOld = errors.New("the dead letter is older than tombstones are kept")

// Bounds of one statement of an import.
const (
	importLetters = 200
	importBytes   = 4 << 20
)

// Import adds the letters of an export in one transaction, under their own ids, with
// their time, user and history, and says how many were new and how many were known here
// already (by their id, or as the same event). All of them, known by id too, can be
// selected as event.Filter{Import: importID} then: importing a file again and replaying
// it finds what is still dead. One that was replaying elsewhere is dead here.
//
// letters may be asked for more than once. An error of it, or a letter that wraps
// ErrTooOld, leaves nothing behind. The same key again changes no count.
func (s *Store) Import(ctx context.Context, importID string, letters iter.Seq2[event.DeadLetter, error], act Act) (inserted, known int, err error) {
	if importID == "" {
		return 0, 0, errors.New("import: an import id is needed")
	}
	err = s.tx(ctx, "import", func(ctx context.Context, tx pgx.Tx) error {
		inserted, known = 0, 0
		fresh, err := audit(ctx, tx, act, "import", map[string]any{"import": importID})
		if err != nil {
			return err
		}
		in := importing{secrets: s.secrets, importID: importID, oldest: time.Now().Add(-s.cfg.Retain.Tombstones)}
		for d, err := range letters {
			if err != nil {
				return err
			}
			if err := in.add(ctx, tx, &d); err != nil {
				return err
			}
		}
		if err := in.flush(ctx, tx); err != nil {
			return err
		}
		inserted, known = in.inserted, in.known
		if !fresh {
			return auditedImport(ctx, tx, act, &inserted, &known)
		}
		_, err = tx.Exec(ctx, `UPDATE trueup.audit SET count = $2, filter = filter || jsonb_build_object('known', $3::bigint)
			WHERE verb = 'import' AND filter->>'import' = $1 AND count IS NULL`, importID, inserted, known)
		return err
	})
	return inserted, known, err
}

func auditedImport(ctx context.Context, tx pgx.Tx, act Act, inserted, known *int) error {
	return tx.QueryRow(ctx, `SELECT coalesce(count, 0), coalesce((filter->>'known')::bigint, 0) FROM trueup.audit WHERE who = $1 AND verb = 'import' AND key = $2`,
		clean(act.Who), clean(act.Key)).Scan(inserted, known)
}

// importing is one import under way: letters gathered for the next statement.
type importing struct {
	secrets         rule.Secrets
	importID        string
	oldest          time.Time
	page            []event.DeadLetter
	bytes           int
	inserted, known int
}

func (in *importing) add(ctx context.Context, tx pgx.Tx, d *event.DeadLetter) error {
	if d.AcceptedAt.Before(in.oldest) {
		return fmt.Errorf("dead letter %s of %s: %w (since %s)", d.ID, d.AcceptedAt.Format(time.DateOnly), ErrTooOld, in.oldest.Format(time.DateOnly))
	}
	in.page, in.bytes = append(in.page, *d), in.bytes+len(d.Body)
	if len(in.page) >= importLetters || in.bytes >= importBytes {
		return in.flush(ctx, tx)
	}
	return nil
}

// flush writes the page. A letter twice in one page is one; a letter of an event that
// has another letter here is that one.
func (in *importing) flush(ctx context.Context, tx pgx.Tx) error {
	if len(in.page) == 0 {
		return nil
	}
	rows, err := tx.Query(ctx, `INSERT INTO trueup.dead_letters AS d (id, event_id, file_id, source, origin, kind, user_id, webhook_id, headers, attempts,
			accepted_at, updated_at_remote, body, class, reason, note, state, replay_event, history, masked, created_at, import_id)
		SELECT DISTINCT ON (i.id) i.id, i.event_id, i.file_id, i.source, i.origin, i.kind, i.user_id, i.webhook_id, i.headers::jsonb, i.attempts::jsonb,
			i.accepted_at, i.updated_at, i.body, i.class, i.reason, i.note, i.state, nullif(i.replay_event, ''), i.history::jsonb, i.masked::jsonb, i.created_at, $22
		FROM `+eventInput("$14::text[], $15::text[], $16::text[], $17::text[], $18::text[], $19::text[], $20::text[], $21::timestamptz[], $23::text[]",
		"id, class, reason, note, state, replay_event, history, created_at, masked")+`
		WHERE NOT EXISTS (SELECT FROM trueup.dead_letters o WHERE o.event_id = i.event_id AND o.id <> i.id)
		ORDER BY i.id
		ON CONFLICT (id) DO UPDATE SET import_id = excluded.import_id RETURNING xmax = 0`, in.args()...)
	if err != nil {
		return err
	}
	added, err := pgx.CollectRows(rows, pgx.RowTo[bool])
	if err != nil {
		return err
	}
	fresh := 0
	for _, is := range added {
		if is {
			fresh++
		}
	}
	in.inserted, in.known = in.inserted+fresh, in.known+len(in.page)-fresh
	in.page, in.bytes = in.page[:0], 0
	return nil
}

func (in *importing) args() []any {
	var a eventArrays
	var ids, classes, reasons, notes, states, replays, histories, masked []string
	var created []*time.Time
	for i := range in.page {
		d := &in.page[i]
		e := rule.Ended{Pending: event.Pending{Attempts: d.Attempts, Event: event.Event{
			ID: d.EventID, FileID: d.FileID, Source: d.Source, Origin: d.Origin, Kind: d.Kind, User: d.User, WebhookID: d.WebhookID,
			AcceptedAt: d.AcceptedAt, UpdatedAt: d.UpdatedAt, Headers: d.Headers, Body: d.Body}}}
		spans := in.secrets.Hide(&e)
		a.add(&e)
		state, replay := d.State, d.ReplayEvent
		if state == event.LetterReplaying || state == "" {
			state, replay = event.LetterDead, ""
		}
		history := "[]"
		if len(d.History) > 0 {
			history = dropNUL(in.secrets.Text(string(d.History)))
		}
		ids, classes, reasons = append(ids, d.ID), append(classes, string(d.Class)), append(reasons, clean(d.Reason))
		notes, states, replays = append(notes, clean(in.secrets.Text(d.Note))), append(states, string(state)), append(replays, replay)
		histories, created = append(histories, history), append(created, ptr(rule.Micros(d.CreatedAt)))
		masked = append(masked, encode(append(spans, d.Masked...)))
	}
	return append(a.args(), ids, classes, reasons, notes, states, replays, histories, created, in.importID, masked)
}
