// Package store is the only package with SQL: the rows of imagekit_files and, in
// schema trueup, everything that decides about them.
//
// It is apart so that one place owns the order rule, ownership and the settling
// transaction. Its one invariant: whatever is observed, in whatever order and however
// often, a row never moves to an older observation, never freezes, and changes only in
// a transaction that holds its line in file_state.
package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/sethvargo/go-retry"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/rule"
)

// Ownership says whether a report alone may own a file.
type Ownership = rule.Ownership

// The two ways; see package rule.
const (
	ByClaim  = rule.ByClaim
	BySigned = rule.BySigned
)

// Config is what a Store needs. Only URL is required.
type Config struct {
	// URL of the database; the pooled endpoint is meant.
	URL string
	// MaxConns; zero means 6.
	MaxConns int32
	// ConnectTimeout; zero means 15 s, as a suspended compute needs a while to wake.
	ConnectTimeout time.Duration
	// CallTimeout bounds one try of one transaction; zero means 30 s.
	CallTimeout time.Duration
	// Tries bounds how often a transaction that lost a race is run; zero means 6.
	Tries uint64
	// AbsentConfirm is ABSENT_CONFIRM; zero means 60 s.
	AbsentConfirm time.Duration
	// ClaimWindow is CLAIM_WINDOW; zero means 1 h.
	ClaimWindow time.Duration
	// Ownership; empty means ByClaim.
	Ownership Ownership
	// Secrets are masked in dead letters; those shorter than eight bytes are not. Nil
	// means that there are none.
	Secrets [][]byte
	// Retain is how long what has ended is remembered.
	Retain Retention
	// ReplayLost is how long after its publication a replay that is known nowhere may be
	// published again; zero means 10 min.
	ReplayLost time.Duration
	// Logger; nil discards.
	Logger *slog.Logger
}

// WithDefaults is c with every zero field that has a meaning given it.
func (c Config) WithDefaults() Config {
	return Config{
		URL: c.URL, MaxConns: cmp.Or(c.MaxConns, 6), ConnectTimeout: cmp.Or(c.ConnectTimeout, 15*time.Second),
		CallTimeout: cmp.Or(c.CallTimeout, 30*time.Second), Tries: cmp.Or(c.Tries, 6),
		AbsentConfirm: cmp.Or(c.AbsentConfirm, time.Minute), ClaimWindow: cmp.Or(c.ClaimWindow, time.Hour),
		Ownership: cmp.Or(c.Ownership, ByClaim), Secrets: c.Secrets, Retain: c.Retain.withDefaults(),
		ReplayLost: cmp.Or(c.ReplayLost, 10*time.Minute), Logger: cmp.Or(c.Logger, slog.New(slog.DiscardHandler)),
	}
}

// Store is the database. It is safe for concurrent use.
type Store struct {
	cfg  Config
	pool *pgxpool.Pool
	log  *slog.Logger
	// secrets is never changed.
	secrets rule.Secrets
	// role is what every transaction steps down to; empty: none does. See ForPlan.
	role string

	// mu guards cleaned and mapped, which is replaced, never changed: whoever took it may go on
	// with it for the length of one transaction.
	mu     sync.Mutex
	mapped *mapping
	// cleaned is when a settlement last took clean-up along.
	cleaned time.Time
}

// Open prepares a pool. It makes no connection: a sleeping database stays asleep.
func Open(ctx context.Context, c Config) (*Store, error) {
	c = c.WithDefaults()
	if c.Ownership != ByClaim && c.Ownership != BySigned {
		return nil, fmt.Errorf("open store: ownership %q is neither %s nor %s", c.Ownership, ByClaim, BySigned)
	}
	p, err := pgxpool.ParseConfig(c.URL)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	p.MaxConns, p.MinConns, p.MinIdleConns = c.MaxConns, 0, 0
	// Under the five minutes after which an idle compute is suspended.
	p.MaxConnIdleTime, p.MaxConnLifetime, p.MaxConnLifetimeJitter = 2*time.Minute, 30*time.Minute, 5*time.Minute
	p.HealthCheckPeriod, p.PingTimeout = 30*time.Second, 5*time.Second
	p.ConnConfig.ConnectTimeout = c.ConnectTimeout
	// Nothing named stays on the server, so a transaction pooler breaks nothing.
	p.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	p.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
		quickArrays(conn.TypeMap())
		return nil
	}
	pool, err := pgxpool.NewWithConfig(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	return &Store{cfg: c, pool: pool, log: c.Logger, secrets: rule.NewSecrets(c.Secrets)}, nil
}

