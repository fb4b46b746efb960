package conform

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/queue"
)

// QueueDoor is one process's queue.
type QueueDoor interface {
	Publish(ctx context.Context, events []event.Event) error
	Next(ctx context.Context) (*event.Delivery, error)
	HoldTurn(ctx context.Context, work func(ctx context.Context) error) error
	Depth(ctx context.Context) (queue.Depth, error)
	Ready() queue.Readiness
	Tell(topic string, payload []byte) error
	Listen(topic string, f func(payload []byte)) (stop func(), err error)
	Close() error
}

// QueueConfig is what a case asks of the queue; zero means the door's own.
type QueueConfig struct {
	AckWait, TurnTTL time.Duration
	MaxBytes         int64
}

// Queues is a kind of queue.
type Queues struct {
	// Server makes an empty one, and returns what opens it, each time for another process.
	// What is still open at the end it closes.
	Server func(t testing.TB, c QueueConfig) (open func() QueueDoor)
	// Shared: several processes may have it open at once.
	Shared bool
	// Run runs a case; nil runs it as it is. A simulated queue runs it in a bubble.
	Run func(t *testing.T, f func(t *testing.T))
}

// Queue tests what a queue promises.
func Queue(t *testing.T, q Queues) {
	cases := map[string]func(*queues){
		"DeliversWhatWasPublishedAsItWas":           (*queues).asItWas,
		"PacksConcurrentCallsAndSplitsNone":         (*queues).packs,
		"RefusesWhatFitsNoEnvelope":                 (*queues).tooLarge,
		"PublishesNothingForNoEvents":               (*queues).nothing,
		"WhatIsAckedNeverComesAgain":                (*queues).acked,
		"WhatIsSilentComesAgainAndIsCounted":        (*queues).silent,
		"WhatIsExtendedDoesNotComeAgain":            (*queues).extended,
		"WhatIsReleasedComesAgainAtOnce":            (*queues).released,
		"WhatIsReleasedForAWhileWaits":              (*queues).releasedFor,
		"ALateAckCounts":                            (*queues).lateAck,
		"RefusesWhenFullAndLosesNothing":            (*queues).full,
		"ACallerWhoLeavesIsNotAccepted":             (*queues).leaves,
		"NextEndsWithItsContext":                    (*queues).nextEnds,
		"KeepsWhatWasNotAckedThroughAStop":          (*queues).restart,
		"RefusesAfterClose":                         (*queues).closed,
		"CountsWhatItHolds":                         (*queues).depth,
		"OneHoldsTheTurnAndHandsItOverAtOnce":       (*queues).handOver,
		"ATurnThatMovedSendsBackToStandBy":          (*queues).moved,
		"WhatWorkSaysComesBack":                     (*queues).says,
		"WhatWasFetchedAheadIsFreedWithTheTurn":     (*queues).fetchedAhead,
		"TellsThoseWhoListenUntilTheyStop":          (*queues).notices,
		"RefusesATopicThatIsNoName":                 (*queues).badTopic,
		"TheTurnIsKeptUntilWorkHasReturned":         (*queues).kept,
		"TwoProcessesShareWhatThereIs_EachOnceOnly": (*queues).share,
	}
	run := q.Run
	if run == nil {
		run = func(t *testing.T, f func(*testing.T)) { f(t) }
	}
	for name, f := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // they mostly wait
			run(t, func(t *testing.T) { f(&queues{T: t, Queues: q}) })
		})
	}
}

// patience is how long a case waits for what must come. Whoever expects that something
// comes at once lets it otherwise come after an hour.
const patience = time.Minute

// queues is one case under way.
type queues struct {
	*testing.T
	Queues
}

func (q *queues) context() context.Context {
	ctx, cancel := context.WithTimeoutCause(q.Context(), patience, errors.New("waited in vain"))
	q.Cleanup(cancel)
	return ctx
}

// one opens a queue for one process.
func (q *queues) one(c QueueConfig) QueueDoor { return q.Server(q, c)() }

