package rows

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/trueup/trueup/internal/event"
)

// matches is what the filter says and nothing else.
func matches(f event.Filter, l *letter) bool {
	return (len(f.IDs) == 0 || slices.Contains(f.IDs, l.ID)) && (f.Reason == "" || f.Reason == l.Reason) && (f.Class == "" || f.Class == l.Class) &&
		(f.Source == "" || f.Source == l.Source || f.Source == l.Origin) && (f.FileID == "" || f.FileID == l.FileID) &&
		(f.Since.IsZero() || !l.CreatedAt.Before(micros(f.Since))) && (f.Until.IsZero() || l.CreatedAt.Before(micros(f.Until))) &&
		(f.State == "" || f.State == l.State) && (f.Import == "" || f.Import == l.importID)
}

// lettersWhere are the letters that which wants, oldest first.
func (db *Database) lettersWhere(which func(*letter) bool) (out []*letter) {
	for _, id := range sorted(db.letters) {
		if l := db.letters[id]; which(l) {
			out = append(out, l)
		}
	}
	return out
}

// whole is the letter as it is told to somebody who wants all of it.
func (l *letter) whole() event.DeadLetter {
	d := l.DeadLetter
	d.Attempts = append([]event.Attempt{}, d.Attempts...)
	d.Headers, d.Body, d.Masked = maps.Clone(d.Headers), slices.Clone(d.Body), append([]event.Span{}, d.Masked...)
	if len(l.history) > 0 {
		d.History = encode(l.history)
	}
	return d
}

// brief is the letter without body, headers and mask.
func (l *letter) brief() event.DeadLetter {
	d := l.whole()
	d.Headers, d.Body, d.Masked = nil, nil, nil
	return d
}

// DeadLetters returns up to limit of the letters that f matches, oldest first, after the
// id given; without body, headers and mask.
func (d *Door) DeadLetters(ctx context.Context, f event.Filter, after string, limit int) (out []event.DeadLetter, err error) {
	err = d.do(ctx, "DeadLetters", after, func() error {
		out = nil
		for _, l := range d.db.lettersWhere(func(l *letter) bool { return l.ID > after && matches(f, l) }) {
			if len(out) < limit {
				out = append(out, l.brief())
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// DeadLetter returns one letter whole. It wraps event.ErrUnknown where there is none.
func (d *Door) DeadLetter(ctx context.Context, id string) (out event.DeadLetter, err error) {
	err = d.do(ctx, "DeadLetter", id, func() error {
		l := d.db.letters[id]
		if l == nil {
			return fmt.Errorf("dead letter %s: %w", id, event.ErrUnknown)
		}
		out = l.whole()
		return nil
	})
	if err != nil {
		return event.DeadLetter{}, err
	}
	return out, nil
}

// ExportDead hands over, whole and oldest first, each letter that f matches and that was
// there when it began; each once, as it is when its turn comes.
func (d *Door) ExportDead(ctx context.Context, f event.Filter, each func(event.DeadLetter) error) error {
	var upto string
	err := d.do(ctx, "ExportDead", "", func() error { upto = d.db.lastLetter(); return nil })
	if err != nil {
		return err
	}
	for after := ""; ; {
		var next *event.DeadLetter
		err := d.do(ctx, "ExportDead", after, func() error {
			next = nil
			if all := d.db.lettersWhere(func(l *letter) bool { return l.ID > after && l.ID <= upto && matches(f, l) }); len(all) > 0 {
				whole := all[0].whole()
				next = &whole
			}
			return nil
		})
		if err != nil || next == nil {
			return err
		}
		if err := each(*next); err != nil {
			return err
		}
		after = next.ID
	}
}

func (db *Database) lastLetter() string {
	if all := sorted(db.letters); len(all) > 0 {
		return all[len(all)-1]
	}
	return ""
}

// CountDead counts what f matches, by class and by reason. Where f names ids, it wraps
// event.ErrUnknown for one that is none.
func (d *Door) CountDead(ctx context.Context, f event.Filter) (out event.DeadCount, err error) {
	err = d.do(ctx, "CountDead", "", func() error {
		out = event.DeadCount{Classes: map[event.Class]int64{}, Reasons: map[string]int64{}}
		if err := d.db.knownLetters(f.IDs); err != nil {
			return err
		}
		for _, l := range d.db.lettersWhere(func(l *letter) bool { return matches(f, l) }) {
			out.Total++
			out.Classes[l.Class]++
			out.Reasons[l.Reason]++
		}
		return nil
	})
	if err != nil {
		return event.DeadCount{}, err
	}
	return out, nil
}

// knownLetters refuses ids that are none.
func (db *Database) knownLetters(ids []string) error {
	var unknown []string
	for _, id := range ids {
		if db.letters[id] == nil {
			unknown = append(unknown, id)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	slices.Sort(unknown)
	return fmt.Errorf("dead letter %s: %w", strings.Join(unknown, ", "), event.ErrUnknown)
}
