package operator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trueup/trueup/internal/event"
)

// ledger is an in-memory Work: what its methods have done stays through every crash of
// the Runner. It keeps the promises of Work and nothing else.
type ledger struct {
	mu      sync.Mutex
	jobs    []event.Job
	left    map[string]int           // items not taken, by job
	taken   map[string][]event.Event // taken and not confirmed
	out     map[string]int           // published and not settled
	said    []string                 // what jobs waited for, in order
	asked   int                      // calls
	fail    func(call string) error  // before the call does anything
	after   func(call string) error  // after it has done it
	drawn   int
	highest int // most events under way
}

func newLedger(verb event.JobVerb, items ...int) *ledger {
	l := &ledger{left: map[string]int{}, taken: map[string][]event.Event{}, out: map[string]int{}}
	for i, n := range items {
		id := fmt.Sprint("J", i)
		l.jobs = append(l.jobs, event.Job{ID: id, Verb: verb, State: event.JobRunning, Total: int64(n)})
		l.left[id] = n
	}
	return l
}

func (l *ledger) call(name string, f func()) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked++
	if l.fail != nil {
		if err := l.fail(name); err != nil {
			return err
		}
	}
	f()
	if l.after != nil {
		return l.after(name)
	}
	return nil
}

func (l *ledger) job(id string) *event.Job {
	for i := range l.jobs {
		if l.jobs[i].ID == id {
			return &l.jobs[i]
		}
	}
	panic("no job " + id)
}

func (l *ledger) OpenJobs(context.Context) (open []event.Job, err error) {
	err = l.call("open", func() {
		for _, j := range l.jobs {
			if j.State == event.JobRunning {
				open = append(open, j)
			}
		}
	})
	return open, err
}

func (l *ledger) TakeReplays(_ context.Context, _ int64, id string, limit int) (out []event.Event, err error) {
	err = l.call("take", func() {
		if len(l.taken[id]) == 0 && l.job(id).State == event.JobRunning {
			for range min(limit, l.left[id]) {
				l.drawn++
				l.taken[id] = append(l.taken[id], event.Event{ID: fmt.Sprintf("E%05d", l.drawn)})
			}
			l.left[id] -= len(l.taken[id])
			l.out[id] += len(l.taken[id])
			l.highest = max(l.highest, l.out[id])
		}
		out = slices.Clone(l.taken[id][:min(limit, len(l.taken[id]))])
	})
	return out, err
}

func (l *ledger) ConfirmReplays(_ context.Context, _ int64, id string, ids []string) error {
	return l.call("confirm", func() {
		before := len(l.taken[id])
		l.taken[id] = slices.DeleteFunc(l.taken[id], func(e event.Event) bool { return slices.Contains(ids, e.ID) })
		l.job(id).Done += int64(before - len(l.taken[id]))
	})
}

func (l *ledger) TakeRechecks(ctx context.Context, turn int64, id string, limit int) ([]event.Event, error) {
	return l.TakeReplays(ctx, turn, id, limit)
}

func (l *ledger) ConfirmRechecks(ctx context.Context, turn int64, id string, ids []string) error {
	return l.ConfirmReplays(ctx, turn, id, ids)
}

func (l *ledger) DiscardSlice(_ context.Context, _ int64, id string, limit int) (n int, done bool, err error) {
	err = l.call("discard", func() {
		n = min(limit, l.left[id])
		l.left[id] -= n
		l.job(id).Done += int64(n)
		done = l.left[id] == 0
	})
	return n, done, err
}

func (l *ledger) FinishJob(_ context.Context, _ int64, id string, state event.JobState, why string) error {
	return l.call("finish", func() { l.job(id).State, l.job(id).Error = state, why })
}

func (l *ledger) SetJobWaiting(_ context.Context, id, text string) error {
	return l.call("waiting", func() {
		l.job(id).Waiting = text
		l.said = append(l.said, text)
	})
}

func (l *ledger) Outstanding(_ context.Context, id string) (n int, err error) {
	err = l.call("outstanding", func() { n = l.out[id] })
	return n, err
}

func (l *ledger) settle(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.out {
		l.out[id] = max(0, l.out[id]-n)
	}
}

