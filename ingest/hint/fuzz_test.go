package hint

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/testenv/seed"
)

// FuzzNotice holds that any JSON is read, that what is read of it can stand in a row,
// a log line and a page, and that there is one reading: JSON's own.
func FuzzNotice(f *testing.F) {
	for _, s := range seed.Files(f, "testdata/notices/*.json", 21) {
		f.Add(s.Data)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		n, err := ParseNotice(body)
		if err != nil {
			if json.Valid(body) && !tooDeep(body) {
				t.Fatalf("refused valid JSON: %v", err)
			}
			return
		}
		if n.FileID != "" && !file.ValidID(n.FileID) || !plain(n.Kind) || n.ID != "" && !plain(n.ID) || n.Kind == event.KindReport || n.Kind == event.KindRecheck {
			t.Fatalf("%+v", n)
		}
		if at := n.UpdatedAt; !at.IsZero() && (at.Location() != time.UTC || at.Nanosecond()%1000 != 0 || at.Year() < 2000 || at.Year() > 9999) {
			t.Fatalf("a time that no column holds: %v", at)
		}
		if want := plainly(body); n.Kind != KindUnknown && n.Kind != want.Kind || n.ID != "" && n.ID != want.ID || n.FileID != "" && n.FileID != want.FileID {
			t.Fatalf("read %+v where JSON says %+v", n, want)
		}
		var compact bytes.Buffer
		if err := json.Compact(&compact, body); err != nil {
			t.Fatalf("accepted what is no JSON: %v", err)
		}
		if again, err := ParseNotice(compact.Bytes()); err != nil || again != n {
			t.Fatalf("read %+v, and %+v (%v) without its blanks", n, again, err)
		}
	})
}

// plainly is what any JSON library makes of a notice.
func plainly(body []byte) (n Notice) {
	var v map[string]any
	_ = json.Unmarshal(body, &v)
	n.Kind, _ = v["type"].(string)
	n.ID, _ = v["id"].(string)
	data, _ := v["data"].(map[string]any)
	n.FileID, _ = data["fileId"].(string)
	return n
}

// FuzzReports holds that each report names one file, the one that JSON says, and keeps
// its bytes.
func FuzzReports(f *testing.F) {
	for _, s := range seed.Files(f, "testdata/reports/*.json", 11) {
		f.Add(s.Data)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		reports, array, err := ParseReports(body)
		if err != nil {
			return
		}
		if len(reports) == 0 || len(reports) > MaxReports || !array && len(reports) != 1 {
			t.Fatalf("%d reports", len(reports))
		}
		for _, r := range reports {
			var v map[string]any
			if err := json.Unmarshal(r.Raw, &v); err != nil || v["fileId"] != r.FileID || !file.ValidID(r.FileID) || !bytes.Contains(body, r.Raw) {
				t.Fatalf("%+v, where JSON says %v (%v)", r, v["fileId"], err)
			}
			if alone, _, err := ParseReports(r.Raw); err != nil || alone[0].FileID != r.FileID {
				t.Fatalf("%q alone is %+v (%v)", r.Raw, alone, err)
			}
		}
	})
}

// TestParsersAreFrugal: what a body costs in memory is bounded by its size, for every
// seed, everything that fuzzing found, and bodies made to be costly.
func TestParsersAreFrugal(t *testing.T) {
	both := func(name, body string) {
		raw := []byte(body)
		seed.Frugal(t, "notice "+name, len(raw), func() { _, _ = ParseNotice(raw) })
		seed.Frugal(t, "reports "+name, len(raw), func() { _, _, _ = ParseReports(raw) })
	}
	for _, pattern := range []string{"testdata/notices/*.json", "testdata/reports/*.json"} {
		for _, s := range seed.Files(t, pattern, 11) {
			both(s.Name, string(s.Data))
		}
	}
	for _, target := range []string{"FuzzNotice", "FuzzReports"} {
		for name, args := range seed.Kept(t, target, 10) {
			both(target+" "+name, args[0])
		}
	}
	// The structures of encoding/json are larger than what they are read from: 42 bytes
	// for each of a list of empty texts. A body of the most that may come costs 11 MB.
	for name, body := range costly() {
		raw := []byte(body)
		seed.Within(t, "notice "+name, 50*uint64(len(raw)), func() { _, _ = ParseNotice(raw) })
		seed.Within(t, "reports "+name, 50*uint64(len(raw)), func() { _, _, _ = ParseReports(raw) })
	}
}

// costly are bodies that make a parser's own structures large.
func costly() map[string]string {
	const limit = 64 << 10
	return map[string]string{
		"brackets":        strings.Repeat("[", limit),
		"nested objects":  strings.Repeat(`{"a":`, limit/5),
		"a list of lists": "[" + strings.Repeat("[],", limit/3) + "[]]",
		"a list of texts": "[" + strings.Repeat(`"",`, limit/3) + `""]`,
		"one long text":   `{"fileId":"` + strings.Repeat("a", limit) + `"}`,
		"escapes":         `{"fileId":"` + strings.Repeat(`\u0061`, limit/6) + `"}`,
		"bad UTF-8":       `{"type":"` + strings.Repeat("\xff", limit) + `"}`,
		"names":           "{" + names(limit) + "}",
		"names in data":   `{"type":"x","data":{` + names(limit) + "}}",
		"names in a list": `[{"fileId":"a",` + names(limit) + "}]",
	}
}

func names(limit int) string {
	var b strings.Builder
	for i := 0; b.Len() < limit; i++ {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `"%x":0`, i)
	}
	return b.String()
}
