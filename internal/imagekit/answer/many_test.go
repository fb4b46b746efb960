package answer

import (
	"strings"
	"testing"

	"github.com/trueup/trueup/internal/file"
)

// TestPagesThatAreNoPages: what no page of ImageKit's can be is told before it costs
// memory, and one row that a look-up would not believe hides no other.
func TestPagesThatAreNoPages(t *testing.T) {
	c := reader("")
	rows := func(n int) []byte { return []byte("[" + strings.Repeat("{},", n-1) + "{}]") }
	var a file.Answer
	if err := c.Many(rows(maxRows), &a); err != nil || a.Rows != maxRows || a.Nameless != maxRows {
		t.Errorf("a page of %d rows: %d, %v", maxRows, a.Rows, err)
	}
	if err := c.Many(rows(maxRows+1), &a); err == nil {
		t.Errorf("a page of %d rows was read", maxRows+1)
	}
	nested := "[" + with(`"customMetadata":{"a":[`+strings.Repeat("0,", 2*maxRows)+`0]}`) + "]"
	if a = (file.Answer{}); c.Many([]byte(nested), &a) != nil || len(a.Snapshots) != 1 {
		t.Errorf("commas inside a row were taken for rows: %+v", a.Rows)
	}
	large := "[" + with(`"name":"`+strings.Repeat("n", 1<<20)+`"`) + "," + sample + "]"
	if a = (file.Answer{}); c.Many([]byte(large), &a) != nil || len(a.Snapshots) != 1 || len(a.Unreadable) != 1 || a.Unreadable[0] != "f" {
		t.Errorf("beside a row of a megabyte: %d read, %v unreadable", len(a.Snapshots), a.Unreadable)
	}
}
