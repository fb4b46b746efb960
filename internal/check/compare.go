package check

import (
	"fmt"
	"strings"
)

// SameTable is I4: two runs of the same events, in whatever order, end with the same
// table. What says when or in which order a row was written (id, synced_at, xmin) may
// differ.
func SameTable(a, b *Evidence) Verdict {
	v := Verdict{Counts: map[string]int64{}}
	compareRows(&v, I4, &a.Settings, a.Rows, b.Rows, func(*Row, *Row) string { return "" })
	if a.Rows == nil || b.Rows == nil {
		v.Violations = append(v.Violations, Violation{I4, "", "no evidence for I4: Dump.Rows"})
	}
	sortViolations(v.Violations)
	return v
}

// Unmoved is I10: what was done between two dumps (a second replay of everything, say)
// changed no row, not even to the same content, and deleted no history.
func Unmoved(before, after *Evidence) Verdict {
	v := Verdict{Counts: map[string]int64{}}
	if before.Rows == nil || after.Rows == nil || before.DeadLetters == nil || after.DeadLetters == nil {
		v.Violations = append(v.Violations, Violation{I10, "", "no evidence for I10: Dump.Rows and Dump.DeadLetters"})
	}
	compareRows(&v, I10, &before.Settings, before.Rows, after.Rows, func(a, b *Row) string {
		if a.Xmin != b.Xmin || a.ID != b.ID {
			return fmt.Sprintf("it was written again: id %d xmin %s, before id %d xmin %s", b.ID, b.Xmin, a.ID, a.Xmin)
		}
		return ""
	})
	was, is := newStep(&before.Dump), newStep(&after.Dump)
	l := &looking{Evidence: after, verdict: &v, now: I10}
	for id, d := range was.letters {
		(&Watch{}).kept(l, d, is.letters[id], was, is)
	}
	sortViolations(v.Violations)
	return v
}

func compareRows(v *Verdict, i Invariant, s *Settings, a, b []Row, more func(a, b *Row) string) {
	left := make(map[string]*Row, len(a))
	for n := range a {
		left[a[n].FileID] = &a[n]
	}
	wrong := func(id, says string) { v.Violations = append(v.Violations, Violation{i, id, says}) }
	columns := s.Columns
	if columns == nil {
		columns = contentColumns
	}
	columns = append([]string{"user_id"}, columns...)
	for n := range b {
		r := &b[n]
		l := left[r.FileID]
		delete(left, r.FileID)
		if l == nil {
			wrong(r.FileID, "it has a row in the second table only")
			continue
		}
		if d := differences(l, r, columns); len(d) > 0 {
			wrong(r.FileID, strings.Join(d, "; "))
		} else if says := more(l, r); says != "" {
			wrong(r.FileID, says)
		}
	}
	for id := range left {
		wrong(id, "it has a row in the first table only")
	}
	v.Counts[string(i)+".rows"] += int64(len(a))
}
