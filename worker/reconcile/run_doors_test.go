package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
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
	doubt string // whether a hit may not decide a file: those whose id has this prefix
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
}

func newWorld() *world {
	return &world{shelf: map[string]file.Snapshot{}, page: 20, rows: map[string]string{}, state: map[string]standing{}, fence: 100, doubt: "ask",
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

// Rows.

func (d *world) Fence(context.Context, []string) (f file.Fence, known map[string]file.Known, err error) {
	err = d.call("fence", func() error {
		d.fence++
		f = file.Fence{Number: d.fence, At: time.Now()}
		return nil
	})
	return f, nil, err
}

func (d *world) KnownFiles(_ context.Context, n int) (known []run.KnownFile, err error) {
	err = d.call("known", func() error {
		for _, id := range slices.Sorted(maps.Keys(d.rows)) {
			if _, ok := d.state[id]; ok && len(known) < n {
				known = append(known, run.KnownFile{FileID: id, CreatedAt: d.shelf[id].CreatedAt})
			}
		}
		return nil
	})
	return known, err
}

func content(version string) int64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(version))
	return int64(h.Sum64()) //nolint:gosec // its bits
}

func (d *world) Hash(_ context.Context, snapshots []*file.Snapshot) (out []int64, err error) {
	err = d.call("hash", func() error {
		for _, s := range snapshots {
			out = append(out, content(*s.Name))
		}
		return nil
	})
	return out, err
}

