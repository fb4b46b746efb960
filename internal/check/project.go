package check

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"
)

// contentColumns are the columns of public.imagekit_files that follow ImageKit.
var contentColumns = []string{
	"file_url", "upload_timestamp", "file_name", "file_path", "file_type", "mime", "size_bytes", "width", "height",
	"thumbnail_url", "tags", "custom_metadata", "version_id", "is_private", "remote_updated_at",
}

// remote is a file as ImageKit tells of it, as far as a row follows it.
type remote struct {
	FileID         string
	Name, FilePath *string
	URL            string
	Thumbnail      *string
	FileType, MIME *string
	Size           *float64
	Width, Height  *float64
	Tags           []string
	CustomMetadata map[string]any
	VersionInfo    *struct{ ID, Name *string }
	IsPrivateFile  *bool
	CreatedAt      time.Time
	UpdatedAt      time.Time
}

// projection is the row that a file of ImageKit's must have, and what else of the file
// the rules depend on.
type projection struct {
	row Row
	// users are those whose ticket the file carries, each once.
	users []string
	// ticketed: something looks like a ticket, opening or not.
	ticketed bool
	first    bool // it is in its first version
}

// project states what a row holds: ImageKit's url without query, createdAt as
// upload_timestamp, tags and custom metadata without tickets, thumbnails without what
// changes by itself; NULL for what ImageKit does not say, and for no tags and no metadata.
func project(raw json.RawMessage, s *Settings, o *opener) (*projection, error) {
	var r remote
	d := json.NewDecoder(bytes.NewReader(raw))
	if err := d.Decode(&r); err != nil {
		return nil, fmt.Errorf("ImageKit's own truth does not read: %w", err)
	}
	p := &projection{row: Row{
		FileID: r.FileID, FileURL: beforeQuery(r.URL), FileName: text(r.Name), FilePath: text(r.FilePath), FileType: text(r.FileType), MIME: text(r.MIME),
		SizeBytes: whole(r.Size, 1<<53), Width: whole(r.Width, math.MaxInt32), Height: whole(r.Height, math.MaxInt32),
		ThumbnailURL: thumbnail(r.Thumbnail), IsPrivate: r.IsPrivateFile,
		UploadTimestamp: stored(r.CreatedAt), RemoteUpdatedAt: stored(r.UpdatedAt),
	}}
	if v := r.VersionInfo; v != nil {
		p.row.VersionID = v.ID
		p.first = v.ID != nil && *v.ID == r.FileID || v.Name != nil && *v.Name == "Version 1"
	}
	for _, tag := range r.Tags {
		if ticketLike.MatchString(tag) {
			p.carries(o, tag)
		} else {
			p.row.Tags = append(p.row.Tags, *text(&tag))
		}
	}
	if f := s.TicketField; f != "" {
		if text, ok := r.CustomMetadata[f].(string); ok && ticketLike.MatchString(text) {
			p.carries(o, text)
		}
		delete(r.CustomMetadata, f)
	}
	if len(r.CustomMetadata) > 0 {
		b, err := metadata(raw, s.TicketField)
		if err != nil {
			return nil, err
		}
		p.row.CustomMetadata = b
	}
	return p, nil
}

func (p *projection) carries(o *opener, ticket string) {
	p.ticketed = true
	if user := o.open(ticket); user != "" && !slices.Contains(p.users, user) {
		p.users = append(p.users, user)
	}
}

// metadata is customMetadata without the ticket's field, its numbers as written.
func metadata(raw json.RawMessage, field string) (json.RawMessage, error) {
	var r struct{ CustomMetadata map[string]json.RawMessage }
	if err := json.Unmarshal(raw, &r); err != nil {
		return nil, err
	}
	delete(r.CustomMetadata, field)
	return json.Marshal(r.CustomMetadata)
}

// text is what a column of text can hold: no NUL.
func text(s *string) *string {
	if s == nil || !strings.Contains(*s, "\x00") {
		return s
	}
	t := strings.ReplaceAll(*s, "\x00", "\uFFFD")
	return &t
}

func beforeQuery(address string) string {
	if i := strings.IndexAny(address, "?#"); i >= 0 {
		return address[:i]
	}
	return address
}

