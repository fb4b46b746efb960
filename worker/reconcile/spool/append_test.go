package spool

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// faulty is a file of pages one of whose calls fails.
type faulty struct {
	segmentFile
	at *fault
}

// fault is which call fails and how: before it did anything, half-way, or although it
// did everything.
type fault struct {
	countdown int
	how       string
	fired     string
}

func (f *fault) now(call string) bool {
	f.countdown--
	if f.countdown == -1 {
		f.fired = call
	}
	return f.countdown == -1
}

func (f *faulty) WriteAt(b []byte, off int64) (int, error) {
	if !f.at.now("write") {
		return f.segmentFile.WriteAt(b, off)
	}
	n := map[string]int{"before": 0, "half-way": len(b) / 2, "after": len(b)}[f.at.how]
	if n, err := f.segmentFile.WriteAt(b[:n], off); err != nil {
		return n, err
	}
	return n, syscall.ENOSPC
}

func (f *faulty) Truncate(size int64) error {
	return f.call("truncate", func() error { return f.segmentFile.Truncate(size) })
}

func (f *faulty) Sync() error { return f.call("sync", f.segmentFile.Sync) }

func (f *faulty) call(what string, do func() error) error {
	if !f.at.now(what) {
		return do()
	}
	if f.at.how == "after" {
		if err := do(); err != nil {
			return err
		}
	}
	return syscall.EIO
}

func failing(at *fault) func(*Config) {
	return func(c *Config) {
		tiny(c)
		c.open = func(path string) (segmentFile, error) {
			if at.now("open") {
				if at.how == "after" {
					if f, err := openSegment(path); err == nil {
						_ = f.Close()
					}
				}
				return nil, syscall.EMFILE
			}
			f, err := openSegment(path)
			return &faulty{f, at}, err
		}
	}
}

// Every call in the life of a spool fails once, in every way; the page is appended
// again, by this process or by the next.
func TestAppendFails(t *testing.T) {
	all := pages(5, 3)
	for _, how := range []string{"before", "half-way", "after"} {
		for _, next := range []string{"AppendedAgain", "KilledAndOpened"} {
			t.Run(strings.ToUpper(how[:1])+how[1:]+"/"+next, func(t *testing.T) {
				fired := map[string]int{}
				for n := 0; ; n++ {
					at := &fault{countdown: n, how: how}
					if appendThrough(t, all, at, next == "KilledAndOpened"); at.fired == "" {
						break
					}
					fired[at.fired]++
				}
				if fired["write"] != len(all) || fired["sync"] < len(all) || fired["truncate"] < 2 || fired["open"] < 2 {
					t.Errorf("not everything failed once: %v", fired)
				}
			})
		}
	}
}

func appendThrough(t *testing.T, all []Page, at *fault, killed bool) {
	t.Helper()
	s := open(t, t.TempDir(), failing(at))
	failures := 0
	for i := 0; i < len(all); {
		err := s.Append(all[i])
		if err == nil {
			i++
			continue
		}
		var cause syscall.Errno
		if failures++; failures > 1 || !errors.As(err, &cause) {
			t.Fatalf("call %s, page %d: %v", at.fired, i+1, err)
		}
		if !killed {
			check(t, s, all[:i])
			continue
		}
		closed(t, s)
		s = open(t, s.config.Dir, tiny)
		if n := int(s.Pages()); n != i && n != i+1 || s.Damaged() != "" {
			t.Fatalf("call %s: %d pages after page %d failed; damaged: %q", at.fired, n, i+1, s.Damaged())
		}
	}
	check(t, s, all)
	closed(t, s)
	s = open(t, s.config.Dir, tiny)
	check(t, s, all)
	closed(t, s)
}

// forgetful is a disk that forgets in a power cut whatever was not synced: what a file
// holds, and that it is there at all.
type forgetful struct {
	safe  map[string][]byte // by name: what the file held when it was synced last
	there map[string]bool   // what the folder held when it was synced last
	lazy  bool              // syncs fail, and do nothing
}

