package spool

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/trueup/trueup/internal/file"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const listing = "01J00000000000000000000000"

// base is when the tests' files were made.
var base = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func open(t testing.TB, dir string, tune ...func(*Config)) *Spool {
	t.Helper()
	c := Config{Dir: dir, ID: listing}
	for _, f := range tune {
		f(&c)
	}
	s, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func closed(t testing.TB, s *Spool) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func appended(t testing.TB, s *Spool, pages ...Page) {
	t.Helper()
	for _, p := range pages {
		if err := s.Append(p); err != nil {
			t.Fatal(err)
		}
	}
}

// snapshot is a file as ImageKit describes one.
func snapshot(id string, updated time.Time) *file.Snapshot {
	size, wide, private := int64(len(id)*1000), int32(640), false
	name, path, kind, mime, thumb, version := id+".jpg", "/u/"+id+".jpg", "image", "image/jpeg", "https://ik.example/t/"+id, id
	return &file.Snapshot{
		ID: id, URL: "https://ik.example/" + id + ".jpg", Name: &name, Path: &path, Type: &kind, MIME: &mime, SizeBytes: &size,
		Width: &wide, Height: &wide, ThumbnailURL: &thumb, Tags: []string{"a", ""}, CustomMetadata: []byte(`{"n": 1.50}`),
		VersionID: &version, FirstVersion: true, IsPrivate: &private, CreatedAt: base, UpdatedAt: updated,
	}
}

// seen is a line of a file that was updated some minutes after base.
func seen(id string, minutes int) Line {
	at := base.Add(time.Duration(minutes) * time.Minute)
	return Line{FileID: id, UpdatedAt: at, Hash: int64(minutes) * 7919, Snapshot: snapshot(id, at)}
}

func garbled(id string) Line { return Line{FileID: id, Unreadable: true} }

func page(number int64, lines ...Line) Page {
	return Page{
		Number: number, Fence: 100 + number, RequestID: fmt.Sprint("request-", number),
		Cursor: json.RawMessage(fmt.Sprintf(`{"n":%d}`, number)), Lines: lines,
	}
}

// pages are n pages of k files whose ids come in no order.
func pages(n, k int) []Page {
	r := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same every time
	all := make([]Page, n)
	for i := range all {
		lines := make([]Line, k)
		for j := range lines {
			if lines[j] = seen(fmt.Sprintf("%08x%x", r.Uint32(), r.Uint32()), i*k+j); j%17 == 16 {
				lines[j] = garbled(lines[j].FileID)
			}
			lines[j].Ticketed = j%5 == 0
		}
		all[i] = page(int64(i+1), lines...)
	}
	return all
}

// want is what a spool of these pages must show: one line per file, in order.
func want(all []Page) []Line {
	best := map[string]Line{}
	for _, p := range all {
		for _, l := range p.Lines {
			old, again := best[l.FileID]
			if !again || (old.Unreadable && !l.Unreadable) || (old.Unreadable == l.Unreadable && !l.UpdatedAt.Before(old.UpdatedAt)) {
				best[l.FileID] = l
			}
		}
	}
	var lines []Line
	for _, l := range best {
		lines = append(lines, l)
	}
	slices.SortFunc(lines, func(a, b Line) int {
		if a.FileID < b.FileID {
			return -1
		}
		return 1
	})
	return lines
}

// got reads a spool back through its sorted listing.
func got(t testing.TB, s *Spool) []Line {
	t.Helper()
	x, err := s.Sort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var lines []Line
	for e, err := range x.All() {
		if err != nil {
			t.Fatal(err)
		}
		l := Line{FileID: e.FileID, UpdatedAt: e.UpdatedAt, Hash: e.Hash, Ticketed: e.Ticketed, Unreadable: e.Unreadable}
		if !e.Unreadable {
			if l.Snapshot, err = s.Snapshot(e); err != nil {
				t.Fatal(err)
			}
		}
		lines = append(lines, l)
	}
	if int64(len(lines)) != x.Files() {
		t.Errorf("%d files yielded, Files says %d", len(lines), x.Files())
	}
	return lines
}

// check compares everything that s says with these pages.
func check(t testing.TB, s *Spool, all []Page) {
	t.Helper()
	if s.Pages() != int64(len(all)) {
		t.Fatalf("%d pages, want %d", s.Pages(), len(all))
	}
	var ids []string
	for _, p := range all {
		want := PageInfo{p.Number, p.Fence, p.RequestID, nil, int64(len(p.Lines))}
		if info, ok := s.Page(p.Number); !ok || !reflect.DeepEqual(info, want) {
			t.Fatalf("page %d: got %+v, want %+v", p.Number, info, want)
		}
		for _, l := range p.Lines {
			ids = append(ids, l.FileID)
		}
	}
	if s.Files() != int64(len(ids)) {
		t.Errorf("%d files, want %d", s.Files(), len(ids))
	}
	if recent := s.LastIDs(); !slices.Equal(recent, ids[max(0, len(ids)-2000):]) {
		t.Errorf("the last ids are not the last: %d of them", len(recent))
	}
	last, ok := s.Last()
	if ok != (len(all) > 0) {
		t.Errorf("Last says %v of %d pages", ok, len(all))
	}
	if ok {
		p := all[len(all)-1]
		if want := (PageInfo{p.Number, p.Fence, p.RequestID, p.Cursor, int64(len(p.Lines))}); !reflect.DeepEqual(last, want) {
			t.Errorf("last page %+v, want %+v", last, want)
		}
	}
	checkLines(t, got(t, s), want(all))
}

func checkLines(t testing.TB, got, want []Line) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d files, want %d", len(got), len(want))
	}
	for i := range want {
		w := want[i]
		if w.Unreadable {
			w.UpdatedAt, got[i].UpdatedAt = time.Time{}, time.Time{}
		}
		if !reflect.DeepEqual(got[i], w) {
			t.Fatalf("file %d: got %+v, want %+v", i, got[i], w)
		}
	}
}

// folder is a copy of every file in dir.
func folder(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, e := range all {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = b
	}
	return files
}

// laid is a folder with these files in it.
func laid(t testing.TB, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
