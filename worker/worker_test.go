package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/worker/verify"
)

// These tests are about what the worker does when its doors fail, each fault twice:
// it failed and nothing happened, it failed and it happened anyway. The doors are
// doubles with the contract of the interfaces in worker.go; that the real ones keep
// it is shown where they live, and that all of it works together in
// internal/service. Time is synctest's. Never asserted here: what a row contains.

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// doors is a queue, a turn, ImageKit and the rows, all in memory.
type doors struct {
	t  *testing.T
	mu sync.Mutex

	queue    chan *event.Delivery
	acked    []string // envelope ids, in order
	released []string

	ends    map[string]event.End     // by event id: what reached an end
	retries map[string]event.Pending // by event id
	dueAt   map[string]time.Time
	marks   map[string]int
	stacks  map[string]string
	settles int
	looks   []string // fileIds asked about, in order
	turn    int64
	paused  bool // at the begin of a turn
	lease   bool // paused, as the lease has it
	reads   int  // of the lease

	nextDue time.Time // at the begin of a turn
	blamed  []string
	// withObservation are the files that came with an observation in the settling under
	// way.
	withObservation map[string]bool
	watchdog        *Watchdog

	// hang is called for each file asked about, step for each event's own step, without
	// mu.
	hang     func(fileID string)
	step     func(id string)
	tableNow func() time.Time
	onAnswer func(verify.Ask, *verify.Answer)

	// Faults; each may change doors under mu.
	onLook   func(asks []verify.Ask) error
	onSettle func(pending []event.Pending) error // before anything is written
	onCommit func(pending []event.Pending) error // after everything is written
}

func newDoors(t *testing.T) *doors {
	return &doors{t: t, queue: make(chan *event.Delivery, 100), ends: map[string]event.End{}, retries: map[string]event.Pending{},
		dueAt: map[string]time.Time{}, marks: map[string]int{}, stacks: map[string]string{}}
}

