package rows

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/trueup/trueup/internal/check"
)

// Dump is everything as of one moment, as a checker with read-only SQL would read it.
func (db *Database) Dump() check.Dump {
	db.mu.Lock()
	defer db.mu.Unlock()
	d := check.Dump{At: now()}
	for _, id := range sorted(db.rows) {
		d.Rows = append(d.Rows, db.rows[id].dump())
	}
	for _, id := range sorted(db.states) {
		d.States = append(d.States, db.states[id].dump(id))
	}
	for _, l := range db.linesOf(func(*line) bool { return true }) {
		d.Ledger = append(d.Ledger, l.dump())
	}
	for _, r := range db.waiting() {
		d.Retries = append(d.Retries, check.Retry{EventID: r.ID, FileID: r.FileID, Source: string(r.Source), Origin: string(r.Origin), Kind: r.Kind, User: r.User,
			AcceptedAt: r.AcceptedAt, WebhookID: r.WebhookID, DeadLetter: r.DeadLetter, Body: bytes.Clone(r.Body), Tries: r.Tries, DueAt: r.dueAt, Reason: r.reason})
	}
	for _, l := range db.lettersWhere(func(*letter) bool { return true }) {
		d.DeadLetters = append(d.DeadLetters, l.dump())
	}
	for _, k := range slices.Backward(db.youngest()) {
		d.Runs = append(d.Runs, check.Reconciliation{ID: k.ID, Kind: string(k.Kind), State: string(k.State), StartedAt: k.StartedAt, FinishedAt: orNull(k.FinishedAt),
			Listed: k.Listed, Rows: k.Rows, Whole: k.Whole, Candidates: k.Candidates, Fuse: k.Fuse, ExpectedDeletions: db.uncounted(k).ExpectedDeletions,
			AccountAcceptedBy: k.AccountAcceptedBy, Error: k.Error})
		for _, f := range db.findingsOf(k.ID, func(*finding) bool { return true }) {
			d.Findings = append(d.Findings, check.Finding{RunID: k.ID, FileID: f.FileID, Kind: string(f.Kind), Status: string(f.Status), Reason: f.Reason,
				EventID: f.Event, EndedAt: orNull(f.endedAt)})
		}
	}
	db.dumpActs(&d)
	f := db.fuse
	d.Fuse = &check.Fuse{LatchedAt: orNull(f.latchedAt), Why: f.why, ReleasedAt: orNull(f.releasedAt), ReleasedBy: f.releasedBy, AccountDoubt: f.accountDoubt}
	return d
}

// UnderWay says how many retries wait, and whether a run is open.
func (db *Database) UnderWay() (retries int, running bool) {
	db.mu.Lock()
	defer db.mu.Unlock()
	for _, k := range db.runs {
		running = running || k.State.Open()
	}
	return len(db.retries), running
}

func (r *Row) dump() check.Row {
	wide := func(n *int32) *int64 {
		if n == nil {
			return nil
		}
		w := int64(*n)
		return &w
	}
	return check.Row{
		ID: r.ID, FileID: r.FileID, FileURL: r.FileURL, UserID: r.UserID, UploadTimestamp: r.UploadTimestamp, FileName: r.FileName, FilePath: r.FilePath,
		FileType: r.FileType, MIME: r.MIME, SizeBytes: r.SizeBytes, Width: wide(r.Width), Height: wide(r.Height), ThumbnailURL: r.ThumbnailURL,
		Tags: slices.Clone(r.Tags), CustomMetadata: bytes.Clone(r.CustomMetadata), VersionID: r.VersionID, IsPrivate: r.IsPrivate,
		RemoteUpdatedAt: r.RemoteUpdatedAt, SyncedAt: r.SyncedAt, Xmin: xmin(r.xmin),
	}
}

func xmin(n uint64) string { return strconv.FormatUint(n, 10) }

func (s *state) dump(id string) check.State {
	var fence *int64
	if s.suspect() {
		n := s.suspectFence
		fence = &n
	}
	return check.State{
		FileID: id, Seen: s.seen, High: orNull(s.high), Hash: s.hash, GoneAt: orNull(s.goneAt), GoneWhy: s.goneWhy, SuspectFence: fence,
		SuspectAt: orNull(s.suspectAt), CountedAt: orNull(s.countedAt), Owner: s.owner.User, OwnerKind: string(s.owner.Kind), OwnerAt: orNull(s.owner.At),
		OwnerEvent: s.owner.Event, ClaimOpen: s.owner.Open, Ticket: s.owner.Ticket, Flags: append([]string{}, s.owner.Flags...), Xmin: xmin(s.xmin),
	}
}

func (l *line) dump() check.Line {
	if l.dumped == nil {
		read := l.read()
		l.dumped = &read
	}
	return *l.dumped
}

func (l *line) read() check.Line {
	out := check.Line{
		ID: l.ID, At: l.at, FileID: l.FileID, Source: l.Source, Origin: l.Origin, Kind: l.Kind, User: l.User, AcceptedAt: orNull(l.AcceptedAt),
		Verdict: l.Verdict, Outcome: l.Outcome, Reason: l.Reason, EndKind: l.End, Status: l.Status, RequestID: l.RequestID,
	}
	if l.Fence != 0 {
		n := l.Fence
		out.Fence = &n
	}
	var detail struct {
		WebhookID, DeadLetter, Event, Claim, Run string
		Tries                                    int
	}
	if err := json.Unmarshal(encode(l.Detail), &detail); err == nil {
		out.WebhookID, out.DeadLetter, out.Event, out.Claim, out.Run, out.Tries = detail.WebhookID, detail.DeadLetter, detail.Event, detail.Claim, detail.Run, detail.Tries
	}
	return out
}

func (l *letter) dump() check.DeadLetter {
	out := check.DeadLetter{
		ID: l.ID, EventID: l.EventID, FileID: l.FileID, Source: string(l.Source), Origin: string(l.Origin), Kind: l.Kind, User: l.User,
		AcceptedAt: l.AcceptedAt, WebhookID: l.WebhookID, Class: string(l.Class), Reason: l.Reason, State: string(l.State),
		Headers: maps.Clone(l.Headers), Body: bytes.Clone(l.Body), History: encode(append([]map[string]any{}, l.history...)),
		ReplayEvent: l.ReplayEvent, CreatedAt: l.CreatedAt, ChangedAt: l.ChangedAt,
	}
	for _, s := range l.Masked {
		out.Masked = append(out.Masked, check.Span{From: s.From, To: s.To})
	}
	for _, a := range l.Attempts {
		out.Attempts = append(out.Attempts, check.Attempt{At: a.At, Class: string(a.Class), Reason: a.Reason, Status: a.Status, RequestID: a.RequestID,
			Excerpt: a.Excerpt, Version: a.Version})
	}
	return out
}

func (db *Database) dumpActs(d *check.Dump) {
	for _, a := range db.audit {
		of, _ := a.filter["file"].(string)
		user, _ := a.filter["user"].(string)
		d.Audit = append(d.Audit, check.Act{ID: a.id, At: a.at, Who: a.who, Verb: a.verb, File: of, User: user, Note: a.note})
	}
	keys := slices.SortedFunc(maps.Keys(db.expired), func(a, b expiry) int {
		return strings.Compare(a.place+"\x00"+a.state+"\x00"+a.class, b.place+"\x00"+b.state+"\x00"+b.class)
	})
	for _, e := range keys {
		d.Expired = append(d.Expired, check.Expired{Place: e.place, State: e.state, Class: e.class, Count: db.expired[e]})
	}
}
