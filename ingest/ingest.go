// Package ingest is step 1, RECEIVE: it turns HTTP into events and hands them to the
// queue. It says 2xx only after the queue has confirmed durable storage, and it
// needs nothing else to say so: it works while the database sleeps or is down.
//
// It is apart because it faces the internet. Its one invariant: nothing unsigned or
// unauthenticated reaches the queue, and of what does, only the file's id and who
// said it mean anything; the rest travels along as bytes.
//
// Its sub-packages each answer one question: signature (was it ImageKit?), hint (what
// does it say?), caller (which user?), grant (what may this user upload?).
package ingest

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/trueup/trueup/ingest/caller"
	"github.com/trueup/trueup/ingest/grant"
	"github.com/trueup/trueup/ingest/signature"
	"github.com/trueup/trueup/internal/chance"
	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/ticket"
)

// Queue takes events for good.
type Queue interface {
	// Publish returns nil only when all events are durably stored. An error that
	// wraps event.ErrTooLarge says that they never can be; after any other they may
	// be stored all the same.
	Publish(ctx context.Context, events []event.Event) error
}

// Reports knows what became of a report.
type Reports interface {
	// Report tells about the event of user; an event it does not know is Pending.
	Report(ctx context.Context, eventID, user string) (ReportStatus, error)
}

// Settled tells when an event is settled. It may lose notices: whoever waits looks
// again each second anyway.
type Settled interface {
	// Wait returns nil when the event was announced as settled, else ctx's error.
	Wait(ctx context.Context, eventID string) error
}

// State is what a report has come to.
type State string

const (
	Pending  State = "pending"
	Verified State = "verified"
	Rejected State = "rejected"
)

// ReportStatus is what a reporter may know. There is no reason in it: every rejected
// report is told as not_claimable, so that nobody learns which files exist.
type ReportStatus struct {
	State State
	// File is the reporter's own live file, when State is Verified.
	File *file.Snapshot
}

// Readiness is what /readyz tells.
type Readiness struct {
	// Accepting: the queue takes writes as durably as configured.
	Accepting bool
	// Durability is "fsync", "unknown" or "none".
	Durability string
	Why        string // why not accepting; a plain sentence
	// Database and ImageKit are shown, never failed for; empty is left out.
	Database, ImageKit string
}

// Config wires an ingest. Queue, Callers, Grants, Tickets and Ready are required.
type Config struct {
	Queue   Queue
	Callers *caller.Checker
	Grants  *grant.Granter
	Tickets *ticket.Keys // seal and open report ids
	Ready   func() Readiness
	// Signatures verifies webhooks; nil refuses every one.
	Signatures *signature.Verifier
	// Reports answers GET /reports; nil says pending for every genuine id.
	Reports Reports
	// Settled wakes waiting questions; nil leaves them to look each second.
	Settled Settled
	// ReportRetention is the age after which a report is 410; 0 means 30 days.
	ReportRetention time.Duration
	// PublishTimeout bounds the wait for the queue; 0 means 10 s.
	PublishTimeout time.Duration
	// UserRate per second and UserBurst bound one user's requests; 0 means 50 and
	// 200, a negative rate means no limit.
	UserRate  float64
	UserBurst int
	// FailureRate per second and FailureBurst bound the failed signatures of one
	// address that are answered 401, then 429; 0 means 1 and 20, a negative rate
	// means no limit.
	FailureRate  float64
	FailureBurst int
	// TrustedProxies are addresses or CIDR ranges whose X-Forwarded-For is believed;
	// empty believes nobody's.
	TrustedProxies []string
	// CORSOrigins are exact origins ("https://app.example.com"); empty answers no
	// cross-origin request.
	CORSOrigins []string
	// Draining is closed when the process is about to stop: /readyz says so and
	// waiting questions are answered at once. Nil means never.
	Draining <-chan struct{}
	// Metrics registers the counters; nil keeps them to itself.
	Metrics prometheus.Registerer
	// Logger; nil means none.
	Logger *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Random spreads those who are asked to come again; nil means the runtime's own.
	Random chance.Source
}

// withDefaults is the one place of them.
func (c Config) withDefaults() Config {
	c.ReportRetention = cmp.Or(c.ReportRetention, 30*24*time.Hour)
	c.PublishTimeout = cmp.Or(c.PublishTimeout, 10*time.Second)
	c.UserRate = cmp.Or(c.UserRate, 50)
	c.UserBurst = cmp.Or(c.UserBurst, 200)
	c.FailureRate = cmp.Or(c.FailureRate, 1)
	c.FailureBurst = cmp.Or(c.FailureBurst, 20)
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	c.Metrics = orRegisterer(c.Metrics)
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

func (c Config) validate() error {
	var missing []error
	for name, absent := range map[string]bool{
		"Queue": c.Queue == nil, "Callers": c.Callers == nil, "Grants": c.Grants == nil,
		"Tickets": c.Tickets == nil, "Ready": c.Ready == nil,
	} {
		if absent {
			missing = append(missing, errors.New("ingest: Config."+name+" is required"))
		}
	}
	return errors.Join(missing...)
}

// handler holds what the endpoints share.
type handler struct {
	Config
	users     *limiter // by user
	addresses *limiter // by client address, failed signatures only
	admission *admission
	metrics   *metrics
	waiting   atomic.Int64 // questions that wait now

	complaints *rate.Limiter
	unlogged   atomic.Int64 // requests not served, since the last one that was logged
}

// New returns the public listener's handler. It owns no goroutine between requests.
func New(c Config) (http.Handler, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	metrics, err := newMetrics(c.Metrics)
	if err != nil {
		return nil, err
	}
	h := &handler{
		Config:    c,
		users:     newLimiter(c.UserRate, c.UserBurst, c.Now),
		addresses: newLimiter(c.FailureRate, c.FailureBurst, c.Now),
		admission: newAdmission(),
		metrics:   metrics,

		complaints: rate.NewLimiter(complaints, complaints),
	}
	return h.routes()
}

func (h *handler) routes() (http.Handler, error) {
	address, err := clientAddress(h.TrustedProxies)
	if err != nil {
		return nil, err
	}
	cors, err := crossOrigin(h.CORSOrigins)
	if err != nil {
		return nil, err
	}
	r := chi.NewRouter()
	r.Use(h.identify, h.observe, h.recoverPanic, secure, address, cors)
	r.NotFound(h.serve(notFound))
	r.MethodNotAllowed(h.serve(methodNotAllowed(r)))

	r.Get("/generate-auth-params", h.serve(h.user(h.authParams)))
	r.Post("/generate-upload-token", h.serve(h.user(h.uploadToken)))
	r.Post("/save-metadata", h.serve(h.user(h.saveMetadata)))
	r.Get("/reports/{reportID}", h.serve(h.user(h.report)))
	r.Post("/webhooks/imagekit", h.serve(h.webhook))
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		r.MethodFunc(method, "/healthz", h.serve(h.healthz))
		r.MethodFunc(method, "/readyz", h.serve(h.readyz))
	}
	r.Get("/openapi.json", h.serve(openAPI))
	return r, nil
}

// user hands the request's user to an endpoint, within that user's rate.
func (h *handler) user(next func(w http.ResponseWriter, r *http.Request, user string) (reply, error)) endpoint {
	return func(w http.ResponseWriter, r *http.Request) (reply, error) {
		user, err := h.Callers.User(r)
		if err != nil {
			return reply{}, err
		}
		if wait, ok := h.users.allow(user); !ok {
			return reply{}, rateLimited(wait)
		}
		return next(w, r, user)
	}
}
