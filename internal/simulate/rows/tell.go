package rows

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/store"
)

// Report answers for one event and one user; for anybody else's event it is pending, as
// for one that is not settled.
func (d *Door) Report(ctx context.Context, eventID, user string) (out store.Report, err error) {
	err = d.do(ctx, "Report", eventID, func() error { out = d.db.report(eventID, user); return nil })
	if err != nil {
		return store.Report{}, err
	}
	return out, nil
}

func (db *Database) report(eventID, user string) store.Report {
	pending, rejected := store.Report{State: "pending"}, store.Report{State: "rejected", Reason: string(file.ReasonNotClaimable)}
	l := db.ledger[eventID]
	if l == nil || l.User != user || user == "" {
		return pending
	}
	if l.End == string(event.Dead) {
		// A dead letter is not an answer; the event that replays it may have brought one.
		d := db.letters[db.letterOf[eventID]]
		if d == nil || d.State == event.LetterDiscarded {
			return rejected
		}
		if l = db.ledger[d.ReplayEvent]; d.State != event.LetterResolved || l == nil || l.End == string(event.Dead) {
			return pending
		}
	}
	s, r := db.states[l.FileID], db.rows[l.FileID]
	if l.End != string(event.Done) && l.End != string(event.Superseded) || s == nil || s.owner.User != user {
		return rejected
	}
	out := store.Report{State: "verified"}
	if r != nil && r.UserID == user {
		out.File = r.shown()
	}
	return out
}

// shown is the row as its owner may see it: without its version.
func (r *Row) shown() *file.Snapshot {
	s := &file.Snapshot{
		ID: r.FileID, URL: r.FileURL, Name: r.FileName, Path: r.FilePath, Type: r.FileType, MIME: r.MIME, SizeBytes: r.SizeBytes, Width: r.Width, Height: r.Height,
		ThumbnailURL: r.ThumbnailURL, Tags: slices.Clone(r.Tags), CustomMetadata: bytes.Clone(r.CustomMetadata), IsPrivate: r.IsPrivate,
	}
	if r.UploadTimestamp != nil {
		s.CreatedAt = *r.UploadTimestamp
	}
	if r.RemoteUpdatedAt != nil {
		s.UpdatedAt = *r.RemoteUpdatedAt
	}
	return s
}

// Status is the state of the database's part of the service.
func (d *Door) Status(ctx context.Context) (out store.Status, err error) {
	err = d.do(ctx, "Status", "", func() error { out = d.db.status(); return nil })
	if err != nil {
		return store.Status{}, err
	}
	return out, nil
}

func (db *Database) status() store.Status {
	out := store.Status{Turn: db.turn, Paused: db.paused, Dead: map[string]int64{}, Expired: map[string]int64{}, LiveRows: int64(len(db.rows))}
	out.Retries.Count, out.Retries.NextDue = int64(len(db.retries)), db.nextDue()
	for _, l := range db.letters {
		if l.State == event.LetterDead || l.State == event.LetterReplaying {
			out.Dead[string(l.Class)]++
		}
	}
	for e, n := range db.expired {
		if e.place == "dead_letters" && e.state == string(event.LetterDead) {
			out.Expired[e.class] = n
		}
	}
	f := db.fuse
	out.Fuse = store.Fuse{Latched: !f.latchedAt.IsZero(), At: f.latchedAt, Why: f.why, Candidates: db.candidates(), Run: f.runID}
	out.Account = store.AccountDoubt{Doubt: f.accountDoubt, Since: f.accountDoubtedAt, Run: f.accountRun, Last: f.account}
	for _, c := range new(Row).columns() {
		out.Columns = append(out.Columns, c.name)
	}
	out.Columns = append(out.Columns, "synced_at")
	slices.Sort(out.Columns)
	if all := db.youngest(); len(all) > 0 {
		last := db.told(all[0])
		out.Run = &last
	}
	return out
}

// Bounds of what a passport shows.
const (
	passportLines    = 500
	passportFindings = 50
)

// Passport is everything the database holds about one file, as of one moment.
func (d *Door) Passport(ctx context.Context, fileID string) (out store.Passport, err error) {
	err = d.do(ctx, "Passport", fileID, func() error {
		out = store.Passport{FileID: fileID}
		d.db.passState(&out)
		d.db.passLines(&out)
		d.db.passWaiting(&out)
		d.db.passActs(&out)
		d.db.passFindings(&out)
		return nil
	})
	if err != nil {
		return store.Passport{}, err
	}
	return out, nil
}

