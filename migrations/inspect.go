package migrations

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// wanted is one column the service fills where it can.
type wanted struct {
	name  string
	types []string // as format_type prints them, the one we create first
	// always: every file has a value, so the column may be NOT NULL.
	always bool
}

// columns is what the service fills, in the order of the guide's table and then ours.
// An integer wider than ours is as good; a narrower one, a text with a limit or a time
// without zone is not: some file could not be written, for ever.
func columns() []wanted {
	text := []string{"text", "character varying"}
	whole := []string{"integer", "bigint"}
	zone := []string{"timestamp with time zone"}
	return []wanted{
		{"file_url", text, true},
		{"upload_timestamp", zone, true},
		{"file_name", text, false},
		{"file_path", text, false},
		{"file_type", text, false},
		{"mime", text, false},
		{"size_bytes", []string{"bigint"}, false},
		{"width", whole, false},
		{"height", whole, false},
		{"thumbnail_url", text, false},
		{"tags", []string{"text[]", "character varying[]"}, false},
		{"custom_metadata", []string{"jsonb"}, false},
		{"version_id", text, false},
		{"is_private", []string{"boolean"}, false},
		{"remote_updated_at", zone, true},
		{"synced_at", zone, true},
	}
}

// Column is one column of an imagekit_files that was found.
type Column struct {
	Name    string `json:"name"`
	Type    string `json:"type"`
	NotNull bool   `json:"notNull"`
	Default bool   `json:"default"` // a default, an identity or a generated value
	// Fixed: generated always, so that nobody may write it.
	Fixed bool `json:"fixed,omitempty"`
}

// Inspection is what `migrate` found before it touched anything.
type Inspection struct {
	// Exists is whether there is an imagekit_files at all.
	Exists bool `json:"exists"`
	// Kind is the relation's kind as PostgreSQL names it, "r" for a table.
	Kind    string   `json:"kind,omitempty"`
	Columns []Column `json:"columns,omitempty"`
	// Filled are the columns the service will fill, Missing those that `up` adds.
	Filled  []Column `json:"filled,omitempty"`
	Missing []string `json:"missing,omitempty"`
	// LeftAlone have a name of ours and a shape that cannot hold every file.
	LeftAlone []Column `json:"leftAlone,omitempty"`
	// Extra are the application's own.
	Extra []string `json:"extra,omitempty"`
	// AddUnique: file_id has no unique index and no duplicates, so `up` adds one.
	AddUnique bool `json:"addUnique,omitempty"`
	// Refused says, in one sentence each, why this table cannot be adopted.
	Refused []string `json:"refused,omitempty"`
}

// Refusal is nil where the table can be adopted.
func (in Inspection) Refusal() error {
	if len(in.Refused) == 0 {
		return nil
	}
	return errors.New("migrate: public.imagekit_files cannot be used as it is: " + strings.Join(in.Refused, "; ") + ". Nothing was changed")
}

// Notes are the sentences an operator should read.
func (in Inspection) Notes() []string {
	var out []string
	for _, c := range in.LeftAlone {
		out = append(out, fmt.Sprintf("column %s (%s) is left alone: its type cannot hold every file's value", c.Name, c.Type))
	}
	if len(in.Extra) > 0 {
		out = append(out, "the application's own columns are left alone: "+strings.Join(in.Extra, ", "))
	}
	if in.AddUnique {
		out = append(out, "file_id has no unique index; one is added (imagekit_files_file_id_key)")
	}
	return out
}

// Inspect looks at an existing imagekit_files and changes nothing.
func Inspect(ctx context.Context, url string, o Options) (Inspection, error) {
	m, err := open(ctx, url, o)
	if err != nil {
		return Inspection{}, err
	}
	defer m.close(ctx)
	return inspect(ctx, m.conn)
}

// InspectIn looks at it from inside a transaction, which may be a read-only one: for
// those who are to change nothing, and for a pooled address.
func InspectIn(ctx context.Context, tx pgx.Tx) (Inspection, error) { return inspect(ctx, tx) }

// reader is a connection or a transaction.
type reader interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

func inspect(ctx context.Context, conn reader) (Inspection, error) {
	in := Inspection{}
	err := conn.QueryRow(ctx, `SELECT relkind::text FROM pg_catalog.pg_class WHERE oid = to_regclass('public.imagekit_files')`).Scan(&in.Kind)
	if errors.Is(err, pgx.ErrNoRows) {
		for _, w := range columns() {
			in.Missing = append(in.Missing, w.name)
		}
		return in, nil
	}
	if err != nil {
		return in, fmt.Errorf("migrate: inspect imagekit_files: %w", err)
	}
	in.Exists = true
	if in.Kind != "r" && in.Kind != "p" {
		in.Refused = append(in.Refused, "it is not a table")
		return in, nil
	}
	if in.Columns, err = readColumns(ctx, conn); err != nil {
		return in, err
	}
	in.judge()
	return in, in.checkKeys(ctx, conn)
}

func readColumns(ctx context.Context, conn reader) ([]Column, error) {
	rows, err := conn.Query(ctx, `SELECT attname::text, format_type(atttypid, atttypmod), attnotnull, atthasdef OR attidentity <> '',
		attgenerated <> '' OR attidentity = 'a'
		FROM pg_catalog.pg_attribute WHERE attrelid = 'public.imagekit_files'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum`)
	if err != nil {
		return nil, fmt.Errorf("migrate: inspect columns: %w", err)
	}
	cols, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (Column, error) {
		var c Column
		return c, r.Scan(&c.Name, &c.Type, &c.NotNull, &c.Default, &c.Fixed)
	})
	if err != nil {
		return nil, fmt.Errorf("migrate: inspect columns: %w", err)
	}
	return cols, nil
}