func (d *world) Local(_ context.Context, id string, fence int64, yield func(run.Local) error) error {
	var all []run.Local
	err := d.call("local", func() error {
		if fence == 0 {
			d.never("compared without a fence")
		}
		ids := map[string]bool{}
		for id := range d.rows {
			ids[id] = true
		}
		for id := range d.state {
			ids[id] = true
		}
		for _, id := range slices.Sorted(maps.Keys(ids)) {
			version, live := d.rows[id]
			s, known := d.state[id]
			all = append(all, run.Local{FileID: id, Live: live, Known: known, Gone: s.gone, Moved: s.seen > fence, Hash: content(version), Followed: !s.other, Unowned: s.unowned})
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, l := range all {
		if err := yield(l); err != nil {
			return err
		}
	}
	return nil
}

func (d *world) Differences(_ context.Context, snapshots []*file.Snapshot) (out map[string][]run.Difference, err error) {
	err = d.call("differences", func() error {
		out = map[string][]run.Difference{}
		for _, s := range snapshots {
			if version, live := d.rows[s.ID]; live && version != *s.Name {
				out[s.ID] = []run.Difference{{Column: "file_name", Row: &version, ImageKit: s.Name}}
			}
		}
		return nil
	})
	return out, err
}

func (d *world) SaveFindings(_ context.Context, turn int64, id string, findings []run.Finding) error {
	return d.writes("findings", turn, id, func(*run.Run) error {
		if d.findings[id] == nil {
			d.findings[id] = map[string]*run.Finding{}
		}
		for _, f := range findings {
			if d.findings[id][f.FileID] == nil {
				d.findings[id][f.FileID] = &f
			}
			if f.Status == "" || len(f.Evidence) == 0 {
				d.never("a finding without status or evidence: %+v", f)
			}
		}
		return nil
	})
}

func (d *world) open(id string, kinds []run.FindingKind, after string, limit int) (out []*run.Finding) {
	for _, of := range slices.Sorted(maps.Keys(d.findings[id])) {
		f := d.findings[id][of]
		if of > after && f.Status == run.Found && f.Event == "" && slices.Contains(kinds, f.Kind) && len(out) < limit {
			out = append(out, f)
		}
	}
	return out
}

func (d *world) OpenFindings(_ context.Context, id string, kinds []run.FindingKind, after string, limit int) (out []run.Finding, err error) {
	err = d.call("openFindings", func() error {
		for _, f := range d.open(id, kinds, after, limit) {
			out = append(out, *f)
		}
		return nil
	})
	return out, err
}

func (d *world) CloseFindings(_ context.Context, turn int64, id string, kinds []run.FindingKind, status run.Status, reason string) (n int64, err error) {
	err = d.writes("close", turn, id, func(*run.Run) error {
		for _, f := range d.open(id, kinds, "", 1<<30) {
			f.Status, f.Reason = status, reason
			n++
		}
		return nil
	})
	return n, err
}

func (d *world) Repair(_ context.Context, turn int64, id string, fence int64, hits []file.Observation) (did map[string]run.Repair, err error) {
	err = d.writes("repair", turn, id, func(r *run.Run) error {
		if r.Kind == run.Plan && r.State != run.Applying {
			d.never("a plan repairs")
		}
		did = map[string]run.Repair{}
		for i := range hits {
			did[hits[i].FileID] = d.repairOne(id, fence, &hits[i])
		}
		return nil
	})
	return did, err
}

func (d *world) repairOne(id string, fence int64, hit *file.Observation) run.Repair {
	if hit.How != file.Hit || hit.Snapshot == nil || hit.Snapshot.ID != hit.FileID || hit.Fence.Number < fence {
		d.never("not a hit: %+v", hit)
	}
	f := d.findings[id][hit.FileID]
	s, known := d.state[hit.FileID]
	version, live := d.rows[hit.FileID]
	switch {
	case f == nil:
		d.never("a hit on %s, of which nothing was found", hit.FileID)
		return run.RepairSame
	case s.seen > fence:
		f.Status, f.Reason = run.Skipped, run.ReasonMoved
		return run.RepairMoved
	case prefixed(hit.FileID, d.doubt) || s.gone:
		return run.RepairAsk
	case live && known && version == *hit.Snapshot.Name && !s.other && !s.unowned:
		f.Status, f.Reason = run.Skipped, run.ReasonSameByNow
		return run.RepairSame
	}
	d.fence++
	d.rows[hit.FileID], d.state[hit.FileID] = *hit.Snapshot.Name, standing{seen: 1}
	f.Status = run.Repaired
	return run.RepairDone
}

func prefixed(id, prefix string) bool { return len(id) >= len(prefix) && id[:len(prefix)] == prefix }

func (d *world) TakeFindings(_ context.Context, turn int64, id string, kinds []run.FindingKind, limit int) (events []event.Event, err error) {
	err = d.writes("take", turn, id, func(*run.Run) error {
		for _, of := range slices.Sorted(maps.Keys(d.findings[id])) {
			if f := d.findings[id][of]; f.Event != "" && !d.drawn[f.Event] && len(events) < limit {
				events = append(events, event.Event{ID: f.Event, FileID: of, Source: event.Reconcile})
			}
		}
		if len(events) > 0 {
			return nil
		}
		for _, f := range d.open(id, kinds, "", limit) {
			f.Event = fmt.Sprintf("E%05d", len(d.drawn)+1)
			d.drawn[f.Event] = false
			events = append(events, event.Event{ID: f.Event, FileID: f.FileID, Source: event.Reconcile})
		}
		return nil
	})
	return events, err
}

func (d *world) ConfirmFindings(_ context.Context, turn int64, id string, ids []string) error {
	return d.writes("confirm", turn, id, func(*run.Run) error {
		for _, e := range ids {
			if _, ok := d.drawn[e]; !ok {
				d.never("confirmed %s, which was never drawn", e)
			}
			d.drawn[e] = true
		}
		return nil
	})
}

// Unsettled is where the worker of this world gets its turn: every published event is
// settled when somebody looks.
func (d *world) Unsettled(_ context.Context, id string) (n int64, err error) {
	err = d.call("unsettled", func() error {
		for _, r := range d.runs {
			if r.ID == id {
				n = d.counted(r).Unsettled
			}
		}
		for of, ids := range d.stored {
			for _, e := range ids {
				if !d.settled[e] && !prefixed(of, d.stuck) {
					d.settle(of, e)
				}
			}
		}
		return nil
	})
	return n, err
}

// settle looks the file up by id and does what that says.
func (d *world) settle(id, e string) {
	d.settled[e] = true
	var f *run.Finding
	for _, of := range d.findings {
		if of[id] != nil && of[id].Event == e {
			f = of[id]
		}
	}
	s, there := d.shelf[id]
	_, live := d.rows[id]
	switch {
	case there && f.Kind == run.Orphaned:
		f.Status, f.Reason = run.Skipped, run.ReasonPresent
	case there:
		d.rows[id], d.state[id] = *s.Name, standing{seen: d.fence}
		f.Status = run.Repaired
	case !live:
		f.Status, f.Reason = run.Skipped, run.ReasonSameByNow
	case d.latched != "":
		f.Status, f.Reason = run.Refused, run.ReasonFuse
	default:
		delete(d.rows, id)
		d.today++
		d.state[id] = standing{seen: d.fence, gone: true}
		f.Status = run.Repaired
	}
}

// Brakes.

func (d *world) LatchFuse(_ context.Context, turn int64, id, why string) error {
	return d.writes("latch", turn, id, func(r *run.Run) error {
		if r.Kind == run.Plan && r.State != run.Applying {
			d.never("a plan latches")
		}
		if d.latched == "" {
			d.latched = why
		}
		return nil
	})
}

func (d *world) Fuse(context.Context) (latched bool, today, live int64, err error) {
	err = d.call("fuse", func() error {
		latched, today, live = d.latched != "", d.today, int64(len(d.rows))
		return nil
	})
	return latched, today, live, err
}

func (d *world) DoubtAccount(_ context.Context, turn int64, id, why string) error {
	return d.writes("doubt", turn, id, func(r *run.Run) error {
		if r.Kind == run.Plan && r.State != run.Applying {
			d.never("a plan doubts")
		}
		if d.doubted = why; why == "" {
			d.account = r.Account
		}
		return nil
	})
}

func (d *world) Account(context.Context) (last run.Account, doubt string, err error) {
	err = d.call("account", func() error {
		last, doubt = d.account, d.doubted
		return nil
	})
	return last, doubt, err
}

// Publisher.

func (d *world) Publish(_ context.Context, events []event.Event) error {
	return d.call("publish", func() error {
		if d.full != nil {
			return d.full
		}
		for _, e := range events {
			if !slices.Contains(d.stored[e.FileID], e.ID) {
				d.stored[e.FileID] = append(d.stored[e.FileID], e.ID)
			}
			if _, ok := d.drawn[e.ID]; !ok {
				d.never("published %s, which was never drawn", e.ID)
			}
		}
		out := 0
		for id := range d.drawn {
			if !d.settled[id] {
				out++
			}
		}
		if out > 500 {
			d.never("%d events under way", out)
		}
		return nil
	})
}

var errCrash = errors.New("the process ended here")