// Close ends all connections.
func (s *Store) Close() { s.pool.Close() }

// Ping makes one round trip, for doctor and the worker's pause loop; never for probes.
func (s *Store) Ping(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, s.cfg.CallTimeout)
	defer stop()
	return classify("ping database", s.pool.Ping(ctx))
}

// try runs f, and runs it again when a race was lost, a bounded number of times.
func (s *Store) try(ctx context.Context, op string, f func(context.Context) error) error {
	b := retry.WithMaxRetries(s.cfg.Tries-1, retry.WithJitterPercent(50, retry.WithCappedDuration(time.Second, retry.NewExponential(10*time.Millisecond))))
	err := retry.Do(ctx, b, func(ctx context.Context) error {
		ctx, stop := context.WithTimeout(ctx, s.cfg.CallTimeout)
		defer stop()
		err := f(ctx)
		if staleColumns(err) && s.forgetMapping() {
			err = errors.Join(errStaleMapping, err)
		}
		if again(err) {
			return retry.RetryableError(err)
		}
		return err
	})
	return classify(op, err)
}

// tx runs f in one transaction on one connection, under the store's role where it has
// one.
func (s *Store) tx(ctx context.Context, op string, f func(context.Context, pgx.Tx) error) error {
	return s.txFirst(ctx, op, s.queueStepDown, f)
}

// txFirst is tx with what is to be sent before everything else, in one round trip.
func (s *Store) txFirst(ctx context.Context, op string, first func(*pgx.Batch), f func(context.Context, pgx.Tx) error) error {
	return s.try(ctx, op, func(ctx context.Context) error {
		return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
			b := &pgx.Batch{}
			first(b)
			if b.Len() > 0 {
				if err := send(ctx, tx, b); err != nil {
					return err
				}
			}
			return f(ctx, tx)
		})
	})
}

// batch sends queries in one round trip.
type sender interface {
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

func send(ctx context.Context, on sender, b *pgx.Batch) error { return on.SendBatch(ctx, b).Close() }

// mapping returns which columns this database lets us fill, reading it once.
func (s *Store) mapping(ctx context.Context, on sender) (*mapping, error) {
	s.mu.Lock()
	m := s.mapped
	s.mu.Unlock()
	if m != nil {
		return m, nil
	}
	b := &pgx.Batch{}
	s.queueMapping(b, &m)
	if err := send(ctx, on, b); err != nil {
		return nil, fmt.Errorf("read mapped columns: %w", err)
	}
	s.keepMapping(m)
	return m, nil
}

func (s *Store) keepMapping(m *mapping) {
	s.mu.Lock()
	s.mapped = m
	s.mu.Unlock()
}

// forgetMapping drops the mapping and says whether there was one to drop.
func (s *Store) forgetMapping() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	had := s.mapped != nil
	s.mapped = nil
	return had
}

// queueMapping reads what `migrate up` recorded, less what an application has dropped or
// retyped since.
func (s *Store) queueMapping(b *pgx.Batch, into **mapping) {
	types := map[string]string{}
	b.Queue(`SELECT m.name, m.type FROM trueup.mapped_columns m JOIN pg_catalog.pg_attribute a
		ON a.attrelid = 'public.imagekit_files'::regclass AND a.attname = m.name AND NOT a.attisdropped
		AND format_type(a.atttypid, a.atttypmod) = m.type`).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var name, kind string
			if err := rows.Scan(&name, &kind); err != nil {
				return err
			}
			types[name] = kind
		}
		return rows.Err()
	})
	b.Queue(`SELECT EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgrelid = 'public.imagekit_files'::regclass
		AND tgname = 'trueup_compat_insert' AND tgenabled <> 'D')`).QueryRow(func(row pgx.Row) error {
		var compat bool
		if err := row.Scan(&compat); err != nil {
			return err
		}
		if types["file_url"] == "" {
			return fmt.Errorf("%w: no column to fill is recorded; run trueup migrate up", event.ErrOutage)
		}
		*into = newMapping(types, compat)
		return nil
	})
}
