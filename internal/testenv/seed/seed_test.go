package seed

import (
	"slices"
	"testing"
)

func TestArgumentsOfAnEntry(t *testing.T) {
	got, err := arguments("go test fuzz v1\nstring(\"a\\n\\x00\")\n[]byte(\"\\xff\")\nint64(7)\nstring(`b`)\n")
	if err != nil || !slices.Equal(got, []string{"a\n\x00", "\xff", "b"}) {
		t.Fatalf("%q, %v", got, err)
	}
	for _, bad := range []string{"", "go test fuzz v2\n", "go test fuzz v1\nstring(\n"} {
		if got, err := arguments(bad); err == nil {
			t.Errorf("%q was read as %q", bad, got)
		}
	}
}

// watched is a test whose failures are looked at.
type watched struct {
	testing.TB
	failed bool
}

func (w *watched) Helper()               {}
func (w *watched) Errorf(string, ...any) { w.failed = true }

func TestFrugalBites(t *testing.T) {
	var kept [][]byte
	w := &watched{TB: t}
	Frugal(w, "twice", 1000, func() { kept = append(kept, make([]byte, 2000)) })
	if w.failed {
		t.Error("twice its input is too much")
	}
	Frugal(w, "a megabyte", 1000, func() { kept = append(kept, make([]byte, 1<<20)) })
	if !w.failed {
		t.Error("a megabyte for a kilobyte passes")
	}
}

func TestExposes(t *testing.T) {
	type inner struct{ s string }
	if !Exposes(inner{"a-secret-word"}, "secret") || !Exposes(&inner{"secret"}, "secret") || Exposes(inner{"public"}, "secret") {
		t.Error("a secret inside a struct must be seen, and nothing else")
	}
}
