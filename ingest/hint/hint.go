// Package hint reads what a webhook or a report says. It is apart because it takes whatever
// anybody sends, and needs nothing but the bytes for that.
//
// Its one invariant: of a body there is one reading, JSON's own, and what is read of it can
// stand in a row, a log line and a page as it is.
package hint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
)

// maxDepth is how deep a body may nest.
const maxDepth = 32

// Refusal says what is wrong with a body. It holds nothing of it.
type Refusal struct {
	Code     string // one stable word
	Sentence string // for people
}

func (r *Refusal) Error() string { return "body refused: " + r.Code }

func refused(code, sentence string, args ...any) *Refusal {
	return &Refusal{code, fmt.Sprintf(sentence, args...)}
}

// MaxReports is how many files one request may report.
const MaxReports = 100

// Report is one report as a client made it.
type Report struct {
	FileID string
	Raw    []byte // the element as received
}

// ParseReports reads the body of /save-metadata, one object or an array of them, and says
// which. Only fileId means anything; a client's url is not even looked at. Its errors are
// *Refusal.
func ParseReports(body []byte) (reports []Report, array bool, err error) {
	if err := ValidJSON(body); err != nil {
		return nil, false, err
	}
	if bytes.TrimLeft(body, " \t\r\n")[0] != '[' {
		id, err := reportedID(body, "")
		return []Report{{id, body}}, false, err
	}
	var elements []json.RawMessage
	if err := json.Unmarshal(body, &elements); err != nil {
		return nil, true, badJSON()
	}
	if n := len(elements); n == 0 || n > MaxReports {
		return nil, true, refused("bad_count", "An array holds 1 to %d reports.", MaxReports)
	}
	reports = make([]Report, len(elements))
	for i, raw := range elements {
		id, err := reportedID(raw, place(i))
		if err != nil {
			return nil, true, err
		}
		reports[i] = Report{id, raw}
	}
	return reports, true, nil
}

func reportedID(raw []byte, where string) (string, error) {
	d := decoder(raw)
	if d.PeekKind() != '{' {
		return "", refused("bad_report", "A report%s is an object with a fileId.", where)
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
		return "", refused("missing_file_id", "The field fileId%s is missing.", where)
	case !file.ValidID(id):
		return "", refused("bad_file_id", "The field fileId%s must be 1 to %d characters of A-Z a-z 0-9 _ -.", where, file.MaxIDLength)
	}
	return id, nil
}

// KindUnknown stands for a webhook without a usable type.
const KindUnknown = "unknown"

// Notice is what we read of a webhook.
type Notice struct {
	Kind      string
	ID        string // the sender's id of it
	FileID    string // empty: nothing to look up
	UpdatedAt time.Time
}

// ParseNotice reads a verified webhook. It asks for JSON and for nothing else: kinds
// and fields come and go on ImageKit's side, and whatever names a file is a hint. Its
// errors are *Refusal.
func ParseNotice(body []byte) (Notice, error) {
	if tooDeep(body) {
		return Notice{}, nestsTooDeep()
	}
	n, err := readNotice(decoder(body))
	if err != nil {
		return Notice{}, badJSON()
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
func readNotice(d *jsontext.Decoder) (Notice, error) {
	n := Notice{Kind: KindUnknown}
	err := eachField(d, func(name string) (err error) {
		switch name {
		case "type":
			n.Kind, err = readText(d)
			if !plain(n.Kind) || n.Kind == event.KindReport || n.Kind == event.KindRecheck {
				n.Kind = KindUnknown // it would pass for one of ours, or cannot stand anywhere
			}
		case "id":
			if n.ID, err = readText(d); !plain(n.ID) {
				n.ID = ""
			}
		case "data":
			n.FileID, n.UpdatedAt, err = readFile(d)
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

// ValidJSON refuses what is not JSON in UTF-8, or nests too deep.
func ValidJSON(body []byte) error {
	switch {
	case tooDeep(body):
		return nestsTooDeep()
	case !utf8.Valid(body) || !json.Valid(body):
		return badJSON()
	}
	return nil
}

func nestsTooDeep() error {
	return refused("too_deep", "The body nests deeper than %d levels.", maxDepth)
}

func badJSON() error { return refused("bad_json", "The body is not valid JSON.") }

// place tells which element of an array is meant.
func place(i int) string { return " (in report " + strconv.Itoa(i+1) + ")" }

// tooDeep reports whether JSON text nests deeper than maxDepth, without building
// anything from it, so that a body of brackets costs its own size and no more.
func tooDeep(body []byte) bool {
	depth, inString, escaped := 0, false, false
	for _, c := range body {
		switch {
		case escaped:
			escaped = false
		case inString:
			escaped, inString = c == '\\', c != '"'
		case c == '"':
			inString = true
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}
