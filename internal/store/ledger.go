package store

import (
	"cmp"
	"encoding/json"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/oklog/ulid/v2"

	"github.com/trueup/trueup/internal/rule"
)

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

func (w *writing) queueLedger(b *pgx.Batch) {
	queueLines(b, rule.Lines(w.call, w.files, w.ends, w.g, w.secrets))
}

// queueLines writes lines; those that are no event's get ids of their own.
func queueLines(b *pgx.Batch, lines []rule.Line) {
	if len(lines) == 0 {
		return
	}
	get := func(f func(*rule.Line) string) []string {
		out := make([]string, len(lines))
		for i := range lines {
			out[i] = f(&lines[i])
		}
		return out
	}
	accepted, fences := make([]*time.Time, len(lines)), make([]*int64, len(lines))
	statuses, requests := make([]*int, len(lines)), make([]*string, len(lines))
	for i := range lines {
		l := &lines[i]
		l.ID = cmp.Or(l.ID, newID())
		accepted[i], fences[i], statuses[i], requests[i] = moment(l.AcceptedAt), orNull(l.Fence), orNull(l.Status), orNull(l.RequestID)
	}
	exactly(b, len(lines), `INSERT INTO trueup.ledger (id, file_id, source, origin, kind, user_id, accepted_at, verdict, outcome, reason, end_kind,
			fence, status, request_id, detail)
		SELECT i.id, i.file_id, i.source, i.origin, i.kind, i.user_id, i.accepted_at, i.verdict, i.outcome, i.reason, i.end_kind,
			i.fence, i.status, i.request_id, nullif(i.d::jsonb, '{}') FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[], $8::text[],
			$9::text[], $10::text[], $11::text[], $12::bigint[], $13::int[], $14::text[], $15::text[])
		AS i(id, file_id, source, origin, kind, user_id, accepted_at, verdict, outcome, reason, end_kind, fence, status, request_id, d)
		ON CONFLICT (id) DO NOTHING`,
		get(func(l *rule.Line) string { return l.ID }), get(func(l *rule.Line) string { return l.FileID }), get(func(l *rule.Line) string { return l.Source }),
		get(func(l *rule.Line) string { return l.Origin }), get(func(l *rule.Line) string { return clean(l.Kind) }), get(func(l *rule.Line) string { return l.User }), accepted,
		get(func(l *rule.Line) string { return l.Verdict }), get(func(l *rule.Line) string { return l.Outcome }), get(func(l *rule.Line) string { return l.Reason }),
		get(func(l *rule.Line) string { return l.End }), fences, statuses, requests, get(func(l *rule.Line) string { return encode(l.Detail) }))
}