// judge sorts the columns found into filled, left alone, extra and refused.
func (in *Inspection) judge() {
	want := map[string]wanted{}
	for _, w := range columns() {
		want[w.name] = w
	}
	for _, c := range in.Columns {
		switch w, ours := want[c.Name]; {
		case c.Name == "file_id" || c.Name == "user_id" || c.Name == "file_url":
			in.judgeKey(c)
		case c.Name == "id":
			if c.NotNull && !c.Default {
				in.refuse("id is NOT NULL without a default, so no row can be added")
			}
		case ours && slices.Contains(w.types, c.Type) && !c.Fixed && (w.always || !c.NotNull):
			in.Filled = append(in.Filled, c)
		case c.NotNull && !c.Default && !c.Fixed:
			in.refuse("column %s (%s) is NOT NULL without a default and cannot be filled for every file", c.Name, c.Type)
		case ours:
			in.LeftAlone = append(in.LeftAlone, c)
		default:
			in.Extra = append(in.Extra, c.Name)
		}
	}
	in.missing()
}

func (in *Inspection) missing() {
	has := func(name string) bool {
		return slices.ContainsFunc(in.Columns, func(c Column) bool { return c.Name == name })
	}
	for _, name := range []string{"file_id", "file_url", "user_id"} {
		if !has(name) {
			in.refuse("it has no column %s", name)
		}
	}
	for _, w := range columns() {
		if !has(w.name) {
			in.Missing = append(in.Missing, w.name)
		}
	}
}

func (in *Inspection) refuse(format string, args ...any) {
	in.Refused = append(in.Refused, fmt.Sprintf(format, args...))
}

// judgeKey judges the three columns without which nothing works.
func (in *Inspection) judgeKey(c Column) {
	room := map[string]int{"file_id": 64, "user_id": 64, "file_url": 1024}[c.Name]
	var n int
	limited, _ := fmt.Sscanf(c.Type, "character varying(%d)", &n)
	switch {
	case c.Fixed:
		in.refuse("column %s is generated and cannot be written", c.Name)
	case c.Type == "text", c.Type == "character varying", limited == 1 && n >= room:
		if c.Name == "file_url" {
			in.Filled = append(in.Filled, c)
		}
	case limited == 1:
		in.refuse("column %s holds only %d characters, %d are needed", c.Name, n, room)
	default:
		in.refuse("column %s is %s, it must be text", c.Name, c.Type)
	}
}

// checkKeys looks at what columns alone do not tell: uniqueness and foreign keys.
func (in *Inspection) checkKeys(ctx context.Context, conn reader) error {
	if len(in.Refused) > 0 {
		return nil
	}
	var unique, foreign bool
	err := conn.QueryRow(ctx, `SELECT
		EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = t.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
		        AND i.indnkeyatts = 1 AND i.indkey[0] = (SELECT attnum FROM pg_catalog.pg_attribute WHERE attrelid = t.oid AND attname = 'file_id')),
		EXISTS (SELECT FROM pg_catalog.pg_constraint c WHERE c.conrelid = t.oid AND c.contype = 'f'
		        AND c.conkey && ARRAY(SELECT attnum FROM pg_catalog.pg_attribute WHERE attrelid = t.oid AND attname IN ('file_id', 'user_id', 'file_url')))
		FROM (SELECT 'public.imagekit_files'::regclass::oid AS oid) t`).Scan(&unique, &foreign)
	if err != nil {
		return fmt.Errorf("migrate: inspect keys: %w", err)
	}
	if foreign {
		in.refuse("a foreign key stands on file_id, file_url or user_id, and a file without an owner has an empty user_id")
	}
	if unique {
		return nil
	}
	var twice int64
	if err := conn.QueryRow(ctx, `SELECT count(*) FROM (SELECT file_id FROM public.imagekit_files WHERE file_id IS NOT NULL GROUP BY file_id HAVING count(*) > 1) d`).Scan(&twice); err != nil {
		return fmt.Errorf("migrate: look for duplicate file_ids: %w", err)
	}
	if twice > 0 {
		in.refuse("file_id is not unique and %d values stand there more than once", twice)
		return nil
	}
	in.AddUnique = true
	return nil
}

// afterUp is what inspect would find once the missing columns are added.
func (in Inspection) afterUp() Inspection {
	for _, w := range columns() {
		if slices.Contains(in.Missing, w.name) {
			in.Filled = append(in.Filled, Column{Name: w.name, Type: w.types[0]})
		}
	}
	return in
}

// mapping is the script that records which columns the service fills.
func (in Inspection) mapping() string {
	values := make([]string, len(in.Filled))
	names := make([]string, len(in.Filled))
	for i, c := range in.Filled {
		values[i] = fmt.Sprintf("('%s', '%s')", c.Name, c.Type)
		names[i] = "'" + c.Name + "'"
	}
	return "DELETE FROM trueup.mapped_columns WHERE name NOT IN (" + strings.Join(names, ", ") + ");\n" +
		"INSERT INTO trueup.mapped_columns (name, type) VALUES " + strings.Join(values, ", ") +
		"\nON CONFLICT (name) DO UPDATE SET type = excluded.type WHERE mapped_columns.type <> excluded.type"
}
