package imagekit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/trueup/trueup/internal/file"
)

// pageSize is the most files that ImageKit puts on one page.
const pageSize = 1000

// maxRows is what a page may hold at most before it is no page of ImageKit's: ten times
// what it ever puts on one.
const maxRows = 10 * pageSize

// queryTime is how a searchQuery writes a moment: UTC, to the second. A fraction is
// not documented.
const queryTime = "2006-01-02T15:04:05"

// ListCreated asks for one page of the library: up to 1,000 files with createdAt at or
// after from (cut to the second; zero means all), oldest first, less the first skip. A
// page of fewer does not say that there are no more, nor does an empty one.
func (c *Client) ListCreated(ctx context.Context, from time.Time, skip int) (file.Answer, error) {
	return c.page(ctx, pagePath("createdAt", "ASC_CREATED", from, skip))
}

// ListUpdated is ListCreated by updatedAt.
func (c *Client) ListUpdated(ctx context.Context, from time.Time, skip int) (file.Answer, error) {
	return c.page(ctx, pagePath("updatedAt", "ASC_UPDATED", from, skip))
}

// Newest asks for the file that was updated last. No snapshot means that there is none,
// or that it cannot be believed.
func (c *Client) Newest(ctx context.Context) (file.Answer, error) {
	return c.page(ctx, "/v1/files?type=file&sort=DESC_UPDATED&limit=1")
}

// page asks for an array of files that may be long in coming and large.
func (c *Client) page(ctx context.Context, pathAndQuery string) (file.Answer, error) {
	return c.list(ctx, pathAndQuery, c.config.PageTimeout, c.config.MaxPage)
}

// list asks for an array of files.
func (c *Client) list(ctx context.Context, pathAndQuery string, timeout time.Duration, limit int64) (file.Answer, error) {
	r := c.get(ctx, pathAndQuery, timeout, limit)
	if r.fault == nil && r.answer.Status != http.StatusOK {
		r.fault = c.refusal(r, false)
	}
	if r.fault != nil {
		return r.answer, r.fault
	}
	if err := c.many(r.body, &r.answer); err != nil {
		return r.answer, c.garbled(r, err)
	}
	return r.answer, nil
}

// pagePath writes the query of one page. The type clause keeps folders and file
// versions out.
func pagePath(field, sort string, from time.Time, skip int) string {
	expression := `type = "file"`
	if !from.IsZero() {
		expression += ` AND ` + field + ` >= "` + from.UTC().Format(queryTime) + `"`
	}
	path := "/v1/files?searchQuery=" + escaped(expression) + "&sort=" + sort + "&limit=" + strconv.Itoa(pageSize)
	if skip > 0 {
		path += "&skip=" + strconv.Itoa(skip)
	}
	return path
}

// escaped writes an expression into a query. ImageKit's own SDKs disagree on + and
// %20; %20 means a space everywhere.
func escaped(expression string) string {
	return strings.ReplaceAll(url.QueryEscape(expression), "+", "%20")
}

// many reads an array of files. A row that cannot be believed is left out, so that
// one bad row does not hide the others: whoever needs it asks by id and learns what is
// wrong with it. That it was there is said.
func (c *Client) many(body []byte, into *file.Answer) error {
	if crowded(body) {
		return fmt.Errorf("more than %d rows on a page", maxRows)
	}
	var found file.Answer
	if err := c.rows(jsontext.NewDecoder(bytes.NewBuffer(body), asSent()), &found); err != nil {
		return notJSON(err)
	}
	into.Rows, into.Snapshots, into.Unreadable, into.Nameless = found.Rows, found.Snapshots, found.Unreadable, found.Nameless
	return nil
}

// rows reads the one array that d holds.
func (c *Client) rows(d *jsontext.Decoder, into *file.Answer) error {
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
		c.take(row, into)
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
func (c *Client) take(row []byte, into *file.Answer) {
	s, err := c.row(row)
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
func (c *Client) row(raw []byte) (file.Snapshot, error) {
	if int64(len(raw)) > c.config.MaxDetails {
		return file.Snapshot{}, fmt.Errorf("a row of more than %d bytes", c.config.MaxDetails)
	}
	return c.snapshot(raw)
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
