package store

import (
	"strings"
	"time"

	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/rule"
)

// column is one content column of imagekit_files: how it travels to the server and how
// it is taken from a snapshot. user_id and synced_at are not content.
type column struct {
	name string
	wire string // the array's element type on the wire
	list func([]*file.Snapshot) any
}

// contentColumns is every column the service can fill; which of them it does fill is
// recorded in the database by `migrate up`.
func contentColumns() []column {
	return []column{
		{"file_url", "text", list(func(s *file.Snapshot) *string { return &s.URL })},
		{"upload_timestamp", "timestamptz", list(func(s *file.Snapshot) *time.Time { return moment(s.CreatedAt) })},
		{"file_name", "text", list(func(s *file.Snapshot) *string { return s.Name })},
		{"file_path", "text", list(func(s *file.Snapshot) *string { return s.Path })},
		{"file_type", "text", list(func(s *file.Snapshot) *string { return s.Type })},
		{"mime", "text", list(func(s *file.Snapshot) *string { return s.MIME })},
		{"size_bytes", "bigint", list(func(s *file.Snapshot) *int64 { return s.SizeBytes })},
		{"width", "int", list(func(s *file.Snapshot) *int32 { return s.Width })},
		{"height", "int", list(func(s *file.Snapshot) *int32 { return s.Height })},
		{"thumbnail_url", "text", list(func(s *file.Snapshot) *string { return s.ThumbnailURL })},
		// An array of arrays would be flattened by unnest, so each row's tags travel as
		// one array literal.
		{"tags", "text", list(func(s *file.Snapshot) *string { return arrayLiteral(s.Tags) })},
		{"custom_metadata", "text", list(func(s *file.Snapshot) *string { return jsonText(s.CustomMetadata) })},
		{"version_id", "text", list(func(s *file.Snapshot) *string { return s.VersionID })},
		{"is_private", "bool", list(func(s *file.Snapshot) *bool { return s.IsPrivate })},
		{"remote_updated_at", "timestamptz", list(func(s *file.Snapshot) *time.Time { return moment(s.UpdatedAt) })},
	}
}

// list makes one typed array of one column; absent files have NULLs in it.
func list[T any](get func(*file.Snapshot) *T) func([]*file.Snapshot) any {
	return func(snaps []*file.Snapshot) any {
		out := make([]*T, len(snaps))
		for i, s := range snaps {
			if s != nil {
				out[i] = get(s)
			}
		}
		return out
	}
}

func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = rule.Micros(t)
	return &t
}

func jsonText(b []byte) *string {
	if len(b) == 0 {
		return nil
	}
	s := string(b)
	return &s
}

// arrayLiteral writes values as PostgreSQL reads a text[]; nil when there are none.
func arrayLiteral(values []string) *string {
	if len(values) == 0 {
		return nil
	}
	var b strings.Builder
	b.WriteByte('{')
	for i, v := range values {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteByte('"')
		for j := range len(v) {
			if v[j] == '"' || v[j] == '\\' {
				b.WriteByte('\\')
			}
			b.WriteByte(v[j])
		}
		b.WriteByte('"')
	}
	b.WriteByte('}')
	s := b.String()
	return &s
}

// mapping is the set of columns this database lets us fill, with every statement that
// depends on it. The hash is written in one place, so that "equal" means the same for
// the row that stands there and for the one proposed.
type mapping struct {
	columns []column
	types   map[string]string
	synced  bool
	// compat: an application's own inserts go through our trigger.
	compat bool

	read, reread, insert, update      string
	hashes, local, differences, known string
}

func newMapping(types map[string]string, compat bool) *mapping {
	m := &mapping{types: types, compat: compat}
	for _, c := range contentColumns() {
		if types[c.name] != "" {
			m.columns = append(m.columns, c)
		}
	}
	m.synced = types["synced_at"] != ""
	m.read = m.readSQL(true)
	m.reread = m.readSQL(false)
	m.insert = m.insertSQL()
	m.update = m.updateSQL()
	m.hashes, m.local, m.differences, m.known = m.hashesSQL(), m.localSQL(), m.differencesSQL(), m.knownSQL()
	return m
}

// args are the arrays behind proposals(): ids first, then one per column.
func (m *mapping) args(ids []string, snaps []*file.Snapshot) []any {
	out := make([]any, 0, len(m.columns)+2)
	out = append(out, ids)
	for _, c := range m.columns {
		out = append(out, c.list(snaps))
	}
	return out
}

// proposals is the FROM item i(file_id, <columns>[, extra]) over args.
func (m *mapping) proposals(extra ...string) string {
	var arrays, names strings.Builder
	arrays.WriteString("$1::text[]")
	names.WriteString("file_id")
	add := func(name, wire string, n int) {
		arrays.WriteString(", $" + itoa(n) + "::" + wire + "[]")
		names.WriteString(", " + name)
	}
	for i, c := range m.columns {
		add(c.name, c.wire, i+2)
	}
	for i := 0; i+1 < len(extra); i += 2 {
		add(extra[i], extra[i+1], len(m.columns)+2+i/2)
	}
	return "unnest(" + arrays.String() + ") AS i(" + names.String() + ")"
}

// value is a proposed column as the table's own type.
func (m *mapping) value(c column) string { return "i." + c.name + "::" + m.types[c.name] }

// rowHash hashes the content columns of alias f (the row) or i (what is proposed).
func (m *mapping) rowHash(alias string) string {
	parts := make([]string, len(m.columns))
	for i, c := range m.columns {
		if alias == "i" {
			parts[i] = m.value(c)
		} else {
			parts[i] = alias + "." + c.name
		}
	}
	return "hash_record_extended(ROW(" + strings.Join(parts, ", ") + "), 0)"
}
