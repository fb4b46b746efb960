package worker

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sethvargo/go-retry"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/trueup/trueup/internal/chance"
	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/worker/verify"
)

// Queue hands over what was accepted. Next blocks; it returns an error only when
// its context is done or the queue is closed.
type Queue interface {
	Next(ctx context.Context) (*event.Delivery, error)
}

// Turns makes one worker the active one. HoldTurn blocks as a standby, runs work
// while this process holds the turn, cancels work's context when the turn is lost
// or ctx is done, and returns after work has returned.
type Turns interface {
	HoldTurn(ctx context.Context, work func(ctx context.Context) error) error
}

// Looker asks ImageKit. See verify.Verifier for what Look promises.
type Looker interface {
	Look(ctx context.Context, asks []verify.Ask) ([]verify.Answer, error)
	// Healthy asks ImageKit one harmless question.
	Healthy(ctx context.Context) error
}

// Rows is the write path. All methods wrap event.ErrOutage when the database as a
// whole did not answer, and the writing ones event.ErrTurnMoved when another turn
// has begun, and event.ErrPaused when an operator has paused this one.
type Rows interface {
	BeginTurn(ctx context.Context) (event.Turn, error)
	// Turn reads the turn in force and whether an operator has paused it.
	Turn(ctx context.Context) (event.Turn, error)
	// Settle brings every pending event to its end in one transaction; end may be
	// called more than once for an event. It wraps event.ErrUnstorable when the
	// database refuses the data.
	Settle(ctx context.Context, turn int64, pending []event.Pending, seen []file.Observation,
		end func(event.Pending, file.Result) event.End) (event.Settled, error)
	// Due returns retries whose time has come, and when the next one is due.
	Due(ctx context.Context, limit int) ([]event.Pending, time.Time, error)
	// Mark durably marks events as on trial and says how many crashes each one's
	// mark had survived before. Settling an event removes its mark.
	Mark(ctx context.Context, turn int64, ids []string) (map[string]event.Mark, error)
	// Trials gives the mark, which may be none, of each event that has not been settled;
	// those that have are left out.
	Trials(ctx context.Context, pending []event.Pending) (map[string]event.Mark, error)
	// Acquit takes back what this turn has marked of these events: their trial ended, and
	// no process with it.
	Acquit(ctx context.Context, turn int64, ids []string) error
	// Blame marks events that are about to end this process, with what they were doing.
	Blame(ctx context.Context, turn int64, ids []string, stack string) error
	Ping(ctx context.Context) error
}

// Config of a Worker. Queue, Turns, Look and Rows are required.
type Config struct {
	Queue Queue
	Turns Turns
	Look  Looker
	Rows  Rows
	Table Table

	// Begun is called when a turn has begun, beside the work. Nil: nothing is.
	Begun func(ctx context.Context)
	// Settled is told of the reports that reached their end, after the commit. Nil
	// means nobody is.
	Settled func(eventIDs []string)
	Metrics *Metrics     // nil: not measured
	Logger  *slog.Logger // nil: slog.Default
	Now     func() time.Time
	// Random spreads probes and, where the Table has none, retries; nil: the runtime's own.
	Random chance.Source

	// Watchdog ends the process over an event that does not come to an end; nil: nothing
	// does. It watches one worker.
	Watchdog *Watchdog

	// InFlight is how many batches of envelopes, and as many of retries, are under way at
	// once; zero means 4.
	InFlight int
	// BatchEvents is how many events a batch gathers at most; zero means 500. One
	// envelope is never split: one with more events is a batch of its own.
	BatchEvents int
	// ExtendEvery is how often held envelopes are kept from being redelivered; zero
	// means 5 s, a quarter of the ack wait that service gives the queue.
	ExtendEvery time.Duration
	// PauseEvery is how often a worker that an operator has paused looks whether it
	// still is; zero means 3 s.
	PauseEvery time.Duration
	// Drain is how long batches under way may take to finish after a stop; zero means
	// 20 s.
	Drain time.Duration
}

// Worker is one candidate for the turn.
type Worker struct {
	Config
	gate   *gate
	turn   atomic.Int64
	active atomic.Bool
	held   held
	owed   chan acquittal
	// plant misbehaves in builds for tests of poison; see plant_on.go.
	plant func(event.Pending)
}

