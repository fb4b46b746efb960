package localpg

import (
	"strings"
	"testing"
)

// TestFetch costs a download the first time on a machine; then it uses the cache.
func TestFetch(t *testing.T) {
	var said strings.Builder
	p, err := Fetch(t.Context(), "", &said)
	if err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
	t.Log(said.String(), p)
	s, err := Start(t.Context(), Config{Dir: t.TempDir(), Programs: p})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
}