// another opens the queue once more where it is shared; else it is the same process's.
func (q *queues) another(open func() QueueDoor, first QueueDoor) QueueDoor {
	if q.Shared {
		return open()
	}
	return first
}

// hint is an event that is known by its id.
func hint(id string) event.Event {
	return event.Event{
		ID: id, Source: event.Client, Origin: event.Client, Kind: event.KindReport, FileID: "f_" + id, User: "user_123",
		AcceptedAt: time.UnixMicro(1_790_000_000_123_456).UTC(), Body: []byte(`{"fileId":"f_` + id + `"}`),
	}
}

func (q *queues) publish(d QueueDoor, ids ...string) {
	q.Helper()
	events := make([]event.Event, len(ids))
	for i, id := range ids {
		events[i] = hint(id)
	}
	if err := d.Publish(q.context(), events); err != nil {
		q.Fatalf("publish %v: %v", ids, err)
	}
}

func (q *queues) next(d QueueDoor) *event.Delivery {
	q.Helper()
	got, err := d.Next(q.context())
	if err != nil {
		q.Fatalf("next: %v", err)
	}
	if got.Err != nil || len(got.Envelope.Events) == 0 {
		q.Fatalf("next: %+v", got)
	}
	return got
}

// expect takes the next delivery, which must hold these events for the nth time.
func (q *queues) expect(d QueueDoor, nth uint64, ids ...string) *event.Delivery {
	q.Helper()
	got := q.next(d)
	if !slices.Equal(idsOf(got), ids) || got.Delivered != nth {
		q.Fatalf("delivery %d of %v, not %d of %v", got.Delivered, idsOf(got), nth, ids)
	}
	return got
}

func (q *queues) ack(d *event.Delivery) {
	q.Helper()
	if err := d.Ack(); err != nil {
		q.Fatalf("ack: %v", err)
	}
}

func idsOf(d *event.Delivery) (ids []string) {
	for _, e := range d.Envelope.Events {
		ids = append(ids, e.ID)
	}
	return ids
}

// eventually asks until ok says that it is so.
func (q *queues) eventually(what string, ok func() bool) {
	q.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for ctx := q.context(); !ok(); {
		select {
		case <-tick.C:
		case <-ctx.Done():
			q.Fatalf("in vain until %s", what)
		}
	}
}

func (q *queues) depthOf(d QueueDoor) queue.Depth {
	q.Helper()
	depth, err := d.Depth(q.context())
	if err != nil {
		q.Fatalf("depth: %v", err)
	}
	return depth
}

func (q *queues) asItWas() {
	d := q.one(QueueConfig{})
	full := event.Event{
		ID: "01", Source: event.Replay, Origin: event.Webhook, Kind: event.KindDeleted, FileID: "f-_1", WebhookID: "wh \"1\"",
		AcceptedAt: time.UnixMicro(1_790_000_000_000_001).UTC(), UpdatedAt: time.UnixMicro(1_780_000_000_000_002).UTC(),
		DeadLetter: "dl1", Headers: map[string]string{"user-agent": "ImageKit\u2028\x01"}, Body: []byte("\x00\xff not JSON"),
	}
	want := []event.Event{full, hint("02")}
	began := time.Now()
	if err := d.Publish(q.context(), want); err != nil {
		q.Fatal(err)
	}
	q.publish(d, "03")
	q.publish(d, "04")
	got := q.next(d)
	if !reflect.DeepEqual(got.Envelope.Events, want) || got.Envelope.ID == "" {
		q.Errorf("got %+v\nnot %+v", got.Envelope, want)
	}
	if got.Delivered != 1 || got.Sequence == 0 || got.StoredAt.Before(began.Add(-time.Minute)) || !got.More {
		q.Errorf("delivery %d, message %d, stored at %v, more: %v", got.Delivered, got.Sequence, got.StoredAt, got.More)
	}
	second := q.expect(d, 1, "03")
	if second.Sequence <= got.Sequence || second.Envelope.ID == got.Envelope.ID || !second.More {
		q.Errorf("message %d %s after %d %s, more: %v", second.Sequence, second.Envelope.ID, got.Sequence, got.Envelope.ID, second.More)
	}
	if last := q.expect(d, 1, "04"); last.More {
		q.Error("more is to come after the last one")
	}
}

