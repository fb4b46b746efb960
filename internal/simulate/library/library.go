// Package library is ImageKit in memory: the emulator as a handler, and the real client on
// the way to it, without a socket, a file or a listener between them. Everything that
// internal/imagekit and internal/emulator do they do here too, bodies, headers, limits,
// webhooks and cut connections included.
//
// It stands apart because it is the one simulated door behind which nothing is imitated.
// Its one invariant: what a simulated process learns of ImageKit has been an answer of the
// emulator, as bytes.
package library

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"

	"github.com/trueup/trueup/internal/emulator"
	"github.com/trueup/trueup/internal/imagekit"
	"github.com/trueup/trueup/internal/simulate/fault"
	"github.com/trueup/trueup/internal/simulate/wire"
)

// Origin is where the library says it lives.
const Origin = "http://imagekit.invalid"

// Config of a Library.
type Config struct {
	// PublicKey and PrivateKey are the account's pair; empty means "public_simulated" and
	// "private_simulated".
	PublicKey, PrivateKey string
	// AccountID is the first segment of delivery URLs; empty means the emulator's default.
	AccountID string
	// WebhookSecret signs webhooks to WebhookURL, which Sender carries; without a Sender
	// none are sent.
	WebhookSecret, WebhookURL string
	Sender                    http.RoundTripper
	Logger                    *slog.Logger // nil: nobody hears
}

// Library is one account. It is an http.RoundTripper to everything that the emulator
// serves, its control calls included.
type Library struct {
	config   Config
	emulator *emulator.Emulator
	way      *wire.Direct
	stop     context.CancelFunc
	sending  sync.WaitGroup
}

// Open opens an empty account with the emulator's default settings.
func Open(c Config) (*Library, error) {
	c.PublicKey = cmp.Or(c.PublicKey, "public_simulated")
	c.PrivateKey = cmp.Or(c.PrivateKey, "private_simulated")
	e, err := emulator.New(emulator.Config{
		InMemory: true, PublicKey: c.PublicKey, PrivateKey: c.PrivateKey, AccountID: c.AccountID, PublicURL: Origin,
		WebhookSecret: c.WebhookSecret, WebhookURL: c.WebhookURL, Sender: c.Sender, Logger: c.Logger,
	})
	if err != nil {
		return nil, err
	}
	l := &Library{config: c, emulator: e, way: &wire.Direct{Handler: e.Handler()}}
	ctx, stop := context.WithCancel(context.Background())
	l.stop = stop
	if c.Sender != nil {
		l.sending.Go(func() { e.Send(ctx) })
	}
	return l, nil
}

// Close ends the webhooks, waits for requests that nobody waits for any more, and forgets
// everything.
func (l *Library) Close() error {
	l.stop()
	l.sending.Wait()
	l.way.Wait()
	return l.emulator.Close()
}

// RoundTrip implements http.RoundTripper.
func (l *Library) RoundTrip(r *http.Request) (*http.Response, error) { return l.way.RoundTrip(r) }

// Endpoint is the account's URL endpoint.
func (l *Library) Endpoint() string { return l.emulator.Endpoint() }

// Client is the real client of one process; its requests run through hook. c says the
// rest; an empty BaseURL or PrivateKey is the library's own.
func (l *Library) Client(c imagekit.Config, hook fault.Hook) (*imagekit.Client, error) {
	c.BaseURL = cmp.Or(c.BaseURL, Origin)
	c.PrivateKey = cmp.Or(c.PrivateKey, l.config.PrivateKey)
	c.Transport = Hooked(l, hook)
	return imagekit.New(c)
}

// Hooked sends requests through hook, as calls of the door ImageKit: the method is
// "details", "search" or "list", the key the file or, of lists, the query. What the hook
// returns is what becomes of the connection; a request whose hook failed after doing it
// was carried out, and its answer got lost.
func Hooked(next http.RoundTripper, hook fault.Hook) http.RoundTripper {
	return &hooked{next: next, hook: hook}
}

type hooked struct {
	next http.RoundTripper
	hook fault.Hook
}

func (h *hooked) RoundTrip(r *http.Request) (response *http.Response, err error) {
	ctx := r.Context()
	err = h.hook.Do(ctx, callOf(r), func() (err error) {
		response, err = h.next.RoundTrip(r) //nolint:bodyclose // it is closed below, or by the caller
		return err
	})
	if err == nil {
		return response, nil
	}
	if response != nil {
		_ = response.Body.Close()
	}
	if ctx.Err() != nil {
		err = ctx.Err() // as net/http has it
	}
	return nil, err
}

// callOf names the question that a request asks.
func callOf(r *http.Request) fault.Call {
	c := fault.Call{Door: fault.ImageKit, Method: strings.ToLower(r.Method) + " " + r.URL.Path}
	id, details := strings.CutSuffix(strings.TrimPrefix(r.URL.Path, "/v1/files/"), "/details")
	query := r.URL.Query().Get("searchQuery")
	switch {
	case r.Method != http.MethodGet:
	case details:
		c.Method, c.Key = "details", id
	case r.URL.Path != "/v1/files":
	case strings.Contains(query, "id IN"):
		c.Method, c.Key = "search", query
	default:
		c.Method, c.Key = "list", r.URL.RawQuery
	}
	return c
}
