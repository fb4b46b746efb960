package queue

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"time"
)

// MaxEvents is how many events one envelope holds at most, and so how many one
// call of Publish may bring: one call's events never split.
const MaxEvents = 256

// Config says which queue to open and how.
type Config struct {
	// URL is the NATS server, or several separated by commas. Empty: embedded.
	URL string
	// CredsFile holds the JWT and key for URL. Empty: none are sent.
	CredsFile string
	// Dir is where the embedded server keeps its store; required when URL is empty.
	Dir string
	// Prefix begins every name on the server. Empty: "trueup".
	Prefix string
	// Role ends the private inbox prefix (_INBOX_<prefix>_<role>), so that a server
	// can keep roles from reading each other's replies. Empty: the inbox prefix is
	// _INBOX_<prefix>.
	Role string
	// MaxBytes bounds what is stored and not yet settled. Zero: 2 GiB.
	MaxBytes int64
	// MaxEnvelopes bounds the number of stored envelopes. Zero: only MaxBytes does.
	MaxEnvelopes int64
	// AllowNondurable lets Publish accept where fsync is not proven on the embedded
	// server. Zero: it refuses.
	AllowNondurable bool
	// Replicas of the streams that Migrate creates. Zero: 3 in a cluster of three or
	// more, else 1. The embedded server has always 1.
	Replicas int
	// AckTimeout is how long an envelope may wait for its confirmation, one repeat
	// included. Zero: 5 s.
	AckTimeout time.Duration
	// MaxWaitingEvents and MaxWaitingBytes bound the waiting room in front of the
	// packer; beyond them Publish refuses at once. Zero: 8192 and 64 MiB.
	MaxWaitingEvents int
	MaxWaitingBytes  int
	// AckWait is how long a delivery may stay silent before it is delivered again;
	// Migrate writes it into the consumer. Zero: 60 s.
	AckWait time.Duration
	// MaxUnacked bounds the envelopes delivered and not acked, over all workers.
	// Zero: 2000.
	MaxUnacked int
	// Buffer is how many envelopes are fetched ahead of Next. Zero: 32.
	Buffer int
	// StrayEvery is how often a worker looks for envelopes that the server keeps and
	// will not deliver any more. Zero: 30 s.
	StrayEvery time.Duration
	// TurnTTL is how long a worker that fell silent keeps its turn; Migrate writes it
	// into the bucket and HoldTurn reads it from there. Zero: 15 s.
	TurnTTL time.Duration
	// Logger receives what the queue and the embedded server have to say. Nil: nothing.
	Logger *slog.Logger

	// forgetful starts the embedded server without SyncAlways: only tests do.
	forgetful bool
	// payload overrides the embedded server's largest message: only tests do.
	payload int32
	// stoodBy is told each time the turn was found taken: only tests listen.
	stoodBy func()
}

var validPrefix = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,31}$`)

func (c Config) withDefaults() (Config, error) {
	d := Config{
		Prefix: "trueup", MaxBytes: 2 << 30, AckTimeout: 5 * time.Second,
		MaxWaitingEvents: 8192, MaxWaitingBytes: 64 << 20, AckWait: time.Minute, MaxUnacked: 2000,
		Buffer: 32, StrayEvery: 30 * time.Second, TurnTTL: 15 * time.Second, Logger: slog.New(slog.DiscardHandler), payload: 8 << 20,
	}
	c.Prefix = cmp.Or(c.Prefix, d.Prefix)
	c.MaxBytes = cmp.Or(c.MaxBytes, d.MaxBytes)
	c.AckTimeout = cmp.Or(c.AckTimeout, d.AckTimeout)
	c.MaxWaitingEvents = cmp.Or(c.MaxWaitingEvents, d.MaxWaitingEvents)
	c.MaxWaitingBytes = cmp.Or(c.MaxWaitingBytes, d.MaxWaitingBytes)
	c.AckWait = cmp.Or(c.AckWait, d.AckWait)
	c.MaxUnacked = cmp.Or(c.MaxUnacked, d.MaxUnacked)
	c.Buffer = cmp.Or(c.Buffer, d.Buffer)
	c.StrayEvery = cmp.Or(c.StrayEvery, d.StrayEvery)
	c.TurnTTL = cmp.Or(c.TurnTTL, d.TurnTTL)
	c.Logger = cmp.Or(c.Logger, d.Logger)
	c.payload = cmp.Or(c.payload, d.payload)
	if c.stoodBy == nil {
		c.stoodBy = func() {}
	}
	if !validPrefix.MatchString(c.Prefix) {
		return c, fmt.Errorf("queue: prefix %q: want lower-case letters, digits, - and _, beginning with a letter, at most 32", c.Prefix)
	}
	if c.embedded() && c.Dir == "" {
		return c, errors.New("queue: an embedded queue needs a directory")
	}
	return c, nil
}

func (c Config) embedded() bool { return c.URL == "" }

// names are everything we are called on the server.
type names struct {
	stream   string // the stream of envelopes
	subject  string // the one subject it listens to
	consumer string // the durable consumer that all workers share
	bucket   string // the KV bucket of the turn
	notice   string // what notices begin with
	inbox    string // what our private inboxes begin with
}

func (c Config) names() names {
	n := names{
		stream:   strings.ToUpper(c.Prefix) + "_EVENTS",
		subject:  c.Prefix + ".events",
		consumer: "worker",
		bucket:   c.Prefix + "_turn",
		notice:   c.Prefix + ".notice.",
		inbox:    "_INBOX_" + c.Prefix,
	}
	if c.Role != "" {
		n.inbox += "_" + c.Role
	}
	return n
}
