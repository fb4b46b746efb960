package campaign

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// ailments are what ImageKit answers wrongly, with their shares of all reading calls;
// together a fifth. The rare 429 is rare on purpose: each one stops all calls until its
// reset and halves the rate, so that a share of 2 % would test nothing but waiting;
// bursts of them come beside (rateBursts).
var ailments = []struct {
	cell  string
	share float64
	fault map[string]any
}{
	{"imagekit/500", 0.03, map[string]any{"status": 500, "body": map[string]any{"message": "planted"}}},
	{"imagekit/502-html", 0.03, map[string]any{"status": 502, "body": "<html><body>Bad Gateway</body></html>", "headers": map[string]string{"Content-Type": "text/html"}}},
	{"imagekit/503-after", 0.03, map[string]any{"status": 503, "after": true, "body": map[string]any{"message": "planted"}}},
	{"imagekit/504", 0.03, map[string]any{"status": 504, "body": ""}},
	{"imagekit/200-html", 0.02, map[string]any{"status": 200, "body": "<html><body>maintenance</body></html>", "headers": map[string]string{"Content-Type": "text/html"}}},
	{"imagekit/200-truncated", 0.0145, map[string]any{"status": 200, "body": `{"fileId":"`, "headers": map[string]string{"Content-Type": "application/json"}}},
	{"imagekit/200-wrong-shape", 0.01, map[string]any{"status": 200, "body": map[string]any{"message": "ok"}}},
	{"imagekit/cut", 0.03, map[string]any{"close": true}},
	{"imagekit/timeout", 0.005, map[string]any{"path": "/v1/files/*/details", "latency": "30s"}},
	{"imagekit/429-reset", 0.0005, map[string]any{"status": 429, "headers": map[string]string{"X-RateLimit-Limit": "1000000", "X-RateLimit-Reset": "20", "X-RateLimit-Interval": "1000"}}},
}

// ail plants the ailments and returns the cell of each fault's number. Faults are tried
// in their order, so each one's probability is of what those before it leave.
func (r *rig) ail() (map[int]string, error) {
	cells, left := map[int]string{}, 1.0
	for _, a := range ailments {
		fault := map[string]any{"method": "GET", "path": "/v1/files*", "probability": a.share / left}
		for k, v := range a.fault {
			fault[k] = v
		}
		id, err := r.Fault(fault)
		if err != nil {
			return nil, err
		}
		cells[id], left = a.cell, left-a.share
	}
	return cells, nil
}

// rateBurst is what a limit looks like when it is met: many calls in a row are refused.
var rateBurst = map[string]any{"method": "GET", "path": "/v1/files*", "status": 429, "times": 30,
	"headers": map[string]string{"X-RateLimit-Limit": "1000000", "X-RateLimit-Reset": "150", "X-RateLimit-Interval": "1000"}}

// killer ends processes at seeded moments until it is stopped, and starts them again.
type killer struct {
	r      *rig
	rng    *rand.Rand
	every  time.Duration // on average
	turns  jetstream.KeyValue
	bursts []int // numbers of the bursts' faults

	mu    sync.Mutex
	cells map[string]int64
	spare int64 // kills of a worker put off, see mayDie
}

// victims and how often each is chosen. The active worker is found out at the moment.
var victims = []struct {
	name  string
	share int
}{{"active", 30}, {"worker", 10}, {"ingest", 35}, {"nats", 10}, {"postgres", 10}, {"burst", 5}}

