package spool

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/file"
)

// killed is what a small spool of two files leaves on disk, and where its pages end.
type killed struct {
	all   []Page
	files map[string][]byte // without lock and sorted listing
	names []string
	ends  map[string][]int // by file
}

func newKilled(t testing.TB) *killed {
	t.Helper()
	k := &killed{all: leanPages(), ends: map[string][]int{}}
	dir := t.TempDir()
	s := open(t, dir, lean)
	for _, p := range k.all {
		appended(t, s, p)
		name := segmentName(len(s.segments))
		k.ends[name] = append(k.ends[name], int(s.segments[len(s.segments)-1].end))
	}
	closed(t, s)
	k.files = folder(t, dir)
	delete(k.files, lockName)
	k.names = slices.Sorted(maps.Keys(k.files))
	if len(k.names) != 2 || len(k.ends[k.names[0]]) < 2 || len(k.ends[k.names[1]]) < 2 {
		t.Fatalf("the rig wants two files with two pages each: %v", k.ends)
	}
	return k
}

// leanPages are short, for tests that go over every byte.
func leanPages() []Page {
	all := make([]Page, 5)
	for i := range all {
		at := base.Add(time.Duration(i) * time.Second)
		id := string("caebd"[i])
		l := Line{FileID: id, UpdatedAt: at, Hash: int64(i), Ticketed: i == 2, Snapshot: &file.Snapshot{ID: id, URL: id, UpdatedAt: at, FirstVersion: i == 3}}
		all[i] = Page{Number: int64(i + 1), Fence: int64(i * 10), RequestID: "r", Cursor: []byte{byte('0' + i)}, Lines: []Line{l, garbled(id + "x")}}
	}
	return all
}

// lean makes files of pages that hold two or three of leanPages, tiny two or three of
// three files each.
func lean(c *Config) {
	c.Segment = 510
	unsynced(c)
}
func tiny(c *Config) { c.Segment = 1300 }

// unsynced spares tests that open a spool thousands of times the disk; a kill needs no
// sync, only a power cut does.
func unsynced(c *Config) {
	c.sync = func(string) error { return nil }
	c.open = func(path string) (segmentFile, error) {
		f, err := openSegment(path)
		return &quick{f}, err
	}
}

type quick struct{ segmentFile }

func (q *quick) Sync() error { return nil }

// whole is how many pages there are before a byte of a file.
func (k *killed) whole(name string, at int) (n int) {
	for _, other := range k.names {
		for _, end := range k.ends[other] {
			if other < name || other == name && end <= at {
				n++
			}
		}
	}
	return n
}

// with is a copy of the files, one of them another; those after it only if rest.
func (k *killed) with(name string, b []byte, rest bool) map[string][]byte {
	files := map[string][]byte{}
	for other, old := range k.files {
		if other < name || rest {
			files[other] = old
		}
	}
	files[name] = b
	return files
}

// survives opens what is left, wants the first pages and nothing else, and that the
// listing can go on from there.
func (k *killed) survives(t *testing.T, files map[string][]byte, pages int, damaged bool) {
	t.Helper()
	dir := laid(t, files)
	s := open(t, dir, lean)
	defer s.Close()
	check(t, s, k.all[:pages])
	if (s.Damaged() != "") != damaged {
		t.Errorf("damaged: %q", s.Damaged())
	}
	appended(t, s, k.all[pages:]...)
	check(t, s, k.all)
	closed(t, s)
	if !bytes.Equal(joined(folder(t, dir)), joined(k.files)) {
		t.Error("other pages stand there than without a crash")
	}
}

// joined are all pages one after another, whatever file they are in.
func joined(files map[string][]byte) (b []byte) {
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if isSegment(name) {
			b = append(b, files[name]...)
		}
	}
	return b
}

func TestKilledWhileItWrote(t *testing.T) {
	k := newKilled(t)
	for _, name := range k.names {
		for n := range len(k.files[name]) + 1 {
			k.survives(t, k.with(name, k.files[name][:n], false), k.whole(name, n), false)
			if t.Failed() {
				t.Fatalf("%s cut at byte %d", name, n)
			}
		}
	}
}

