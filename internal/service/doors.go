package service

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"time"

	"github.com/trueup/trueup/ingest"
	"github.com/trueup/trueup/internal/chance"
	"github.com/trueup/trueup/internal/config"
	"github.com/trueup/trueup/internal/imagekit"
	"github.com/trueup/trueup/internal/queue"
	"github.com/trueup/trueup/internal/store"
	"github.com/trueup/trueup/internal/ticket"
	"github.com/trueup/trueup/worker"
	"github.com/trueup/trueup/worker/reconcile"
	"github.com/trueup/trueup/worker/verify"
)

// Queue is what every role needs of the queue.
type Queue interface {
	ingest.Queue
	worker.Queue
	worker.Turns
	Depth(ctx context.Context) (queue.Depth, error)
	Ready() queue.Readiness
	Tell(topic string, payload []byte) error
	Listen(topic string, f func(payload []byte)) (stop func(), err error)
}

// Rows is what the roles need of the database.
type Rows interface {
	worker.Rows
	verify.Fences
	LiveFiles(ctx context.Context, n int, except []string) ([]string, error)
	Report(ctx context.Context, eventID, user string) (store.Report, error)
	Passport(ctx context.Context, fileID string) (store.Passport, error)
	Status(ctx context.Context) (store.Status, error)
	SetPaused(ctx context.Context, paused bool, act store.Act) (store.Paused, error)
	Letters
	Reconciliation
}

// Library is ImageKit.
type Library interface {
	verify.Library
	reconcile.Source
}

// Doors are the outside of a process. A door that the role does not use is nil.
type Doors struct {
	Queue   Queue
	Rows    Rows    // nil in an ingest that was given no database
	Library Library // nil in an ingest
	Now     func() time.Time
	// Random spreads waits and schedules; nil: the runtime's own. Ids and secrets are
	// crypto/rand's all the same.
	Random chance.Source
	// Listen takes the address of a listener; nil: TCP.
	Listen func(ctx context.Context, network, addr string) (net.Listener, error)
}

// Opened are real doors, to be closed when the service has stopped.
type Opened struct {
	Doors
	closers []func() error
}

// Close closes the doors, last opened first.
func (o *Opened) Close() error {
	var errs []error
	for i := len(o.closers) - 1; i >= 0; i-- {
		errs = append(errs, o.closers[i]())
	}
	return errors.Join(errs...)
}

// Open opens the real doors that c's role needs. None of them needs the other side
// to be there: a database that sleeps is left asleep, an external queue may come
// later.
func Open(ctx context.Context, c *config.Config, version string, log *slog.Logger) (*Opened, error) {
	o := &Opened{Doors: Doors{Now: time.Now}}
	if err := o.open(ctx, c, version, log); err != nil {
		return nil, errors.Join(err, o.Close())
	}
	return o, nil
}

func (o *Opened) open(ctx context.Context, c *config.Config, version string, log *slog.Logger) error {
	q, err := queue.Open(ctx, QueueConfig(c, log))
	if err != nil {
		return err
	}
	o.Queue = q
	o.closers = append(o.closers, q.Close)
	if c.Database.URL != "" {
		s, err := store.Open(ctx, StoreConfig(c, log))
		if err != nil {
			return err
		}
		o.Rows = RowsOf(s)
		o.closers = append(o.closers, func() error { s.Close(); return nil })
	}
	if c.Role == config.Ingest {
		return nil
	}
	library, err := openImageKit(c, version)
	if err != nil {
		return err
	}
	o.Library = library
	o.closers = append(o.closers, func() error { library.Close(); return nil })
	return nil
}

// openImageKit prepares ImageKit's management API.
func openImageKit(c *config.Config, version string) (*imagekit.Client, error) {
	return imagekit.New(imagekit.Config{
		BaseURL: c.ImageKit.BaseURL, PrivateKey: c.ImageKit.PrivateKey.Reveal(), Timeout: c.ImageKit.Timeout,
		TicketField: c.Ownership.TicketField, LooksLikeTicket: ticket.LooksLikeTicket, UserAgent: "trueup/" + version,
	})
}

// QueueConfig is the queue that c names; `migrate` creates it on an external server.
func QueueConfig(c *config.Config, log *slog.Logger) queue.Config {
	q := queue.Config{
		URL: c.Queue.URL.Reveal(), CredsFile: c.Queue.Creds, Prefix: c.Queue.Prefix, Role: string(c.Role),
		MaxBytes: int64(c.Queue.MaxBytes), AllowNondurable: c.Queue.AllowNondurable, Replicas: c.Queue.Replicas, Logger: log,
		Buffer:  8,                // what is fetched ahead and not settled is suspect after a crash
		AckWait: 20 * time.Second, // and comes again only after so long; held ones are extended every 5 s
	}
	if q.URL == "" {
		q.Dir = filepath.Join(c.Queue.DataDir, "queue")
	}
	return q
}

// RowsOf is s as the roles need it.
func RowsOf(s *store.Store) Rows { return database{s} }

type database struct{ *store.Store }

// ForPlan hands over what only the caller calls a plan's doors.
func (d database) ForPlan(ctx context.Context) (reconcile.PlanDoors, string, error) {
	plan, note, err := d.Store.ForPlan(ctx)
	if err != nil {
		return nil, "", err
	}
	return plan, note, nil
}

// StoreConfig is the database as c wants it kept.
func StoreConfig(c *config.Config, log *slog.Logger) store.Config {
	return store.Config{
		URL: c.Database.URL.Reveal(), MaxConns: int32(c.Database.Conns), AbsentConfirm: c.Timing.AbsentConfirm,
		ClaimWindow: c.Ownership.ClaimWindow, Ownership: store.Ownership(c.Ownership.Mode), Logger: log, Secrets: secretsOf(c),
		Retain: store.Retention{Caller: c.Retain.DeadCaller, ImageKit: c.Retain.DeadImageKit, Database: c.Retain.DeadDatabase, Trueup: c.Retain.DeadTrueup,
			Ledger: c.Retain.Ledger, Tombstones: c.Retain.Tombstones},
	}
}

// secretsOf are all that must never stand in a dead letter.
func secretsOf(c *config.Config) [][]byte {
	all := []string{c.ImageKit.PrivateKey.Reveal(), c.Callers.Secret.Reveal()}
	all = append(append(all, c.ImageKit.WebhookSecrets.Reveal()...), c.Ownership.Keys.Reveal()...)
	for _, t := range c.OperatorTokens() {
		all = append(all, t.Value.Reveal())
	}
	var out [][]byte
	for _, secret := range all {
		if secret != "" {
			out = append(out, []byte(secret))
		}
	}
	return out
}

// keysOf are the keys that seal tickets and report ids: the configured ones, else one
// made from ImageKit's private key.
func keysOf(c *config.Config) (*ticket.Keys, error) {
	secrets := c.Ownership.Keys.Reveal()
	if len(secrets) == 0 {
		derived, err := ticket.Derive(c.ImageKit.PrivateKey.Reveal())
		if err != nil {
			return nil, err
		}
		secrets = []string{derived}
	}
	return ticket.NewKeys(secrets...)
}
