package store

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/rule"
)

// Previewed is what would happen to one event now.
type Previewed struct {
	// Verdict is the ledger's word: present, absent, refused or undecided.
	Verdict string      `json:"verdict"`
	Result  file.Result `json:"result"`
	End     event.End   `json:"end"`
}

// errUndo ends a transaction that was only to be looked at.
var errUndo = errors.New("nothing of this is kept")

// Preview runs the settling transaction of these events, in no turn, and rolls it back:
// what Settle would say, by event id, and nothing is written but values of sequences.
// Events that are over already are left out. Where the database refuses the data of one
// event, that one is told so and the others are told theirs.
func (s *Store) Preview(ctx context.Context, pending []event.Pending, seen []file.Observation,
	end func(event.Pending, file.Result) event.End,
) (map[string]Previewed, error) {
	out := map[string]Previewed{}
	if err := s.preview(ctx, pending, seen, end, out); err != nil {
		return nil, err
	}
	return out, nil
}

func (s *Store) preview(ctx context.Context, pending []event.Pending, seen []file.Observation,
	end func(event.Pending, file.Result) event.End, out map[string]Previewed,
) error {
	if len(pending) == 0 {
		return nil
	}
	var ends []rule.Ended
	c := &settlement{turn: noTurn, Call: rule.NewCall(pending, of(seen, pending), end)}
	err := s.try(ctx, "preview", func(ctx context.Context) error {
		err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
			w, _, err := s.settle(ctx, tx, c)
			if err != nil {
				return err
			}
			ends = w.ends
			return errUndo
		})
		if errors.Is(err, errUndo) {
			return nil
		}
		return err
	})
	var bad *BadData
	switch {
	case errors.As(err, &bad) && len(pending) > 1:
		half := len(pending) / 2
		return errors.Join(s.preview(ctx, pending[:half], seen, end, out), s.preview(ctx, pending[half:], seen, end, out))
	case errors.As(err, &bad):
		out[pending[0].ID] = Previewed{Verdict: rule.VerdictUndecided, End: event.End{Kind: event.Dead, Reason: "unstorable", Class: event.ClassDatabase, Note: bad.Error()}}
		return nil
	case err != nil:
		return err
	}
	for i := range ends {
		e := &ends[i]
		out[e.ID] = Previewed{Verdict: e.Line().Verdict, Result: e.Result, End: e.End}
	}
	return nil
}

// of are the observations of the events' files.
func of(seen []file.Observation, pending []event.Pending) []file.Observation {
	mine := map[string]bool{}
	for _, p := range pending {
		mine[p.FileID] = true
	}
	var out []file.Observation
	for _, o := range seen {
		if mine[o.FileID] {
			out = append(out, o)
		}
	}
	return out
}
