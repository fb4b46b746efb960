package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/trueup/trueup/internal/config"
	"github.com/trueup/trueup/internal/emulator"
	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/service"
)

// work is a whole service on a queue, a library and a database, in this process, with
// a watch on what it settles.
type work struct {
	*stage
	database string
	library  *account
	doors    *service.Opened
	config   *config.Config
	watch    *settled
	*running
}

// settled watches the seams of the service: when the first envelope left the queue, how
// many events have reached an end, and when the last one did.
type settled struct {
	first atomic.Int64 // UnixNano of the first envelope handed over, or of the commit that reached warm; 0: none yet
	ended atomic.Int64
	warm  int64 // so many come before what is measured
	goal  int64
	done  chan time.Time // the commit that reached goal
}

// watchedQueue and watchedRows are the doors with the watch on them; they do what the
// real ones do.
type watchedQueue struct {
	service.Queue
	watch *settled
}

func (q watchedQueue) Next(ctx context.Context) (*event.Delivery, error) {
	d, err := q.Queue.Next(ctx)
	if err == nil && q.watch.warm == 0 {
		q.watch.first.CompareAndSwap(0, time.Now().UnixNano())
	}
	return d, err
}

type watchedRows struct {
	service.Rows
	watch *settled
}

func (r watchedRows) Settle(ctx context.Context, turn int64, pending []event.Pending, seen []file.Observation,
	end func(event.Pending, file.Result) event.End,
) (event.Settled, error) {
	out, err := r.Rows.Settle(ctx, turn, pending, seen, end)
	if err == nil {
		n := int64(0)
		for _, e := range out.Ends {
			if e.Kind == event.Done {
				n++
			}
		}
		now := r.watch.ended.Add(n)
		passed := func(mark int64) bool { return now >= mark && now-n < mark }
		if r.watch.warm > 0 && passed(r.watch.warm) {
			r.watch.first.Store(time.Now().UnixNano())
		}
		if passed(r.watch.goal) {
			r.watch.done <- time.Now()
		}
	}
	return out, err
}

// service opens the doors of a serve on a queue of its own; nothing runs yet.
func (s *stage) service(ctx context.Context, database string, library *account) (*work, error) {
	dir, err := s.folder("serve")
	if err != nil {
		return nil, err
	}
	c, err := config.Load(config.Serve, s.environment(database, library.url, dir))
	if err != nil {
		return nil, err
	}
	doors, err := service.Open(ctx, c, s.Version, s.log)
	if err != nil {
		return nil, err
	}
	w := &work{stage: s, database: database, library: library, doors: doors, config: c, watch: &settled{done: make(chan time.Time, 1)}}
	return w, nil
}

// close stops what runs and removes the queue.
func (w *work) close() {
	if w.running != nil {
		w.stop()
	}
	w.check(w.doors.Close())
	w.check(os.RemoveAll(w.config.Queue.DataDir))
}

// begin runs the service; it has goal events to bring to their end.
func (w *work) begin(ctx context.Context, goal int) (err error) {
	w.watch.goal = int64(goal)
	doors := w.doors.Doors
	doors.Queue, doors.Rows = watchedQueue{doors.Queue, w.watch}, watchedRows{doors.Rows, w.watch}
	w.running, err = w.run(ctx, w.config, doors)
	return err
}

// drainWithin bounds the wait for a backlog.
const drainWithin = 20 * time.Minute

// drained waits for the goal and returns how long it took from the first envelope, or
// from the commit with which it was warm, to the last commit.
func (w *work) drained(ctx context.Context) (time.Duration, error) {
	timeout := time.NewTimer(drainWithin)
	defer timeout.Stop()
	select {
	case at := <-w.watch.done:
		return at.Sub(time.Unix(0, w.watch.first.Load())), nil
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	case <-timeout.C:
		return 0, fmt.Errorf("%d of %d events reached their end within %s", w.watch.ended.Load(), w.watch.goal, drainWithin)
	}
}

// publish puts one webhook for each file onto the queue, so many to an envelope.
func (w *work) publish(ctx context.Context, files []stored, perEnvelope int) error {
	for len(files) > 0 {
		n := min(perEnvelope, len(files))
		events := make([]event.Event, n)
		for i, f := range files[:n] {
			var err error
			if events[i], err = hint(f, time.Now()); err != nil {
				return err
			}
		}
		if err := w.doors.Queue.Publish(ctx, events); err != nil {
			return err
		}
		files = files[n:]
	}
	return nil
}

// hint is a webhook about f as ingest would have made it.
func hint(f stored, now time.Time) (event.Event, error) {
	body, err := emulator.SampleWebhook("file.created", f.ID, f.UpdatedAt)
	if err != nil {
		return event.Event{}, err
	}
	id, err := ulid.New(ulid.Timestamp(now), rand.Reader)
	if err != nil {
		return event.Event{}, err
	}
	return event.Event{
		ID: id.String(), Source: event.Webhook, Origin: event.Webhook, Kind: "file.created", FileID: f.ID,
		AcceptedAt: now.UTC().Truncate(time.Microsecond), UpdatedAt: f.UpdatedAt, WebhookID: "msg_" + id.String(),
		Headers: map[string]string{"content-type": "application/json", "user-agent": "ImageKit.io", "x-request-id": id.String()}, Body: body,
	}, nil
}

// outcome of a backlog.
type outcome struct {
	took  time.Duration
	calls int64
	// used is the processor time of each part, where it can be read.
	used used
}

// warmFiles come before a backlog that is measured against the clock: ImageKit's answers
// name no limit here, so the budget begins at 20 calls a second and doubles each second.
const warmFiles = 15_000

// backlog brings a webhook for each file from the queue to its row and says how long
// it took, without the first warm ones, and how often ImageKit was asked. It fails unless
// every row stands.
func (s *stage) backlog(ctx context.Context, database string, library *account, files []stored, perEnvelope, warm int) (o outcome, err error) {
	w, err := s.service(ctx, database, library)
	if err != nil {
		return o, err
	}
	defer w.close()
	w.watch.warm = int64(warm)
	if err := w.publish(ctx, files, perEnvelope); err != nil {
		return o, err
	}
	before, err := rows(ctx, database)
	if err != nil {
		return o, err
	}
	calls, err := library.calls(ctx)
	if err != nil {
		return o, err
	}
	if err := s.settleDown(ctx); err != nil {
		return o, err
	}
	used := s.processorTimes(library)
	if err := w.begin(ctx, len(files)); err != nil {
		return o, err
	}
	if o.took, err = w.drained(ctx); err != nil {
		return o, err
	}
	o.used = s.processorTimes(library).less(used)
	after, errCalls := library.calls(ctx)
	now, errRows := rows(ctx, database)
	if err := errors.Join(errCalls, errRows); err != nil {
		return o, err
	}
	if now-before != int64(len(files)) {
		return o, fmt.Errorf("%d rows came of %d events", now-before, len(files))
	}
	o.calls = after - calls
	return o, nil
}

func rows(ctx context.Context, database string) (n int64, err error) {
	return n, ask(ctx, database, `SELECT count(*) FROM public.imagekit_files`, &n)
}
