package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/event"
)

// condition is a WHERE clause over dead_letters d, with its arguments.
type condition struct {
	parts []string
	args  []any
}

// and adds one part, whose every ? stands for arg.
func (c *condition) and(part string, arg any) {
	c.args = append(c.args, arg)
	c.parts = append(c.parts, strings.ReplaceAll(part, "?", "$"+itoa(len(c.args))))
}

func (c *condition) andIf(is bool, part string, arg any) {
	if is {
		c.and(part, arg)
	}
}

func (c *condition) where() string {
	if len(c.parts) == 0 {
		return " WHERE true"
	}
	return " WHERE " + strings.Join(c.parts, " AND ")
}

// matching is what the filter says and nothing else: a filter without a state matches
// letters in every state.
func matching(f event.Filter) *condition {
	c := &condition{}
	c.andIf(len(f.IDs) > 0, "d.id = ANY(?::text[])", f.IDs)
	c.andIf(f.Reason != "", "d.reason = ?", f.Reason)
	c.andIf(f.Class != "", "d.class = ?", string(f.Class))
	c.andIf(f.Source != "", "(d.source = ? OR d.origin = ?)", string(f.Source))
	c.andIf(f.FileID != "", "d.file_id = ?", f.FileID)
	c.andIf(!f.Since.IsZero(), "d.created_at >= ?", f.Since)
	c.andIf(!f.Until.IsZero(), "d.created_at < ?", f.Until)
	c.andIf(f.State != "", "d.state = ?", string(f.State))
	c.andIf(f.Import != "", "d.import_id = ?", f.Import)
	return c
}

const (
	letterColumns = `d.id, d.event_id, d.file_id, d.source, d.origin, d.kind, d.user_id, d.accepted_at, d.updated_at_remote, d.webhook_id, d.class,
		d.reason, d.note, d.state, coalesce(d.replay_event, ''), d.attempts, d.history::text, d.created_at, d.updated_at`
	wholeColumns = letterColumns + `, d.headers, d.body, d.masked`
)

func scanLetter(row pgx.CollectableRow, more ...any) (event.DeadLetter, error) {
	var d event.DeadLetter
	var updated *time.Time
	var history string
	err := row.Scan(append([]any{&d.ID, &d.EventID, &d.FileID, &d.Source, &d.Origin, &d.Kind, &d.User, &d.AcceptedAt, &updated, &d.WebhookID, &d.Class,
		&d.Reason, &d.Note, &d.State, &d.ReplayEvent, &d.Attempts, &history, &d.CreatedAt, &d.ChangedAt}, more...)...)
	if err != nil {
		return d, fmt.Errorf("scan dead letter: %w", err)
	}
	d.AcceptedAt, d.UpdatedAt, d.CreatedAt, d.ChangedAt = d.AcceptedAt.UTC(), orZero(updated), d.CreatedAt.UTC(), d.ChangedAt.UTC()
	if history != "[]" {
		d.History = json.RawMessage(history)
	}
	return d, nil
}

func scanWhole(row pgx.CollectableRow) (event.DeadLetter, error) {
	var headers map[string]string
	var body []byte
	var masked []event.Span
	d, err := scanLetter(row, &headers, &body, &masked)
	d.Headers, d.Body, d.Masked = headers, body, masked
	return d, err
}

// DeadLetters returns up to limit of the letters that f matches, oldest first, after the
// id given; without body, headers and mask.
func (s *Store) DeadLetters(ctx context.Context, f event.Filter, after string, limit int) ([]event.DeadLetter, error) {
	return s.letters(ctx, f, after, "", limit, letterColumns, func(row pgx.CollectableRow) (event.DeadLetter, error) { return scanLetter(row) })
}