func (db *Database) passState(p *store.Passport) {
	if r := db.rows[p.FileID]; r != nil {
		shown := map[string]any{"id": r.ID, "file_id": r.FileID, "user_id": r.UserID, "file_url": r.FileURL, "upload_timestamp": r.UploadTimestamp,
			"file_name": r.FileName, "file_path": r.FilePath, "file_type": r.FileType, "mime": r.MIME, "size_bytes": r.SizeBytes, "width": r.Width,
			"height": r.Height, "thumbnail_url": r.ThumbnailURL, "tags": r.Tags, "custom_metadata": nil, "version_id": r.VersionID,
			"is_private": r.IsPrivate, "remote_updated_at": r.RemoteUpdatedAt, "synced_at": r.SyncedAt}
		if len(r.CustomMetadata) > 0 {
			shown["custom_metadata"] = r.CustomMetadata
		}
		p.Row = encode(shown)
	}
	if s := db.states[p.FileID]; s != nil {
		p.State = &store.State{Seen: s.seen, High: s.high, FirstSeen: s.firstSeen, GoneAt: s.goneAt, GoneWhy: s.goneWhy, SuspectFence: s.suspectFence,
			SuspectAt: s.suspectAt, Owner: s.owner.User, OwnerKind: string(s.owner.Kind), OwnerAt: s.owner.At, OwnerEvent: s.owner.Event,
			Ticket: s.owner.Ticket, Flags: append([]string{}, s.owner.Flags...)}
	}
}

// linesOf are the ledger's lines, oldest first.
func (db *Database) linesOf(which func(*line) bool) (out []*line) {
	for _, l := range db.ledger {
		if which(l) {
			out = append(out, l)
		}
	}
	slices.SortFunc(out, func(a, b *line) int { return cmp.Or(a.at.Compare(b.at), strings.Compare(a.ID, b.ID)) })
	return out
}

func (db *Database) passLines(p *store.Passport) {
	all := db.linesOf(func(l *line) bool { return l.FileID == p.FileID })
	if p.Cut = len(all) > passportLines; p.Cut {
		all = all[len(all)-passportLines:]
	}
	p.Lines = make([]store.Line, 0, len(all))
	for _, l := range all {
		out := store.Line{ID: l.ID, At: l.at, Source: l.Source, Origin: l.Origin, Kind: l.Kind, User: l.User, AcceptedAt: l.AcceptedAt, Verdict: l.Verdict,
			Outcome: l.Outcome, Reason: l.Reason, End: l.End, Fence: l.Fence, Status: l.Status, RequestID: l.RequestID}
		if len(l.Detail) > 0 {
			out.Detail = encode(l.Detail)
		}
		p.Lines = append(p.Lines, out)
	}
}

func (db *Database) passWaiting(p *store.Passport) {
	p.Retries, p.DeadLetters = []store.Retry{}, []store.DeadLetter{}
	for _, r := range db.waiting() {
		if r.FileID == p.FileID {
			p.Retries = append(p.Retries, store.Retry{EventID: r.ID, Source: string(r.Source), Kind: r.Kind, User: r.User, AcceptedAt: r.AcceptedAt,
				DueAt: r.dueAt, Tries: r.Tries, Waited: r.Waited, Reason: r.reason})
		}
	}
	for _, l := range db.lettersWhere(func(l *letter) bool { return l.FileID == p.FileID }) {
		d := l.whole()
		p.DeadLetters = append(p.DeadLetters, store.DeadLetter{ID: d.ID, EventID: d.EventID, Source: string(d.Source), Kind: d.Kind, User: d.User,
			AcceptedAt: d.AcceptedAt, Class: string(d.Class), Reason: d.Reason, Note: d.Note, State: string(d.State), CreatedAt: d.CreatedAt,
			Attempts: len(d.Attempts), History: encode(append([]map[string]any{}, l.history...)), Origin: string(d.Origin), ReplayEvent: d.ReplayEvent,
			ChangedAt: d.ChangedAt, Tries: d.Attempts})
	}
}

// passActs are what operators did: what their jobs sent for the file or for its dead
// letters, and what the audit has under its name.
func (db *Database) passActs(p *store.Passport) {
	p.Jobs, p.Acts = []store.FileJob{}, []store.AuditLine{}
	for _, id := range sorted(db.jobs) {
		j := db.jobs[id]
		for _, i := range db.items[id] {
			mine := j.Verb == event.JobRecheck && i.item == p.FileID
			if l := db.letters[i.item]; j.Verb != event.JobRecheck {
				mine = l != nil && l.FileID == p.FileID
			}
			if !mine {
				continue
			}
			out := store.FileJob{JobID: id, Verb: j.Verb, Who: j.Who, Note: j.Note, At: i.takenAt, Event: i.eventID, PublishedAt: i.published,
				EndedAt: i.endedAt, End: i.end, Reason: i.reason}
			if j.Verb != event.JobRecheck {
				out.Letter = i.item
			}
			p.Jobs = append(p.Jobs, out)
		}
	}
	slices.SortFunc(p.Jobs, func(a, b store.FileJob) int {
		return cmp.Or(a.At.Compare(b.At), strings.Compare(a.JobID+a.Event, b.JobID+b.Event))
	})
	for _, a := range db.audit {
		if a.filter["file"] == p.FileID {
			p.Acts = append(p.Acts, store.AuditLine{ID: a.id, At: a.at, Who: a.who, Verb: a.verb, Filter: encode(a.filter), Note: a.note, JobID: a.jobID})
		}
	}
}

func (db *Database) passFindings(p *store.Passport) {
	p.Findings = []store.FileFinding{}
	for _, runID := range sorted(db.findings) {
		if f := db.findings[runID][p.FileID]; f != nil {
			p.Findings = append(p.Findings, store.FileFinding{Run: runID, Finding: f.told()})
		}
	}
	p.Findings = p.Findings[max(0, len(p.Findings)-passportFindings):]
}
