package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// narrow sorts some 800 lines at a time.
func narrow(c *Config) { c.SortMemory = 1 }

func TestSortKeeps(t *testing.T) {
	a := func(minutes int, hash int64) Line {
		l := seen("a", minutes)
		l.Hash = hash
		return l
	}
	for name, c := range map[string]struct {
		pages []Page
		hash  int64 // of the line to keep
	}{
		"TheNewest":                     {[]Page{page(1, a(1, 10)), page(2, a(3, 30)), page(3, a(2, 20))}, 30},
		"TheNewestOfAPage":              {[]Page{page(1, a(3, 30), a(1, 10))}, 30},
		"OfTheSameAgeTheLast":           {[]Page{page(1, a(1, 10)), page(2, a(1, 20))}, 20},
		"OfTheSameAgeTheLastOfAPage":    {[]Page{page(1, a(1, 10), a(1, 20))}, 20},
		"WhatCouldBeRead":               {[]Page{page(1, a(1, 10)), page(2, garbled("a"))}, 10},
		"WhatCouldBeReadThoughTheFirst": {[]Page{page(1, garbled("a")), page(2, a(1, 10))}, 10},
		"WhatCouldBeReadThoughOlder":    {[]Page{page(1, a(1, 10)), page(2, Line{FileID: "a", UpdatedAt: base.AddDate(1, 0, 0), Hash: 5, Unreadable: true})}, 10},
		"WhatCouldNotIfThatIsAll":       {[]Page{page(1, garbled("a")), page(2, garbled("a"))}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir())
			appended(t, s, c.pages...)
			lines := got(t, s)
			if len(lines) != 1 || lines[0].Hash != c.hash {
				t.Errorf("got %+v, want the one with hash %d", lines, c.hash)
			}
		})
	}
}

func TestSortOrdersByBytes(t *testing.T) {
	ids := strings.Fields("a A b B _ - 0 9 Z z aa aA a_ a- a0 -a _a 64f1a2b3c4d5e6f7a8b9c0d1 64f1a2b3c4d5e6f7a8b9c0d2 64f1a2b3 64f1a2b 64f1a2b34")
	ids = append(ids, strings.Repeat("x", 64), strings.Repeat("x", 63), strings.Repeat("x", 63)+"y")
	var lines []Line
	for _, id := range ids {
		lines = append(lines, seen(id, 1))
	}
	s := open(t, t.TempDir())
	appended(t, s, page(1, lines...))
	var order []string
	for _, l := range got(t, s) {
		order = append(order, l.FileID)
	}
	slices.Sort(ids)
	if !slices.Equal(order, ids) {
		t.Errorf("got %q\nwant %q", order, ids)
	}
}

