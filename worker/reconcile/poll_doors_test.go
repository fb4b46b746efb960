package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/run"
)

// pollDoors is ImageKit's listing by updatedAt, the queue, and of the database exactly
// what a poll may use: everything else of it is a nil method. It counts each call.
type pollDoors struct {
	Library
	Rows
	Brakes
	Positions
	t *testing.T

	files    map[string]time.Time // by id, updatedAt
	cap      int                  // rows of a page; 0 means 1,000
	noDate   bool
	skew     time.Duration // of ImageKit's Date header
	lists    int
	details  int
	page     func(a *file.Answer)  // may spoil a page
	listFail func() error          // instead of a page
	answers  func(id string) error // of details

	turn     int64
	position time.Time
	doubt    string
	known    []run.KnownFile
	fence    int64
	asked    int64           // the last fence when a file was last looked up by id
	suspect  map[string]bool // by id
	calls    map[string]int  // of the database, by method
	fed      map[string]int  // by "id updatedAt", how often written
	ask      map[string]bool
	slices   []int
	// before and after fail a call of the database or the queue, by method.
	before, after map[string]error

	published []event.Event
	log       *strings.Builder

	// handed is taken and let go by the test before it waits and by the poller before it
	// looks: what the test has changed is the poller's then.
	handed sync.Mutex
}

func (d *pollDoors) hand() {
	d.handed.Lock()
	defer d.handed.Unlock()
}

func newPollDoors(t *testing.T) *pollDoors {
	return &pollDoors{t: t, files: map[string]time.Time{}, turn: 7, calls: map[string]int{}, fed: map[string]int{}, ask: map[string]bool{}, suspect: map[string]bool{},
		before: map[string]error{}, after: map[string]error{}, log: &strings.Builder{}}
}

// in runs f in a bubble, with the doors' clock at 2000-01-01.
func inPoll(t *testing.T, f func(t *testing.T, d *pollDoors)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, newPollDoors(t)) })
}

func (d *pollDoors) poller(tune ...func(*PollConfig)) *Poller {
	d.t.Helper()
	c := PollConfig{Library: d, Rows: d, Brakes: d, Positions: d, Queue: d, Every: time.Minute,
		Logger: slog.New(slog.NewTextHandler(d.log, &slog.HandlerOptions{Level: slog.LevelInfo}))}
	for _, f := range tune {
		f(&c)
	}
	p, err := NewPoller(c)
	if err != nil {
		d.t.Fatal(err)
	}
	return p
}

// start runs a poller until the returned function is called.
func (d *pollDoors) start(tune ...func(*PollConfig)) (stop func()) {
	d.t.Helper()
	p := d.poller(tune...)
	ctx, cancel := context.WithCancel(d.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := p.Run(ctx, d.turn); err != nil {
			d.t.Error(err)
		}
	}()
	synctest.Wait()
	return func() { cancel(); <-done }
}

// polls lets the next n polls happen.
func (d *pollDoors) polls(n int) {
	d.hand()
	for range n {
		<-time.After(time.Minute)
		synctest.Wait()
	}
}

// update gives n files, named after a prefix, a new updatedAt, the last one now.
func (d *pollDoors) update(prefix string, n int, step time.Duration) {
	for i := range n {
		d.files[fmt.Sprintf("%s-%05d", prefix, i)] = time.Now().Add(-time.Duration(n-1-i) * step)
	}
}

func (d *pollDoors) Newest(context.Context) (file.Answer, error) {
	d.hand()
	d.lists++
	all := d.sorted(time.Time{})
	a := file.Answer{Status: 200, Date: d.date()}
	if n := len(all); n > 0 {
		a.Snapshots, a.Rows = all[n-1:], 1
	}
	return a, nil
}

func (d *pollDoors) date() time.Time {
	if d.noDate {
		return time.Time{}
	}
	return time.Now().Add(d.skew).Truncate(time.Second)
}

func (d *pollDoors) sorted(from time.Time) (out []file.Snapshot) {
	for id, at := range d.files {
		if !at.Before(from) {
			out = append(out, file.Snapshot{ID: id, URL: "u", UpdatedAt: at})
		}
	}
	slices.SortFunc(out, func(a, b file.Snapshot) int {
		return cmp.Or(a.UpdatedAt.Compare(b.UpdatedAt), cmp.Compare(a.ID, b.ID))
	})
	return out
}

func (d *pollDoors) ListUpdated(_ context.Context, from time.Time, skip int) (file.Answer, error) {
	d.hand()
	d.lists++
	if !from.Equal(from.Truncate(time.Second)) {
		d.t.Errorf("asked from %v, and ImageKit knows seconds", from)
	}
	if d.listFail != nil {
		if err := d.listFail(); err != nil {
			return file.Answer{}, err
		}
	}
	all := d.sorted(from)
	all = all[min(skip, len(all)):]
	all = all[:min(len(all), cmp.Or(d.cap, 1000))]
	a := file.Answer{Status: 200, RequestID: "r", Snapshots: all, Rows: len(all), Date: d.date()}
	if d.page != nil {
		d.page(&a)
	}
	return a, nil
}

