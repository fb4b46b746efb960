package reconcile

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing/synctest"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/run"
)

// world is everything around a Reconciler, in memory: ImageKit's library, the rows, what
// runs keep there, the queue, and a worker that settles what is published. It is strict:
// it refuses what the rows' own rules refuse, and notes in wrong what must never happen.
type world struct {
	mu   sync.Mutex
	held bool // by the test

	// ImageKit.
	shelf   map[string]file.Snapshot
	page    int // rows of a page
	queries []query
	listing func(q query, a file.Answer) (file.Answer, error) // nil: as it is
	details func(id string) error                             // nil: as it is

	// The rows.
	rows  map[string]string // content, by file
	state map[string]standing
	fence int64
	// fenceAsked is the last fence when a file was last looked up by id.
	fenceAsked map[string]int64
	doubt      string // whether a hit may not decide a file: those whose id has this prefix
	// behind: files with this prefix stay unsettled.
	stuck string

	// What runs keep.
	turn     int64
	paused   bool
	runs     []run.Run
	findings map[string]map[string]*run.Finding // by run, by file
	drawn    map[string]bool                    // event ids; true: confirmed
	settled  map[string]bool
	latched  string
	today    int64
	doubted  string
	account  run.Account
	starts   int
	asked    int // OpenRun and LastRuns

	// The queue.
	stored map[string][]string // event ids by file
	full   error

	wrong         []string
	crash         context.CancelFunc // ends the process
	calls         []string
	before, after func(call string, n int) error
}

type query struct {
	From time.Time
	Skip int
}

// standing is what file_state says.
type standing struct {
	seen                 int64
	gone, unowned, other bool // other: user_id is not the owner
	suspect              bool
}

func newWorld() *world {
	return &world{shelf: map[string]file.Snapshot{}, page: 20, rows: map[string]string{}, state: map[string]standing{}, fence: 100, fenceAsked: map[string]int64{}, doubt: "ask",
		stuck: "stuck", turn: 1, findings: map[string]map[string]*run.Finding{}, drawn: map[string]bool{}, settled: map[string]bool{}, stored: map[string][]string{}}
}

// put puts a file on ImageKit's shelf, made n minutes after all began.
func (d *world) put(id string, n int, version string, tickets ...string) {
	at := time.Date(2025, 1, 1, 0, n, 0, 0, time.UTC)
	d.shelf[id] = file.Snapshot{ID: id, Name: &version, CreatedAt: at, UpdatedAt: at, Tickets: tickets}
}

// keep lets a row stand that we know.
func (d *world) keep(id, version string) {
	d.rows[id], d.state[id] = version, standing{seen: 1}
}

// call is one call of a door; calls fail before they do anything, or after.
func (d *world) call(name string, f func() error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls = append(d.calls, name)
	n := len(d.calls)
	if d.before != nil {
		if err := d.before(name, n); err != nil {
			return err
		}
	}
	if err := f(); err != nil {
		return err
	}
	if d.after != nil {
		return d.after(name, n)
	}
	return nil
}

// quiet waits until nothing moves and keeps it so, for the test to look, until release.
func (d *world) quiet() {
	synctest.Wait()
	d.mu.Lock()
	d.held = true
}

func (d *world) release() {
	if d.held {
		d.held = false
		d.mu.Unlock()
	}
}

func (d *world) never(format string, args ...any) {
	d.wrong = append(d.wrong, fmt.Sprintf(format, args...))
}

// Library.

func (d *world) ListCreated(_ context.Context, from time.Time, skip int) (a file.Answer, err error) {
	err = d.call("list", func() error {
		q := query{from, skip}
		d.queries = append(d.queries, q)
		files := slices.SortedFunc(maps.Values(d.shelf), func(a, b file.Snapshot) int {
			return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
		})
		files = slices.DeleteFunc(files, func(s file.Snapshot) bool { return s.CreatedAt.Before(from) })
		files = files[min(skip, len(files)):]
		files = files[:min(d.page, len(files))]
		a = file.Answer{Status: 200, RequestID: fmt.Sprint("req-", len(d.queries)), Snapshots: slices.Clone(files), Rows: len(files)}
		if d.listing != nil {
			a, err = d.listing(q, a)
			return err
		}
		return nil
	})
	return a, err
}

func (d *world) ListUpdated(context.Context, time.Time, int) (file.Answer, error) {
	panic("a run does not poll")
}

func (d *world) Newest(context.Context) (file.Answer, error) { panic("a run does not poll") }

func (d *world) Healthy(context.Context) error { return nil }