func TestSortInManyRuns(t *testing.T) {
	all := pages(20, 500)
	// Every file comes again, somewhere else and newer, the even ones only unreadable.
	for i := range 20 {
		var again []Line
		for j, l := range all[(i*7)%20].Lines {
			if l = seen(l.FileID, 100_000+j); j%2 == 0 {
				l = garbled(l.FileID)
			}
			again = append(again, l)
		}
		all = append(all, page(int64(21+i), again...))
	}
	s := open(t, t.TempDir(), narrow)
	appended(t, s, all...)
	check(t, s, all)
	if _, err := os.Stat(s.path(runsName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the runs are still there: %v", err)
	}
}

func TestFindAndAfter(t *testing.T) {
	all := pages(8, 1000) // several blocks of sorted lines
	s := open(t, t.TempDir())
	appended(t, s, all...)
	x := sortOf(t, t.Context(), s)
	if len(x.blocks) < 3 {
		t.Fatalf("the test wants several blocks, not %d", len(x.blocks))
	}
	lines := want(all)
	for i := 0; i < len(lines); i += 7 {
		id := lines[i].FileID
		e, ok, err := x.Find(id)
		if err != nil || !ok || e.FileID != id || e.Hash != lines[i].Hash {
			t.Fatalf("Find %s: %+v, %v, %v", id, e, ok, err)
		}
		for _, not := range []string{id + "-", id[:len(id)-1] + "!"} {
			if e, ok, err := x.Find(not); ok || err != nil {
				t.Fatalf("Find %s: %+v, %v, %v", not, e, ok, err)
			}
		}
		next := ""
		for e, err := range x.After(id) {
			if err != nil {
				t.Fatal(err)
			}
			next = e.FileID
			break
		}
		if i+1 < len(lines) && next != lines[i+1].FileID {
			t.Fatalf("after %s comes %s, want %s", id, next, lines[i+1].FileID)
		}
	}
	for _, outside := range []string{"", "-", "zzz"} {
		if _, ok, err := x.Find(outside); ok || err != nil {
			t.Errorf("Find %q: %v, %v", outside, ok, err)
		}
	}
	for e, err := range x.After(lines[len(lines)-1].FileID) {
		t.Errorf("after the last comes %s, %v", e.FileID, err)
	}
}

func TestSortedIsKept(t *testing.T) {
	all := pages(3, 100)
	dir := t.TempDir()
	s := open(t, dir)
	appended(t, s, all[:2]...)
	first := sortOf(t, t.Context(), s)
	if sortOf(t, t.Context(), s) != first {
		t.Error("sorted again though nothing came")
	}
	closed(t, s)
	old := folder(t, dir)

	t.Run("ByTheNextProcess", func(t *testing.T) {
		s := open(t, laid(t, old))
		before, err := os.Stat(s.path(sortedName))
		if err != nil {
			t.Fatal(err)
		}
		check(t, s, all[:2])
		after, err := os.Stat(s.path(sortedName))
		if err != nil || !os.SameFile(before, after) {
			t.Errorf("sorted again: %v", err)
		}
	})
	t.Run("NotAfterAnotherPage", func(t *testing.T) {
		s := open(t, laid(t, old))
		sortOf(t, t.Context(), s)
		appended(t, s, all[2])
		check(t, s, all)
	})
	t.Run("NotOfAnotherListing", func(t *testing.T) {
		other := pages(2, 100)
		other[1].Lines[7].Hash++
		dir := laid(t, map[string][]byte{sortedName: old[sortedName]})
		s := open(t, dir)
		appended(t, s, other...)
		check(t, s, other)
	})
	t.Run("NotUnderAnotherID", func(t *testing.T) {
		s := open(t, laid(t, map[string][]byte{sortedName: old[sortedName]}), func(c *Config) { c.ID = "another" })
		appended(t, s, all[:2]...)
		check(t, s, all[:2])
	})
	t.Run("NotWithLeftOvers", func(t *testing.T) {
		files := map[string][]byte{sortedName: nil, newName: old[sortedName][:50], runsName: []byte("runs")}
		for name, b := range old {
			if isSegment(name) {
				files[name] = b
			}
		}
		check(t, open(t, laid(t, files)), all[:2])
	})
}

// A sorted listing that was cut, or in which a bit flipped, is sorted again; one that
// changes while it is read is an error or has no effect.
func TestSortedIsDamaged(t *testing.T) {
	all := leanPages()[:2]
	dir := t.TempDir()
	s := open(t, dir)
	appended(t, s, all...)
	sortOf(t, t.Context(), s)
	closed(t, s)
	files := folder(t, dir)
	good := files[sortedName]
	try := func(t *testing.T, b []byte) {
		t.Helper()
		files[sortedName] = b
		s := open(t, laid(t, files), lean)
		defer s.Close()
		checkLines(t, got(t, s), want(all))
	}
	t.Run("Cut", func(t *testing.T) {
		for n := range good {
			try(t, good[:n])
		}
	})
	t.Run("Longer", func(t *testing.T) { try(t, append(bytes.Clone(good), 0)) })
	t.Run("ABitFlips", func(t *testing.T) {
		for at := range good {
			b := bytes.Clone(good)
			b[at] ^= 1 << (at % 8)
			try(t, b)
		}
	})
	t.Run("WhileOpen", func(t *testing.T) {
		files[sortedName] = good
		for at := range good {
			s := open(t, laid(t, files), lean)
			sortOf(t, t.Context(), s)
			b := bytes.Clone(good)
			b[at] ^= 1 << (at % 8)
			if err := os.WriteFile(s.path(sortedName), b, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := believed(t, s, want(all)); err != nil {
				t.Fatalf("bit %d of byte %d: %v", at%8, at, err)
			}
			closed(t, s)
		}
	})
}

// stopping is a context that ends when it is asked for the nth time.
type stopping struct {
	context.Context
	n int
}

func (c *stopping) Err() error {
	if c.n--; c.n < 0 {
		return context.Canceled
	}
	return nil
}

func TestSortIsCutShort(t *testing.T) {
	all := pages(6, 500)
	dir := t.TempDir()
	s := open(t, dir, narrow)
	appended(t, s, all...)
	for n := 0; ; n++ {
		_, err := s.Sort(&stopping{t.Context(), n})
		if err == nil {
			if n < len(all) {
				t.Errorf("it asked the context %d times only", n)
			}
			break
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if n%2 == 0 {
			closed(t, s)
			s = open(t, dir, narrow)
		}
	}
	check(t, s, all)
}

func TestSortFails(t *testing.T) {
	all := pages(2, 10)
	t.Run("WhereItCannotWrite", func(t *testing.T) {
		for _, name := range []string{runsName, newName, sortedName} {
			s := open(t, t.TempDir())
			appended(t, s, all...)
			if err := os.MkdirAll(s.path(name)+"/x", 0o700); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Sort(t.Context()); err == nil {
				t.Errorf("%s is in the way, and nobody notices", name)
			}
			if err := os.RemoveAll(s.path(name)); err != nil {
				t.Fatal(err)
			}
			check(t, s, all)
		}
	})
	t.Run("OnceClosed", func(t *testing.T) {
		s := open(t, t.TempDir())
		appended(t, s, all...)
		x := sortOf(t, t.Context(), s)
		closed(t, s)
		if _, err := s.Sort(t.Context()); !errors.Is(err, errClosed) {
			t.Errorf("Sort: %v", err)
		}
		if err := s.Append(page(3)); !errors.Is(err, errClosed) {
			t.Errorf("Append: %v", err)
		}
		n := 0
		for _, err := range x.All() {
			if n++; err == nil {
				t.Error("a closed listing yields")
			}
		}
		if n != 1 {
			t.Errorf("%d errors", n)
		}
		if _, _, err := x.Find("a"); err == nil {
			t.Error("a closed listing finds")
		}
	})
}

// Pages may come, and progress be asked for, while another sort runs.
func TestSortWhileAppending(t *testing.T) {
	all := pages(30, 50)
	s := open(t, t.TempDir(), tiny, narrow)
	done := make(chan error)
	go func() {
		for range 10 {
			x, err := s.Sort(context.Background())
			if err == nil && x.Files() > s.Files() {
				err = fmt.Errorf("%d files sorted, %d listed", x.Files(), s.Files())
			}
			if err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	appended(t, s, all...)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	check(t, s, all)
}

// The figures of five million files are BenchmarkSpool's.
func TestMemoryIsFlat(t *testing.T) {
	s := filled(t, 200_000)
	s.config.SortMemory = 1 << 20 // a sixteenth of what they take
	live := peak(func(sample func()) {
		x := sortOf(t, &sampled{Context: t.Context(), every: 20, sample: sample}, s)
		if n := count(t, x, sample); n != s.Files() {
			t.Errorf("%d files, want %d", n, s.Files())
		}
	})
	if live > 4<<20 {
		t.Errorf("sorting holds %d KB", live>>10)
	}
	if all := heap(); all > 40<<20 {
		t.Errorf("%d MB are alive with a spool of 200,000 files", all>>20)
	}
	if perFile := (disk(t, s.config.Dir, "*.pages") + disk(t, s.config.Dir, sortedName)) / s.Files(); perFile > 180 {
		t.Errorf("a file takes %d bytes of disk", perFile)
	}
}