// run kills until ctx is done; an error is the rig's, not trueup's.
func (k *killer) run(ctx context.Context) error {
	for {
		next := time.NewTimer(k.every/2 + time.Duration(k.rng.Int64N(int64(k.every))))
		if !comes(ctx, next.C) {
			next.Stop()
			return nil
		}
		if err := k.once(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// once kills one part and starts it again, at once or a little later.
func (k *killer) once(ctx context.Context) error {
	kind := k.choose()
	if kind == "burst" {
		id, err := k.r.Fault(rateBurst)
		k.bursts = append(k.bursts, id)
		return err
	}
	name, err := k.victim(ctx, kind)
	if err != nil {
		return err
	}
	if strings.HasPrefix(name, "worker") {
		if ok, err := k.mayDie(ctx, name); err != nil || !ok {
			return err
		}
	}
	if err := k.r.Kill9(name); err != nil {
		return err
	}
	k.hit("process/" + kind + "/kill9")
	down := time.NewTimer(time.Duration(k.rng.Int64N(int64(1500 * time.Millisecond))))
	comes(ctx, down.C)
	down.Stop()
	return k.r.Restart(name)
}

func (k *killer) hit(cell string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cells[cell]++
}

func (k *killer) choose() string {
	all := 0
	for _, v := range victims {
		all += v.share
	}
	n := k.rng.IntN(all)
	for _, v := range victims {
		if n -= v.share; n < 0 {
			return v.name
		}
	}
	return victims[0].name
}

func (k *killer) victim(ctx context.Context, kind string) (string, error) {
	switch kind {
	case "active":
		if name, err := k.r.active(ctx, k.turns); err == nil {
			return name, nil
		}
		fallthrough // nobody has the turn, or nobody can say
	case "worker":
		return fmt.Sprintf("worker%d", 1+k.rng.IntN(len(k.r.ops))), nil
	case "ingest":
		return fmt.Sprintf("ingest%d", 1+k.rng.IntN(len(k.r.public))), nil
	case "nats":
		return fmt.Sprintf("nats%d", 1+k.rng.IntN(len(k.r.nodes))), nil
	}
	return kind, nil
}

// active is the worker that holds the turn, by the entry in the turn's bucket.
func (r *rig) active(ctx context.Context, turns jetstream.KeyValue) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	entry, err := turns.Get(ctx, "turn")
	if err != nil {
		return "", err
	}
	var holder struct{ PID int }
	if err := json.Unmarshal(entry.Value(), &holder); err != nil {
		return "", err
	}
	for i := range r.ops {
		if name := fmt.Sprintf("worker%d", i+1); r.units[name].pid() == holder.PID {
			return name, nil
		}
	}
	return "", fmt.Errorf("process %d holds the turn, and is none of ours", holder.PID)
}

// mayDie freezes a worker and says whether a kill may end it now. It may not while an
// event is on its last trial: a process that ends then has ended four times over this
// event, and by trueup's rule (an event's own mark survives three crashes) that is what
// poison is. The rule cannot know that we did it. The worker goes on in that case.
func (k *killer) mayDie(ctx context.Context, name string) (bool, error) {
	if err := k.r.Freeze(name); err != nil {
		return false, err
	}
	// What it sent before it froze may still be under way in the database.
	asking, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	err := until(asking, func() error {
		var trials, busy int
		err := k.r.db.QueryRow(asking, `SELECT (SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid() AND usename <> current_user),
			(SELECT count(*) FROM trueup.trial_marks WHERE marks >= 3)`).Scan(&busy, &trials)
		if err == nil && trials+busy > 0 {
			err = fmt.Errorf("%d events on their last trial, %d statements under way", trials, busy)
		}
		return err
	})
	if err == nil {
		return true, nil
	}
	k.mu.Lock()
	k.spare++
	k.mu.Unlock()
	return false, k.r.Thaw(name)
}

// pacer holds the senders back while the stream holds too much, so that ingest stays
// under load for as long as the worker is.
type pacer struct {
	stream func(context.Context) (jetstream.StreamState, error)
	rate   float64 // most events a second; zero: any

	mu   sync.Mutex
	open chan struct{} // closed while sending may go on
	next time.Time     // when the next request may leave
}

// fullStream is how many bytes the stream may hold: some 20,000 events, many times what
// a worker takes at once.
const fullStream = 8 << 20

func newPacer(js jetstream.JetStream) *pacer {
	open := make(chan struct{})
	close(open)
	return &pacer{open: open, stream: func(ctx context.Context) (jetstream.StreamState, error) {
		s, err := js.Stream(ctx, strings.ToUpper(streamPrefix)+"_EVENTS")
		if err != nil {
			return jetstream.StreamState{}, err
		}
		return s.CachedInfo().State, nil
	}}
}

// run watches the stream until ctx is done.
func (p *pacer) run(ctx context.Context) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		if !comes(ctx, tick.C) {
			return nil
		}
		asking, cancel := context.WithTimeout(ctx, 2*time.Second)
		now, err := p.stream(asking)
		cancel()
		if err == nil { // else the server is down, and nobody gets anything stored
			p.set(now.Bytes <= fullStream)
		}
	}
}

