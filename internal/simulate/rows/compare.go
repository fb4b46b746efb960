package rows

import (
	"context"
	"fmt"
	"math/rand/v2"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/run"
	"github.com/trueup/trueup/worker/reconcile"
)

// Hash is the hash that a row with exactly this content would have; zero where the
// database would refuse its values.
func (d *Door) Hash(ctx context.Context, snapshots []*file.Snapshot) ([]int64, error) {
	var out []int64
	err := d.do(ctx, "Hash", "", func() error {
		out = make([]int64, len(snapshots))
		for i, s := range snapshots {
			if refused("hash", s) == nil {
				out[i] = hashOf(s)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Local yields our side of every file as of one moment, in the byte order of the ids.
func (d *Door) Local(ctx context.Context, runID string, fence int64, yield func(run.Local) error) error {
	var all []run.Local
	err := d.do(ctx, "Local", runID, func() error { all = d.db.local(runID, fence); return nil })
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

func (db *Database) local(runID string, fence int64) []run.Local {
	ids := map[string]bool{}
	for id := range db.rows {
		ids[id] = true
	}
	for id := range db.states {
		ids[id] = true
	}
	began := db.runs[runID]
	out := make([]run.Local, 0, len(ids))
	for _, id := range sorted(ids) {
		r, s := db.rows[id], db.states[id]
		l := run.Local{FileID: id, Live: r != nil, Known: s != nil}
		if r != nil {
			l.Hash, l.Unowned = r.hash(), r.UserID == ""
		}
		if s != nil {
			l.Gone, l.Suspect, l.Moved, l.Followed = s.gone(), s.suspect(), s.seen > fence, r != nil && r.UserID == s.owner.User
		} else {
			l.Moved, l.Followed = began != nil && r.xmin > began.begun, true
		}
		out = append(out, l)
	}
	return out
}

// shown is how much of a value a difference shows.
const shown = 200

// Differences says by file which columns of a live row disagree.
func (d *Door) Differences(ctx context.Context, snapshots []*file.Snapshot) (map[string][]run.Difference, error) {
	out := make(map[string][]run.Difference, len(snapshots))
	err := d.do(ctx, "Differences", "", func() error {
		clear(out)
		for _, s := range snapshots {
			if r := d.db.rows[s.ID]; r != nil && refused("compare rows", s) == nil {
				if found := d.db.differences(r, s); len(found) > 0 {
					out[s.ID] = found
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (db *Database) differences(r *Row, s *file.Snapshot) []run.Difference {
	var out []run.Difference
	if st := db.states[r.FileID]; st != nil && st.owner.User != r.UserID {
		ours, theirs := r.UserID, st.owner.User
		out = append(out, run.Difference{Column: "user_id", Row: cut(&ours), ImageKit: cut(&theirs)})
	}
	var theirs Row
	theirs.fill(s)
	proposed := theirs.columns()
	for i, c := range r.columns() {
		if a, b := c.text, proposed[i].text; (a == nil) != (b == nil) || a != nil && *a != *b {
			out = append(out, run.Difference{Column: c.name, Row: cut(a), ImageKit: cut(b)})
		}
	}
	return out
}

func cut(s *string) *string {
	if s == nil {
		return nil
	}
	r := []rune(*s)
	t := string(r[:min(len(r), shown)])
	return &t
}

// KnownFiles are up to n files that tell our account from another, chosen at random, those
// that we have verified first; where no row stands, files that had one.
func (d *Door) KnownFiles(ctx context.Context, n int) (out []run.KnownFile, err error) {
	err = d.do(ctx, "KnownFiles", "", func() error {
		if out = pick(d.db.knownRows(), n, d); len(out) == 0 {
			out = pick(d.db.remembered(), n, d)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// pick takes up to n, rank after rank, each rank shuffled.
func pick(ranks [][]run.KnownFile, n int, d *Door) (out []run.KnownFile) {
	for _, rank := range ranks {
		rand.New(d.random).Shuffle(len(rank), func(i, j int) { rank[i], rank[j] = rank[j], rank[i] }) //nolint:gosec // a simulation is to be repeated
		out = append(out, rank...)
	}
	return out[:min(n, len(out))]
}

// knownRows are content as we wrote it last, then any, then what a 404 or a tombstone
// makes doubtful.
func (db *Database) knownRows() [][]run.KnownFile {
	ranks, announced := make([][]run.KnownFile, 3), db.announced()
	for _, id := range sorted(db.rows) {
		r, s, rank := db.rows[id], db.states[id], 1
		k := run.KnownFile{FileID: id}
		switch {
		case announced[id]:
			continue
		case s != nil && (s.suspect() || s.gone()):
			rank = 2
		case s != nil && s.hash != nil && *s.hash == r.hash():
			rank = 0
			if r.UploadTimestamp != nil {
				k.CreatedAt = *r.UploadTimestamp
			}
		}
		ranks[rank] = append(ranks[rank], k)
	}
	return ranks
}

func (db *Database) remembered() [][]run.KnownFile {
	ranks, announced := make([][]run.KnownFile, 2), db.announced()
	for _, id := range sorted(db.states) {
		if s := db.states[id]; !s.gone() && !announced[id] {
			rank := 0
			if s.suspect() {
				rank = 1
			}
			ranks[rank] = append(ranks[rank], run.KnownFile{FileID: id})
		}
	}
	return ranks
}

// ForPlan is the same database for a run that may write nothing but itself.
func (d *Door) ForPlan(ctx context.Context) (plan reconcile.PlanDoors, note string, err error) {
	if err := d.do(ctx, "ForPlan", "", func() error { return nil }); err != nil {
		return nil, "", err
	}
	return planDoor{d}, "", nil
}

// planDoor refuses what the role of a plan has no right to, as PostgreSQL would: for good.
type planDoor struct{ *Door }

// Repair would write rows.
func (planDoor) Repair(context.Context, int64, string, int64, []file.Observation) (map[string]run.Repair, error) {
	return nil, fmt.Errorf("repair: permission denied for a plan: %w", event.ErrOutage)
}
