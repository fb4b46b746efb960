package rows

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/trueup/trueup/internal/chance"
	"github.com/trueup/trueup/internal/check"
	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/rule"
	"github.com/trueup/trueup/internal/run"
	"github.com/trueup/trueup/internal/store"
)

// Database is what outlives processes. Its one lock is held for a whole transaction, so
// transactions come one after the other.
type Database struct {
	mu sync.Mutex

	random  chance.Source
	entropy *ulid.MonotonicEntropy
	fence   int64  // the last one drawn
	writes  uint64 // counts the writing transactions: an xmin
	nextRow int64

	turn   int64
	paused store.Paused

	rows    map[string]*Row
	states  map[string]*state
	ledger  map[string]*line
	retries map[string]*retry
	letters map[string]*letter
	// letterOf is the letter of an event.
	letterOf map[string]string
	marks    map[string]*mark

	jobs  map[string]*job
	items map[string]map[string]*item // by job, then by letter or file
	audit []*act

	runs     map[string]*keptRun
	findings map[string]map[string]*finding // by run, then by file
	asked    map[string]*finding            // by event

	fuse    fuse
	hours   map[time.Time]int64
	poll    time.Time
	expired map[expiry]int64
}

// New is an empty, migrated database. Whatever it has to choose, it chooses by random; nil
// is the runtime's own.
func New(random chance.Source) *Database {
	return &Database{
		random: random, entropy: ulid.Monotonic(bytesOf{random}, 0),
		rows: map[string]*Row{}, states: map[string]*state{}, ledger: map[string]*line{}, retries: map[string]*retry{},
		letters: map[string]*letter{}, letterOf: map[string]string{}, marks: map[string]*mark{},
		jobs: map[string]*job{}, items: map[string]map[string]*item{},
		runs: map[string]*keptRun{}, findings: map[string]map[string]*finding{}, asked: map[string]*finding{},
		hours: map[time.Time]int64{}, expired: map[expiry]int64{},
	}
}

// bytesOf makes a reader of numbers.
type bytesOf struct{ chance.Source }

func (b bytesOf) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(b.Uint64())
	}
	return len(p), nil
}

// now is the database's clock.
func now() time.Time { return rule.Micros(time.Now()) }

func (db *Database) newID() string {
	return ulid.MustNew(ulid.Timestamp(time.Now()), db.entropy).String()
}

// draw is one value of the fence sequence.
func (db *Database) draw() int64 { db.fence++; return db.fence }

// state is one line of file_state.
type state struct {
	seen         int64
	high         time.Time // zero is -infinity
	hash         *int64
	goneAt       time.Time
	rewritten    bool
	goneWhy      string
	suspectFence int64
	suspectAt    time.Time
	countedAt    time.Time
	firstSeen    time.Time
	owner        rule.Owning
	xmin         uint64
}

func (s *state) gone() bool { return !s.goneAt.IsZero() }

func (s *state) suspect() bool { return !s.suspectAt.IsZero() }

type line struct {
	rule.Line
	at time.Time
	// dumped is what a checker reads of it, once somebody has asked: a line never changes.
	dumped *check.Line
}

type retry struct {
	event.Pending
	dueAt  time.Time
	reason string
}

type letter struct {
	event.DeadLetter
	history  []map[string]any
	importID string
}

type mark struct {
	marks int
	turn  int64
	stack string
}

type job struct {
	event.Job
	request        [32]byte
	upto, position string
}

type item struct {
	item, eventID      string
	takenAt, published time.Time
	end                event.EndKind
	reason             string
	endedAt            time.Time
}

type act struct {
	id, who, verb, note, key, jobID string
	at                              time.Time
	filter                          map[string]any
	count                           *int64
}

type keptRun struct {
	run.Run
	begun uint64 // writes when it began
	found map[run.FindingKind]map[run.Status]int64
}

type finding struct {
	run.Finding
	runID              string
	published, endedAt time.Time
}

// unsettled: its event is on its way.
func (f *finding) unsettled() bool { return f.Event != "" && f.endedAt.IsZero() }

// open: nothing was done about it yet.
func (f *finding) open() bool { return f.Status == run.Found && f.Event == "" }

type fuse struct {
	latchedAt, releasedAt    time.Time
	why, runID, releasedBy   string
	account                  run.Account
	accountDoubt, accountRun string
	accountDoubtedAt         time.Time
}

type expiry struct{ place, state, class string }

// sorted are the keys of m in the byte order.
func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// candidates are those that the fuse counts for the last day.
func (db *Database) candidates() (n int64) {
	since := now().Add(-24 * time.Hour).Truncate(time.Hour)
	for hour, c := range db.hours {
		if !hour.Before(since) {
			n += c
		}
	}
	return n
}

// announced says of which files a signed or unsigned file.deleted waits.
func (db *Database) announced() map[string]bool {
	out := map[string]bool{}
	for _, r := range db.retries {
		if r.Kind == event.KindDeleted {
			out[r.FileID] = true
		}
	}
	return out
}

// sound are the live rows that can stand as canaries, in the byte order.
func (db *Database) sound() []string {
	announced, out := db.announced(), []string(nil)
	for _, id := range sorted(db.rows) {
		if s := db.states[id]; !announced[id] && (s == nil || !s.suspect()) {
			out = append(out, id)
		}
	}
	return out
}

// nextDue is when the earliest retry is due; zero when none waits.
func (db *Database) nextDue() (due time.Time) {
	for _, r := range db.retries {
		if due.IsZero() || r.dueAt.Before(due) {
			due = r.dueAt
		}
	}
	return due
}

// write adds lines to the ledger; one that is there stays as it is.
func (db *Database) tell(lines []rule.Line) {
	for _, l := range lines {
		l.ID = cmp.Or(l.ID, db.newID())
		if db.ledger[l.ID] == nil {
			l.AcceptedAt = micros(l.AcceptedAt)
			db.ledger[l.ID] = &line{Line: l, at: now()}
		}
	}
}

// micros is rule.Micros, and zero for a zero time.
func micros(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return rule.Micros(t)
}

// record is the audit: it writes the act's line and says whether it is the first with its
// key.
func (db *Database) record(a store.Act, verb string, filter map[string]any) bool {
	if a.Key != "" && db.recorded(a, verb) != nil {
		return false
	}
	db.audit = append(db.audit, &act{id: db.newID(), at: now(), who: a.Who, verb: verb, note: a.Note, key: a.Key, filter: filter})
	return true
}

func (db *Database) recorded(a store.Act, verb string) *act {
	for _, had := range db.audit {
		if had.key == a.Key && had.who == a.Who && had.verb == verb {
			return had
		}
	}
	return nil
}

func encode(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		return json.RawMessage(`{"unencodable":true}`)
	}
	return b
}

// standing is what is held about one file, with the hash of what is proposed for it.
func (db *Database) standing(id string, proposed *file.Snapshot) *rule.Standing {
	st := &rule.Standing{FileID: id, Now: now()}
	if proposed != nil {
		st.Proposed = hashOf(proposed)
	}
	if s := db.states[id]; s != nil {
		st.Known, st.Seen, st.High, st.Hash, st.Gone = true, s.seen, s.high, s.hash, s.gone()
		st.Suspect, st.SuspectFence, st.SuspectAt, st.CountedAt = s.suspect(), s.suspectFence, s.suspectAt, s.countedAt
		st.Rewritten, st.Owner = s.rewritten, s.owner
		st.Owner.Flags = slices.Clone(s.owner.Flags)
	}
	if r := db.rows[id]; r != nil {
		st.Live, st.LiveUser, st.LiveHash = true, r.UserID, r.hash()
	}
	return st
}