func (q *queues) packs() {
	const calls, each = 100, 7
	d := q.one(QueueConfig{})
	var all sync.WaitGroup
	for c := range calls {
		all.Go(func() {
			events := make([]event.Event, each)
			for i := range events {
				events[i] = hint(fmt.Sprintf("%03d-%d", c, i))
			}
			if err := d.Publish(q.context(), events); err != nil {
				q.Error(err)
			}
		})
	}
	all.Wait()
	seen, envelopes := map[string]bool{}, 0
	for len(seen) < calls && !q.Failed() {
		got := q.next(d)
		envelopes++
		ids := idsOf(got)
		if len(ids) > queue.MaxEvents || len(ids)%each != 0 {
			q.Fatalf("an envelope of %d events", len(ids))
		}
		for call := range slices.Chunk(ids, each) {
			name, _, _ := strings.Cut(call[0], "-")
			for i, id := range call {
				if id != fmt.Sprintf("%s-%d", name, i) {
					q.Fatalf("a call was split: %v", call)
				}
			}
			if seen[name] {
				q.Errorf("call %s came twice", name)
			}
			seen[name] = true
		}
		q.ack(got)
	}
	if envelopes >= calls {
		q.Errorf("%d calls at once made %d envelopes", calls, envelopes)
	}
}

func (q *queues) tooLarge() {
	d := q.one(QueueConfig{})
	large := hint("large")
	large.Body = make([]byte, 9<<20)
	for name, events := range map[string][]event.Event{
		"TooMany": slices.Repeat([]event.Event{hint("x")}, queue.MaxEvents+1),
		"TooLong": {large},
	} {
		if err := d.Publish(q.context(), events); !errors.Is(err, event.ErrTooLarge) || errors.Is(err, event.ErrNotAccepted) {
			q.Errorf("%s: %v", name, err)
		}
	}
	if depth := q.depthOf(d); depth.Stored != 0 {
		q.Errorf("%d envelopes are stored", depth.Stored)
	}
	if err := d.Publish(q.context(), slices.Repeat([]event.Event{hint("x")}, queue.MaxEvents)); err != nil {
		q.Errorf("a full envelope: %v", err)
	}
}

func (q *queues) nothing() {
	d := q.one(QueueConfig{})
	if err := d.Publish(q.context(), nil); err != nil {
		q.Error(err)
	}
	if depth := q.depthOf(d); depth.Stored != 0 || !depth.Oldest.IsZero() {
		q.Errorf("stored %+v", depth)
	}
}

func (q *queues) acked() {
	d := q.one(QueueConfig{AckWait: time.Second})
	q.publish(d, "a")
	q.publish(d, "b")
	q.ack(q.expect(d, 1, "a"))
	q.expect(d, 1, "b")
	q.expect(d, 2, "b") // a's AckWait is over, too
	q.ack(q.expect(d, 3, "b"))
	q.eventually("nothing is stored", func() bool { return q.depthOf(d).Stored == 0 })
}

func (q *queues) silent() {
	d := q.one(QueueConfig{AckWait: time.Second})
	q.publish(d, "a", "b")
	first := q.expect(d, 1, "a", "b")
	second := q.expect(d, 2, "a", "b")
	third := q.expect(d, 3, "a", "b")
	if first.Sequence != third.Sequence || !reflect.DeepEqual(first.Envelope, third.Envelope) || !first.StoredAt.Equal(second.StoredAt) {
		q.Errorf("%+v\ncame again as\n%+v", first, third)
	}
	q.ack(third)
}

