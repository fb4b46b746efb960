package rows

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/store"
)

// Row is one row of imagekit_files.
type Row struct {
	ID              int64
	FileID          string
	FileURL         string
	UserID          string
	UploadTimestamp *time.Time
	FileName        *string
	FilePath        *string
	FileType        *string
	MIME            *string
	SizeBytes       *int64
	Width, Height   *int32
	ThumbnailURL    *string
	Tags            []string
	CustomMetadata  json.RawMessage
	VersionID       *string
	IsPrivate       *bool
	RemoteUpdatedAt *time.Time
	SyncedAt        *time.Time

	xmin uint64
}

// fill writes what ImageKit said of the file.
func (r *Row) fill(s *file.Snapshot) {
	*r = Row{
		ID: r.ID, FileID: r.FileID, UserID: r.UserID, SyncedAt: r.SyncedAt, xmin: r.xmin,
		FileURL: s.URL, UploadTimestamp: orNull(micros(s.CreatedAt)), FileName: s.Name, FilePath: s.Path, FileType: s.Type, MIME: s.MIME,
		SizeBytes: s.SizeBytes, Width: s.Width, Height: s.Height, ThumbnailURL: s.ThumbnailURL, Tags: slices.Clone(s.Tags),
		CustomMetadata: bytes.Clone(s.CustomMetadata), VersionID: s.VersionID, IsPrivate: s.IsPrivate, RemoteUpdatedAt: orNull(micros(s.UpdatedAt)),
	}
}

func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// column is one content column of a row, as text; nil is NULL. user_id and synced_at are
// not content.
type column struct {
	name string
	text *string
}

// columns are in the order of the table's mapping.
func (r *Row) columns() []column {
	str := func(s string, is bool) *string {
		if !is {
			return nil
		}
		return &s
	}
	return []column{
		{"file_url", &r.FileURL},
		{"upload_timestamp", timeText(r.UploadTimestamp)},
		{"file_name", r.FileName}, {"file_path", r.FilePath}, {"file_type", r.FileType}, {"mime", r.MIME},
		{"size_bytes", numberText(r.SizeBytes)}, {"width", numberText(r.Width)}, {"height", numberText(r.Height)},
		{"thumbnail_url", r.ThumbnailURL},
		{"tags", str(arrayText(r.Tags), len(r.Tags) > 0)},
		{"custom_metadata", str(jsonText(r.CustomMetadata), len(r.CustomMetadata) > 0)},
		{"version_id", r.VersionID},
		{"is_private", boolText(r.IsPrivate)},
		{"remote_updated_at", timeText(r.RemoteUpdatedAt)},
	}
}

// hash is over the content columns: equal for equal content, whoever wrote it.
func (r *Row) hash() int64 {
	h := fnv.New64a()
	for _, c := range r.columns() {
		if c.text == nil {
			_, _ = h.Write([]byte{0})
			continue
		}
		_, _ = fmt.Fprintf(h, "%d:%s", len(*c.text)+1, *c.text)
	}
	return int64(h.Sum64())
}

// hashOf is the hash of a row with exactly this content.
func hashOf(s *file.Snapshot) int64 {
	var r Row
	r.fill(s)
	return r.hash()
}

// refused says why the database would not take these values: text must be UTF-8 without
// U+0000, and metadata JSON without it.
func refused(op string, s *file.Snapshot) error {
	if s == nil {
		return nil
	}
	texts := append([]*string{&s.ID, &s.URL, s.Name, s.Path, s.Type, s.MIME, s.ThumbnailURL, s.VersionID}, pointers(s.Tags)...)
	for _, t := range texts {
		if t != nil && !storable(*t) {
			return &store.BadData{Op: op, Code: "22021", Err: fmt.Errorf("invalid byte sequence for encoding \"UTF8\" in file %q", s.ID)}
		}
	}
	if m := s.CustomMetadata; len(m) > 0 && (!json.Valid(m) || !storable(string(m)) || jsonHasNUL(m)) {
		return &store.BadData{Op: op, Code: "22P02", Err: fmt.Errorf("invalid input for type json of file %q", s.ID)}
	}
	return nil
}

func storable(s string) bool { return utf8.ValidString(s) && !strings.Contains(s, "\x00") }

func pointers(values []string) []*string {
	out := make([]*string, len(values))
	for i := range values {
		out[i] = &values[i]
	}
	return out
}

func jsonHasNUL(m json.RawMessage) bool {
	var v any
	return json.Unmarshal(m, &v) == nil && strings.Contains(jsonText(m), "\x00")
}

func numberText[T int32 | int64](n *T) *string {
	if n == nil {
		return nil
	}
	s := strconv.FormatInt(int64(*n), 10)
	return &s
}

func boolText(b *bool) *string {
	if b == nil {
		return nil
	}
	s := strconv.FormatBool(*b)
	return &s
}

// timeText is a timestamptz in UTC.
func timeText(t *time.Time) *string {
	if t == nil {
		return nil
	}
	s := t.UTC().Format("2006-01-02 15:04:05.999999") + "+00"
	return &s
}

// arrayText is a text[] as PostgreSQL shows it.
func arrayText(values []string) string {
	quoted := make([]string, len(values))
	for i, v := range values {
		if v == "" || strings.EqualFold(v, "null") || strings.ContainsAny(v, "{},\"\\ \t\n\r\v\f") {
			v = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(v) + `"`
		}
		quoted[i] = v
	}
	return "{" + strings.Join(quoted, ",") + "}"
}

// jsonText is a jsonb as PostgreSQL shows it: shorter keys first, the last of equal keys,
// numbers as they were written.
func jsonText(m json.RawMessage) string {
	d := json.NewDecoder(bytes.NewReader(m))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return string(m)
	}
	var b strings.Builder
	writeJSON(&b, v)
	return b.String()
}

func writeJSON(b *strings.Builder, v any) {
	switch v := v.(type) {
	case map[string]any:
		keys := slices.SortedFunc(maps.Keys(v), func(x, y string) int { return cmp.Or(len(x)-len(y), strings.Compare(x, y)) })
		b.WriteByte('{')
		for i, k := range keys {
			if i > 0 {
				b.WriteString(", ")
			}
			quote(b, k)
			b.WriteString(": ")
			writeJSON(b, v[k])
		}
		b.WriteByte('}')
	case []any:
		b.WriteByte('[')
		for i, e := range v {
			if i > 0 {
				b.WriteString(", ")
			}
			writeJSON(b, e)
		}
		b.WriteByte(']')
	case string:
		quote(b, v)
	case nil:
		b.WriteString("null")
	default:
		fmt.Fprint(b, v)
	}
}

func quote(b *strings.Builder, s string) {
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\b':
			b.WriteString(`\b`)
		case r == '\f':
			b.WriteString(`\f`)
		case r < ' ' && r != 0:
			fmt.Fprintf(b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
}
