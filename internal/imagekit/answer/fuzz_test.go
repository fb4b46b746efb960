package answer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/testenv/seed"
)

// FuzzDetails holds that whatever comes back, it is a fault or a snapshot that a
// database can hold and that is about the file asked for; and that a look-up and a
// listing read the same file the same way.
func FuzzDetails(f *testing.F) {
	for _, s := range seed.Files(f, "testdata/details/*", 12) {
		f.Add(s.Data)
	}
	c := reader("owner_ticket")
	f.Fuzz(func(t *testing.T, body []byte) {
		s, err := c.One(body, id)
		var listed file.Answer
		manyErr := c.Many(bytes.Join([][]byte{[]byte("["), body, []byte("]")}, nil), &listed)
		if err != nil {
			if !reflect.DeepEqual(s, file.Snapshot{}) && s.ID != id {
				t.Fatalf("half a snapshot beside %v: %+v", err, s)
			}
			return
		}
		if s.ID != id {
			t.Fatalf("asked about %s and believed %+v", id, s)
		}
		storableSnapshot(t, s)
		if manyErr != nil || len(listed.Snapshots) != 1 || !reflect.DeepEqual(listed.Snapshots[0], s) {
			t.Fatalf("a look-up reads %+v, a listing %+v (%v)", s, listed.Snapshots, manyErr)
		}
		var compact bytes.Buffer
		if err := json.Compact(&compact, body); err != nil {
			t.Fatalf("believed what is no JSON: %v", err)
		}
		if again, err := c.One(compact.Bytes(), id); err != nil || !reflect.DeepEqual(again, s) {
			t.Fatalf("read %+v, and %+v (%v) without its blanks", s, again, err)
		}
	})
}

// storableSnapshot fails for what no row could hold or no repeat could equal.
func storableSnapshot(t *testing.T, s file.Snapshot) {
	if s.URL == "" || strings.ContainsAny(s.URL, "?#") || !file.ValidID(s.ID) {
		t.Fatalf("believed %+v", s)
	}
	for _, at := range []time.Time{s.CreatedAt, s.UpdatedAt} {
		if at.Year() < 1970 || at.Year() > 9999 || at.Location() != time.UTC || at.Nanosecond()%1000 != 0 {
			t.Fatalf("a time that no column holds: %v", at)
		}
	}
	texts := append([]string{s.URL, text(s.Name), text(s.Path), text(s.Type), text(s.MIME), text(s.ThumbnailURL), text(s.VersionID)}, s.Tags...)
	for _, text := range texts {
		if strings.ContainsRune(text, 0) || !utf8.ValidString(text) {
			t.Fatalf("a text that no database holds: %q", text)
		}
	}
	if s.SizeBytes != nil && *s.SizeBytes < 0 || s.Width != nil && *s.Width < 0 || s.Height != nil && *s.Height < 0 {
		t.Fatalf("a negative size: %+v", s)
	}
	for _, sealed := range s.Tickets {
		if !strings.HasPrefix(sealed, "tu1.") {
			t.Fatalf("a ticket that is none: %q", sealed)
		}
	}
	for _, tag := range s.Tags {
		if strings.HasPrefix(tag, "tu1.") {
			t.Fatalf("a ticket among the tags: %q", tag)
		}
	}
	if s.CustomMetadata == nil {
		return
	}
	var fields map[string]any
	if err := json.Unmarshal(s.CustomMetadata, &fields); err != nil || len(fields) == 0 {
		t.Fatalf("metadata %q: %v", s.CustomMetadata, err)
	}
	if _, there := fields["owner_ticket"]; there {
		t.Fatalf("the ticket's field is left in %q", s.CustomMetadata)
	}
	if bytes.Contains(s.CustomMetadata, []byte(`\u0000`)) && !bytes.Contains(s.CustomMetadata, []byte(`\\u0000`)) {
		t.Fatalf("metadata holds U+0000: %q", s.CustomMetadata)
	}
}

// FuzzMany holds that a listing never yields what one look-up would not, and counts
// every row that was there.
func FuzzMany(f *testing.F) {
	for _, s := range seed.Files(f, "testdata/listings/*.json", 8) {
		f.Add(s.Data)
	}
	c := reader("owner_ticket")
	f.Fuzz(func(t *testing.T, body []byte) {
		var a file.Answer
		err := c.Many(body, &a)
		if err != nil && len(a.Snapshots)+len(a.Unreadable)+a.Nameless+a.Rows > 0 {
			t.Fatalf("half an answer beside %v: %+v", err, a)
		}
		for _, s := range a.Snapshots {
			storableSnapshot(t, s)
		}
		for _, id := range a.Unreadable {
			if !file.ValidID(id) {
				t.Errorf("unreadable %q", id)
			}
		}
		if len(a.Snapshots)+len(a.Unreadable)+a.Nameless > a.Rows {
			t.Errorf("%d rows, of which %d read, %d unreadable, %d nameless", a.Rows, len(a.Snapshots), len(a.Unreadable), a.Nameless)
		}
	})
}

// TestAnswersAreReadFrugally: what an answer costs in memory is bounded by its size.
func TestAnswersAreReadFrugally(t *testing.T) {
	c := reader("owner_ticket")
	both := func(name string, body []byte) {
		seed.Frugal(t, "look-up "+name, len(body), func() { _, _ = c.One(body, id) })
		seed.Frugal(t, "listing "+name, len(body), func() { _ = c.Many(body, &file.Answer{}) })
	}
	for _, pattern := range []string{"testdata/details/*", "testdata/listings/*"} {
		for _, s := range seed.Files(t, pattern, 8) {
			both(s.Name, s.Data)
		}
	}
	for _, target := range []string{"FuzzDetails", "FuzzMany"} {
		for name, args := range seed.Kept(t, target, 30) {
			both(target+" "+name, []byte(args[0]))
		}
	}
	// The structures of encoding/json are larger than what they are read from, and the
	// whole of one answer to a look-up is at most 1 MiB. A page may be 64 MiB.
	for name, body := range costly() {
		raw := []byte(body)
		seed.Within(t, "look-up "+name, 50*uint64(len(raw)), func() { _, _ = c.One(raw, id) })
		seed.Frugal(t, "listing "+name, len(raw), func() { _ = c.Many(raw, &file.Answer{}) })
	}
}

// costly are bodies that make a parser's own structures large.
func costly() map[string]string {
	const limit = 1 << 18
	open := strings.TrimSuffix(sample, "}")
	return map[string]string{
		"brackets":        strings.Repeat("[", limit),
		"a list of lists": "[" + strings.Repeat("[],", limit/3) + "[]]",
		"tags":            open + `,"tags":[` + strings.Repeat(`"",`, limit/3) + `""]}`,
		"tickets":         open + `,"tags":[` + strings.Repeat(`"tu1.x",`, limit/8) + `""]}`,
		"a thumbnail":     open + `,"thumbnail":"https://x/?` + strings.Repeat("a&", limit/2) + `"}`,
		"unlike tickets":  open + `,"tags":[` + unlike(limit) + `""]}`,
		"one large row":   "[" + open + `,"tags":[` + strings.Repeat(`"",`, 1<<19) + `""]}]`,
		"NULs":            open + `,"name":"` + strings.Repeat(`\u0000`, limit/6) + `"}`,
		"a long number":   open + `,"customMetadata":{"n":1` + strings.Repeat("0", limit) + `}}`,
	}
}

func unlike(limit int) string {
	var b strings.Builder
	for i := 0; b.Len() < limit; i++ {
		fmt.Fprintf(&b, `"tu1.%06x",`, i)
	}
	return b.String()
}
