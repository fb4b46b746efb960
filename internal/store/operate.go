package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/rule"
)

// Act is who did something, why, and the key that keeps it from being done twice.
type Act struct {
	Who  string
	Note string
	// Key is the caller's Idempotency-Key, for this verb; empty means that every call
	// counts.
	Key string
}

// Paused is whether an operator has stopped the worker.
type Paused struct {
	Paused bool      `json:"paused"`
	By     string    `json:"by,omitempty"`
	Note   string    `json:"note,omitempty"`
	At     time.Time `json:"at,omitzero"`
}

// ErrUnknownFile means that there is neither a row nor a memory of the file.
var ErrUnknownFile = errors.New("no such file was ever seen")

// SetPaused stops or starts the worker, with a line in the audit, and returns what is
// in force then. The same key again changes nothing.
func (s *Store) SetPaused(ctx context.Context, paused bool, act Act) (Paused, error) {
	verb := "resume"
	if paused {
		verb = "pause"
	}
	var out Paused
	err := s.tx(ctx, verb, func(ctx context.Context, tx pgx.Tx) error {
		fresh, err := audit(ctx, tx, act, verb, map[string]any{})
		if err != nil {
			return err
		}
		if fresh {
			_, err = tx.Exec(ctx, `UPDATE trueup.leases SET paused = $1, paused_by = CASE WHEN $1 THEN $2 ELSE '' END,
				paused_note = CASE WHEN $1 THEN $3 ELSE '' END, paused_at = CASE WHEN $1 THEN clock_timestamp() END WHERE name = 'worker'`, paused, clean(act.Who), clean(act.Note))
			if err != nil {
				return err
			}
		}
		out, err = readPaused(ctx, tx)
		return err
	})
	return out, err
}

func readPaused(ctx context.Context, tx pgx.Tx) (p Paused, err error) {
	var at *time.Time
	err = tx.QueryRow(ctx, `SELECT paused, paused_by, paused_note, paused_at FROM trueup.leases WHERE name = 'worker'`).Scan(&p.Paused, &p.By, &p.Note, &at)
	p.At = orZero(at)
	return p, err
}

// audit writes the act's line and says whether it is the first with its key.
func audit(ctx context.Context, tx pgx.Tx, act Act, verb string, filter map[string]any) (bool, error) {
	ct, err := tx.Exec(ctx, `INSERT INTO trueup.audit (id, who, verb, filter, note, key) VALUES ($1, $2, $3, $4::text::jsonb, $5, nullif($6, ''))
		ON CONFLICT (who, verb, key) DO NOTHING`, newID(), clean(act.Who), verb, encode(filter), clean(act.Note), clean(act.Key))
	if err != nil {
		return false, fmt.Errorf("write audit: %w", err)
	}
	return ct.RowsAffected() == 1, nil
}

// Assign gives a file to a user, whoever owned it, for good: nothing but another
// assignment changes it. It leaves an audit line and one in the file's ledger.
func (s *Store) Assign(ctx context.Context, fileID, user string, act Act) error {
	if user == "" || !file.ValidID(fileID) {
		return errors.New("assign: a file id and a user are needed")
	}
	return s.tx(ctx, "assign", func(ctx context.Context, tx pgx.Tx) error {
		fresh, err := audit(ctx, tx, act, "assign", map[string]any{"file": fileID, "user": user})
		if err != nil || !fresh {
			return err
		}
		return assign(ctx, tx, fileID, user, act)
	})
}

func assign(ctx context.Context, tx pgx.Tx, fileID, user string, act Act) error {
	// A row that file_state does not know yet gets its line now; the next look-up
	// fills the rest.
	_, err := tx.Exec(ctx, `INSERT INTO trueup.file_state (file_id, seen) SELECT f.file_id, nextval('trueup.fence') FROM public.imagekit_files f
		WHERE f.file_id = $1 ON CONFLICT (file_id) DO NOTHING`, fileID)
	if err != nil {
		return err
	}
	var before string
	err = tx.QueryRow(ctx, `SELECT owner FROM trueup.file_state WHERE file_id = $1 FOR UPDATE`, fileID).Scan(&before)
	if errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("%s: %w", fileID, ErrUnknownFile)
	}
	if err != nil {
		return err
	}
	b := &pgx.Batch{}
	b.Queue(`UPDATE trueup.file_state SET owner = $2, owner_kind = 'assigned', owner_at = NULL, owner_event = NULL,
		seen = greatest(seen, nextval('trueup.fence')) WHERE file_id = $1`, fileID, user)
	b.Queue(`UPDATE public.imagekit_files SET user_id = $2 WHERE file_id = $1 AND user_id IS DISTINCT FROM $2`, fileID, user)
	queueLines(b, []rule.Line{{FileID: fileID, Source: "operator", Origin: "operator", Kind: "assign", User: user,
		Outcome: string(file.Applied), Reason: string(file.ReasonOwner),
		Detail: map[string]any{"who": clean(act.Who), "note": clean(act.Note), "before": before}}})
	return send(ctx, tx, b)
}
