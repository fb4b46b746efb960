package store

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/oklog/ulid/v2"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
)

// Verdict words of the ledger.
const (
	verdictPresent   = "present"
	verdictAbsent    = "absent"
	verdictRefused   = "refused"
	verdictUndecided = "undecided"
)

// line is one line of the ledger. At is zero when it is written: the database's clock
// says.
type line struct {
	id, fileID, source, origin, kind, user string
	accepted                               *time.Time
	verdict, outcome, reason, endKind      string
	fence                                  *int64
	status                                 *int
	requestID                              *string
	detail                                 map[string]any
}

func (l *line) observe(o *file.Observation) {
	if o == nil {
		l.verdict = verdictUndecided
		return
	}
	l.verdict = verdictAbsent
	if o.Present() {
		l.verdict = verdictPresent
	}
	l.fence, l.requestID = ptr(o.Fence.Number), orNull(o.RequestID)
	if o.Status != 0 {
		l.status = ptr(o.Status)
	}
}

// eventLine tells how an event ended. A retry has no line: it has not ended.
func eventLine(e *ended) line {
	l := line{
		id: e.ID, fileID: e.FileID, source: string(e.Source), origin: string(e.Origin), kind: clean(e.Kind), user: e.User,
		accepted: moment(e.AcceptedAt), outcome: string(e.result.Outcome), reason: e.end.Reason, endKind: string(e.end.Kind),
		detail: map[string]any{},
	}
	l.observe(e.obs)
	if e.end.Kind == event.Rejected && e.result.Claim == file.ClaimRefused {
		l.verdict = verdictRefused
	}
	put := func(k string, v any, is bool) {
		if is {
			l.detail[k] = v
		}
	}
	put("write", e.result.Reason, e.result.Reason != "" && string(e.result.Reason) != e.end.Reason)
	put("claim", e.result.Claim, e.result.Claim != "")
	put("note", clean(e.end.Note), e.end.Note != "")
	put("class", e.end.Class, e.end.Class != "")
	put("tries", e.Tries+1, e.Tries > 0)
	put("waitedMs", e.Waited.Milliseconds(), e.Waited > 0)
	put("deadLetter", e.DeadLetter, e.DeadLetter != "")
	put("webhookId", clean(e.WebhookID), e.WebhookID != "")
	return l
}

// writeLine tells of a write that no ending event tells of: its event waits in retries,
// or there was none (a poll, a listing).
func writeLine(f *filePlan) line {
	l := line{id: newID(), fileID: f.obs.FileID, source: "trueup", origin: "trueup", kind: "write",
		outcome: string(f.do.Outcome), reason: string(f.do.Reason), detail: map[string]any{"how": f.obs.How}}
	l.observe(f.obs)
	if ids := eventIDs(f.events); len(ids) > 0 {
		l.detail["events"] = ids
	}
	return l
}

// securityLine notes one new flag.
func securityLine(f *filePlan, flag string) line {
	l := line{id: newID(), fileID: f.obs.FileID, source: "trueup", origin: "trueup", kind: "security", reason: flag,
		detail: map[string]any{"events": eventIDs(f.events)}}
	l.observe(f.obs)
	return l
}

func eventIDs(events []event.Pending) []string {
	out := make([]string, len(events))
	for i, e := range events {
		out[i] = e.ID
	}
	return out
}

func newID() string { return ulid.Make().String() }

// clean keeps a text that came from outside from being one the database cannot hold.
func clean(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// encode is JSON that jsonb can hold: it has no U+0000.
func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return `{"unencodable":true}`
	}
	return dropNUL(string(b))
}

// dropNUL replaces the escape \u0000, but not an escaped backslash before "u0000".
func dropNUL(s string) string {
	if !strings.Contains(s, `\u0000`) {
		return s
	}
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && strings.HasPrefix(s[i:], `\u0000`):
			out.WriteString(`\ufffd`)
			i += 5
		case s[i] == '\\' && i+1 < len(s):
			out.WriteString(s[i : i+2])
			i++
		default:
			out.WriteByte(s[i])
		}
	}
	return out.String()
}

func (w *writing) lines() []line {
	var out []line
	told := map[string]bool{}
	for i := range w.ends {
		if e := w.ends[i]; e.end.Kind != event.Retry {
			e.end.Note = w.secrets.text(e.end.Note)
			out = append(out, w.ofRun(eventLine(&e), e.Pending))
			told[e.FileID] = true
		}
	}
	for _, f := range w.files {
		if f.writes() && !told[f.obs.FileID] {
			out = append(out, w.ofRun(writeLine(f), f.events...))
		}
		for _, flag := range f.flags {
			out = append(out, w.ofRun(securityLine(f, flag), f.events...))
		}
	}
	return out
}

// ofRun names the run that repaired, or sent one of the events, so that the file's story
// can tell.
func (w *writing) ofRun(l line, events ...event.Pending) line {
	for _, p := range events {
		if of, ok := w.g.lines[p.ID]; ok {
			l.detail["run"] = of.runID
		}
	}
	if w.run != nil {
		l.detail["run"] = w.run.id
	}
	return l
}

func (w *writing) queueLedger(b *pgx.Batch) { queueLines(b, w.lines()) }

func queueLines(b *pgx.Batch, lines []line) {
	if len(lines) == 0 {
		return
	}
	get := func(f func(*line) string) []string {
		out := make([]string, len(lines))
		for i := range lines {
			out[i] = f(&lines[i])
		}
		return out
	}
	accepted, fences := make([]*time.Time, len(lines)), make([]*int64, len(lines))
	statuses, requests := make([]*int, len(lines)), make([]*string, len(lines))
	for i, l := range lines {
		accepted[i], fences[i], statuses[i], requests[i] = l.accepted, l.fence, l.status, l.requestID
	}
	exactly(b, len(lines), `INSERT INTO trueup.ledger (id, file_id, source, origin, kind, user_id, accepted_at, verdict, outcome, reason, end_kind,
			fence, status, request_id, detail)
		SELECT i.id, i.file_id, i.source, i.origin, i.kind, i.user_id, i.accepted_at, i.verdict, i.outcome, i.reason, i.end_kind,
			i.fence, i.status, i.request_id, nullif(i.d::jsonb, '{}') FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[], $8::text[],
			$9::text[], $10::text[], $11::text[], $12::bigint[], $13::int[], $14::text[], $15::text[])
		AS i(id, file_id, source, origin, kind, user_id, accepted_at, verdict, outcome, reason, end_kind, fence, status, request_id, d)
		ON CONFLICT (id) DO NOTHING`,
		get(func(l *line) string { return l.id }), get(func(l *line) string { return l.fileID }), get(func(l *line) string { return l.source }),
		get(func(l *line) string { return l.origin }), get(func(l *line) string { return l.kind }), get(func(l *line) string { return l.user }), accepted,
		get(func(l *line) string { return l.verdict }), get(func(l *line) string { return l.outcome }), get(func(l *line) string { return l.reason }),
		get(func(l *line) string { return l.endKind }), fences, statuses, requests, get(func(l *line) string { return encode(l.detail) }))
}
