package check

import (
	"bytes"
	"slices"
	"strings"
)

// braked: deletions may be behind, because the fuse is latched or the account doubted.
func (l *looking) braked() bool {
	return l.Fuse != nil && (l.Fuse.LatchedAt != nil || l.Fuse.AccountDoubt != "")
}

// lookAtTable is I2: the table is the projection of ImageKit, in every column and with
// no row more or less, and nothing is stuck on its way.
func lookAtTable(l *looking) {
	rows := make(map[string]*Row, len(l.Rows))
	for i := range l.Rows {
		r := &l.Rows[i]
		if rows[r.FileID] != nil {
			l.wrong(r.FileID, "it has two rows")
		}
		rows[r.FileID] = r
		if l.Truth[r.FileID] == nil && !l.braked() {
			l.wrong(r.FileID, "it has a row, and ImageKit does not hold it")
		}
	}
	for id, raw := range l.Truth {
		p := l.projected(id, raw)
		switch r := rows[id]; {
		case p == nil:
		case r == nil:
			l.wrong(id, "ImageKit holds it, and it has no row")
		default:
			if d := differences(&p.row, r, l.settings.Columns); len(d) > 0 {
				l.wrong(id, "its row differs from ImageKit: %s", strings.Join(d, "; "))
			}
		}
	}
	l.count("files", len(l.Truth))
	l.count("rows", len(l.Rows))
	l.stuck()
}

// stuck: with everything healed and the bound passed, no event is under way.
func (l *looking) stuck() {
	for i := range l.Retries {
		r := &l.Retries[i]
		if l.braked() && (r.Reason == "fuse_latched" || r.Reason == "no_canary") {
			l.count("held by a brake", 1)
			continue
		}
		l.wrong(r.EventID, "it is stuck: %s of %s waits since %d tries (%s), due %s", r.Source, r.FileID, r.Tries, r.Reason, moment(&r.DueAt))
	}
	for i := range l.Stream {
		l.wrong(l.Stream[i].ID, "it is stuck: message %d is still in the stream", l.Stream[i].Sequence)
	}
	for i := range l.DeadLetters {
		if d := &l.DeadLetters[i]; d.State == "replaying" {
			l.wrong(d.ID, "it is stuck: the dead letter of %s is still replaying", d.FileID)
		}
	}
}

// lookAtContent is I3: a row holds what ImageKit said of its file at some time, and
// nothing that any sender wrote.
func lookAtContent(l *looking) {
	for i := range l.Rows {
		r := &l.Rows[i]
		l.count("rows", 1)
		if m := l.marked(r); m != "" {
			l.wrong(r.FileID, "its row holds %q, which a sender wrote", m)
		}
		if !l.ever(r.FileID) {
			if l.untouched(r) {
				l.wrong(r.FileID, "it has a row, and ImageKit never held it")
			}
			continue
		}
		if !l.isVerified(r) && l.untouched(r) {
			l.wrong(r.FileID, "its row is no state that ImageKit ever had it in: %s", l.nearest(r))
		}
	}
}

// untouched: no person ever wrote to the row. What a person wrote may stand until it is
// repaired, which is I2's business.
func (l *looking) untouched(r *Row) bool { return len(l.hands[r.FileID]) == 0 && len(l.hands[""]) == 0 }

// marked is the first planted marker in any text of the row.
func (l *looking) marked(r *Row) string {
	var all bytes.Buffer
	for _, c := range append([]string{"user_id"}, contentColumns...) {
		switch v := column(r, c).(type) {
		case string:
			all.WriteString(v)
		case []string:
			all.WriteString(strings.Join(v, "\n"))
		default:
			all.WriteString(show(v))
		}
		all.WriteByte('\n')
	}
	all.Write(r.CustomMetadata)
	for _, m := range l.settings.Markers {
		if bytes.Contains(all.Bytes(), []byte(m)) {
			return m
		}
	}
	return ""
}

// isVerified reports whether the row is one of the file's states; where one of them is
// not known, it may be.
func (l *looking) isVerified(r *Row) bool {
	s := l.files[r.FileID]
	if s == nil || s.changes[0].Kind != Uploaded {
		if raw := l.Truth[r.FileID]; raw == nil || s != nil {
			return true // what it was before the first change is not known
		} else if p := l.projected(r.FileID, raw); p == nil || len(differences(&p.row, r, l.settings.Columns)) == 0 {
			return true
		}
		return false
	}
	if l.place(r) >= 0 {
		return true
	}
	for i, p := range s.versions {
		if p == nil && s.changes[i].Kind != Deleted {
			return true
		}
	}
	return false
}

// nearest is how the row differs from that state of the file which is most like it.
func (l *looking) nearest(r *Row) string {
	var best []string
	consider := func(p *projection) {
		if d := differences(&p.row, r, l.settings.Columns); best == nil || len(d) < len(best) {
			best = d
		}
	}
	if s := l.files[r.FileID]; s != nil {
		for _, p := range slices.Backward(s.versions) {
			if p != nil {
				consider(p)
			}
		}
	} else if p := l.projected(r.FileID, l.Truth[r.FileID]); p != nil {
		consider(p)
	}
	return strings.Join(best, "; ")
}
