package service

import (
	"context"
	"errors"
	"fmt"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/store"
)

// rows gives the store the shapes that the worker asked for.
type rows struct{ *store.Store }

func (r rows) BeginTurn(ctx context.Context) (event.Turn, error) {
	t, err := r.Store.BeginTurn(ctx)
	return event.Turn{Number: t.Number, NextDue: t.NextDue, Paused: t.Paused, PausedBy: t.PausedBy}, err
}

func (r rows) Settle(ctx context.Context, turn int64, pending []event.Pending, seen []file.Observation,
	end func(event.Pending, file.Result) event.End,
) (event.Settled, error) {
	settled, err := r.Store.Settle(ctx, turn, pending, seen, end)
	var bad *store.BadData
	if errors.As(err, &bad) {
		err = fmt.Errorf("%w: %w", event.ErrUnstorable, err)
	}
	return event.Settled(settled), err
}

func (r rows) Mark(ctx context.Context, turn int64, ids []string) (map[string]int, error) {
	marks := make(map[string]int, len(ids))
	for _, id := range ids {
		survived, err := r.Store.Mark(ctx, turn, id)
		if err != nil {
			return nil, err
		}
		marks[id] = survived
	}
	return marks, nil
}
