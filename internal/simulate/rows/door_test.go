package rows_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/service"
	"github.com/trueup/trueup/internal/simulate/fault"
	"github.com/trueup/trueup/internal/simulate/rows"
	"github.com/trueup/trueup/internal/store"
)

var errInjected = errors.New("the connection is gone")

// seen is a report of a file that is there.
func seen(id string) ([]event.Pending, []file.Observation) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	p := event.Pending{Event: event.Event{ID: "event-" + id, Source: event.Client, Origin: event.Client, Kind: event.KindReport, FileID: id, User: "ann", AcceptedAt: at}}
	o := file.Observation{FileID: id, How: file.LookUp, Fence: file.Fence{Number: 1, At: at}, Status: 200,
		Snapshot: &file.Snapshot{ID: id, URL: "u", FirstVersion: true, CreatedAt: at, UpdatedAt: at}}
	return []event.Pending{p}, []file.Observation{o}
}

func done(event.Pending, file.Result) event.End { return event.End{Kind: event.Done} }

// A call that fails is an outage, whether or not it happened; what happened is held.
func TestAFaultIsAnOutage(t *testing.T) {
	for name, c := range map[string]struct {
		hook func(ctx context.Context, do func() error) error
		want error
		rows int
	}{
		"FailedAndNothingHappened":      {func(context.Context, func() error) error { return errInjected }, event.ErrOutage, 0},
		"FailedAndItHappenedAnyway":     {func(_ context.Context, do func() error) error { _ = do(); return errInjected }, event.ErrOutage, 1},
		"HappenedTwiceAsARetriedOne":    {func(_ context.Context, do func() error) error { return errors.Join(do(), do()) }, nil, 1},
		"TimedOutBefore":                {func(context.Context, func() error) error { return context.DeadlineExceeded }, event.ErrOutage, 0},
		"CancelledIsNobodysOutage":      {func(context.Context, func() error) error { return context.Canceled }, context.Canceled, 0},
		"CancelledAfterItHappened":      {func(_ context.Context, do func() error) error { _ = do(); return context.Canceled }, context.Canceled, 1},
		"DelayedBeyondItsCallersWishes": {func(ctx context.Context, do func() error) error { <-ctx.Done(); return do() }, context.Canceled, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db := rows.New(nil)
				turn, err := rows.Open(db, rows.Config{}).BeginTurn(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				var calls []fault.Call
				door := rows.Open(db, rows.Config{Hook: func(ctx context.Context, call fault.Call, do func() error) error {
					calls = append(calls, call)
					return c.hook(ctx, do)
				}})
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(time.Second, cancel)
				pending, observed := seen("f")
				_, err = door.Settle(ctx, turn.Number, pending, observed, done)
				if !errors.Is(err, c.want) {
					t.Errorf("got %v, want %v", err, c.want)
				}
				if errors.Is(err, event.ErrOutage) != errors.Is(c.want, event.ErrOutage) {
					t.Errorf("an outage: %v", err)
				}
				if n := len(db.Dump().Rows); n != c.rows {
					t.Errorf("%d rows, want %d", n, c.rows)
				}
				if len(calls) != 1 || calls[0] != (fault.Call{Door: fault.Rows, Method: "Settle", Key: "event-f"}) {
					t.Errorf("calls %v", calls)
				}
				<-ctx.Done()
			})
		})
	}
}

// What one process did, the next one finds; and it has the last word.
func TestADatabaseOutlivesItsDoors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := rows.New(nil)
		var first service.Rows = rows.Open(db, rows.Config{})
		turn, err := first.BeginTurn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		pending, observed := seen("f")
		if _, err := first.Settle(t.Context(), turn.Number, pending, observed, done); err != nil {
			t.Fatal(err)
		}
		second := rows.Open(db, rows.Config{Config: store.Config{Ownership: store.BySigned}})
		next, err := second.BeginTurn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		out, err := second.Settle(t.Context(), next.Number, pending, observed, done)
		if err != nil || out.Already != 1 {
			t.Errorf("settled again: %+v, %v", out, err)
		}
		if _, err := first.Settle(t.Context(), turn.Number, nil, nil, done); !errors.Is(err, event.ErrTurnMoved) {
			t.Errorf("the first one goes on: %v", err)
		}
	})
}

// An unchanged row keeps its version; a person's act gives it another.
func TestTheDumpShowsWhatWasWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := rows.New(nil)
		door := rows.Open(db, rows.Config{})
		turn, err := door.BeginTurn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		pending, observed := seen("f")
		if _, err := door.Settle(t.Context(), turn.Number, pending, observed, done); err != nil {
			t.Fatal(err)
		}
		before := db.Dump()
		if _, err := door.Settle(t.Context(), turn.Number, pending, observed, done); err != nil {
			t.Fatal(err)
		}
		after := db.Dump()
		if before.Rows[0].Xmin != after.Rows[0].Xmin || before.States[0].Xmin != after.States[0].Xmin {
			t.Error("settling again has written")
		}
		if err := db.InsertRow(rows.Row{FileID: "f"}); !errors.Is(err, rows.ErrTaken) {
			t.Errorf("a second row of one file: %v", err)
		}
		if !db.UpdateRow("f", func(r *rows.Row) { r.UserID = "eve" }) || db.Dump().Rows[0].Xmin == after.Rows[0].Xmin {
			t.Error("a person's update left the row's version as it was")
		}
		db.TruncateRows()
		if n := len(db.Dump().Rows); n != 0 || db.DeleteRow("f") {
			t.Errorf("%d rows after a truncate", n)
		}
	})
}
