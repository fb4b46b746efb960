package answer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/trueup/trueup/internal/file"
)

// maxRows is what a page may hold at most before it is no page of ImageKit's: ten times
// what it ever puts on one.
const maxRows = 10_000

// Many reads an array of files. A row that cannot be believed is left out, so that
// one bad row does not hide the others: whoever needs it asks by id and learns what is
// wrong with it. That it was there is said. Beside an error nothing is added to into.
func (a *Reader) Many(body []byte, into *file.Answer) error {
	if crowded(body) {
		return fmt.Errorf("more than %d rows on a page", maxRows)
	}
	var found file.Answer
	if err := a.rows(jsontext.NewDecoder(bytes.NewBuffer(body), asSent()), &found); err != nil {
		return notJSON(err)
	}
	into.Rows, into.Snapshots, into.Unreadable, into.Nameless = found.Rows, found.Snapshots, found.Unreadable, found.Nameless
	return nil
}

// rows reads the one array that d holds.
func (a *Reader) rows(d *jsontext.Decoder, into *file.Answer) error {
	if kind := d.PeekKind(); kind != '[' {
		if _, err := d.ReadValue(); err != nil {
			return err
		}
		return errors.New("no array")
	}
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	into.Snapshots = []file.Snapshot{}
	for d.PeekKind() != ']' {
		row, err := d.ReadValue()
		if err != nil {
			return err
		}
		into.Rows++
		a.take(row, into)
	}
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return errors.New("more than one array")
	}
	return nil
}

// take adds a row of a page, or what can be told of one that cannot be believed.
func (a *Reader) take(row []byte, into *file.Answer) {
	s, err := a.row(row)
	if err == nil {
		into.Snapshots = append(into.Snapshots, s)
		return
	}
	switch id, isFile := named(row); {
	case !isFile:
	case id == "":
		into.Nameless++
	default:
		into.Unreadable = append(into.Unreadable, id)
	}
}

// row reads one file of a page. One too large for a look-up is not believed here either.
func (a *Reader) row(raw []byte) (file.Snapshot, error) {
	if int64(len(raw)) > a.MaxFile {
		return file.Snapshot{}, fmt.Errorf("a row of more than %d bytes", a.MaxFile)
	}
	return a.snapshot(raw)
}

// crowded reports whether an array holds more than maxRows elements, before anything is
// made of it: a page of nothing but brackets would take forty times its size. Files are
// hundreds of bytes long, so their pages are told by the number of their commas alone.
func crowded(body []byte) bool {
	if commas := bytes.Count(body, []byte(",")); commas < maxRows || commas < len(body)/16 {
		return false
	}
	depth, rows, inString, escaped := 0, 1, false, false
	for _, c := range body {
		switch {
		case escaped:
			escaped = false
		case inString:
			escaped, inString = c == '\\', c != '"'
		case c == '"':
			inString = true
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			depth--
		case c == ',' && depth == 1:
			rows++
		}
	}
	return rows > maxRows
}

// named says what can be told of a row that cannot be believed: whether it may be a
// file, and its id; empty where not even that is usable. A folder, a file version, and
// a thing of a type yet unknown that has no fileId are no files.
func named(row []byte) (id string, isFile bool) {
	var r struct {
		Type   json.RawMessage `json:"type"`
		FileID json.RawMessage `json:"fileId"`
	}
	if json.Unmarshal(row, &r) != nil {
		return "", true // not even an object
	}
	var kind string
	typed := json.Unmarshal(r.Type, &kind) == nil && kind != ""
	if kind == "folder" || kind == "file-version" || typed && kind != "file" && len(r.FileID) == 0 {
		return "", false
	}
	if json.Unmarshal(r.FileID, &id) != nil || !file.ValidID(id) {
		return "", true
	}
	return id, true
}