func (d *pollDoors) Details(_ context.Context, id string) (file.Answer, error) {
	d.details++
	d.asked = d.fence
	if d.answers != nil {
		if err := d.answers(id); err != nil {
			return file.Answer{}, err
		}
	}
	return file.Answer{Status: 200, Snapshots: []file.Snapshot{{ID: id, CreatedAt: knownSince}}}, nil
}

var knownSince = time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)

// call counts one call of the database; done says whether it fails after it was done.
func (d *pollDoors) call(method string, do func()) error {
	d.hand()
	d.calls[method]++
	if err := d.before[method]; err != nil {
		delete(d.before, method)
		return err
	}
	do()
	err := d.after[method]
	delete(d.after, method)
	return err
}

func (d *pollDoors) KnownFiles(_ context.Context, n int) (known []run.KnownFile, err error) {
	err = d.call("KnownFiles", func() { known = d.known[:min(n, len(d.known))] })
	return known, err
}

func (d *pollDoors) Fence(_ context.Context, ids []string) (f file.Fence, known map[string]file.Known, err error) {
	err = d.call("Fence", func() {
		d.fence++
		f.Number, known = d.fence, map[string]file.Known{}
		for _, id := range ids {
			known[id] = file.Known{Seen: true, Live: true, Suspect: d.suspect[id]}
		}
	})
	return f, known, err
}

func (d *pollDoors) Account(context.Context) (a run.Account, doubt string, err error) {
	err = d.call("Account", func() { doubt = d.doubt })
	return a, doubt, err
}

func (d *pollDoors) PollPosition(context.Context) (at time.Time, err error) {
	err = d.call("PollPosition", func() { at = d.position })
	return at, err
}

func (d *pollDoors) SavePollPosition(_ context.Context, turn int64, at time.Time) error {
	if turn != d.turn {
		return event.ErrTurnMoved
	}
	return d.call("SavePollPosition", func() { d.position = at })
}

func (d *pollDoors) Repair(_ context.Context, turn int64, runID string, fence int64, hits []file.Observation) (map[string]run.Repair, error) {
	did := map[string]run.Repair{}
	if turn != d.turn {
		return nil, event.ErrTurnMoved
	}
	if runID != "" || fence != 0 {
		d.t.Errorf("a poll has no run: %q, %d", runID, fence)
	}
	if len(hits) == 1 && hits[0].How == file.LookUp {
		return d.clearSuspect(hits[0])
	}
	err := d.call("Repair", func() {
		d.slices = append(d.slices, len(hits))
		for _, h := range hits {
			if h.How != file.Hit || h.Snapshot == nil || h.Snapshot.ID != h.FileID || did[h.FileID] != "" {
				d.t.Errorf("fed %+v", h)
			}
			if did[h.FileID] = run.RepairDone; d.ask[h.FileID] {
				did[h.FileID] = run.RepairAsk
			}
			d.fed[h.FileID+" "+h.Snapshot.UpdatedAt.String()]++
		}
	})
	if err != nil {
		return nil, err
	}
	return did, nil
}

// clearSuspect is Repair with a look-up of a suspect file.
func (d *pollDoors) clearSuspect(o file.Observation) (map[string]run.Repair, error) {
	did := map[string]run.Repair{o.FileID: run.RepairDone}
	if d.ask[o.FileID] {
		did[o.FileID] = run.RepairAsk
	}
	err := d.call("ClearSuspect", func() {
		if !d.suspect[o.FileID] || o.Snapshot == nil || o.Snapshot.ID != o.FileID || o.Fence.Number == 0 || o.Fence.Number > d.asked {
			d.t.Errorf("told %+v, asked when %d was the last fence", o, d.asked)
		}
		delete(d.suspect, o.FileID)
	})
	if err != nil {
		return nil, err
	}
	return did, nil
}

func (d *pollDoors) Publish(_ context.Context, events []event.Event) error {
	return d.call("Publish", func() { d.published = append(d.published, events...) })
}

// wantFed demands that every version that ImageKit shows of these files, and of no
// others, was fed, each once.
func (d *pollDoors) wantFed(want int) {
	d.t.Helper()
	if len(d.fed) != want {
		d.t.Errorf("%d versions fed, want %d", len(d.fed), want)
	}
	for k, n := range d.fed {
		if n != 1 {
			d.t.Errorf("%s was fed %d times", k, n)
		}
	}
}

func (d *pollDoors) queries() (n int) {
	for _, c := range d.calls {
		n += c
	}
	return n
}

var errAway = errors.New("away")
