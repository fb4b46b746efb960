package simulate

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trueup/trueup/internal/chance"
	"github.com/trueup/trueup/internal/config"
	"github.com/trueup/trueup/internal/service"
	"github.com/trueup/trueup/internal/simulate/queue"
	"github.com/trueup/trueup/internal/simulate/wire"
)

// slot is a place where one process runs at a time: what a supervisor keeps running.
type slot struct {
	name  string
	role  config.Role
	dir   string // what it keeps on disk over restarts
	clock atomic.Int64

	mu     sync.Mutex // guards what follows
	now    *process   // nil while it is down
	starts int
	down   bool // it is being kept down
}

func (s *slot) receives() bool { return s.role != config.Worker }
func (s *slot) decides() bool  { return s.role != config.Ingest }

// onlyReceives: its clock may be set. A worker measures durations by its clock, which on a
// real machine is monotonic whatever is done to the time of day.
func (s *slot) onlyReceives() bool { return s.role == config.Ingest }

// skew sets its clock off by d.
func (s *slot) skew(d time.Duration) { s.clock.Store(int64(d)) }

func (s *slot) time() time.Time { return time.Now().Add(time.Duration(s.clock.Load())) }

// living is the process there, if one is.
func (s *slot) living() *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now == nil || s.now.dead.Load() {
		return nil
	}
	return s.now
}

// lay keeps it down from now on.
func (s *slot) lay() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = true
}

// process is one incarnation. Whatever it does in the world goes through its hook, and
// from the instant of its death nothing does.
type process struct {
	world  *world
	slot   *slot
	name   string
	dead   atomic.Bool
	until  atomic.Int64 // stalled, in nanoseconds since the world began
	cancel context.CancelFunc
	ended  chan struct{}
	run    func()

	service     *service.Service
	queue       *queue.Door
	public, ops *wire.Direct // public is nil in a worker

	mu   sync.Mutex // guards thaw
	thaw func()
}

func (p *process) stalledUntil() time.Time { return p.world.began.Add(time.Duration(p.until.Load())) }

// stall stops everything it does for d, as SIGSTOP would.
func (p *process) stall(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.thaw != nil {
		return
	}
	p.until.Store(int64(p.world.elapsed() + d))
	p.thaw = p.queue.Freeze()
	p.world.later(d, p.unfreeze)
}

func (p *process) unfreeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.thaw != nil {
		p.thaw()
		p.thaw = nil
		p.world.record.started() // nor has one heard anything that was stopped
	}
}

// start brings a process up in its place; one that cannot start is tried again, as a
// supervisor does.
func (w *world) start(s *slot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.ctx.Err() != nil || s.now != nil || s.down {
		return
	}
	s.starts++
	p := &process{world: w, slot: s, name: fmt.Sprintf("%s#%d", s.name, s.starts), ended: make(chan struct{})}
	if s.decides() {
		w.record.started()
	}
	if err := p.open(); err != nil {
		w.trace.say(p.name, "does not start: %s", err)
		w.record.wrong("process", "%s does not start: %v", p.name, err)
		return
	}
	s.now = p
	w.trace.say(p.name, "starts")
	w.lives.Go(p.run)
}

// open joins the service to doors of its own.
func (p *process) open() error {
	w := p.world
	ctx, cancel := context.WithCancel(w.ctx)
	p.cancel = cancel
	doors, err := p.doors(ctx)
	if err != nil {
		cancel()
		return err
	}
	p.service, err = service.New(service.Config{Config: w.config(p.slot), Version: "simulated", Logger: w.logger(p.name), Registry: prometheus.NewRegistry()}, doors)
	if err != nil {
		cancel()
		return errors.Join(err, p.queue.Close())
	}
	p.connect()
	_, _, err = p.service.Listen(ctx)
	p.run = func() { p.live(ctx) }
	return err
}

// live is its whole life.
func (p *process) live(ctx context.Context) {
	defer close(p.ended)
	err := p.service.Run(ctx)
	for _, way := range []*wire.Direct{p.public, p.ops} {
		if way != nil {
			way.Wait() // a listener that shuts down waits for its requests
		}
	}
	err = errors.Join(err, p.queue.Close())
	p.cancel()
	w := p.world
	p.slot.mu.Lock()
	if p.slot.now == p {
		p.slot.now = nil
	}
	p.slot.mu.Unlock()
	if !p.dead.Load() {
		w.trace.say(p.name, "ends: %v", err)
		if ctx.Err() == nil {
			w.record.wrong("process", "%s ended by itself: %v", p.name, err)
		}
	}
}

// kill ends a process at this instant, as kill -9 does, and has it started again soon.
func (w *world) kill(p *process) { w.killFor(p, w.pauseOf(p)) }

// pauseOf is how long a supervisor takes.
func (w *world) pauseOf(p *process) time.Duration {
	return 100*time.Millisecond + time.Duration(w.lot("restart "+p.slot.name)%uint64(5*time.Second))
}

func (w *world) killFor(p *process, d time.Duration) {
	if p.dead.Swap(true) {
		return
	}
	w.trace.say(p.name, "is killed")
	p.slot.mu.Lock()
	if p.slot.now == p {
		p.slot.now = nil
	}
	p.slot.mu.Unlock()
	p.unfreeze()
	p.queue.Kill()
	p.cancel()
	w.later(d, func() { w.start(p.slot) })
}

// stopFor ends a process as SIGTERM does, and has it started again.
func (w *world) stopFor(p *process, d time.Duration) {
	w.trace.say(p.name, "is stopped")
	p.cancel()
	w.errands.Go(func() {
		<-p.ended
		if sleep(w.ctx, d) == nil {
			w.start(p.slot)
		}
	})
}

// config is what a process of this place is told.
func (w *world) config(s *slot) *config.Config {
	c := w.base
	c.Role = s.role
	c.Queue.DataDir = s.dir
	return &c
}

func (w *world) spool(name string) string { return filepath.Join(w.Dir, name) }

// random spreads its waits: another number for each incarnation, the same in each run.
func (p *process) random() chance.Source {
	return chance.Seeded(mixed(p.world.lot("random " + p.slot.name)))
}