func (s *Store) letters(ctx context.Context, f event.Filter, after, upto string, limit int, columns string,
	scan func(pgx.CollectableRow) (event.DeadLetter, error),
) ([]event.DeadLetter, error) {
	c := matching(f)
	c.andIf(after != "", "d.id > ?", after)
	c.andIf(upto != "", "d.id <= ?", upto)
	var out []event.DeadLetter
	err := s.try(ctx, "list dead letters", func(ctx context.Context) (err error) {
		rows, err := s.pool.Query(ctx, `SELECT `+columns+` FROM trueup.dead_letters d`+c.where()+` ORDER BY d.id LIMIT `+itoa(limit), c.args...)
		if err != nil {
			return err
		}
		out, err = pgx.CollectRows(rows, scan)
		return err
	})
	return out, err
}

// DeadLetter returns one letter whole. It wraps event.ErrUnknown where there is none.
func (s *Store) DeadLetter(ctx context.Context, id string) (event.DeadLetter, error) {
	all, err := s.letters(ctx, event.Filter{IDs: []string{id}}, "", "", 1, wholeColumns, scanWhole)
	switch {
	case err != nil:
		return event.DeadLetter{}, err
	case len(all) == 0:
		return event.DeadLetter{}, fmt.Errorf("dead letter %s: %w", id, event.ErrUnknown)
	}
	return all[0], nil
}

// exportPage bounds what an export holds in memory: bodies are at most 1 MiB each.
const exportPage = 16

// ExportDead hands over, whole and oldest first, each letter that f matches and that was
// there when it began; each once, as it is when its turn comes. It holds no transaction
// and no connection while each is busy.
func (s *Store) ExportDead(ctx context.Context, f event.Filter, each func(event.DeadLetter) error) error {
	upto, err := s.lastLetter(ctx)
	if err != nil || upto == "" {
		return err
	}
	for after := ""; ; {
		page, err := s.letters(ctx, f, after, upto, exportPage, wholeColumns, scanWhole)
		if err != nil {
			return err
		}
		for _, d := range page {
			if err := each(d); err != nil {
				return err
			}
			after = d.ID
		}
		if len(page) < exportPage {
			return nil
		}
	}
}

const lastLetterSQL = `SELECT coalesce(max(id), '') FROM trueup.dead_letters`

func (s *Store) lastLetter(ctx context.Context) (id string, err error) {
	err = s.try(ctx, "read last dead letter", func(ctx context.Context) error { return s.pool.QueryRow(ctx, lastLetterSQL).Scan(&id) })
	return id, err
}

// CountDead counts what f matches, by class and by reason. Where f names ids, it wraps
// event.ErrUnknown for one that is none.
func (s *Store) CountDead(ctx context.Context, f event.Filter) (event.DeadCount, error) {
	var out event.DeadCount
	c := matching(f)
	err := s.tx(ctx, "count dead letters", func(ctx context.Context, tx pgx.Tx) error {
		out = event.DeadCount{Classes: map[event.Class]int64{}, Reasons: map[string]int64{}}
		if err := knownLetters(ctx, tx, f.IDs); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `SELECT d.class, d.reason, count(*) FROM trueup.dead_letters d`+c.where()+` GROUP BY d.class, d.reason`, c.args...)
		if err != nil {
			return err
		}
		var class event.Class
		var reason string
		var n int64
		_, err = pgx.ForEachRow(rows, []any{&class, &reason, &n}, func() error {
			out.Total, out.Classes[class], out.Reasons[reason] = out.Total+n, out.Classes[class]+n, out.Reasons[reason]+n
			return nil
		})
		return err
	})
	return out, err
}

// knownLetters refuses ids that are none, naming them.
func knownLetters(ctx context.Context, tx pgx.Tx, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	rows, err := tx.Query(ctx, `SELECT i.id FROM unnest($1::text[]) AS i(id) WHERE NOT EXISTS (SELECT FROM trueup.dead_letters d WHERE d.id = i.id)`, ids)
	if err != nil {
		return err
	}
	unknown, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(unknown) == 0 {
		return err
	}
	slices.Sort(unknown)
	more := ""
	if n := len(unknown) - 3; n > 0 {
		unknown, more = unknown[:3], fmt.Sprintf(" and %d more", n)
	}
	return fmt.Errorf("dead letter %s%s: %w", strings.Join(unknown, ", "), more, event.ErrUnknown)
}