func (p *pacer) set(open bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.open:
		if !open {
			p.open = make(chan struct{})
		}
	default:
		if open {
			close(p.open)
		}
	}
}

// pass waits while the stream is too full, or so many events would be too many.
func (p *pacer) pass(ctx context.Context, events int) error {
	p.mu.Lock()
	open, wait := p.open, time.Duration(0)
	if p.rate > 0 {
		now := time.Now()
		if p.next.Before(now) {
			p.next = now
		}
		wait = p.next.Sub(now)
		p.next = p.next.Add(time.Duration(float64(events) / p.rate * float64(time.Second)))
	}
	p.mu.Unlock()
	turn := time.NewTimer(wait)
	defer turn.Stop()
	if !comes(ctx, turn.C) || !comes(ctx, open) {
		return context.Cause(ctx)
	}
	return nil
}

// comes waits for c and says whether it came before ctx was done.
func comes[T any](ctx context.Context, c <-chan T) bool {
	select {
	case <-c:
		return true
	case <-ctx.Done():
		return false
	}
}

// actor changes the library while the events are under way, by hand of its own: uploads,
// new versions, tags, deletions. ImageKit's own webhooks tell of these.
type actor struct {
	plan  *plan
	files *catalogue
	shelf *shelf
	rng   *rand.Rand
	every time.Duration
	// mature says that enough rows stand for a deletion to be one of many.
	mature func() bool

	mu    sync.Mutex
	moved map[int]history // of the plan's files, what else befell them
	made  []string        // ids of new ones
	cells map[string]int64
}

func (a *actor) run(ctx context.Context) error {
	tick := time.NewTicker(a.every)
	defer tick.Stop()
	for n := 0; ; n++ {
		if !comes(ctx, tick.C) {
			return nil
		}
		if err := a.once(ctx, n); err != nil && ctx.Err() == nil && !errors.Is(err, http.ErrServerClosed) {
			return err
		}
	}
}

func (a *actor) once(ctx context.Context, n int) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	file := a.rng.IntN(a.plan.files)
	act := []history{untouched, untouched, retagged, retagged, overwritten, erased}[a.rng.IntN(6)]
	_, before := a.moved[file]
	switch {
	case act == untouched, before, a.plan.historyOf(file) != untouched:
		id, err := a.shelf.put(ctx, "/later", fmt.Sprintf("later-%d.png", n), a.rng.Uint64())
		if err != nil {
			return err
		}
		a.made = append(a.made, id)
		a.cells["library/upload"]++
		return nil
	// Few: unannounced absences of live rows count against the fuse until their webhook comes.
	case act == erased && a.mature() && len(a.moved) < a.plan.files/20:
		a.cells["library/delete"]++
		a.moved[file] = erased
		return a.shelf.erase(ctx, a.files.id(file))
	case act == overwritten:
		a.cells["library/overwrite"]++
		a.moved[file] = overwritten
		_, err := a.shelf.put(ctx, millionFolder, fmt.Sprintf("gen0_%d.png", file), a.rng.Uint64())
		return err
	}
	a.cells["library/update"]++
	a.moved[file] = retagged
	return a.shelf.retag(ctx, a.files.id(file), "autumn", fmt.Sprint("n", n))
}
