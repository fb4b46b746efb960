package emulator

import (
	"strings"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/testenv/seed"
)

// FuzzParseQuery holds that a query has one meaning: written out, it is read again as
// the same, and finds the same.
func FuzzParseQuery(f *testing.F) {
	e := &Emulator{Config: Config{Now: time.Now}, lib: newLibrary()}
	s := e.defaults()
	s.AnyCustomMetadata = true
	now := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	bind := func(c *clause) error { return e.settleClause(c, s, now) }
	for _, line := range seed.Lines(f, "testdata/queries.txt", 15) {
		if _, err := parseQuery(line, bind); err != nil {
			f.Fatalf("seed %s: %v", line, err)
		}
		f.Add(line)
	}
	some := fileItem((&generation{Count: 9, Folder: "/g"}).record(4))
	f.Fuzz(func(t *testing.T, text string) {
		x, err := parseQuery(text, bind)
		if err != nil {
			return
		}
		again, err := parseQuery(x.String(), bind)
		if err != nil {
			if strings.Contains(err.Error(), "nested") {
				return // printing adds parentheses
			}
			t.Fatalf("%q was read and written as %q: %v", text, x, err)
		}
		if again.String() != x.String() || again.holds(some.value) != x.holds(some.value) {
			t.Fatalf("%q means %q and then %q", text, x, again)
		}
		var b bounds
		b.narrow(x)
	})
}
