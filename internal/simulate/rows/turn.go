package rows

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
)

const (
	microsecond = time.Microsecond
	millisecond = time.Millisecond
	hour        = time.Hour
	day         = 24 * time.Hour
)

// BeginTurn raises the turn's number: whoever held it before can settle nothing more.
func (d *Door) BeginTurn(ctx context.Context) (t event.Turn, err error) {
	err = d.do(ctx, "BeginTurn", "", func() error {
		d.db.turn++
		t = d.db.turnNow()
		t.NextDue = d.db.nextDue()
		return nil
	})
	if err != nil {
		return event.Turn{}, err
	}
	return t, nil
}

func (db *Database) turnNow() event.Turn {
	return event.Turn{Number: db.turn, Paused: db.paused.Paused, PausedBy: db.paused.By, PausedNote: db.paused.Note}
}

// Turn reads the turn in force and whether it is paused.
func (d *Door) Turn(ctx context.Context) (t event.Turn, err error) {
	err = d.do(ctx, "Turn", "", func() error { t = d.db.turnNow(); return nil })
	if err != nil {
		return event.Turn{}, err
	}
	return t, nil
}

// Mark writes trial marks and says how many of earlier turns still stood.
func (d *Door) Mark(ctx context.Context, turn int64, ids []string) (map[string]event.Mark, error) {
	survived := map[string]event.Mark{}
	err := d.do(ctx, "Mark", first(ids), func() error {
		clear(survived)
		if err := d.db.guard(turn); err != nil {
			return err
		}
		for _, id := range unique(ids) {
			m := d.db.marks[id]
			if m == nil {
				m = &mark{}
				d.db.marks[id] = m
			}
			if m.turn != turn || m.marks == 0 {
				m.marks++
			}
			m.turn = turn
			survived[id] = event.Mark{Survived: m.marks - 1, Stack: m.stack}
		}
		return nil
	})
	return survived, err
}

// Acquit takes this turn's marks back.
func (d *Door) Acquit(ctx context.Context, turn int64, ids []string) error {
	return d.do(ctx, "Acquit", first(ids), func() error {
		for _, id := range unique(ids) {
			if m := d.db.marks[id]; m != nil && m.turn == turn {
				if m.marks, m.turn = m.marks-1, 0; m.marks <= 0 {
					delete(d.db.marks, id)
				}
			}
		}
		return nil
	})
}

func unique(ids []string) []string { return slices.Compact(slices.Sorted(slices.Values(ids))) }

// maxStack bounds the stack that a mark keeps.
const maxStack = 16 << 10

// Blame marks events that are about to end this process. One crash counts once.
func (d *Door) Blame(ctx context.Context, turn int64, ids []string, stack string) error {
	return d.do(ctx, "Blame", first(ids), func() error {
		if err := d.db.hold(turn); err != nil {
			return err
		}
		for _, id := range unique(ids) {
			m := d.db.marks[id]
			if m == nil {
				m = &mark{}
				d.db.marks[id] = m
			}
			if m.turn != turn || m.marks == 0 {
				m.marks++
			}
			m.turn, m.stack = turn, stack[:min(len(stack), maxStack)]
		}
		return nil
	})
}

// Trials gives the mark of each event that still has to be settled.
func (d *Door) Trials(ctx context.Context, pending []event.Pending) (map[string]event.Mark, error) {
	marks := map[string]event.Mark{}
	err := d.do(ctx, "Trials", about(pending, nil), func() error {
		clear(marks)
		retried := map[string]bool{}
		for _, p := range pending {
			retried[p.ID] = p.Retried
		}
		for id, was := range retried {
			if over, waits := d.db.eventIs(id); over || waits != was {
				continue
			}
			marks[id] = event.Mark{}
			if m := d.db.marks[id]; m != nil {
				marks[id] = event.Mark{Survived: m.marks, Stack: m.stack}
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return marks, nil
}

// Fence draws one fence and says what the rows know of the files.
func (d *Door) Fence(ctx context.Context, ids []string) (file.Fence, map[string]file.Known, error) {
	var fence file.Fence
	known := make(map[string]file.Known, len(ids))
	err := d.do(ctx, "Fence", first(ids), func() error {
		clear(known)
		fence = file.Fence{Number: d.db.draw(), At: now()}
		for _, id := range ids {
			known[id] = d.db.known(id)
		}
		return nil
	})
	if err != nil {
		return file.Fence{}, nil, err
	}
	return fence, known, nil
}

func (db *Database) known(id string) file.Known {
	s, r := db.states[id], db.rows[id]
	k := file.Known{Seen: s != nil || r != nil, Live: r != nil}
	if s != nil {
		k.Gone, k.Suspect, k.High = s.gone() && r == nil, s.suspect(), s.high
		if s.suspect() {
			k.SuspectFor = now().Sub(s.suspectAt)
		}
	}
	return k
}

// LiveFiles returns up to n live files that can stand as canaries.
func (d *Door) LiveFiles(ctx context.Context, n int, except []string) (out []string, err error) {
	err = d.do(ctx, "LiveFiles", "", func() error {
		out = slices.DeleteFunc(d.db.sound(), func(id string) bool { return slices.Contains(except, id) })
		out = out[:min(n, len(out))]
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Due returns the events whose wait is over, oldest first, and when the next is due.
func (d *Door) Due(ctx context.Context, limit int) (out []event.Pending, next time.Time, err error) {
	err = d.do(ctx, "Due", "", func() error {
		out, next = nil, time.Time{}
		at := now()
		for _, r := range d.db.waiting() {
			if r.dueAt.After(at) || len(out) == limit {
				next = r.dueAt
				return nil
			}
			p := r.Pending
			p.Attempts = slices.Clone(p.Attempts)
			out = append(out, p)
		}
		return nil
	})
	if err != nil {
		return nil, time.Time{}, err
	}
	return out, next, nil
}

// waiting are the retries by due time.
func (db *Database) waiting() []*retry {
	var all []*retry
	for _, r := range db.retries {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b *retry) int { return cmp.Or(a.dueAt.Compare(b.dueAt), strings.Compare(a.ID, b.ID)) })
	return all
}