func (q *queues) extended() {
	d := q.one(QueueConfig{AckWait: 2 * time.Second})
	q.publish(d, "a")
	q.publish(d, "b")
	a := q.expect(d, 1, "a")
	over := make(chan struct{})
	var extending sync.WaitGroup
	extending.Go(func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-over:
				return
			case <-tick.C:
				if err := a.Extend(); err != nil {
					q.Error(err)
				}
			}
		}
	})
	for nth := range uint64(3) {
		q.expect(d, nth+1, "b")
	}
	close(over)
	extending.Wait()
	q.ack(a)
}

func (q *queues) released() {
	d := q.one(QueueConfig{AckWait: time.Hour})
	q.publish(d, "a")
	if err := q.expect(d, 1, "a").Release(0); err != nil {
		q.Fatal(err)
	}
	q.ack(q.expect(d, 2, "a"))
}

func (q *queues) releasedFor() {
	const wait = 700 * time.Millisecond
	d := q.one(QueueConfig{AckWait: time.Hour})
	q.publish(d, "a")
	a := q.expect(d, 1, "a")
	q.publish(d, "b")
	began := time.Now()
	if err := a.Release(wait); err != nil {
		q.Fatal(err)
	}
	q.ack(q.expect(d, 1, "b"))
	q.ack(q.expect(d, 2, "a"))
	if waited := time.Since(began); waited < wait {
		q.Errorf("it came again after %v", waited)
	}
}

// lateAck: whoever has settled an envelope may say so even after it came again.
func (q *queues) lateAck() {
	d := q.one(QueueConfig{AckWait: time.Second})
	q.publish(d, "a")
	first := q.expect(d, 1, "a")
	q.expect(d, 2, "a")
	q.ack(first)
	q.eventually("nothing is stored", func() bool { return q.depthOf(d).Stored == 0 })
}

func (q *queues) leaves() {
	d := q.one(QueueConfig{})
	ctx, cancel := context.WithCancel(q.context())
	cancel()
	if err := d.Publish(ctx, []event.Event{hint("a")}); !errors.Is(err, event.ErrNotAccepted) || !errors.Is(err, context.Canceled) {
		q.Error(err)
	}
}

func (q *queues) nextEnds() {
	d := q.one(QueueConfig{})
	ctx, cancel := context.WithTimeout(q.context(), 50*time.Millisecond)
	defer cancel()
	if got, err := d.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		q.Errorf("%+v, %v", got, err)
	}
	q.publish(d, "a")
	q.expect(d, 1, "a")
}

// restart: whoever is alone knows that its predecessor is dead, and waits for nothing.
func (q *queues) restart() {
	wait := time.Hour
	if q.Shared {
		wait = time.Second
	}
	open := q.Server(q, QueueConfig{AckWait: wait})
	d := open()
	q.publish(d, "a")
	q.publish(d, "b")
	q.publish(d, "c")
	q.expect(d, 1, "a")
	q.ack(q.expect(d, 1, "b"))
	q.close(d)
	d = open()
	counts := map[string]uint64{}
	for len(counts) < 2 {
		got := q.next(d)
		counts[idsOf(got)[0]] = got.Delivered
		q.ack(got)
	}
	if counts["a"] < 2 || counts["c"] < 1 {
		q.Errorf("deliveries: %v", counts)
	}
}

func (q *queues) close(d QueueDoor) {
	q.Helper()
	if err := d.Close(); err != nil {
		q.Fatalf("close: %v", err)
	}
}

func (q *queues) closed() {
	d := q.one(QueueConfig{})
	q.close(d)
	if err := d.Publish(q.context(), []event.Event{hint("a")}); !errors.Is(err, event.ErrNotAccepted) {
		q.Errorf("publish: %v", err)
	}
	if got, err := d.Next(q.context()); err == nil || q.context().Err() != nil {
		q.Errorf("next: %+v, %v", got, err)
	}
	if r := d.Ready(); r.Accepting {
		q.Errorf("it says %+v", r)
	}
	q.close(d) // again
}
