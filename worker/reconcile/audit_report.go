package reconcile

import (
	"cmp"
	"slices"
	"strings"

	"github.com/trueup/trueup/internal/run"
)

// AuditReport is what an audit found.
type AuditReport struct {
	// Rows of the table, and Files of the library. Same rows say what ImageKit says.
	Rows  int64 `json:"rows"`
	Files int64 `json:"files"`
	Same  int64 `json:"same"`

	// Deleted rows point at files that are gone. The listing does not show Unlisted ones;
	// Asked of those were looked up by id: Gone were not there, There were, and Unclear
	// gave no answer. Sampled: not all were asked, and Deleted follows from the listing,
	// or, where that is not whole, counts those asked only.
	Deleted  int64 `json:"deleted"`
	Unlisted int64 `json:"unlisted"`
	Asked    int64 `json:"asked"`
	Gone     int64 `json:"gone"`
	There    int64 `json:"there"`
	Unclear  int64 `json:"unclear"`
	Sampled  bool  `json:"sampled"`

	// NoRow files have no row.
	NoRow int64 `json:"noRow"`

	// Differ rows disagree with ImageKit in what the file is. FormOnly ones disagree only
	// in what an application writes in a way of its own: its clock at the upload, and a
	// query behind the address. Columns counts both, by column.
	Differ   int64         `json:"differ"`
	FormOnly int64         `json:"formOnly"`
	Columns  []AuditColumn `json:"columns"`

	// Rows that cannot be compared: Doubled stand there again under the same file_id,
	// Nameless have none, Invalid one that no file can have.
	Doubled  int64 `json:"doubled"`
	Nameless int64 `json:"nameless"`
	Invalid  int64 `json:"invalid"`
	// Unowned rows have an empty user_id; Unreadable files are listed in a form that
	// cannot be believed.
	Unowned    int64 `json:"unowned"`
	Unreadable int64 `json:"unreadable"`

	Of AuditExamples `json:"examples"`

	// Whole: the listing came to its proven end. Broken says why not.
	Whole  bool     `json:"whole"`
	Broken string   `json:"broken,omitempty"`
	Notes  []string `json:"notes"`
	// Calls of the listing.
	Calls   int64   `json:"calls"`
	Seconds float64 `json:"seconds"`

	matched int64 // rows whose file is listed
}

// AuditColumn is how many rows disagree in one column.
type AuditColumn struct {
	Column string `json:"column"`
	Rows   int64  `json:"rows"`
	// Empty: the row has nothing there, and ImageKit has.
	Empty int64 `json:"empty"`
	// Form: only in form.
	Form int64 `json:"form"`
}

// AuditExamples are the first few of each kind.
type AuditExamples struct {
	Deleted []string       `json:"deleted,omitempty"`
	NoRow   []string       `json:"noRow,omitempty"`
	Differ  []AuditExample `json:"differ,omitempty"`
	Doubled []string       `json:"doubled,omitempty"`
	Invalid []string       `json:"invalid,omitempty"`
}

// AuditExample is one row that differs.
type AuditExample struct {
	FileID  string           `json:"fileId"`
	Columns []run.Difference `json:"columns"`
}

// Clean reports whether nothing is wrong but the form.
func (r *AuditReport) Clean() bool {
	return r.Deleted+r.NoRow+r.Differ+r.Doubled+r.Nameless+r.Invalid == 0
}

// count counts one row that is not what the listing shows.
func (a *audit) count(id string, columns []run.Difference) {
	if len(columns) == 0 {
		a.Same++ // it has changed since, or has gone
		return
	}
	substance := columns[:0:0]
	for _, d := range columns {
		form := formOnly(d)
		a.column(d, form)
		if !form {
			substance = append(substance, cut(d))
		}
	}
	if len(substance) == 0 {
		a.FormOnly++
		return
	}
	a.Differ++
	if len(a.Of.Differ) < a.c.Examples {
		a.Of.Differ = append(a.Of.Differ, AuditExample{FileID: id, Columns: substance})
	}
}

func (a *audit) column(d run.Difference, form bool) {
	i, there := slices.BinarySearchFunc(a.Columns, d.Column, func(c AuditColumn, name string) int { return cmp.Compare(c.Column, name) })
	if !there {
		a.Columns = slices.Insert(a.Columns, i, AuditColumn{Column: d.Column})
	}
	c := &a.Columns[i]
	c.Rows++
	if d.Row == nil {
		c.Empty++
	}
	if form {
		c.Form++
	}
}

// formOnly reports a difference that an application makes by writing a row itself, as the
// guide does: upload_timestamp is its own clock, and an address may carry a query.
func formOnly(d run.Difference) bool {
	switch {
	case d.Column == "upload_timestamp":
		return true
	case d.Column != "file_url" || d.Row == nil || d.ImageKit == nil:
		return false
	}
	here, _, _ := strings.Cut(*d.Row, "?")
	return here == *d.ImageKit
}

// cut shortens the values of an example.
func cut(d run.Difference) run.Difference {
	for _, v := range []**string{&d.Row, &d.ImageKit} {
		if *v != nil {
			s := short(**v)
			*v = &s
		}
	}
	return d
}

// short is at most 200 characters of s.
func short(s string) string {
	n := 0
	for i := range s {
		if n++; n > 200 {
			return s[:i] + "…"
		}
	}
	return s
}
