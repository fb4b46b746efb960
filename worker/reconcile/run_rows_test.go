package reconcile

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/run"
)

// The rows, the brakes and the queue, as a run sees them.

func (d *world) Fence(_ context.Context, ids []string) (f file.Fence, known map[string]file.Known, err error) {
	err = d.call("fence", func() error {
		d.fence++
		f, known = file.Fence{Number: d.fence, At: time.Now()}, map[string]file.Known{}
		for _, id := range ids {
			_, live := d.rows[id]
			known[id] = file.Known{Seen: true, Live: live, Suspect: d.state[id].suspect}
		}
		return nil
	})
	return f, known, err
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
	if id == "" {
		return d.clearSuspect(turn, hits)
	}
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

// clearSuspect is Repair beside the run: a look-up of one suspect file, asked after its fence.
func (d *world) clearSuspect(turn int64, seen []file.Observation) (did map[string]run.Repair, err error) {
	err = d.call("clearSuspect", func() error {
		if turn != d.turn {
			return event.ErrTurnMoved
		}
		o := seen[0]
		s := d.state[o.FileID]
		if r := d.runs[len(d.runs)-1]; r.Kind == run.Plan && r.State != run.Applying {
			d.never("a plan tells the rows")
		}
		if len(seen) != 1 || o.How != file.LookUp || o.Status != 200 || o.Snapshot == nil || o.Snapshot.ID != o.FileID || !s.suspect {
			d.never("not a look-up of a suspect file: %+v", seen)
		}
		if o.Fence.Number == 0 || o.Fence.Number > d.fenceAsked[o.FileID] {
			d.never("the fence %d of %s was drawn after it was asked for", o.Fence.Number, o.FileID)
		}
		s.suspect = false
		d.state[o.FileID] = s
		did = map[string]run.Repair{o.FileID: run.RepairDone}
		if prefixed(o.FileID, d.doubt) {
			did[o.FileID] = run.RepairAsk
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
	f := &run.Finding{} // of none, where it was published beside the run's
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
			if _, ok := d.drawn[e.ID]; !ok && e.Kind != event.KindRecheck {
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