func (d *doors) Next(ctx context.Context) (*event.Delivery, error) {
	select {
	case x := <-d.queue:
		return x, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (d *doors) HoldTurn(ctx context.Context, work func(context.Context) error) error {
	return work(ctx)
}

func (d *doors) Look(_ context.Context, asks []verify.Ask) ([]verify.Answer, error) {
	answers, err := d.answer(asks)
	for _, a := range asks {
		if err == nil && d.hang != nil {
			d.hang(a.FileID)
		}
	}
	return answers, err
}

func (d *doors) answer(asks []verify.Ask) ([]verify.Answer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.onLook != nil {
		if err := d.onLook(asks); err != nil {
			return nil, err
		}
	}
	answers := make([]verify.Answer, len(asks))
	for i, a := range asks {
		d.looks = append(d.looks, a.FileID)
		answers[i].Observation = &file.Observation{FileID: a.FileID, How: file.LookUp, Snapshot: &file.Snapshot{ID: a.FileID}}
		if d.onAnswer != nil {
			d.onAnswer(a, &answers[i])
		}
	}
	return answers, nil
}

func (d *doors) Healthy(context.Context) error { return nil }
func (d *doors) Ping(context.Context) error    { return nil }

func (d *doors) BeginTurn(context.Context) (event.Turn, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.turn++
	return event.Turn{Number: d.turn, Paused: d.paused, NextDue: d.nextDue}, nil
}

func (d *doors) Turn(context.Context) (event.Turn, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reads++
	return event.Turn{Number: d.turn, Paused: d.lease}, nil
}

func (d *doors) Settle(_ context.Context, turn int64, pending []event.Pending, seen []file.Observation, end func(event.Pending, file.Result) event.End) (event.Settled, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.settles++
	d.withObservation = map[string]bool{}
	for _, o := range seen {
		d.withObservation[o.FileID] = true
	}
	if turn != d.turn {
		return event.Settled{}, event.ErrTurnMoved
	}
	if d.lease {
		return event.Settled{}, event.ErrPaused
	}
	if d.onSettle != nil {
		if err := d.onSettle(pending); err != nil {
			return event.Settled{}, err
		}
	}
	settled := event.Settled{Ends: map[string]event.End{}}
	for _, p := range pending {
		delete(d.marks, p.ID)
		_, ended := d.ends[p.ID]
		_, waits := d.retries[p.ID]
		if ended || (waits && !p.Retried) {
			settled.Already++
			continue
		}
		e := end(p, file.Result{Outcome: file.Applied, Reason: file.ReasonAdded})
		settled.Ends[p.ID] = e
		delete(d.retries, p.ID)
		if e.Kind != event.Retry {
			d.ends[p.ID] = e
			continue
		}
		p.Retried, p.Waited, p.Tries = true, p.Waited+e.After, p.Tries+1
		d.retries[p.ID], d.dueAt[p.ID] = p, time.Now().Add(e.After)
		settled.NextDue = d.dueAt[p.ID]
	}
	if d.onCommit != nil {
		if err := d.onCommit(pending); err != nil {
			return event.Settled{}, err
		}
	}
	return settled, nil
}

func (d *doors) Due(context.Context, int) (due []event.Pending, next time.Time, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, p := range d.retries {
		if at := d.dueAt[id]; !at.After(time.Now()) {
			due = append(due, p)
		} else if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return due, next, nil
}

func (d *doors) Trials(_ context.Context, pending []event.Pending) (map[string]event.Mark, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	marks := map[string]event.Mark{}
	for _, p := range pending {
		_, ended := d.ends[p.ID]
		if _, waits := d.retries[p.ID]; !ended && waits == p.Retried {
			marks[p.ID] = event.Mark{Survived: d.marks[p.ID], Stack: d.stacks[p.ID]}
		}
	}
	return marks, nil
}

func (d *doors) Mark(_ context.Context, _ int64, ids []string) (map[string]event.Mark, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	before := map[string]event.Mark{}
	for _, id := range ids {
		before[id] = event.Mark{Survived: d.marks[id], Stack: d.stacks[id]}
		d.marks[id]++
	}
	return before, nil
}

// Blame counts as the rows do: what this turn has marked has its mark already.
func (d *doors) Blame(_ context.Context, _ int64, ids []string, stack string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, id := range ids {
		d.marks[id] = max(d.marks[id], 1)
		d.stacks[id] = stack
	}
	d.blamed = append(d.blamed, ids...)
	return nil
}

// envelope puts an envelope of events into the queue; each event is named after its
// file, which is named after nothing.
func (d *doors) envelope(id string, delivered uint64, events ...string) {
	env := event.Envelope{ID: id}
	for _, e := range events {
		env.Events = append(env.Events, event.Event{ID: e, FileID: "file-" + e, Kind: "file.created", Source: event.Webhook, Origin: event.Webhook})
	}
	d.deliver(&event.Delivery{Envelope: env, Delivered: delivered})
}

func (d *doors) deliver(x *event.Delivery) {
	id := x.Envelope.ID
	x.Extend = func() error { return nil }
	x.Ack = func() error { d.note(&d.acked, id); return nil }
	x.Release = func(time.Duration) error { d.note(&d.released, id); return nil }
	d.queue <- x
}

func (d *doors) note(list *[]string, id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	*list = append(*list, id)
}

// run starts a worker on the doors and returns the function that stops it and waits.
func (d *doors) run(ctx context.Context) (w *Worker, stop func()) {
	w, err := New(Config{Queue: d, Turns: d, Look: d, Rows: d, Logger: slog.New(slog.DiscardHandler), Watchdog: d.watchdog,
		Table: Table{NotFoundGrace: 10 * time.Second, RetryMaxAge: time.Hour, Now: d.tableNow}})
	if err != nil {
		d.t.Fatal(err)
	}
	if d.step != nil {
		w.plant = func(p event.Pending) { d.step(p.ID) }
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := w.Run(ctx); err != nil {
			d.t.Error(err)
		}
	}()
	return w, func() { cancel(); <-done }
}

// inBubble runs a worker on fresh doors inside a synctest bubble.
func inBubble(t *testing.T, prepare func(d *doors), check func(t *testing.T, d *doors, w *Worker)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		d := newDoors(t)
		prepare(d)
		w, stop := d.run(t.Context())
		defer stop()
		synctest.Wait()
		check(t, d, w)
	})
}

func (d *doors) wantEnds(t *testing.T, want map[string]event.EndKind) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.ends) != len(want) {
		t.Errorf("%d events have ended, want %d: %v", len(d.ends), len(want), d.ends)
	}
	for id, kind := range want {
		if got := d.ends[id].Kind; got != kind {
			t.Errorf("event %s ended as %q (%s), want %q", id, got, d.ends[id].Reason, kind)
		}
	}
}

func (d *doors) wantAcked(t *testing.T, want ...string) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	got := slices.Sorted(slices.Values(d.acked))
	if !slices.Equal(got, want) {
		t.Errorf("acked %v, want %v", got, want)
	}
}

func TestWorkerSettlesThenAcks(t *testing.T) {
	inBubble(t, func(d *doors) {
		d.envelope("env1", 1, "a", "b")
		d.envelope("env2", 1, "c")
	}, func(t *testing.T, d *doors, _ *Worker) {
		d.wantEnds(t, map[string]event.EndKind{"a": event.Done, "b": event.Done, "c": event.Done})
		d.wantAcked(t, "env1", "env2")
	})
}

