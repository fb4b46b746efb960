package hint

import (
	"os"
	"testing"
)

func sample(t testing.TB, name string) []byte {
	t.Helper()
	body, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func BenchmarkParseNotice(b *testing.B) {
	body := sample(b, "notices/file-created.json")
	b.ReportAllocs()
	for b.Loop() {
		if n, err := ParseNotice(body); err != nil || n.FileID == "" {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkParseReports(b *testing.B) {
	body := sample(b, "reports/guide.json")
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := ParseReports(body); err != nil {
			b.Fatal(err)
		}
	}
}

// TestParsersAllocateWithinTheirCeilings guards what each body costs, independent of the
// clock. Ceilings are what it takes today, and a little for other versions of Go; whoever
// lowers the cost lowers them, too.
func TestParsersAllocateWithinTheirCeilings(t *testing.T) {
	notice, report := sample(t, "notices/file-created.json"), sample(t, "reports/guide.json")
	for name, c := range map[string]struct {
		parse   func() error
		ceiling float64
	}{
		"Notice": {func() error { _, err := ParseNotice(notice); return err }, 20},
		"Report": {func() error { _, _, err := ParseReports(report); return err }, 10},
	} {
		got := testing.AllocsPerRun(200, func() {
			if err := c.parse(); err != nil {
				t.Fatal(err)
			}
		})
		if got > c.ceiling {
			t.Errorf("%s: %v allocations, at most %v", name, got, c.ceiling)
		}
		t.Logf("%s: %v allocations", name, got)
	}
}