// thumbnail drops what makes two addresses of one thumbnail differ.
func thumbnail(address *string) *string {
	if address == nil || *address == "" {
		return nil
	}
	base, query := beforeQuery(*address), ""
	if i := strings.IndexByte(*address, '?'); i >= 0 {
		query, _, _ = strings.Cut((*address)[i+1:], "#")
	}
	var keep []string
	for _, pair := range strings.Split(query, "&") {
		name, _, _ := strings.Cut(pair, "=")
		if plain, err := url.QueryUnescape(name); err == nil {
			name = plain
		}
		if !slices.Contains([]string{"", "updatedAt", "ik-s", "ik-t", "ik-sdk-version"}, name) {
			keep = append(keep, pair)
		}
	}
	if len(keep) > 0 {
		base += "?" + strings.Join(keep, "&")
	}
	return &base
}

// whole is a number that a column of whole numbers can hold.
func whole(f *float64, most float64) *int64 {
	if f == nil || *f < 0 || *f > most || *f != math.Trunc(*f) {
		return nil
	}
	n := int64(*f)
	return &n
}

func stored(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC().Truncate(time.Microsecond)
	return &t
}

// differences names the content columns in which two rows differ.
func differences(want, got *Row, columns []string) []string {
	if columns == nil {
		columns = contentColumns
	}
	var out []string
	for _, c := range columns {
		w, g := column(want, c), column(got, c)
		if !equal(w, g) {
			out = append(out, fmt.Sprintf("%s is %s, not %s", c, show(g), show(w)))
		}
	}
	return out
}

// column is a value of a row: nil, or a string, int64, bool, time.Time, []string or JSON.
func column(r *Row, name string) any {
	switch name {
	case "file_url":
		return r.FileURL
	case "user_id":
		return r.UserID
	case "upload_timestamp":
		return value(r.UploadTimestamp)
	case "file_name":
		return value(r.FileName)
	case "file_path":
		return value(r.FilePath)
	case "file_type":
		return value(r.FileType)
	case "mime":
		return value(r.MIME)
	case "size_bytes":
		return value(r.SizeBytes)
	case "width":
		return value(r.Width)
	case "height":
		return value(r.Height)
	case "thumbnail_url":
		return value(r.ThumbnailURL)
	case "tags":
		if r.Tags == nil {
			return nil
		}
		return r.Tags
	case "custom_metadata":
		if r.CustomMetadata == nil {
			return nil
		}
		return r.CustomMetadata
	case "version_id":
		return value(r.VersionID)
	case "is_private":
		return value(r.IsPrivate)
	case "remote_updated_at":
		return value(r.RemoteUpdatedAt)
	}
	return fmt.Errorf("no column %s", name)
}

func value[T any](p *T) any {
	if p == nil {
		return nil
	}
	return *p
}

func equal(a, b any) bool {
	switch x := a.(type) {
	case time.Time:
		y, ok := b.(time.Time)
		return ok && x.Equal(y)
	case []string:
		y, ok := b.([]string)
		return ok && slices.Equal(x, y)
	case json.RawMessage:
		y, ok := b.(json.RawMessage)
		return ok && sameJSON(x, y)
	}
	return a == b
}

// sameJSON compares as jsonb does: numbers by value, members in any order.
func sameJSON(a, b json.RawMessage) bool {
	if bytes.Equal(a, b) {
		return true
	}
	x, errX := parse(a)
	y, errY := parse(b)
	return errX == nil && errY == nil && reflect.DeepEqual(x, y)
}

func parse(raw json.RawMessage) (any, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	return exact(v), nil
}

// exact writes each number in one way.
func exact(v any) any {
	switch x := v.(type) {
	case json.Number:
		if r, ok := new(big.Rat).SetString(x.String()); ok {
			return "number " + r.RatString()
		}
	case []any:
		for i := range x {
			x[i] = exact(x[i])
		}
	case map[string]any:
		for k := range x {
			x[k] = exact(x[k])
		}
	case string:
		return "text " + x
	}
	return v
}

func show(v any) string {
	switch x := v.(type) {
	case nil:
		return "NULL"
	case time.Time:
		return x.UTC().Format(time.RFC3339Nano)
	case json.RawMessage:
		return clip(string(x))
	}
	return clip(fmt.Sprintf("%q", fmt.Sprint(v)))
}

func clip(s string) string {
	if len(s) > 120 {
		return s[:120] + "…"
	}
	return s
}