func TestWorkerWaitsOutAnOutage(t *testing.T) {
	for name, fault := range map[string]func(d *doors){
		"DatabaseRefusesAndNothingHappened": func(d *doors) {
			left := 7
			d.onSettle = func([]event.Pending) error {
				if left--; left >= 0 {
					return fmt.Errorf("cut: %w", event.ErrOutage)
				}
				return nil
			}
		},
		"CommitReplyIsLostAndItHappened": func(d *doors) {
			left := 7
			d.onCommit = func([]event.Pending) error {
				if left--; left >= 0 {
					return fmt.Errorf("cut: %w", event.ErrOutage)
				}
				return nil
			}
		},
		"ImageKitIsAway": func(d *doors) {
			left := 3
			d.onLook = func([]verify.Ask) error {
				if left--; left >= 0 {
					return verify.ErrLibraryOutage
				}
				return nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(d *doors) {
				fault(d)
				d.envelope("env1", 1, "a", "b")
			}, func(t *testing.T, d *doors, w *Worker) {
				time.Sleep(time.Minute) //nolint:forbidigo // synctest's clock, not the wall's
				d.wantEnds(t, map[string]event.EndKind{"a": event.Done, "b": event.Done})
				d.wantAcked(t, "env1")
				if len(d.retries) != 0 {
					t.Errorf("an outage parked %d events as retries", len(d.retries))
				}
				if p := w.State().Paused; p.Why != "" {
					t.Errorf("still paused: %+v", p)
				}
			})
		})
	}
}

func TestWorkerIsolatesPoison(t *testing.T) {
	t.Run("PanicParksOneEventAndSettlesTheOthers", func(t *testing.T) {
		inBubble(t, func(d *doors) {
			d.onLook = func(asks []verify.Ask) error {
				for _, a := range asks {
					if a.FileID == "file-c" {
						panic("poison")
					}
				}
				return nil
			}
			d.envelope("env1", 1, "a", "b", "c", "d", "e")
		}, func(t *testing.T, d *doors, _ *Worker) {
			d.wantEnds(t, map[string]event.EndKind{"a": event.Done, "b": event.Done, "c": event.Dead, "d": event.Done, "e": event.Done})
			d.wantAcked(t, "env1")
			if end := d.ends["c"]; end.Reason != "panic" || end.Class != event.ClassTrueup || end.Attempt == nil {
				t.Errorf("parked as %+v, want a panic of class trueup with its attempt", end)
			}
		})
	})

	t.Run("DataTheDatabaseRefusesIsParkedAlone", func(t *testing.T) {
		inBubble(t, func(d *doors) {
			d.onSettle = func(pending []event.Pending) error {
				for _, p := range pending {
					if p.ID == "b" && p.User == "" && p.Headers != nil {
						return fmt.Errorf("22021: %w", event.ErrUnstorable)
					}
				}
				return nil
			}
			env := event.Envelope{ID: "env1", Events: []event.Event{{ID: "a", FileID: "f1"}, {ID: "b", FileID: "f2", Headers: map[string]string{"x": "\x00"}}}}
			d.deliver(&event.Delivery{Envelope: env, Delivered: 1})
		}, func(t *testing.T, d *doors, _ *Worker) {
			d.wantEnds(t, map[string]event.EndKind{"a": event.Done, "b": event.Dead})
			d.wantAcked(t, "env1")
			if end := d.ends["b"]; end.Class != event.ClassDatabase {
				t.Errorf("class %q, want database", end.Class)
			}
		})
	})

	t.Run("RedeliveryAloneCondemnsNobody", func(t *testing.T) {
		inBubble(t, func(d *doors) { d.envelope("env1", 40, "a", "b") }, func(t *testing.T, d *doors, _ *Worker) {
			d.wantEnds(t, map[string]event.EndKind{"a": event.Done, "b": event.Done})
			d.wantAcked(t, "env1")
			if len(d.marks) != 0 {
				t.Errorf("marks left behind: %v", d.marks)
			}
		})
	})

	t.Run("MarkThatSurvivedOneCrashRunsAlone", func(t *testing.T) {
		var batches [][]string
		inBubble(t, func(d *doors) {
			d.marks["b"] = 1
			d.onLook = func(asks []verify.Ask) error {
				var files []string
				for _, a := range asks {
					files = append(files, a.FileID)
				}
				batches = append(batches, files)
				return nil
			}
			d.envelope("env1", 2, "a", "b", "c")
		}, func(t *testing.T, d *doors, _ *Worker) {
			d.wantEnds(t, map[string]event.EndKind{"a": event.Done, "b": event.Done, "c": event.Done})
			if len(batches) != 2 || !slices.Equal(batches[0], []string{"file-a", "file-c"}) || !slices.Equal(batches[1], []string{"file-b"}) {
				t.Errorf("looked up in %v, want the unmarked together and the marked one alone, last", batches)
			}
		})
	})

	t.Run("MarkThatSurvivedTwoCrashesIsPoison", func(t *testing.T) {
		inBubble(t, func(d *doors) {
			d.marks["b"] = 2
			d.envelope("env1", 3, "a", "b")
		}, func(t *testing.T, d *doors, _ *Worker) {
			d.wantEnds(t, map[string]event.EndKind{"a": event.Done, "b": event.Dead})
			if slices.Contains(d.looks, "file-b") {
				t.Error("a poisonous event was looked up once more")
			}
			d.wantAcked(t, "env1")
		})
	})

	t.Run("BytesThatAreNoEnvelopeBecomeADeadLetter", func(t *testing.T) {
		inBubble(t, func(d *doors) {
			d.deliver(&event.Delivery{Envelope: event.Envelope{ID: "env1"}, Raw: []byte("garbage"), Err: errors.New("bad magic"), Sequence: 7, Delivered: 1, StoredAt: time.Unix(1767323045, 0)})
		}, func(t *testing.T, d *doors, _ *Worker) {
			if len(d.ends) != 1 {
				t.Fatalf("%d ends, want one dead letter", len(d.ends))
			}
			for _, end := range d.ends {
				if end.Kind != event.Dead || end.Reason != "undecodable" {
					t.Errorf("ended as %+v", end)
				}
			}
			d.wantAcked(t, "env1")
		})
	})
}

