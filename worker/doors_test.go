package worker

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/worker/verify"
)

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
	// acquitFails is how many acquittals the database is away for.
	acquitFails int
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

func (d *doors) Acquit(_ context.Context, _ int64, ids []string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.acquitFails > 0 {
		d.acquitFails--
		return event.ErrOutage
	}
	for _, id := range ids {
		if d.marks[id]--; d.marks[id] <= 0 {
			delete(d.marks, id)
		}
	}
	return nil
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
	x.Ack = func() error {
		d.note(&d.acked, id)
		d.allSettled(x.Envelope)
		return nil
	}
	x.Release = func(time.Duration) error { d.note(&d.released, id); return nil }
	d.queue <- x
}

// allSettled: an ack is the queue's leave to forget, so nothing may be left to do.
func (d *doors) allSettled(env event.Envelope) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range env.Events {
		_, ended := d.ends[e.ID]
		if _, waits := d.retries[e.ID]; !ended && !waits {
			d.t.Errorf("envelope %s is acked, and its event %s has not been settled", env.ID, e.ID)
		}
	}
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
