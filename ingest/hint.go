package ingest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

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
	d := decoder(raw)
	if d.PeekKind() != '{' {
		return "", badRequest("bad_report", "A report%s is an object with a fileId.", where)
	}
	id, found := "", false
	err := eachField(d, func(name string) (err error) {
		if name != "fileId" {
			return d.SkipValue()
		}
		found = true
		id, err = readText(d)
		return err
	})
	switch {
	case err != nil:
		return "", badJSON()
	case !found:
		return "", badRequest("missing_file_id", "The field fileId%s is missing.", where)
	case !file.ValidID(id):
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
	n, err := readNotice(decoder(body))
	if err != nil {
		return notice{}, badJSON()
	}
	return n, nil
}

// decoder reads JSON as it comes and by exact names: a struct would also take FILEID for
// fileId. When a name occurs twice the last one counts, and bytes that are no UTF-8 may
// stand in texts.
func decoder(body []byte) *jsontext.Decoder {
	return jsontext.NewDecoder(bytes.NewBuffer(body), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
}

// readNotice reads one JSON value, and that nothing follows it.
func readNotice(d *jsontext.Decoder) (notice, error) {
	n := notice{kind: kindUnknown}
	err := eachField(d, func(name string) (err error) {
		switch name {
		case "type":
			n.kind, err = readText(d)
			if !plain(n.kind) || n.kind == event.KindReport || n.kind == event.KindRecheck {
				n.kind = kindUnknown // it would pass for one of ours, or cannot stand anywhere
			}
		case "id":
			if n.id, err = readText(d); !plain(n.id) {
				n.id = ""
			}
		case "data":
			n.fileID, n.updatedAt, err = readFile(d)
		default:
			err = d.SkipValue()
		}
		return err
	})
	if err != nil {
		return n, err
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return n, errors.New("more than one value")
	}
	return n, nil
}

// readFile reads what names a file and its version.
func readFile(d *jsontext.Decoder) (id string, updatedAt time.Time, err error) {
	err = eachField(d, func(name string) error {
		var s string
		var err error
		switch name {
		case "fileId":
			if id, err = readText(d); !file.ValidID(id) {
				id = ""
			}
		case "updatedAt":
			s, err = readText(d)
			updatedAt = instant(s)
		default:
			err = d.SkipValue()
		}
		return err
	})
	return id, updatedAt, err
}

// eachField calls read for each field of the object that comes next; read has to consume
// the field's value. Anything but an object is passed over.
func eachField(d *jsontext.Decoder, read func(name string) error) error {
	if d.PeekKind() != '{' {
		return d.SkipValue()
	}
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	for d.PeekKind() != '}' {
		name, err := d.ReadToken()
		if err != nil {
			return err
		}
		if err := read(name.String()); err != nil {
			return err
		}
	}
	_, err := d.ReadToken()
	return err
}

// readText consumes a value; it is empty where that is no text.
func readText(d *jsontext.Decoder) (string, error) {
	if d.PeekKind() != '"' {
		return "", d.SkipValue()
	}
	t, err := d.ReadToken()
	if err != nil {
		return "", err
	}
	return t.String(), nil
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
func instant(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	// In UTC: the last hour of 9999 elsewhere may be one that no JSON can write.
	if t = t.UTC(); err != nil || t.Year() < 2000 || t.Year() > 9999 {
		return time.Time{}
	}
	return t.Truncate(time.Microsecond)
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