func TestWorkerRetries(t *testing.T) {
	inBubble(t, func(d *doors) {
		left := 3
		d.onLook = func([]verify.Ask) error { left--; return nil }
		d.envelope("env1", 1, "a")
		// A file.deleted that keeps being answered 200 is asked again until the grace.
		d.mu.Lock()
		x := <-d.queue
		x.Envelope.Events[0].Kind = event.KindDeleted
		d.queue <- x
		d.mu.Unlock()
	}, func(t *testing.T, d *doors, _ *Worker) {
		d.wantAcked(t, "env1")
		d.mu.Lock()
		waiting := len(d.retries)
		d.mu.Unlock()
		if waiting != 1 {
			t.Fatalf("%d retries wait, want 1", waiting)
		}
		time.Sleep(time.Minute) //nolint:forbidigo // synctest's clock, not the wall's
		d.wantEnds(t, map[string]event.EndKind{"a": event.Superseded})
		if n := len(d.looks); n < 4 || n > 8 {
			t.Errorf("asked %d times within a grace of 10 s, want a backed-off handful", n)
		}
	})
}

func TestWorkerStopsAndPauses(t *testing.T) {
	t.Run("MovedTurnWritesAndAcksNothing", func(t *testing.T) {
		inBubble(t, func(d *doors) {
			moved := false
			d.onLook = func([]verify.Ask) error {
				if !moved {
					moved = true
					d.turn += 10
				}
				return nil
			}
			d.envelope("env1", 1, "a")
		}, func(t *testing.T, d *doors, _ *Worker) {
			d.wantAcked(t)
			d.wantEnds(t, nil)
			if !slices.Equal(d.released, []string{"env1"}) {
				t.Errorf("released %v, want the envelope given back", d.released)
			}
		})
	})

	t.Run("OperatorsPauseHoldsEverythingAndLosesNothing", func(t *testing.T) {
		inBubble(t, func(d *doors) {
			d.paused = true
			d.envelope("env1", 1, "a")
		}, func(t *testing.T, d *doors, w *Worker) {
			if p := w.State().Paused; p.Why != "operator" {
				t.Errorf("paused = %+v", p)
			}
			d.wantEnds(t, nil)
			w.SetPaused(false, "")
			synctest.Wait()
			d.wantEnds(t, map[string]event.EndKind{"a": event.Done})
			d.wantAcked(t, "env1")
		})
	})

	t.Run("StopGivesBackWhatIsHeld", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := newDoors(t)
			d.onSettle = func([]event.Pending) error { return event.ErrOutage }
			d.envelope("env1", 1, "a")
			_, stop := d.run(t.Context())
			synctest.Wait()
			stop()
			d.wantAcked(t)
			if !slices.Equal(d.released, []string{"env1"}) {
				t.Errorf("released %v, want [env1]", d.released)
			}
		})
	})
}