func (d *world) Details(_ context.Context, id string) (a file.Answer, err error) {
	err = d.call("details", func() error {
		d.fenceAsked[id] = d.fence
		if d.details != nil {
			if err := d.details(id); err != nil {
				return err
			}
		}
		s, ok := d.shelf[id]
		if !ok {
			return &file.Fault{Kind: file.NotFound, Status: 404}
		}
		a = file.Answer{Status: 200, Snapshots: []file.Snapshot{s}}
		return nil
	})
	return a, err
}

// Runs.

func (d *world) StartRun(_ context.Context, r run.Run) (run.Run, error) {
	err := d.call("start", func() error {
		d.starts++
		for _, o := range d.runs {
			if o.State.Open() {
				return fmt.Errorf("run %s: %w", o.ID, run.ErrUnderWay)
			}
		}
		r.ID, r.State, r.StartedAt = fmt.Sprintf("R%d", len(d.runs)+1), run.Running, time.Now()
		d.runs = append(d.runs, r)
		return nil
	})
	return r, err
}

func (d *world) OpenRun(context.Context) (open run.Run, ok bool, err error) {
	err = d.call("open", func() error {
		d.asked++
		for _, r := range d.runs {
			if r.State.Open() {
				open, ok = d.counted(r), true
			}
		}
		return nil
	})
	return open, ok, err
}

func (d *world) counted(r run.Run) run.Run {
	r.Found, r.Unsettled, r.Notes = map[run.FindingKind]map[run.Status]int64{}, 0, slices.Clone(r.Notes)
	for _, f := range d.findings[r.ID] {
		if r.Found[f.Kind] == nil {
			r.Found[f.Kind] = map[run.Status]int64{}
		}
		r.Found[f.Kind][f.Status]++
		if f.Event != "" && !d.settled[f.Event] {
			r.Unsettled++
		}
	}
	return r
}

func (d *world) LastRuns(context.Context) (began, complete run.Run, err error) {
	err = d.call("last", func() error {
		d.asked++
		for _, r := range d.runs {
			if r.Kind == run.Full {
				began = r
			}
			if r.State == run.Complete {
				complete = r
			}
		}
		return nil
	})
	return began, complete, err
}

// writes is a call that changes something for a run, in a turn.
func (d *world) writes(name string, turn int64, id string, f func(r *run.Run) error) error {
	return d.call(name, func() error {
		if turn != d.turn {
			return fmt.Errorf("%s: %w", name, event.ErrTurnMoved)
		}
		if d.paused {
			return fmt.Errorf("%s: %w", name, event.ErrPaused)
		}
		for i := range d.runs {
			if d.runs[i].ID != id {
				continue
			}
			if !d.runs[i].State.Open() {
				return fmt.Errorf("%s: run is %s: %w", name, d.runs[i].State, run.ErrEnded)
			}
			return f(&d.runs[i])
		}
		return fmt.Errorf("%s: %w", name, run.ErrEnded)
	})
}

func (d *world) SaveRun(_ context.Context, turn int64, r run.Run) error {
	return d.writes("save", turn, r.ID, func(had *run.Run) error { return d.replace(had, r, had.State) })
}

func (d *world) FinishRun(_ context.Context, turn int64, r run.Run) error {
	for _, had := range d.snapshotOfRuns() {
		if had.ID == r.ID && had.State == r.State {
			return d.call("finish", func() error { return nil })
		}
	}
	return d.writes("finish", turn, r.ID, func(had *run.Run) error {
		if r.State == run.Complete {
			d.checkComplete(&r)
		}
		r.FinishedAt = time.Now()
		had.FinishedAt = r.FinishedAt
		return d.replace(had, r, r.State)
	})
}

func (d *world) snapshotOfRuns() []run.Run {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.runs)
}

// replace keeps what only operators decide.
func (d *world) replace(had *run.Run, r run.Run, state run.State) error {
	r.Kind, r.State, r.ExpectedDeletions, r.AccountAcceptedBy, r.StartedAt, r.FinishedAt = had.Kind, state, had.ExpectedDeletions, had.AccountAcceptedBy, had.StartedAt, had.FinishedAt
	if r.Fence < had.Fence {
		d.never("the fence went back")
	}
	r.Notes = slices.Clone(r.Notes)
	*had = r
	return nil
}

// checkComplete holds a complete run to its word.
func (d *world) checkComplete(r *run.Run) {
	if !r.Whole || !r.Account.Confirmed || r.Fuse != "" {
		d.never("complete: whole %v, account %+v, fuse %q", r.Whole, r.Account, r.Fuse)
	}
	for id, f := range d.findings[r.ID] {
		if f.Status == run.Found || f.Status == run.Refused {
			d.never("complete, and %s is %s %s", id, f.Kind, f.Status)
		}
	}
}
