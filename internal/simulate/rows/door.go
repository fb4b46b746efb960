package rows

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/trueup/trueup/internal/chance"
	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/rule"
	"github.com/trueup/trueup/internal/simulate/fault"
	"github.com/trueup/trueup/internal/store"
)

// Config of one Door. The zero value is what the store has by default.
type Config struct {
	// Config is the store's; what is about connections is of no use here.
	store.Config
	// Hook stands around every call, with the method's name and what it is about. What it
	// says comes out as an event.ErrOutage, as long as it is no error of the context's.
	Hook fault.Hook
	// Random chooses known files; nil: the database's own.
	Random chance.Source
}

// Door is one process's database: a service.Rows.
type Door struct {
	db      *Database
	cfg     store.Config
	hook    fault.Hook
	random  chance.Source
	secrets rule.Secrets

	mu      sync.Mutex // guards cleaned
	cleaned time.Time
}

// Open opens db for one process.
func Open(db *Database, c Config) *Door {
	d := &Door{db: db, cfg: c.WithDefaults(), hook: c.Hook, random: c.Random, secrets: rule.NewSecrets(c.Secrets)}
	if d.random == nil {
		d.random = db.random
	}
	return d
}

// do is one transaction: f under the database's lock, where the hook lets it. f must find
// out that it may not go on before it writes anything.
func (d *Door) do(ctx context.Context, method, key string, f func() error) error {
	var own error
	err := d.hook.Do(ctx, fault.Call{Door: fault.Rows, Method: method, Key: key}, func() error {
		if own = context.Cause(ctx); own != nil {
			return own
		}
		d.db.mu.Lock()
		defer d.db.mu.Unlock()
		d.db.writes++
		own = f()
		return own
	})
	switch {
	case err == nil:
		return nil
	case own != nil && errors.Is(err, own) && !errors.Is(own, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.Is(err, event.ErrOutage):
		return fmt.Errorf("%s: %w", method, err)
	}
	return fmt.Errorf("%s: %w: %w", method, event.ErrOutage, err)
}

// guard keeps out whoever does not hold the turn, and everybody while an operator has
// paused the worker.
func (db *Database) guard(turn int64) error {
	if err := db.hold(turn); err != nil {
		return err
	}
	if db.paused.Paused {
		return event.ErrPaused
	}
	return nil
}

// hold is guard for what goes on through a pause.
func (db *Database) hold(turn int64) error {
	if db.turn != turn {
		return fmt.Errorf("turn %d, now %d: %w", turn, db.turn, event.ErrTurnMoved)
	}
	return nil
}

// Ping makes one round trip.
func (d *Door) Ping(ctx context.Context) error {
	return d.do(ctx, "Ping", "", func() error { return nil })
}

func first(ids []string) string {
	if len(ids) == 0 {
		return ""
	}
	return ids[0]
}
