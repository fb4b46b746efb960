package simulate

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trueup/trueup/internal/check"
	"github.com/trueup/trueup/internal/config"
	"github.com/trueup/trueup/internal/simulate/library"
	"github.com/trueup/trueup/internal/simulate/queue"
	"github.com/trueup/trueup/internal/simulate/rows"
)

// world is everything around trueup: what outlives a process, and what goes wrong.
type world struct {
	Plan
	Options
	began   time.Time
	ctx     context.Context
	reached *Reached
	trace   *trace

	database     *rows.Database
	stream       *queue.Stream
	ours, theirs *library.Library
	imagekit     *imagekitWay
	people       *people
	post         *post
	record       *record
	base         config.Config
	slots        []*slot
	stop         context.CancelFunc

	// errands are what goes on by itself and comes to an end: senders, clients, restarts;
	// lives are the processes.
	errands, lives sync.WaitGroup

	healed  atomic.Bool
	foreign atomic.Int64 // until when another account answers, in nanoseconds since it began

	mu    sync.Mutex // guards what follows
	nth   map[string]uint64
	armed []*armed
}

// armed is a fault of the plan with what it has done so far.
type armed struct {
	Fault
	d     draw
	fired int
}

func (w *world) elapsed() time.Duration { return time.Since(w.began) }

// arm makes the plan's faults on calls ready; those that last are begun by misfortune.
func (w *world) arm() {
	for _, f := range w.Faults {
		w.armed = append(w.armed, &armed{Fault: f, d: newDraw(f.Chance, 7)})
	}
}

// strike says how a call of this part goes wrong; empty: it does not.
func (w *world) strike(part string) (side string) {
	if w.healed.Load() {
		return ""
	}
	now := w.elapsed()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.armed {
		at, ok := strings.CutPrefix(f.Cell, part+"/")
		if !ok || now < f.At || now >= f.At+f.For || (f.Times > 0 && f.fired >= f.Times) || !f.d.chance(f.Share) {
			continue
		}
		f.fired++
		w.reached.Hit(f.Cell)
		return at
	}
	return ""
}

// lasts says whether a fault that is a state of the world is in force.
func (w *world) lasts(cell string) (*armed, bool) {
	if w.healed.Load() {
		return nil, false
	}
	now := w.elapsed()
	for _, f := range w.armed {
		if f.Cell == cell && now >= f.At && now < f.At+f.For {
			return f, true
		}
	}
	return nil, false
}

// away reports whether the database does not answer.
func (w *world) away() bool {
	_, gone := w.lasts("database/away")
	if gone {
		w.reached.Hit("database/away")
	}
	return gone
}

// misfortune begins each fault that is an event of its own when its time has come.
func (w *world) misfortune(ctx context.Context) {
	for _, f := range w.Faults {
		begin := w.misfortunes()[f.Cell]
		if begin == nil || sleep(ctx, f.At-w.elapsed()) != nil {
			continue
		}
		if !w.healed.Load() {
			w.trace.say("world", "%s for %s", f.Cell, f.For)
			begin(f)
		}
	}
}

func (w *world) misfortunes() map[string]func(Fault) {
	ends := func(role func(*slot) bool, end func(*process, time.Duration)) func(Fault) {
		return func(f Fault) {
			if p := w.pick(f.Chance, role); p != nil {
				w.reached.Hit(f.Cell)
				end(p, f.For)
			}
		}
	}
	return map[string]func(Fault){
		"process/worker/kill9": ends((*slot).decides, w.killFor),
		"process/ingest/kill9": ends((*slot).receives, w.killFor),
		"process/worker/stop":  ends((*slot).decides, w.stopFor),
		"process/ingest/stop":  ends((*slot).receives, w.stopFor),
		"process/worker/stall": ends((*slot).decides, func(p *process, d time.Duration) { p.stall(d) }),
		"process/ingest/clock": ends((*slot).onlyReceives, func(p *process, d time.Duration) { p.slot.skew(newClockStep(p.world.Seed, d)) }),
		"queue/full":           func(f Fault) { w.fill(f) },
		"imagekit/account/another": func(f Fault) {
			if !w.oursIsKnown() {
				return // whichever account comes first is taken for ours
			}
			w.foreign.Store(int64(w.elapsed() + f.For))
			// What is under way when it begins is answered by the other account already.
			w.record.lie("", time.Now().Add(-farthest), time.Now().Add(f.For))
		},
	}
}

// oursIsKnown: a run has looked at our whole library, and rows show it.
func (w *world) oursIsKnown() bool {
	complete := slices.ContainsFunc(w.database.Dump().Runs, func(r check.Reconciliation) bool { return r.State == "complete" })
	return complete && len(w.database.FileIDs()) > 0
}

// anothers reports whether another account answers now.
func (w *world) anothers() bool {
	if w.healed.Load() || w.elapsed() >= time.Duration(w.foreign.Load()) {
		return false
	}
	w.reached.Hit("imagekit/account/another")
	return true
}

// pick is a living process of this kind, or nil.
func (w *world) pick(chance uint64, role func(*slot) bool) *process {
	var living []*process
	for _, s := range w.slots {
		if p := s.living(); p != nil && role(s) {
			living = append(living, p)
		}
	}
	if len(living) == 0 {
		return nil
	}
	return living[chance%uint64(len(living))]
}

// newClockStep is ten minutes one way or the other, or less.
func newClockStep(seed uint64, d time.Duration) time.Duration {
	step := time.Duration(mixed(seed^uint64(d))%uint64(20*time.Minute)) - 10*time.Minute
	return step
}

// later runs f after d, as part of the world; the end of the run waits for it.
func (w *world) later(d time.Duration, f func()) {
	w.errands.Go(func() {
		if sleep(w.ctx, d) == nil {
			f()
		}
	})
}
