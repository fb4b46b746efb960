package service

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/trueup/trueup/ingest"
	"github.com/trueup/trueup/internal/config"
	"github.com/trueup/trueup/internal/operator"
	"github.com/trueup/trueup/internal/telemetry"
	"github.com/trueup/trueup/internal/ticket"
	"github.com/trueup/trueup/worker"
	"github.com/trueup/trueup/worker/reconcile"
	"github.com/trueup/trueup/worker/verify"
)

// Config of a Service. The configuration decides the role.
type Config struct {
	*config.Config
	Version  string
	Logger   *slog.Logger         // nil: nobody hears
	Registry *prometheus.Registry // nil: one of its own
	// Restart puts a new process in this one's place when the watchdog finds an event
	// that does not come to an end; nil: there is no watchdog.
	Restart func(reason string)
}

// Service is one process: the parts its role needs, joined.
type Service struct {
	Config
	Doors
	keys     *ticket.Keys
	settled  *settledNotices
	verifier *verify.Verifier // nil without the worker
	worker   *worker.Worker   // nil without the worker
	runner   *operator.Runner // nil without the worker
	// reconciler and poller find what nobody told us of; nil without the worker.
	reconciler *reconcile.Reconciler
	poller     *reconcile.Poller
	draining   chan struct{} // closed when the process is about to stop

	public, ops *http.Server // public is nil without ingest
	listeners   []net.Listener
}

// New joins the parts of c's role to the doors. Nothing runs yet.
func New(c Config, d Doors) (*Service, error) {
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	if c.Registry == nil {
		c.Registry = telemetry.NewRegistry(c.Version)
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Listen == nil {
		d.Listen = new(net.ListenConfig).Listen
	}
	s := &Service{Config: c, Doors: d, settled: newSettledNotices(), draining: make(chan struct{})}
	var err error
	if s.keys, err = keysOf(c.Config); err != nil {
		return nil, err
	}
	if s.decides() {
		if err := s.decider(); err != nil {
			return nil, err
		}
	}
	if s.receives() {
		handler, err := s.receiver()
		if err != nil {
			return nil, err
		}
		s.public = ingest.NewServer(c.Listen.Addr, handler)
	}
	handler, err := s.operations()
	if err != nil {
		return nil, err
	}
	s.ops = operator.NewServer(c.Listen.OpsAddr, handler)
	return s, nil
}

func (s *Service) receives() bool { return s.Role != config.Worker }
func (s *Service) decides() bool  { return s.Role != config.Ingest }

// Listen takes the addresses, so that they are known, and a taken port is an error,
// before anything runs. It returns the public address (empty without ingest) and the
// operator's.
func (s *Service) Listen(ctx context.Context) (public, ops string, err error) {
	for _, server := range []*http.Server{s.public, s.ops} {
		if server == nil {
			continue
		}
		l, err := s.Doors.Listen(ctx, "tcp", server.Addr)
		if err != nil {
			s.closeListeners()
			return "", "", err
		}
		server.Addr = l.Addr().String()
		s.listeners = append(s.listeners, l)
	}
	if s.public != nil {
		public = s.public.Addr
	}
	return public, s.ops.Addr, nil
}

// Handlers are what the listeners serve, for a driver that brings no network of its own;
// public is nil without ingest.
func (s *Service) Handlers() (public, ops http.Handler) {
	if s.public != nil {
		public = s.public.Handler
	}
	return public, s.ops.Handler
}

func (s *Service) closeListeners() {
	for _, l := range s.listeners {
		_ = l.Close()
	}
	s.listeners = nil
}

// Run serves and works until ctx is done, then drains: not ready at once, no new
// connections, what is under way finishes within the configured time. It needs
// Listen first, and returns nil after a stop by ctx.
func (s *Service) Run(ctx context.Context) error {
	if len(s.listeners) == 0 {
		return errors.New("service: Run before Listen")
	}
	stop, err := s.hear()
	if err != nil {
		return err
	}
	defer stop()
	g, gctx := errgroup.WithContext(ctx)
	i := 0
	for _, server := range []*http.Server{s.public, s.ops} {
		if server == nil {
			continue
		}
		listener := s.listeners[i]
		i++
		g.Go(func() error {
			if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
	}
	if s.worker != nil {
		g.Go(func() error { return s.worker.Run(gctx) })
	}
	g.Go(func() error { <-gctx.Done(); return s.drain(ctx) })
	return g.Wait()
}

// drain stops the listeners; the worker drains by itself.
func (s *Service) drain(ctx context.Context) error {
	close(s.draining)
	patient, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.Config.Listen.Drain)
	defer cancel()
	var errs []error
	for _, server := range []*http.Server{s.public, s.ops} {
		if server == nil {
			continue
		}
		if err := server.Shutdown(patient); err != nil {
			errs = append(errs, err, server.Close())
		}
	}
	return errors.Join(errs...)
}

// hear listens for the notices this role acts on.
func (s *Service) hear() (stop func(), err error) {
	var stops []func()
	stop = func() {
		for _, f := range stops {
			f()
		}
	}
	on := func(topic string, f func([]byte)) {
		if err != nil {
			return
		}
		var one func()
		if one, err = s.Queue.Listen(topic, f); err == nil {
			stops = append(stops, one)
		}
	}
	if s.receives() {
		on(topicSettled, s.settled.heard)
	}
	if s.decides() {
		on(topicJobs, func([]byte) { s.wake() })
		on(topicControl, func(payload []byte) {
			s.worker.SetPaused(string(payload) == controlPause, "")
			s.wake()
		})
	}
	if err != nil {
		stop()
		return nil, err
	}
	return stop, nil
}