func (d *forgetful) config(c *Config) {
	tiny(c)
	c.open = func(path string) (segmentFile, error) {
		f, err := openSegment(path)
		return &forgetfulFile{f, d, path}, err
	}
	c.sync = func(dir string) error {
		all, err := filepath.Glob(filepath.Join(dir, "*"+pagesEnd))
		for _, path := range all {
			d.there[filepath.Base(path)] = true
		}
		return err
	}
}

type forgetfulFile struct {
	segmentFile
	disk *forgetful
	path string
}

func (f *forgetfulFile) Sync() (err error) {
	if f.disk.lazy {
		return syscall.EIO
	}
	f.disk.safe[filepath.Base(f.path)], err = os.ReadFile(f.path)
	return err
}

// cut is a folder as it is after a power cut.
func (d *forgetful) cut(t *testing.T) string {
	t.Helper()
	files := map[string][]byte{}
	for name := range d.there {
		files[name] = d.safe[name]
	}
	return laid(t, files)
}

func TestPowerIsCut(t *testing.T) {
	all := pages(6, 3)
	t.Run("AfterAnAppend", func(t *testing.T) {
		d := &forgetful{map[string][]byte{}, map[string]bool{}, false}
		s := open(t, t.TempDir(), d.config)
		for i, p := range all {
			appended(t, s, p)
			after := open(t, d.cut(t), tiny)
			check(t, after, all[:i+1])
			closed(t, after)
		}
	})
	t.Run("AfterAPageThatWasFoundUnsynced", func(t *testing.T) {
		// Whoever opens it counts the page in; then it must not vanish any more.
		for i := range all {
			d := &forgetful{map[string][]byte{}, map[string]bool{}, false}
			s := open(t, t.TempDir(), d.config)
			appended(t, s, all[:i]...)
			d.lazy = true
			if err := s.Append(all[i]); !errors.Is(err, syscall.EIO) {
				t.Fatalf("got %v", err)
			}
			closed(t, s)
			d.lazy = false
			s = open(t, s.config.Dir, d.config)
			check(t, s, all[:i+1])
			check(t, open(t, d.cut(t), tiny), all[:i+1])
		}
	})
}

func TestAppendTakes(t *testing.T) {
	all := pages(2, 3)
	other := all[1]
	other.Fence++
	long := page(2, seen("a", 1))
	long.Cursor = []byte(`"` + strings.Repeat("x", maxMeta) + `"`)
	mixed := seen("a", 1)
	mixed.Snapshot = snapshot("b", base)
	both := seen("a", 1)
	both.Unreadable = true
	for name, c := range map[string]struct {
		p    Page
		want string // of the error
	}{
		"TheNextPage":                {all[1], ""},
		"ThePageThatIsThere":         {all[0], ""},
		"NoGap":                      {page(3), "the next page is number 2"},
		"NoOlderPage":                {page(0), "the next page is number 2"},
		"NoOtherPageOfTheSameNumber": {Page{Number: 1, Fence: 5}, "the next page is number 2"},
		"NoInvalidID":                {page(2, seen("a/b", 1)), `file "a/b": not an id`},
		"NoLongID":                   {page(2, seen(strings.Repeat("x", 65), 1)), "not an id"},
		"NoEmptyID":                  {page(2, garbled("")), "not an id"},
		"NoSnapshotOfAnotherFile":    {page(2, mixed), `the snapshot is of file "b"`},
		"NoLineThatIsBoth":           {page(2, both), "has a snapshot or is unreadable"},
		"NoLineThatIsNeither":        {page(2, Line{FileID: "a"}), "has a snapshot or is unreadable"},
		"NoEndlessCursor":            {long, "cursor"},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir())
			appended(t, s, all[0])
			err := s.Append(c.p)
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
			} else if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			} else {
				check(t, s, all[:1])
			}
			appended(t, s, all[1])
			check(t, s, all)
		})
	}
}
