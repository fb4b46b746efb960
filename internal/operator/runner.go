package operator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/sethvargo/go-retry"

	"github.com/trueup/trueup/internal/event"
)

// Work is the rows of the jobs. What a method has done is durable, and all of them
// may be called again after a crash at any point. Those with a turn wrap
// event.ErrTurnMoved when another worker's turn has begun; all wrap event.ErrOutage
// when the database does not answer.
type Work interface {
	// OpenJobs are those that run, oldest first.
	OpenJobs(ctx context.Context) ([]event.Job, error)
	// TakeReplays marks up to limit of the job's letters as replaying and returns the
	// events to publish, first those marked before and never confirmed, under the
	// same event ids. None means that nothing is left to publish.
	TakeReplays(ctx context.Context, turn int64, jobID string, limit int) ([]event.Event, error)
	ConfirmReplays(ctx context.Context, turn int64, jobID string, eventIDs []string) error
	// TakeRechecks and ConfirmRechecks are the same for files to look up again.
	TakeRechecks(ctx context.Context, turn int64, jobID string, limit int) ([]event.Event, error)
	ConfirmRechecks(ctx context.Context, turn int64, jobID string, eventIDs []string) error
	// DiscardSlice discards up to limit letters; done when none is left.
	DiscardSlice(ctx context.Context, turn int64, jobID string, limit int) (n int, done bool, err error)
	FinishJob(ctx context.Context, turn int64, jobID string, state event.JobState, why string) error
	// SetJobWaiting says what the job waits for; empty when it goes on.
	SetJobWaiting(ctx context.Context, jobID, text string) error
	// Outstanding is how many of the job's events are published and not settled.
	Outstanding(ctx context.Context, jobID string) (int, error)
}

// Publisher is the queue: nil means durably and freshly stored.
type Publisher interface {
	Publish(ctx context.Context, events []event.Event) error
}

// RunnerConfig is what a Runner needs. Work and Queue are required.
type RunnerConfig struct {
	Work  Work
	Queue Publisher
	// Slice is how many items are taken at once; zero means 256, one envelope.
	Slice int
	// Ahead is how many events of a job may be published and unsettled, so that
	// replays never stand before live events; zero means 500.
	Ahead int
	// Look is how often a job that waits for its events looks whether they are
	// settled; zero means 200 ms.
	Look time.Duration
	// Backoff is the first wait after a failure, doubled up to 32 times as much; zero
	// means 250 ms.
	Backoff time.Duration
	Logger  *slog.Logger // nil: nobody hears
}

// Runner does the open jobs one slice after another, in turn, so that none waits for
// the end of another. What it has done is in the rows; it remembers nothing, so that a
// crash between any two of its steps costs at most a repeated one: a slice is taken
// (marked in the rows), published, and confirmed, and what was taken and not confirmed
// is published again under the same event ids, which settle once.
type Runner struct {
	RunnerConfig
	woken chan struct{}
}

// NewRunner returns a Runner that does nothing until Run.
func NewRunner(c RunnerConfig) (*Runner, error) {
	if c.Work == nil || c.Queue == nil {
		return nil, errors.New("operator: a Runner needs Work and Queue")
	}
	c.Slice = cmp.Or(c.Slice, 256)
	c.Ahead = cmp.Or(c.Ahead, 500)
	c.Look = cmp.Or(c.Look, 200*time.Millisecond)
	c.Backoff = cmp.Or(c.Backoff, 250*time.Millisecond)
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	return &Runner{RunnerConfig: c, woken: make(chan struct{}, 1)}, nil
}

// Wake says that the jobs have changed. Without open jobs the Runner asks nobody
// anything until it is woken.
func (r *Runner) Wake() {
	select {
	case r.woken <- struct{}{}:
	default:
	}
}

// Run does jobs as long as the turn lasts: until ctx is done or another turn has
// begun. It returns nil then.
func (r *Runner) Run(ctx context.Context, turn int64) error {
	p := &pass{Runner: r, turn: turn, blocked: map[string]int{}, waiting: map[string]string{}}
	backoff := r.newBackoff()
	for ctx.Err() == nil {
		next, err := p.round(ctx)
		switch {
		case errors.Is(err, event.ErrTurnMoved):
			return nil
		case err != nil && ctx.Err() == nil:
			r.Logger.WarnContext(ctx, "jobs.interrupted", "error", err.Error())
			next, _ = backoff.Next()
		default:
			backoff = r.newBackoff()
		}
		r.pause(ctx, next)
	}
	return nil
}

func (r *Runner) newBackoff() retry.Backoff {
	return retry.WithCappedDuration(32*r.Backoff, retry.NewExponential(r.Backoff))
}

// Waits between rounds.
const (
	atOnce     time.Duration = 0
	untilWoken time.Duration = -1
)

func (r *Runner) pause(ctx context.Context, wait time.Duration) {
	if wait == atOnce {
		return
	}
	var over <-chan time.Time
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-ctx.Done():
	case <-over:
	case <-r.woken:
	}
}

// pass is one turn of the Runner.
type pass struct {
	*Runner
	turn int64
	// blocked counts the rounds in which a job could not go on; waiting is what was
	// last written about it.
	blocked map[string]int
	waiting map[string]string
}

