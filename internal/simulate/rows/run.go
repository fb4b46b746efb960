package rows

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/run"
	"github.com/trueup/trueup/internal/store"
)

// openRun is the run, which must be under way.
func (db *Database) openRun(id string) (*keptRun, error) {
	r := db.runs[id]
	switch {
	case r == nil:
		return nil, fmt.Errorf("run %s is not there any more: %w", id, run.ErrEnded)
	case !r.State.Open():
		return nil, fmt.Errorf("run %s is %s: %w", id, r.State, run.ErrEnded)
	}
	return r, nil
}

// underWay is the run under way, or nil.
func (db *Database) underWay() *keptRun {
	for _, r := range db.runs {
		if r.State.Open() {
			return r
		}
	}
	return nil
}

// inRun is do for what a run does in a turn.
func (d *Door) inRun(ctx context.Context, method string, turn int64, runID string, f func(*keptRun) error) error {
	return d.do(ctx, method, runID, func() error {
		if err := d.db.guard(turn); err != nil {
			return err
		}
		r, err := d.db.openRun(runID)
		if err != nil {
			return err
		}
		return f(r)
	})
}

// StartRun stores a run that is to begin; the same caller with the same key gets the run
// that is there, and while one is under way it wraps run.ErrUnderWay and returns that one.
func (d *Door) StartRun(ctx context.Context, r run.Run) (out run.Run, err error) {
	if r.Kind != run.Plan && r.Kind != run.Full {
		return run.Run{}, fmt.Errorf("start run: %q is no kind of a run", r.Kind)
	}
	underWay := false
	err = d.do(ctx, "StartRun", r.Key, func() error {
		first, open := d.db.runOfKey(r.StartedBy, r.Key), d.db.underWay()
		underWay = first == nil && open != nil
		switch {
		case first != nil && first.Kind != r.Kind:
			return store.ErrKeyReused
		case first != nil:
			out = d.db.told(first)
		case underWay:
			out = d.db.told(open)
		default:
			out = d.db.told(d.db.begin(r))
		}
		return nil
	})
	switch {
	case err != nil:
		return run.Run{}, err
	case underWay:
		return out, fmt.Errorf("run %s: %w", out.ID, run.ErrUnderWay)
	}
	return out, nil
}

func (db *Database) runOfKey(by, key string) *keptRun {
	for _, r := range db.runs {
		if key != "" && r.Key == key && r.StartedBy == by {
			return r
		}
	}
	return nil
}

func (db *Database) begin(r run.Run) *keptRun {
	k := &keptRun{begun: db.writes, Run: run.Run{ID: db.newID(), Kind: r.Kind, State: run.Running, Phase: r.Phase, StartedBy: r.StartedBy, Note: r.Note, Key: r.Key,
		StartedAt: now(), ChangedAt: now()}}
	db.runs[k.ID], db.findings[k.ID] = k, map[string]*finding{}
	db.record(store.Act{Who: r.StartedBy, Note: r.Note, Key: r.Key}, "reconcile "+string(r.Kind), map[string]any{"run": k.ID})
	return k
}

// told is the run as far as it has come, with what became of its findings.
func (db *Database) told(k *keptRun) run.Run {
	r := db.uncounted(k)
	if k.found != nil {
		r.Found = k.found
		return r
	}
	for _, f := range db.findings[k.ID] {
		if r.Found == nil {
			r.Found = map[run.FindingKind]map[run.Status]int64{}
		}
		if r.Found[f.Kind] == nil {
			r.Found[f.Kind] = map[run.Status]int64{}
		}
		r.Found[f.Kind][f.Status]++
		if f.unsettled() {
			r.Unsettled++
		}
	}
	return r
}

func (db *Database) uncounted(k *keptRun) run.Run {
	r := k.Run
	r.Notes = append([]string{}, r.Notes...)
	if n := r.ExpectedDeletions; n != nil {
		expected := *n
		r.ExpectedDeletions = &expected
	}
	r.Found = maps.Clone(k.found)
	return r
}

// Run returns one run as far as it has come. It wraps event.ErrUnknown where there is none.
func (d *Door) Run(ctx context.Context, id string) (out run.Run, err error) {
	err = d.do(ctx, "Run", id, func() (err error) { out, err = d.db.runNamed(id); return err })
	if err != nil {
		return run.Run{}, err
	}
	return out, nil
}