// stream is a queue that remembers how often each event was stored.
type stream struct {
	mu     sync.Mutex
	stored map[string]int
	sizes  []int
	before func(n int) error // refuses: nothing is stored
	after  func() error      // fails although it was stored
}

func (s *stream) Publish(_ context.Context, events []event.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.before != nil {
		if err := s.before(len(events)); err != nil {
			return err
		}
	}
	if s.stored == nil {
		s.stored = map[string]int{}
	}
	for _, e := range events {
		s.stored[e.ID]++
	}
	s.sizes = append(s.sizes, len(events))
	if s.after != nil {
		return s.after()
	}
	return nil
}

// once returns err the first time.
func once(err error) func() error {
	first := true
	return func() error {
		if first {
			first = false
			return err
		}
		return nil
	}
}

// runs runs the jobs until none is open or the time (of the bubble) is over.
func runs(t *testing.T, l *ledger, q *stream, change ...func(*RunnerConfig)) *Runner {
	t.Helper()
	c := RunnerConfig{Work: l, Queue: q}
	for _, f := range change {
		f(&c)
	}
	r, err := NewRunner(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	var all sync.WaitGroup
	all.Go(func() {
		if err := r.Run(ctx, 7); err != nil {
			t.Error(err)
		}
	})
	all.Go(func() { // the worker settles
		for ctx.Err() == nil {
			select {
			case <-time.After(100 * time.Millisecond):
				l.settle(100)
			case <-ctx.Done():
			}
		}
	})
	all.Wait()
	return r
}

func (l *ledger) check(t *testing.T, q *stream, items int, twice bool) {
	t.Helper()
	if len(q.stored) != items {
		t.Errorf("%d events stored, want %d", len(q.stored), items)
	}
	for id, n := range q.stored {
		if n > 1 && !twice {
			t.Errorf("%s stored %d times", id, n)
		}
	}
	for _, j := range l.jobs {
		if j.State != event.JobDone || j.Done != j.Total || j.Waiting != "" {
			t.Errorf("job %+v", j)
		}
	}
}

func TestI10RunnerPublishesEachItemOnce(t *testing.T) {
	for _, verb := range []event.JobVerb{event.JobReplay, event.JobRecheck} {
		t.Run(string(verb), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, q := newLedger(verb, 3000, 10, 1), &stream{}
				runs(t, l, q)
				l.check(t, q, 3011, false)
				if l.highest > 500 {
					t.Errorf("%d under way at once", l.highest)
				}
				if slices.Max(q.sizes) > 256 {
					t.Errorf("%d in one envelope", slices.Max(q.sizes))
				}
			})
		})
	}
	t.Run("Discards", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l, q := newLedger(event.JobDiscard, 1000), &stream{}
			runs(t, l, q)
			l.check(t, q, 0, false)
		})
	})
}

// Every step fails in two ways: nothing happened, and it happened anyway.
func TestI10RunnerThroughFaults(t *testing.T) {
	lost := fmt.Errorf("lost: %w", event.ErrOutage)
	for _, step := range []string{"open", "outstanding", "take", "confirm", "finish"} {
		t.Run(step+"Failed", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, q := newLedger(event.JobReplay, 600), &stream{}
				fails := once(lost)
				l.fail = func(call string) error {
					if call == step {
						return fails()
					}
					return nil
				}
				runs(t, l, q)
				l.check(t, q, 600, step == "confirm") // published, and not known to be
			})
		})
		t.Run(step+"FailedButHappened", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, q := newLedger(event.JobReplay, 600), &stream{}
				fails := once(lost)
				l.after = func(call string) error {
					if call == step {
						return fails()
					}
					return nil
				}
				runs(t, l, q)
				l.check(t, q, 600, false)
			})
		})
	}
	t.Run("PublishFailed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l, q := newLedger(event.JobReplay, 600), &stream{}
			refuses := once(event.ErrNotAccepted)
			q.before = func(int) error { return refuses() }
			runs(t, l, q)
			l.check(t, q, 600, false)
		})
	})
	t.Run("PublishFailedButHappened", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l, q := newLedger(event.JobReplay, 600), &stream{after: once(event.ErrNotAccepted)}
			runs(t, l, q)
			l.check(t, q, 600, true) // again, under the same ids: they settle once
		})
	})
}

