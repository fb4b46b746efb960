package rows

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/trueup/trueup/internal/event"
)

// A slice of clean-up, as the store takes it: at most so many rows of each table, at most
// so often.
const (
	cleanRows  = 500
	cleanEvery = time.Minute
	cleanAfter = 20 * cleanRows
	keepRuns   = 30 // that many keep their findings
)

// cleanNow says whether the settlement that asks should take a slice along.
func (d *Door) cleanNow() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if time.Since(d.cleaned) < cleanEvery {
		return false
	}
	d.cleaned = time.Now()
	return true
}

// clean deletes a slice of what is past its retention, and counts it.
func (d *Door) clean() {
	keep := d.cfg.Retain
	for class, age := range map[event.Class]time.Duration{event.ClassCaller: keep.Caller, event.ClassImageKit: keep.ImageKit,
		event.ClassDatabase: keep.Database, event.ClassTrueup: keep.Trueup} {
		d.db.cleanLetters(class, now().Add(-age))
	}
	d.db.cleanLedger(now().Add(-keep.Ledger), firstID(keep.Ledger))
	d.db.cleanTombstones(now().Add(-keep.Tombstones))
	d.db.cleanJobs(now().Add(-keep.Ledger), firstID(keep.Ledger))
	d.cleanRuns(cleanRows)
}

func (db *Database) cleanLetters(class event.Class, before time.Time) {
	old := db.lettersWhere(func(l *letter) bool {
		return l.Class == class && l.State != event.LetterReplaying && l.ChangedAt.Before(before)
	})
	slices.SortStableFunc(old, func(a, b *letter) int { return a.ChangedAt.Compare(b.ChangedAt) })
	for _, l := range old[:min(cleanRows/4, len(old))] {
		delete(db.letters, l.ID)
		delete(db.letterOf, l.EventID)
		db.expired[expiry{"dead_letters", string(l.State), string(class)}]++
	}
}

func (db *Database) cleanLedger(before time.Time, id string) {
	old := db.linesOf(func(l *line) bool {
		return l.ID < id && l.at.Before(before) && (l.End != string(event.Dead) || db.letterOf[l.ID] == "")
	})
	slices.SortFunc(old, func(a, b *line) int { return strings.Compare(a.ID, b.ID) })
	for _, l := range old[:min(cleanRows, len(old))] {
		delete(db.ledger, l.ID)
		db.expired[expiry{"ledger", l.End, ""}]++
	}
}

func (db *Database) cleanTombstones(before time.Time) {
	busy := map[string]bool{}
	for _, r := range db.retries {
		busy[r.FileID] = true
	}
	for _, l := range db.letters {
		busy[l.FileID] = busy[l.FileID] || l.State == event.LetterDead || l.State == event.LetterReplaying
	}
	var old []string
	for _, id := range sorted(db.states) {
		if s := db.states[id]; s.gone() && s.goneAt.Before(before) && db.rows[id] == nil && !busy[id] {
			old = append(old, id)
		}
	}
	slices.SortStableFunc(old, func(a, b string) int {
		return cmp.Compare(db.states[a].goneAt.UnixNano(), db.states[b].goneAt.UnixNano())
	})
	for _, id := range old[:min(cleanRows, len(old))] {
		delete(db.states, id)
		db.expired[expiry{place: "tombstones"}]++
	}
}

func (db *Database) cleanJobs(before time.Time, id string) {
	for jobID, j := range db.jobs {
		if jobID < id && !j.FinishedAt.IsZero() && j.FinishedAt.Before(before) {
			delete(db.jobs, jobID)
			delete(db.items, jobID)
		}
	}
}

// cleanRuns deletes a slice of the findings of the oldest run that has some, when it is
// past its retention or not among the youngest, and the runs past it that have none.
func (d *Door) cleanRuns(limit int) {
	db, before, id := d.db, now().Add(-d.cfg.Retain.Ledger), firstID(d.cfg.Retain.Ledger)
	past := func(k *keptRun) bool {
		return k.ID < id && !k.State.Open() && !k.FinishedAt.IsZero() && k.FinishedAt.Before(before)
	}
	all := db.youngest()
	for i := len(all) - 1; i >= 0; i-- {
		k := all[i]
		if len(db.findings[k.ID]) == 0 {
			continue
		}
		if k.found == nil && !k.State.Open() && (i >= keepRuns || past(k)) {
			k.found = db.told(k).Found
		}
		if k.found != nil {
			db.dropFindings(k.ID, limit)
		}
		break
	}
	for _, k := range all {
		if past(k) && len(db.findings[k.ID]) == 0 {
			delete(db.runs, k.ID)
			delete(db.findings, k.ID)
		}
	}
}

func (db *Database) dropFindings(runID string, limit int) {
	all := db.findingsOf(runID, func(*finding) bool { return true })
	for _, f := range all[:min(limit, len(all))] {
		delete(db.findings[runID], f.FileID)
		delete(db.asked, f.Event)
	}
}

// firstID is a ULID above all that were drawn so long ago.
func firstID(age time.Duration) string {
	var id ulid.ULID
	_ = id.SetTime(ulid.Timestamp(time.Now().Add(-age)))
	return id.String()
}