// round does one slice of each open job and says how long to wait before the next.
func (p *pass) round(ctx context.Context) (time.Duration, error) {
	jobs, err := p.Work.OpenJobs(ctx)
	if err != nil {
		return 0, fmt.Errorf("read open jobs: %w", err)
	}
	if len(jobs) == 0 {
		return untilWoken, nil
	}
	wait := p.Look
	for _, job := range jobs {
		p.waiting[job.ID] = job.Waiting
		moved, err := p.step(ctx, job)
		if err != nil {
			return 0, fmt.Errorf("job %s (%s): %w", job.ID, job.Verb, err)
		}
		if moved {
			wait = atOnce
		}
	}
	return wait, nil
}

// step does one slice of the job; moved is false when it has to wait.
func (p *pass) step(ctx context.Context, job event.Job) (moved bool, err error) {
	switch job.Verb {
	case event.JobReplay:
		return p.publish(ctx, job, p.Work.TakeReplays, p.Work.ConfirmReplays)
	case event.JobRecheck:
		return p.publish(ctx, job, p.Work.TakeRechecks, p.Work.ConfirmRechecks)
	case event.JobDiscard:
		_, done, err := p.Work.DiscardSlice(ctx, p.turn, job.ID, p.Slice)
		if err == nil && done {
			err = p.finish(ctx, job, event.JobDone, "")
		}
		return true, err
	}
	// A newer version may know the verb.
	return true, p.finish(ctx, job, event.JobFailed, fmt.Sprintf("this version does not know the verb %q", job.Verb))
}

func (p *pass) finish(ctx context.Context, job event.Job, state event.JobState, why string) error {
	if err := p.Work.FinishJob(ctx, p.turn, job.ID, state, why); err != nil {
		return err
	}
	p.Logger.InfoContext(ctx, "job.ended", "job", job.ID, "verb", string(job.Verb), "state", string(state), "why", why)
	delete(p.blocked, job.ID)
	return nil
}

type (
	take    func(ctx context.Context, turn int64, jobID string, limit int) ([]event.Event, error)
	confirm func(ctx context.Context, turn int64, jobID string, eventIDs []string) error
)

// publish takes a slice, publishes it and confirms it, unless enough is under way.
func (p *pass) publish(ctx context.Context, job event.Job, take take, confirm confirm) (moved bool, err error) {
	out, err := p.Work.Outstanding(ctx, job.ID)
	if err != nil {
		return false, err
	}
	room := min(p.Ahead-out, p.Slice)
	// A slice is worth its transactions: a handful of free places waits for more.
	if room < min(p.Slice, p.Ahead)/4+1 {
		return false, p.hold(ctx, job, fmt.Sprintf("%d of its events are published and not settled yet", out))
	}
	events, err := take(ctx, p.turn, job.ID, room)
	if err != nil {
		return false, err
	}
	if len(events) == 0 {
		return true, p.finish(ctx, job, event.JobDone, "")
	}
	switch err := p.send(ctx, job, events, confirm); {
	case errors.Is(err, event.ErrNotAccepted):
		p.Logger.WarnContext(ctx, "job.not_accepted", "job", job.ID, "error", err.Error())
		return false, p.hold(ctx, job, waitsForQueue)
	case errors.Is(err, event.ErrTooLarge):
		return true, p.finish(ctx, job, event.JobFailed, "an event does not fit the queue's limit on one message: "+err.Error())
	case err != nil:
		return false, err
	}
	return true, p.goOn(ctx, job)
}

const waitsForQueue = "the queue is full or does not answer; what was taken is sent again until it is accepted"

// send publishes and confirms, in halves where the queue says that it is too much for
// one message.
func (p *pass) send(ctx context.Context, job event.Job, events []event.Event, confirm confirm) error {
	err := p.Queue.Publish(ctx, events)
	if errors.Is(err, event.ErrTooLarge) && len(events) > 1 {
		half := len(events) / 2
		if err := p.send(ctx, job, events[:half], confirm); err != nil {
			return err
		}
		return p.send(ctx, job, events[half:], confirm)
	}
	if err != nil {
		return fmt.Errorf("publish %d events from %s on: %w", len(events), events[0].ID, err)
	}
	ids := make([]string, len(events))
	for i, e := range events {
		ids[i] = e.ID
	}
	return confirm(ctx, p.turn, job.ID, ids)
}

// holdFor is how many rounds a job may stand before it says why: settling a slice
// takes a moment and is nothing to write about.
const holdFor = 5

// hold lets the job wait; a reason that lasts is written down.
func (p *pass) hold(ctx context.Context, job event.Job, why string) error {
	p.blocked[job.ID]++
	lasts := why == waitsForQueue || p.blocked[job.ID] >= holdFor
	if !lasts || p.waiting[job.ID] != "" && why != waitsForQueue || p.waiting[job.ID] == why {
		return nil
	}
	return p.Work.SetJobWaiting(ctx, job.ID, why)
}

// goOn says that the job moves again.
func (p *pass) goOn(ctx context.Context, job event.Job) error {
	delete(p.blocked, job.ID)
	if p.waiting[job.ID] == "" {
		return nil
	}
	return p.Work.SetJobWaiting(ctx, job.ID, "")
}