// New returns a worker that does nothing until Run.
func New(c Config) (*Worker, error) {
	if c.Queue == nil || c.Turns == nil || c.Look == nil || c.Rows == nil {
		return nil, errors.New("worker: Queue, Turns, Look and Rows are required")
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.InFlight == 0 {
		c.InFlight = 4
	}
	if c.BatchEvents == 0 {
		c.BatchEvents = 500
	}
	if c.ExtendEvery == 0 {
		c.ExtendEvery = 5 * time.Second
	}
	if c.PauseEvery == 0 {
		c.PauseEvery = 3 * time.Second
	}
	if c.Drain == 0 {
		c.Drain = 20 * time.Second
	}
	if c.Table.Now == nil {
		c.Table.Now = c.Now
	}
	if c.Table.Random == nil {
		c.Table.Random = c.Random
	}
	return &Worker{Config: c, gate: &gate{log: c.Logger, now: c.Now, random: c.Random}, held: held{log: c.Logger}, owed: make(chan acquittal, 64), plant: plant}, nil
}

// State is what `status` shows of a worker.
type State struct {
	Active bool  `json:"active"`
	Turn   int64 `json:"turn,omitempty"`
	Paused Pause `json:"paused"`
}

// State says whether this worker holds the turn and whether it is paused.
func (w *Worker) State() State {
	return State{Active: w.active.Load(), Turn: w.turn.Load(), Paused: w.gate.state()}
}

// SetPaused takes effect at once in this process; the caller has made it durable.
func (w *Worker) SetPaused(paused bool, note string) { w.gate.setOperator(paused, note) }

// Run works until ctx is done, taking the turn whenever it can be had. It returns
// nil after a stop by ctx.
func (w *Worker) Run(ctx context.Context) error {
	var paying sync.WaitGroup
	paying.Go(func() { w.pay(ctx) })
	defer paying.Wait()
	backoff := retry.WithCappedDuration(5*time.Second, retry.NewExponential(200*time.Millisecond))
	for ctx.Err() == nil {
		if err := w.Turns.HoldTurn(ctx, w.work); err != nil && ctx.Err() == nil {
			w.Logger.WarnContext(ctx, "worker.turn_ended", "turn", w.turn.Load(), "error", err.Error())
		}
		wait, _ := backoff.Next()
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
	return nil
}

// turn is one time of being active: everything that ends with it.
type turn struct {
	*Worker
	number int64
	lanes  *lanes
	due    *due
	trials trials
	slots  chan struct{}
	alone  chan struct{} // held by the one event that is on its second trial
	// company is held in part by every batch at work, and whole by the one event that is on
	// its last trial.
	company *semaphore.Weighted
	// running ends Drain after ctx: a batch under way may finish after a stop.
	running context.Context
}

func (w *Worker) work(ctx context.Context) error {
	begun, err := w.begin(ctx)
	if err != nil {
		return err
	}
	w.turn.Store(begun.Number)
	w.active.Store(true)
	defer w.active.Store(false)
	w.gate.setOperator(begun.Paused, begun.PausedNote)
	w.Logger.InfoContext(ctx, "worker.turn_begun", "turn", begun.Number, "paused", begun.Paused)

	running, cancel := lingering(ctx, w.Drain)
	defer cancel(nil)
	t := &turn{Worker: w, number: begun.Number, lanes: newLanes(), due: newDue(begun.NextDue, w.Now),
		slots: make(chan struct{}, w.InFlight), alone: make(chan struct{}, 1), company: semaphore.NewWeighted(everybody), running: running}
	defer w.held.releaseAll()
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return t.envelopes(gctx) })
	g.Go(func() error { return t.retries(gctx) })
	if w.Watchdog != nil {
		w.Watchdog.log, w.Watchdog.blame = w.Logger, func(ctx context.Context, ids []string, stack string) error {
			return w.Rows.Blame(ctx, begun.Number, ids, stack)
		}
		w.Watchdog.acquitBut = func(guilty []string) { t.acquit(t.trials.but(guilty)) }
	}
	g.Go(func() error { return w.Watchdog.run(gctx) })
	g.Go(func() error { return w.held.extend(gctx, w.ExtendEvery) })
	g.Go(func() error { return t.untilResumed(gctx) })
	if w.Begun != nil {
		g.Go(func() error { w.Begun(gctx); return nil })
	}
	if err := g.Wait(); ctx.Err() == nil {
		return err
	}
	return nil
}

// begin raises the turn's number; the database may be away for as long as it likes.
func (w *Worker) begin(ctx context.Context) (event.Turn, error) {
	for {
		begun, err := w.Rows.BeginTurn(ctx)
		if err == nil || ctx.Err() != nil || !errors.Is(err, event.ErrOutage) {
			return begun, err
		}
		if err := w.gate.recover(ctx, "database", err, w.Rows.Ping); err != nil {
			return event.Turn{}, err
		}
	}
}

// lingering returns a context that is cancelled linger after ctx.
func lingering(ctx context.Context, linger time.Duration) (context.Context, context.CancelCauseFunc) {
	longer, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	var once sync.Once
	stop := context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(linger, func() { cancel(context.Cause(ctx)) })
		context.AfterFunc(longer, func() { timer.Stop() })
	})
	return longer, func(cause error) { once.Do(func() { stop(); cancel(cause) }) }
}
