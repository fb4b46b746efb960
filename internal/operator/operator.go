package operator

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"
	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/trueup/trueup/internal/event"
)

// Service is what stands behind the API. A method's error that wraps
// event.ErrOutage means that the database did not answer: 503, try again.
type Service interface {
	// Status is the whole state. What cannot be asked is left out and named in
	// Status.Unavailable; only a bug makes it an error.
	Status(ctx context.Context) (Status, error)
	// Passport is everything known of one file, in the order in which it happened. A
	// file never heard of has an empty one, not an error. Why is filled in here.
	Passport(ctx context.Context, fileID string) (Passport, error)
	// Pause and Resume write the audit line and the state in one transaction and tell
	// the active worker, whichever process that is. Doing it again changes nothing. An
	// act whose Key was seen before does nothing at all.
	Pause(ctx context.Context, act Act) (Paused, error)
	Resume(ctx context.Context, act Act) (Paused, error)

	Letters
	Jobs
}

// Act is an operator's doing, for the audit.
type Act struct {
	Who  string // name of the token
	Note string // what the operator wrote
	Key  string // Idempotency-Key
}

// Readiness is what /readyz says. It must be at hand without asking anybody.
type Readiness struct {
	// Ready is whether this process can do its own work: for one that accepts events,
	// that the queue takes writes durably.
	Ready bool
	// Durability is that of the queue: fsync, unknown or none.
	Durability string
	// Why says in a sentence what is missing; empty when nothing is.
	Why string
	// Parts are the others we depend on and their state ("ok", "down since …"); they
	// are shown and never make the process unready.
	Parts map[string]string
}

// Token is one operator's key.
type Token struct {
	Name  string
	Value string
}

// Config is what New needs.
type Config struct {
	// Role of the process, for /healthz and for what is not here. Required.
	Role string
	// Version of trueup, for /healthz.
	Version string
	// Tokens that open /api/. None: /api/ answers 401 to everybody.
	Tokens []Token
	// Service behind /api/. Nil: this role has no API, and /api/ answers 404 not_here.
	Service Service
	// Runs behind /api/runs. Nil: there are none here, and /api/runs answers 404 not_here.
	Runs Runs
	// Ready is asked by /readyz. Required.
	Ready func() Readiness
	// Metrics answers /metrics. Required.
	Metrics http.Handler
	// Logger hears of refused tokens, operator acts and internal errors. Nil: nobody.
	Logger *slog.Logger
	// SpoolDir is where an import is kept while it is checked. Empty: the system's place
	// for temporary files.
	SpoolDir string
	// ImportMost bounds an import in bytes. Zero: 4 GiB.
	ImportMost int64
	// FailDelay is how long a wrong token waits for its answer. Zero: 500 ms.
	FailDelay time.Duration
}

// Handler is the operator listener.
type Handler struct {
	Config
	tokens []hashedToken
	// waiting bounds the wrong tokens that wait at once.
	waiting chan struct{}
	// done remembers the answers to POSTs by caller and Idempotency-Key.
	done *lru.Cache[string, *remembered]

	mux http.Handler
}

// New makes the handler of the operator listener.
func New(c Config) (*Handler, error) {
	if c.Role == "" || c.Ready == nil || c.Metrics == nil {
		return nil, errors.New("operator: Role, Ready and Metrics are required")
	}
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	c.ImportMost = cmp.Or(c.ImportMost, 4<<30)
	c.FailDelay = cmp.Or(c.FailDelay, 500*time.Millisecond)
	done, err := lru.New[string, *remembered](4096)
	if err != nil {
		return nil, err
	}
	h := &Handler{Config: c, tokens: hashTokens(c.Tokens), waiting: make(chan struct{}, 32), done: done}
	h.mux = h.routes()
	return h, nil
}

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

func (h *Handler) routes() chi.Router {
	r := chi.NewRouter()
	r.Use(requestID, headers, h.recovered)
	r.NotFound(func(w http.ResponseWriter, _ *http.Request) { fail(w, errNoSuchPath) })
	r.MethodNotAllowed(methodNotAllowed)

	r.Get("/healthz", h.healthz)
	r.Get("/readyz", h.readyz)
	r.Method(http.MethodGet, "/metrics", h.Metrics)
	r.Get("/openapi.json", serveOpenAPI)
	r.Route("/api", func(r chi.Router) {
		if h.Service == nil {
			r.HandleFunc("/*", func(w http.ResponseWriter, _ *http.Request) { fail(w, errNotHere(h.Role)) })
			return
		}
		r.Use(h.signedIn)
		r.Get("/status", ask(h, h.status))
		r.Get("/files/{id}", ask(h, h.passport))
		r.Post("/files/{id}/assign", h.once(h.assign))
		h.deadRoutes(r)
		h.runRoutes(r)
		r.Post("/recheck", h.once(h.recheck))
		r.Get("/jobs", ask(h, h.jobList))
		r.Get("/jobs/{id}", ask(h, h.jobShow))
		r.Post("/jobs/{id}/cancel", h.once(h.jobCancel))
		r.Post("/pause", act(h, "pause", Service.Pause))
		r.Post("/resume", act(h, "resume", Service.Resume))
	})
	return r
}

func (h *Handler) deadRoutes(r chi.Router) {
	r.Get("/dead", ask(h, h.deadList))
	r.Get("/dead/count", ask(h, h.deadCount))
	r.Get("/dead/export", h.deadExport)
	r.Get("/dead/{id}", ask(h, h.deadShow))
	r.Post("/dead/preview", keyed(h, h.deadPreview))
	r.Post("/dead/import", h.deadImport)
	r.Post("/dead/replay", h.startOnLetters(event.JobReplay))
	r.Post("/dead/discard", h.startOnLetters(event.JobDiscard))
}

func (h *Handler) runRoutes(r chi.Router) {
	if h.Runs == nil {
		r.HandleFunc("/runs*", func(w http.ResponseWriter, _ *http.Request) { fail(w, errNotHere(h.Role)) })
		return
	}
	r.Get("/runs", ask(h, h.runList))
	r.Post("/runs", h.once(h.runStart))
	r.Get("/runs/{id}", ask(h, h.runShow))
	r.Get("/runs/{id}/findings", ask(h, h.runFindings))
	r.Post("/runs/{id}/apply", h.once(h.runApply))
	r.Post("/runs/{id}/cancel", h.once(h.runCancel))
}

// NewServer is an http.Server for the handler, with every timeout set.
func NewServer(addr string, h http.Handler) *http.Server {
	return &http.Server{
		Addr: addr, Handler: h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      60 * time.Second,
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    16 << 10,
	}
}
