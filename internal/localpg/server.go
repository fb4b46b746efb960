package localpg

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// Config is what a server needs to be told.
type Config struct {
	// Dir is the folder for the data, the password, the port and the log. Required.
	Dir string
	// Programs is what Find or Fetch returned. Required.
	Programs Programs
	// Parameters are further server settings (-c name=value). Nil: none.
	Parameters map[string]string
	// KeepDown leaves the server down when its process dies by itself. False: it is
	// started again on the same port, as an operating system's supervisor would.
	KeepDown bool
	// Patience is how long starting is tried again while something that will pass is
	// in the way: an earlier server going down, a port still held. Zero: 10 s.
	Patience time.Duration
	// Recovery is how long a server that runs may take to accept log-ins: it may
	// have to replay its log. Zero: 2 min.
	Recovery time.Duration
	// StopWait is how long a fast stop may take before an immediate one is asked
	// for. Zero: 10 s.
	StopWait time.Duration
	// Logger hears of everything unusual. Nil: nobody.
	Logger *slog.Logger
}

func (c Config) withDefaults() (Config, error) {
	if c.Dir == "" {
		return c, errors.New("no folder given for PostgreSQL's data")
	}
	if c.Programs.Bin == "" {
		return c, errors.New("no PostgreSQL programs given")
	}
	def := Config{Patience: 10 * time.Second, Recovery: 2 * time.Minute, StopWait: 10 * time.Second, Logger: slog.New(slog.DiscardHandler)}
	if c.Patience == 0 {
		c.Patience = def.Patience
	}
	if c.Recovery == 0 {
		c.Recovery = def.Recovery
	}
	if c.StopWait == 0 {
		c.StopWait = def.StopWait
	}
	if c.Logger == nil {
		c.Logger = def.Logger
	}
	return c, nil
}

// Superuser is the role that owns a server made here.
const Superuser = "postgres"

// ErrDied is a server whose process ended without being asked to.
var ErrDied = errors.New("PostgreSQL ended by itself")

// Server is a running PostgreSQL. Stop must be called.
type Server struct {
	cfg      Config
	place    place
	lock     *lock
	password string

	cancel context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex
	port    int
	now     *process
	stopErr error // of stopping; read after done
	ended   error // why it is down though nobody asked
}

// Start runs a server on c.Dir, making its data directory the first time. It
// returns when the server accepts log-ins. A server that an earlier process left
// behind on that folder is adopted. ctx bounds the starting only; the server then
// runs until Stop.
func Start(ctx context.Context, c Config) (*Server, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	p, err := settle(c.Dir)
	if err != nil {
		return nil, err
	}
	if p.root != p.home {
		c.Logger.Warn("PostgreSQL's user cannot enter the data directory; its data lies elsewhere", "user", p.who.name, "wanted", p.home, "data", p.root)
	}
	own, err := claim(p)
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: c, place: p, lock: own, done: make(chan struct{})}
	if err := s.begin(ctx); err != nil {
		own.release()
		return nil, err
	}
	return s, nil
}

// claim takes the folder, or says who has it.
func claim(p place) (*lock, error) {
	own, held, err := takeLock(filepath.Join(p.home, "lock"))
	if err != nil {
		return nil, err
	}
	if own == nil {
		return nil, fmt.Errorf("%w: %s is in use by %s; stop that one or choose another data directory", ErrInUse, p.home, held)
	}
	return own, nil
}

// ErrInUse is a folder on which another process runs a server.
var ErrInUse = errors.New("PostgreSQL's folder is taken")

func (s *Server) begin(ctx context.Context) error {
	var err error
	if s.password, err = s.place.secret(); err != nil {
		return err
	}
	if err := s.prepare(ctx); err != nil {
		return err
	}
	if s.port, err = s.place.keptPort(ctx); err != nil {
		return err
	}
	first, err := s.launch(ctx, true)
	if err != nil {
		return err
	}
	s.now = first
	living, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.cancel = cancel
	go s.supervise(living, first)
	return nil
}

// supervise owns the server's process: it starts it again when it dies and stops
// it when living ends.
func (s *Server) supervise(living context.Context, p *process) {
	defer close(s.done)
	for {
		select {
		case <-living.Done():
			s.stopErr = s.halt(p)
			return
		case <-p.exited:
		}
		if living.Err() != nil {
			return
		}
		next, err := s.again(living)
		if err != nil {
			s.mu.Lock()
			s.ended = err
			s.mu.Unlock()
			return
		}
		p = next
	}
}

func (s *Server) again(living context.Context) (*process, error) {
	if s.cfg.KeepDown {
		return nil, ErrDied
	}
	s.cfg.Logger.Warn("PostgreSQL ended by itself; starting it again", "log", s.place.log())
	next, err := s.launch(living, false) // our users hold the URL
	if err != nil {
		if living.Err() == nil {
			s.cfg.Logger.Error("PostgreSQL cannot be started again", "error", err)
		}
		return nil, fmt.Errorf("%w and cannot be started again: %w", ErrDied, err)
	}
	s.mu.Lock()
	s.now = next
	s.mu.Unlock()
	return next, nil
}

// Stop stops the server as a fast shutdown does (log-ins ended, everything
// written), after StopWait as an immediate one. It never kills. It may be called
// again.
func (s *Server) Stop() error {
	s.cancel()
	<-s.done
	s.lock.release()
	return s.stopErr
}

// Done is closed when the server is down for good: stopped, or dead and not to be
// started again; Err then says which.
func (s *Server) Done() <-chan struct{} { return s.done }

// Err is nil as long as the server runs and after a Stop, else why it is down.
func (s *Server) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended
}

// Adopted reports whether the server was left behind by an earlier process.
func (s *Server) Adopted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now.adopted
}

// PID is the server's process.
func (s *Server) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now.pid
}

// Port is the loopback port the server listens on.
func (s *Server) Port() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.port
}

// Data is the data directory in force, which may lie elsewhere than Config.Dir.
func (s *Server) Data() string { return s.place.data() }

// LogFile is where the server writes its log.
func (s *Server) LogFile() string { return s.place.log() }

// User is the system user that the server runs as.
func (s *Server) User() string { return s.place.who.name }

// URL is the libpq URL of a database on the server, for its superuser. It holds
// the password.
func (s *Server) URL(database string) string { return s.url(s.Port(), database) }

func (s *Server) url(port int, database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(Superuser, s.password),
		Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), Path: "/" + database, RawQuery: "sslmode=disable",
	}
	return u.String()
}
