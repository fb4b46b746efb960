package rows

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/rule"
	"github.com/trueup/trueup/internal/store"
)

// SetPaused stops or starts the worker, and returns what is in force then. The same key
// again changes nothing.
func (d *Door) SetPaused(ctx context.Context, paused bool, by store.Act) (out store.Paused, err error) {
	verb := "resume"
	if paused {
		verb = "pause"
	}
	err = d.do(ctx, "SetPaused", verb, func() error {
		if d.db.record(by, verb, map[string]any{}) {
			d.db.paused = store.Paused{}
			if paused {
				d.db.paused = store.Paused{Paused: true, By: by.Who, Note: by.Note, At: now()}
			}
		}
		out = d.db.paused
		return nil
	})
	if err != nil {
		return store.Paused{}, err
	}
	return out, nil
}

// Assign gives a file to a user, whoever owned it, for good.
func (d *Door) Assign(ctx context.Context, fileID, user string, by store.Act) error {
	if user == "" || !file.ValidID(fileID) {
		return errors.New("assign: a file id and a user are needed")
	}
	return d.do(ctx, "Assign", fileID, func() error {
		db, r, s := d.db, d.db.rows[fileID], d.db.states[fileID]
		if by.Key != "" && db.recorded(by, "assign") != nil {
			return nil
		}
		if s == nil && r == nil {
			return fmt.Errorf("%s: %w", fileID, store.ErrUnknownFile)
		}
		db.record(by, "assign", map[string]any{"file": fileID, "user": user})
		if s == nil {
			s = &state{firstSeen: now()}
			db.states[fileID] = s
		}
		if r != nil { // a value of the sequence is drawn whether or not the line is new
			s.seen = max(s.seen, db.draw())
		}
		before := s.owner.User
		s.owner.Owner, s.owner.Event, s.owner.At = file.Owner{User: user, Kind: file.Assigned}, "", time.Time{}
		s.seen, s.xmin = max(s.seen, db.draw()), db.writes
		if r != nil && r.UserID != user {
			r.UserID, r.xmin = user, db.writes
		}
		db.tell([]rule.Line{{FileID: fileID, Source: "operator", Origin: "operator", Kind: "assign", User: user,
			Outcome: string(file.Applied), Reason: string(file.ReasonOwner), Detail: map[string]any{"who": by.Who, "note": by.Note, "before": before}}})
		return nil
	})
}

// Preview says what Settle would, by event id, and writes nothing. Events that are over
// already are left out.
func (d *Door) Preview(ctx context.Context, pending []event.Pending, seen []file.Observation,
	end func(event.Pending, file.Result) event.End,
) (map[string]store.Previewed, error) {
	out := map[string]store.Previewed{}
	err := d.do(ctx, "Preview", about(pending, seen), func() error {
		clear(out)
		return d.preview(pending, seen, end, out)
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (d *Door) preview(pending []event.Pending, seen []file.Observation, end func(event.Pending, file.Result) event.End, out map[string]store.Previewed) error {
	if len(pending) == 0 {
		return nil
	}
	mine := map[string]bool{}
	for _, p := range pending {
		mine[p.FileID] = true
	}
	var of []file.Observation
	for _, o := range seen {
		if mine[o.FileID] {
			of = append(of, o)
		}
	}
	s, err := d.settle("preview", noTurn, rule.NewCall(pending, of, end))
	var bad *store.BadData
	switch {
	case errors.As(err, &bad) && len(pending) > 1:
		half := len(pending) / 2
		return errors.Join(d.preview(pending[:half], seen, end, out), d.preview(pending[half:], seen, end, out))
	case errors.As(err, &bad):
		out[pending[0].ID] = store.Previewed{Verdict: rule.VerdictUndecided,
			End: event.End{Kind: event.Dead, Reason: "unstorable", Class: event.ClassDatabase, Note: bad.Error()}}
		return nil
	case err != nil:
		return err
	}
	for _, f := range s.files {
		if f.Do.Moves() {
			d.db.draw() // no rollback gives a value back to its sequence
		}
	}
	for i := range s.ends {
		e := &s.ends[i]
		out[e.ID] = store.Previewed{Verdict: e.Line().Verdict, Result: e.Result, End: e.End}
	}
	return nil
}
