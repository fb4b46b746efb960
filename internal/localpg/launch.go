package localpg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// launch brings a server up on the data directory: it adopts one that runs there,
// or starts one, trying again for Patience while the obstacle is one that passes.
// mayMove allows another port when somebody else keeps ours for a while.
func (s *Server) launch(ctx context.Context, mayMove bool) (*process, error) {
	begun := time.Now()
	until := begun.Add(s.cfg.Patience)
	for {
		p, err := s.adopt(ctx)
		if p == nil && err == nil {
			p, err = s.start(ctx)
		}
		if err == nil {
			return p, nil
		}
		var o *obstacle
		if !errors.As(err, &o) || !o.passes || time.Now().After(until) {
			return nil, err
		}
		if o.portTaken && mayMove && time.Since(begun) > min(portPatience, s.cfg.Patience/2) {
			s.otherPort(ctx)
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// portPatience is how long a port is waited for: dev promises to keep it.
const portPatience = 2 * time.Second

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// obstacle is why a server did not come up.
type obstacle struct {
	what      string
	passes    bool // trying again may help
	portTaken bool
}

func (o *obstacle) Error() string { return "start PostgreSQL: " + o.what }

// otherPort replaces a port that somebody else listens on. A server of our own
// going down there would have been seen by adopt.
func (s *Server) otherPort(ctx context.Context) {
	port, err := s.place.newPort(ctx)
	if err != nil {
		return
	}
	s.cfg.Logger.Warn("PostgreSQL's port is taken by another program; using another", "was", s.Port(), "now", port)
	s.mu.Lock()
	s.port = port
	s.mu.Unlock()
}

// adopt takes over a server that already runs on the data directory. It returns
// nil, nil when there is none, and a passing obstacle while one is coming up or
// going down.
func (s *Server) adopt(ctx context.Context) (*process, error) {
	f, ok := readPidfile(s.place.data())
	if !ok || !alive(f.pid) {
		return nil, nil
	}
	if dropStale(s.place.data(), f) {
		s.cfg.Logger.Warn("removed a postmaster.pid that named another program", "pid", f.pid)
		return nil, nil
	}
	if isPostgres(f.pid) == no {
		return nil, nil // not a server; PostgreSQL decides what to make of the file
	}
	if f.port == 0 {
		return nil, &obstacle{what: fmt.Sprintf("process %d is just starting on %s", f.pid, s.place.data()), passes: true}
	}
	if err := s.login(ctx, f.port); err != nil {
		return nil, &obstacle{what: fmt.Sprintf("process %d runs on %s and does not let us in: %v", f.pid, s.place.data(), err), passes: true}
	}
	if f.port != s.Port() {
		s.mu.Lock()
		s.port = f.port
		s.mu.Unlock()
	}
	s.cfg.Logger.Info("adopted a PostgreSQL left behind by an earlier run", "pid", f.pid, "port", f.port)
	return watch(f.pid), nil
}

// start runs the server and waits until it accepts log-ins.
func (s *Server) start(ctx context.Context) (*process, error) {
	out, err := s.openLog()
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }()
	from, _ := out.Seek(0, 2)
	p, err := run(s.command(out))
	if err != nil {
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	if err := s.ready(ctx, p); err != nil {
		if stop := s.halt(p); stop != nil {
			err = errors.Join(err, stop)
		}
		if errors.Is(err, errExited) {
			return nil, s.diagnose(from)
		}
		return nil, err
	}
	return p, nil
}

var errExited = errors.New("the server ended while starting")

// ready waits until a log-in succeeds or the process ends.
func (s *Server) ready(ctx context.Context, p *process) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Recovery)
	defer cancel()
	trying, end := context.WithCancel(ctx) // somebody else on our port may never answer
	var watching sync.WaitGroup
	watching.Go(func() {
		select {
		case <-p.exited:
			end()
		case <-trying.Done():
		}
	})
	defer watching.Wait()
	defer end()
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		err := s.login(trying, s.Port())
		if err == nil {
			return nil
		}
		t := time.NewTimer(wait)
		select {
		case <-p.exited:
			t.Stop()
			return errExited
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("wait for PostgreSQL to accept log-ins: %w (last: %w)", ctx.Err(), err)
		case <-t.C:
		}
	}
}

// login proves that the server answers, is ours (our password opens it), and is
// neither coming up nor going down.
func (s *Server) login(ctx context.Context, port int) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	c, err := pgconn.Connect(ctx, s.url(port, Superuser))
	if err != nil {
		return err
	}
	return c.Close(ctx)
}

const maxLog = 4 << 20

// openLog opens the server's log for appending, cutting one that grew too long.
// The server gets the file itself, not a pipe: it may outlive us.
func (s *Server) openLog() (*os.File, error) {
	flags := os.O_CREATE | os.O_WRONLY | os.O_APPEND
	if st, err := os.Stat(s.place.log()); err == nil && st.Size() > maxLog {
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(s.place.log(), flags, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open PostgreSQL's log: %w", err)
	}
	if err := s.place.who.give(s.place.log()); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("open PostgreSQL's log: %w", err)
	}
	return f, nil
}

// passing are the complaints of a server that may come up a moment later: another
// is going down, or its children or its port are not gone yet.
var passing = []string{"lock file", "pre-existing shared memory block", "Address already in use", "shared memory segment", "Only one usage of each socket address"}

// diagnose turns what the server wrote since from into an obstacle.
func (s *Server) diagnose(from int64) *obstacle {
	text, err := os.ReadFile(s.place.log())
	if err != nil || int64(len(text)) < from {
		return &obstacle{what: "it ended at once and left no log in " + s.place.log(), passes: true}
	}
	said := string(text[from:])
	o := &obstacle{what: tail(said) + " (log: " + s.place.log() + ")"}
	for _, words := range passing {
		o.passes = o.passes || strings.Contains(said, words)
	}
	o.portTaken = strings.Contains(said, "Address already in use") || strings.Contains(said, "Only one usage of each socket address")
	return o
}

// tail is the last few lines of a log, on one line.
func tail(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-4):], " / ")
}
