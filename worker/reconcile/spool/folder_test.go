package spool

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func TestLastIDsOutliveARestart(t *testing.T) {
	all := pages(7, 30)
	var ids []string
	for _, p := range all {
		for _, l := range p.Lines {
			ids = append(ids, l.FileID)
		}
	}
	few := func(c *Config) { c.Recent = 50 }
	dir := t.TempDir()
	s := open(t, dir, few)
	if got := s.LastIDs(); len(got) != 0 {
		t.Errorf("an empty spool has ids %q", got)
	}
	appended(t, s, all...)
	for range 2 {
		if got := s.LastIDs(); !slices.Equal(got, ids[len(ids)-50:]) {
			t.Errorf("got %q, want %q", got, ids[len(ids)-50:])
		}
		closed(t, s)
		s = open(t, dir, few)
	}
}

func TestFilesArePrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "reconcile", "run")
	s := open(t, dir)
	appended(t, s, pages(1, 3)...)
	sortOf(t, t.Context(), s)
	for path, want := range map[string]os.FileMode{
		filepath.Dir(dir): 0o700, dir: 0o700, s.path(lockName): 0o600, s.path(segmentName(1)): 0o600, s.path(sortedName): 0o600,
	} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	t.Run("AgainWhereTheyWereNot", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // this is what must not last
			t.Fatal(err)
		}
		open(t, dir)
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
	})
}

func TestOpenRefuses(t *testing.T) {
	t.Run("AFolderThatIsAFile", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := Open(Config{Dir: path, ID: listing}); err == nil {
			t.Errorf("opened: %v", s.Close())
		}
	})
	t.Run("WhatItCannotOpen", func(t *testing.T) {
		// As with too many open files: the pages may be good, so they stay.
		all := pages(2, 3)
		dir := t.TempDir()
		s := open(t, dir)
		appended(t, s, all...)
		closed(t, s)
		c := Config{Dir: dir, ID: listing, open: func(string) (segmentFile, error) { return nil, os.ErrPermission }}
		if _, err := Open(c); !errors.Is(err, os.ErrPermission) {
			t.Errorf("got %v", err)
		}
		check(t, open(t, dir), all)
	})
}

// holdEnv asks the test program to hold the spool in this folder until it is killed.
const holdEnv = "SPOOL_TEST_HOLD"

func TestHold(t *testing.T) {
	dir := os.Getenv(holdEnv)
	if dir == "" {
		return // only for TestLock's other process
	}
	s := open(t, dir)
	appended(t, s, pages(3, 5)[s.Pages()])
	fmt.Println("held")
	_, _ = io.Copy(io.Discard, os.Stdin) // until killed
}

// held is another process that has appended one more page and holds the spool.
func held(t *testing.T, dir string) (kill func()) {
	t.Helper()
	c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestHold$") //nolint:gosec // ourselves
	c.Env = append(os.Environ(), holdEnv+"="+dir)
	stdin, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stdin.Close() })
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "held\n" {
		t.Fatalf("the other process says %q, %v", line, err)
	}
	return func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	}
}

func TestLock(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Log("there is no lock")
		return
	}
	all := pages(3, 5)
	dir := filepath.Join(t.TempDir(), "run")
	for n := range 3 {
		kill := held(t, dir)
		if s, err := Open(Config{Dir: dir, ID: listing}); !errors.Is(err, errLocked) {
			t.Errorf("opened, with %v, what another process holds: %v", s, err)
		}
		if err := Prune(filepath.Dir(dir), func(string) bool { return false }); err != nil {
			t.Error(err)
		}
		kill()
		s := open(t, dir)
		check(t, s, all[:n+1])
		if _, err := Open(Config{Dir: dir, ID: listing}); !errors.Is(err, errLocked) {
			t.Errorf("opened twice by one process: %v", err)
		}
		closed(t, s)
	}
}

func TestRemove(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	s := open(t, dir, tiny)
	appended(t, s, pages(5, 3)...)
	sortOf(t, t.Context(), s)
	if err := s.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	if err := errors.Join(s.Close(), s.Remove()); err != nil {
		t.Errorf("once more: %v", err)
	}
	check(t, open(t, dir), nil)

	t.Run("NothingOfAStrangers", func(t *testing.T) {
		dir := t.TempDir()
		letter := filepath.Join(dir, "letter.txt")
		s := open(t, dir)
		if err := os.WriteFile(letter, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.Remove(); err == nil || !strings.Contains(err.Error(), "letter.txt") {
			t.Errorf("got %v", err)
		}
		if _, err := os.Stat(letter); err != nil {
			t.Error(err)
		}
	})
}

func TestPrune(t *testing.T) {
	none := func(string) bool { return false }
	t.Run("KeepsWhatIsWantedOrOpen", func(t *testing.T) {
		dir := t.TempDir()
		spools := map[string]*Spool{}
		for _, id := range []string{"wanted", "open", "old", "older"} {
			spools[id] = open(t, filepath.Join(dir, id))
			appended(t, spools[id], pages(2, 2)...)
			if id != "open" {
				closed(t, spools[id])
			}
		}
		if err := Prune(dir, func(id string) bool { return id == "wanted" }); err != nil {
			t.Fatal(err)
		}
		check(t, spools["open"], pages(2, 2))
		if left := names(t, dir); !slices.Equal(left, []string{"open", "wanted"}) {
			t.Errorf("left: %q", left)
		}
	})
	t.Run("LeavesStrangersAndGoesOn", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "notes.txt"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(dir, "a", "photos"), 0o700); err != nil {
			t.Fatal(err)
		}
		closed(t, open(t, filepath.Join(dir, "b")))
		if err := Prune(dir, none); err == nil || !strings.Contains(err.Error(), "photos") {
			t.Errorf("got %v", err)
		}
		if left := names(t, dir); !slices.Equal(left, []string{"a", "notes.txt"}) {
			t.Errorf("left: %q", left)
		}
		if left := names(t, filepath.Join(dir, "a")); !slices.Equal(left, []string{"photos"}) {
			t.Errorf("left of the stranger's: %q", left)
		}
	})
	t.Run("FindsNothing", func(t *testing.T) {
		if err := Prune(filepath.Join(t.TempDir(), "never", "made"), none); err != nil {
			t.Error(err)
		}
	})
}

func names(t *testing.T, dir string) (names []string) {
	t.Helper()
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		names = append(names, e.Name())
	}
	return names
}