func TestRunnerWaits(t *testing.T) {
	t.Run("ForAFullQueueAndSaysSo", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l, q := newLedger(event.JobReplay, 100), &stream{}
			full := time.Now().Add(10 * time.Minute)
			q.before = func(int) error {
				if time.Now().Before(full) {
					return event.ErrNotAccepted
				}
				return nil
			}
			runs(t, l, q)
			l.check(t, q, 100, false)
			if want := []string{waitsForQueue, ""}; !slices.Equal(l.said, want) {
				t.Errorf("said %q, want %q", l.said, want)
			}
		})
	})
	t.Run("ForItsEventsAndSaysSoWhenThatLasts", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l, q := newLedger(event.JobReplay, 1000), &stream{}
			r, err := NewRunner(RunnerConfig{Work: l, Queue: q})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // nothing settles
			defer cancel()
			_ = r.Run(ctx, 7)
			if len(q.stored) != 500 || len(l.said) != 1 || !strings.Contains(l.said[0], "500 of its events are published and not settled yet") {
				t.Errorf("%d stored; said %q", len(q.stored), l.said)
			}
		})
	})
	t.Run("ForAWakeWhileNoJobIsOpen", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := newLedger(event.JobReplay)
			r, err := NewRunner(RunnerConfig{Work: l, Queue: &stream{}})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var all sync.WaitGroup
			all.Go(func() { _ = r.Run(ctx, 7) })
			for i := range 3 {
				<-time.After(24 * time.Hour)
				synctest.Wait()
				if l.asked != i+1 {
					t.Errorf("asked %d times after %d wakes: a database that sleeps must be left asleep", l.asked, i)
				}
				r.Wake()
			}
			cancel()
			all.Wait()
		})
	})
}

func TestRunnerEnds(t *testing.T) {
	t.Run("WhenAnotherTurnHasBegun", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l, q := newLedger(event.JobReplay, 600), &stream{}
			l.fail = func(call string) error {
				if call == "confirm" {
					return fmt.Errorf("confirm: %w", event.ErrTurnMoved)
				}
				return nil
			}
			r, err := NewRunner(RunnerConfig{Work: l, Queue: q})
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Run(t.Context(), 7); err != nil || len(q.stored) != 256 {
				t.Errorf("%v after %d", err, len(q.stored))
			}
			// The next turn goes on with what the rows say.
			l.fail = nil
			runs(t, l, q)
			l.check(t, q, 600, true)
		})
	})
	t.Run("AJobThatWasCancelled", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l, q := newLedger(event.JobReplay, 5000, 10), &stream{}
			q.after = func() error { // called under the stream's lock, after the first slice
				l.mu.Lock()
				defer l.mu.Unlock()
				l.job("J0").State = event.JobCancelled
				return nil
			}
			runs(t, l, q)
			if len(q.stored) != 266 || l.job("J0").State != event.JobCancelled || l.job("J1").State != event.JobDone {
				t.Errorf("%d stored, %+v", len(q.stored), l.jobs)
			}
		})
	})
	t.Run("AVerbOfANewerVersion", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := newLedger("mend", 5)
			runs(t, l, &stream{})
			if j := l.jobs[0]; j.State != event.JobFailed || !strings.Contains(j.Error, "mend") {
				t.Errorf("%+v", j)
			}
		})
	})
}

func TestRunnerSplitsWhatIsTooLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, q := newLedger(event.JobReplay, 600), &stream{}
		q.before = func(n int) error {
			if n > 10 {
				return event.ErrTooLarge
			}
			return nil
		}
		runs(t, l, q)
		l.check(t, q, 600, false)
	})
	t.Run("AndFailsWhereOneIs", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l, q := newLedger(event.JobReplay, 600), &stream{before: func(int) error { return event.ErrTooLarge }}
			runs(t, l, q)
			if j := l.jobs[0]; j.State != event.JobFailed || !strings.Contains(j.Error, "does not fit") {
				t.Errorf("%+v", j)
			}
		})
	})
}

func TestRunnerNeedsItsDoors(t *testing.T) {
	if _, err := NewRunner(RunnerConfig{}); err == nil || errors.Is(err, event.ErrUnknown) {
		t.Error(err)
	}
}
