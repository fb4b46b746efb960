package ingest

import (
	"bytes"
	"encoding/json"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
)

// maxReports is how many files one request may report.
const maxReports = 100

// said is one report as a client made it.
type said struct {
	fileID string
	raw    []byte // the element as received
}

// parseReports reads the body of /save-metadata, one object or an array of them.
// Only fileId means anything; a client's url is not even looked at.
func parseReports(body []byte) (reports []said, array bool, err error) {
	if err := validJSON(body); err != nil {
		return nil, false, err
	}
	if bytes.TrimLeft(body, " \t\r\n")[0] != '[' {
		id, err := reportedID(body, "")
		return []said{{id, body}}, false, err
	}
	var elements []json.RawMessage
	if err := json.Unmarshal(body, &elements); err != nil {
		return nil, true, badJSON()
	}
	if n := len(elements); n == 0 || n > maxReports {
		return nil, true, badRequest("bad_count", "An array holds 1 to %d reports.", maxReports)
	}
	reports = make([]said, len(elements))
	for i, raw := range elements {
		id, err := reportedID(raw, place(i))
		if err != nil {
			return nil, true, err
		}
		reports[i] = said{id, raw}
	}
	return reports, true, nil
}

func reportedID(raw []byte, where string) (string, error) {
	fields, ok := object(raw)
	if !ok {
		return "", badRequest("bad_report", "A report%s is an object with a fileId.", where)
	}
	given, ok := fields["fileId"]
	if !ok {
		return "", badRequest("missing_file_id", "The field fileId%s is missing.", where)
	}
	id, ok := text(given)
	if !ok || !file.ValidID(id) {
		return "", badRequest("bad_file_id", "The field fileId%s must be 1 to %d characters of A-Z a-z 0-9 _ -.", where, file.MaxIDLength)
	}
	return id, nil
}

// kindUnknown stands for a webhook without a usable type.
const kindUnknown = "unknown"

// notice is what we read of a webhook.
type notice struct {
	kind      string
	id        string // the sender's id of it
	fileID    string // empty: nothing to look up
	updatedAt time.Time
}

// parseNotice reads a verified webhook. It asks for JSON and for nothing else: kinds
// and fields come and go on ImageKit's side, and whatever names a file is a hint.
func parseNotice(body []byte) (notice, error) {
	if tooDeep(body) {
		return notice{}, nestsTooDeep()
	}
	n := notice{kind: kindUnknown}
	fields, ok := object(body)
	switch {
	case !ok && !json.Valid(body): // bytes that are no UTF-8 may stand in its texts
		return notice{}, badJSON()
	case !ok:
		return n, nil
	}
	n.kind = kindOf(fields["type"])
	if id, ok := text(fields["id"]); ok && plain(id) {
		n.id = id
	}
	data, _ := object(fields["data"])
	if id, ok := text(data["fileId"]); ok && file.ValidID(id) {
		n.fileID = id
	}
	n.updatedAt = instant(data["updatedAt"])
	return n, nil
}

// kindOf takes a type as ImageKit wrote it, unless it would pass for one of ours.
func kindOf(raw json.RawMessage) string {
	kind, ok := text(raw)
	if !ok || !plain(kind) || kind == event.KindReport || kind == event.KindRecheck {
		return kindUnknown
	}
	return kind
}

// plain reports whether s can stand in a row, a log line and a page as it is.
func plain(s string) bool {
	if s == "" || len(s) > 128 {
		return false
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}

// instant is the zero time for whatever is no time of this era.
func instant(raw json.RawMessage) time.Time {
	s, ok := text(raw)
	if !ok {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	// In UTC: the last hour of 9999 elsewhere may be one that no JSON can write.
	if t = t.UTC(); err != nil || t.Year() < 2000 || t.Year() > 9999 {
		return time.Time{}
	}
	return t.Truncate(time.Microsecond)
}

// object returns the fields by their exact names: a struct would also take FILEID
// for fileId. When a name occurs twice the last one counts.
func object(raw json.RawMessage) (map[string]json.RawMessage, bool) {
	var fields map[string]json.RawMessage
	if len(raw) == 0 || json.Unmarshal(raw, &fields) != nil {
		return nil, false
	}
	return fields, fields != nil
}

func text(raw json.RawMessage) (string, bool) {
	if len(raw) == 0 || raw[0] != '"' {
		return "", false
	}
	var s string
	err := json.Unmarshal(raw, &s)
	return s, err == nil
}

func validJSON(body []byte) error {
	switch {
	case tooDeep(body):
		return nestsTooDeep()
	case !utf8.Valid(body) || !json.Valid(body):
		return badJSON()
	}
	return nil
}

func nestsTooDeep() error {
	return badRequest("too_deep", "The body nests deeper than %d levels.", maxDepth)
}

func badJSON() error { return badRequest("bad_json", "The body is not valid JSON.") }

// place tells which element of an array is meant.
func place(i int) string { return " (in report " + strconv.Itoa(i+1) + ")" }