func TestDamaged(t *testing.T) {
	k := newKilled(t)
	t.Run("ABitFlips", func(t *testing.T) {
		for _, name := range k.names {
			for at := range k.files[name] {
				b := bytes.Clone(k.files[name])
				b[at] ^= 1 << (at % 8)
				k.survives(t, k.with(name, b, true), k.whole(name, at), true)
				if t.Failed() {
					t.Fatalf("%s, bit %d of byte %d", name, at%8, at)
				}
			}
		}
	})
	first, second := k.names[0], k.names[1]
	before := len(k.ends[first])
	t.Run("CutInTheMiddle", func(t *testing.T) {
		for n := range len(k.files[first]) {
			k.survives(t, k.with(first, k.files[first][:n], true), k.whole(first, n), true)
			if t.Failed() {
				t.Fatalf("cut at byte %d", n)
			}
		}
	})
	t.Run("ZeroesBehindTheEnd", func(t *testing.T) {
		k.survives(t, k.with(second, append(bytes.Clone(k.files[second]), make([]byte, 4096)...), true), len(k.all), true)
	})
	t.Run("AFileIsMissing", func(t *testing.T) {
		files := maps.Clone(k.files)
		delete(files, first)
		k.survives(t, files, 0, true)
	})
	t.Run("AFileCameTwice", func(t *testing.T) {
		k.survives(t, k.with(segmentName(len(k.names)+1), k.files[second], true), len(k.all), true)
	})
	t.Run("AFileCameInPlaceOfAnother", func(t *testing.T) {
		k.survives(t, k.with(second, k.files[first], true), before, true)
	})
	t.Run("APageIsCutOut", func(t *testing.T) {
		b := k.files[first][k.ends[first][0]:]
		k.survives(t, k.with(first, b, true), 0, true)
	})
	t.Run("AnotherListing", func(t *testing.T) {
		s := open(t, laid(t, k.files), func(c *Config) { c.ID = "another" })
		check(t, s, nil)
		if !strings.Contains(s.Damaged(), "another listing") {
			t.Errorf("it says %q", s.Damaged())
		}
	})
	t.Run("AnOlderLifeOfTheSame", func(t *testing.T) {
		// The same pages were listed again, under other fences; a file of before came back.
		dir := t.TempDir()
		s := open(t, dir, lean)
		again := slices.Clone(k.all)
		for i := range again {
			again[i].Fence += 1000
		}
		appended(t, s, again...)
		closed(t, s)
		files := folder(t, dir)
		files[second] = k.files[second]
		s = open(t, laid(t, files), lean)
		check(t, s, again[:before])
	})
}

// What rots while the spool is open is an error, never another answer.
func TestRotsWhileOpen(t *testing.T) {
	k := newKilled(t)
	for _, name := range k.names {
		for at := range k.files[name] {
			dir := laid(t, k.files)
			s := open(t, dir, lean)
			b := bytes.Clone(k.files[name])
			b[at] ^= 1 << (at % 8)
			if err := os.WriteFile(s.path(name), b, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := believed(t, s, want(k.all)); err != nil {
				t.Fatalf("%s, bit %d of byte %d: %v", name, at%8, at, err)
			}
			closed(t, s)
		}
	}
}

// believed reads everything and compares what was no error.
func believed(t *testing.T, s *Spool, want []Line) error {
	t.Helper()
	x, err := s.Sort(t.Context())
	if err != nil {
		return nil // refused is right
	}
	i := 0
	for e, err := range x.All() {
		if err != nil {
			return nil // refused is right
		}
		got, w := Line{FileID: e.FileID, UpdatedAt: e.UpdatedAt, Hash: e.Hash, Ticketed: e.Ticketed, Unreadable: e.Unreadable}, want[i]
		i++
		if !e.Unreadable {
			if got.Snapshot, err = s.Snapshot(e); err != nil {
				continue
			}
		} else {
			got.UpdatedAt = w.UpdatedAt
		}
		if fmt.Sprintf("%+v", deref(got)) != fmt.Sprintf("%+v", deref(w)) {
			return fmt.Errorf("got %+v, want %+v", got, w)
		}
	}
	return nil
}

// deref makes a line printable by value.
func deref(l Line) string {
	if l.Snapshot == nil {
		return fmt.Sprint(l.FileID, l.Hash, l.Ticketed, l.Unreadable)
	}
	return fmt.Sprint(l.FileID, l.UpdatedAt, l.Hash, l.Ticketed, l.Unreadable, string(appendBody(nil, l.Snapshot)))
}
