package campaign

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/trueup/trueup/internal/localpg"
)

// database is the PostgreSQL server as a unit. Data, password and, as far as nobody
// takes it meanwhile, the port stay the same.
type database struct {
	cfg   localpg.Config
	moved func(port int) // told when the port is another than before

	mu     sync.Mutex
	server *localpg.Server
	port   int
	frozen []int // processes, in the order in which they were frozen
}

// obtainPostgres finds the server's programs.
func obtainPostgres() (localpg.Programs, error) {
	return localpg.Obtain(context.Background(), localpg.ObtainOptions{Progress: os.Stderr})
}

func (d *database) start() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.server != nil {
		select {
		case <-d.server.Done():
			_ = d.server.Stop()
			d.server = nil
		default:
			return nil
		}
	}
	server, err := localpg.Start(context.Background(), d.cfg)
	if err != nil {
		return err
	}
	d.server, d.frozen = server, nil
	if port := server.Port(); port != d.port {
		d.port = port
		d.moved(port)
	}
	return nil
}

func (d *database) kill9() error { return d.end(syscall.SIGKILL) }

// immediate is PostgreSQL's own crash: it ends at once and recovers at the next start.
func (d *database) immediate() error { return d.end(syscall.SIGQUIT) }

func (d *database) end(s syscall.Signal) error {
	if err := d.thaw(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.server == nil {
		return nil
	}
	if err := syscall.Kill(d.server.PID(), s); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal %v to PostgreSQL: %w", s, err)
	}
	<-d.server.Done()
	_ = d.server.Stop()
	d.server = nil
	return nil
}

func (d *database) stop() error {
	if err := d.thaw(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.server == nil {
		return nil
	}
	err := d.server.Stop()
	d.server = nil
	return err
}

// freeze stops the postmaster and all its backends.
func (d *database) freeze() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.server == nil || d.frozen != nil {
		return nil
	}
	d.frozen = family(d.server.PID())
	return signalAll(d.frozen, syscall.SIGSTOP)
}

func (d *database) thaw() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	frozen := d.frozen
	d.frozen = nil
	return signalAll(frozen, syscall.SIGCONT)
}

func signalAll(pids []int, s syscall.Signal) error {
	for _, pid := range pids {
		if err := syscall.Kill(pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("signal %v to %d: %w", s, pid, err)
		}
	}
	return nil
}

func (d *database) ready(ctx context.Context) error {
	u := d.url()
	if u == "" {
		return errors.New("PostgreSQL is down")
	}
	c, err := pgconn.Connect(ctx, u)
	if err != nil {
		return err
	}
	return c.Close(ctx)
}

// url is the superuser's way to the server, around every link; empty while it is down.
func (d *database) url() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.server == nil {
		return ""
	}
	return d.server.URL(localpg.Superuser)
}

func (d *database) fell() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.server == nil {
		return nil
	}
	select {
	case <-d.server.Done():
		return errors.New("PostgreSQL ended by itself")
	default:
		return nil
	}
}

func (d *database) said() string { return "" }

func (d *database) pid() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.server == nil {
		return 0
	}
	return d.server.PID()
}