func (db *Database) runNamed(id string) (run.Run, error) {
	k := db.runs[id]
	if k == nil {
		return run.Run{}, fmt.Errorf("run %s: %w", id, event.ErrUnknown)
	}
	return db.told(k), nil
}

// RunList returns up to limit runs, the youngest first, older than the id given.
func (d *Door) RunList(ctx context.Context, after string, limit int) (out []run.Run, err error) {
	err = d.do(ctx, "RunList", "", func() error {
		out = nil
		for _, k := range d.db.youngest() {
			if (after == "" || k.ID < after) && len(out) < limit {
				out = append(out, d.db.told(k))
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// youngest are all runs, the youngest first.
func (db *Database) youngest() []*keptRun {
	return slices.SortedFunc(maps.Values(db.runs), func(a, b *keptRun) int { return strings.Compare(b.ID, a.ID) })
}

// OpenRun is the run under way.
func (d *Door) OpenRun(ctx context.Context) (out run.Run, ok bool, err error) {
	err = d.do(ctx, "OpenRun", "", func() error {
		k := d.db.underWay()
		if ok = k != nil; ok {
			out = d.db.told(k)
		}
		return nil
	})
	if err != nil {
		return run.Run{}, false, err
	}
	return out, ok, nil
}

// LastRuns are the youngest run that was to repair, and the youngest complete one.
func (d *Door) LastRuns(ctx context.Context) (began, complete run.Run, err error) {
	err = d.do(ctx, "LastRuns", "", func() error {
		began, complete = run.Run{}, run.Run{}
		all := d.db.youngest()
		slices.SortStableFunc(all, func(a, b *keptRun) int { return b.StartedAt.Compare(a.StartedAt) })
		for _, k := range all {
			if began.ID == "" && k.Kind == run.Full {
				began = d.db.uncounted(k)
			}
			if complete.ID == "" && k.State == run.Complete {
				complete = d.db.uncounted(k)
			}
		}
		return nil
	})
	if err != nil {
		return run.Run{}, run.Run{}, err
	}
	return began, complete, nil
}

// SaveRun stores how far the run has come: everything of r but its kind, its state and
// what operators decide. More candidates than an operator has expected end what the number
// allowed.
func (d *Door) SaveRun(ctx context.Context, turn int64, r run.Run) error {
	return d.inRun(ctx, "SaveRun", turn, r.ID, func(k *keptRun) error { k.save(&r); return nil })
}

func (k *keptRun) save(r *run.Run) {
	was := k.Run
	k.Run = *r
	k.ID, k.Kind, k.State, k.StartedBy, k.Note, k.Key, k.StartedAt = was.ID, was.Kind, was.State, was.StartedBy, was.Note, was.Key, was.StartedAt
	k.FinishedAt, k.AccountAcceptedBy, k.Found, k.Unsettled = was.FinishedAt, was.AccountAcceptedBy, nil, 0
	k.Notes, k.ChangedAt = slices.Clone(r.Notes), now()
	if k.ExpectedDeletions = was.ExpectedDeletions; was.ExpectedDeletions != nil && *was.ExpectedDeletions < r.Candidates {
		k.ExpectedDeletions = nil
	}
}

// FinishRun stores r with its final state. Doing it again changes nothing.
func (d *Door) FinishRun(ctx context.Context, turn int64, r run.Run) error {
	if r.State.Open() || r.State == "" {
		return fmt.Errorf("finish run %s: %q is not an end", r.ID, r.State)
	}
	return d.do(ctx, "FinishRun", r.ID, func() error {
		if err := d.db.guard(turn); err != nil {
			return err
		}
		k := d.db.runs[r.ID]
		switch {
		case k == nil:
			return fmt.Errorf("run %s is not there any more: %w", r.ID, run.ErrEnded)
		case !k.State.Open() && k.State != r.State:
			return fmt.Errorf("run %s is %s: %w", r.ID, k.State, run.ErrEnded)
		case k.State.Open():
			k.save(&r)
			k.State, k.Waiting, k.FinishedAt = r.State, "", now()
		}
		d.cleanRuns(cleanAfter)
		return nil
	})
}
