package spool

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// A disk that is really full: a file system of 64 KiB, where we may make one.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Logf("TestAppendFails alone has to do: no file system can be made here (%v)", err)
		return
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 48<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	all := pages(40, 10)
	s := open(t, filepath.Join(dir, "spool"), tiny)
	i := 0
	for ; i < len(all); i++ {
		if err := s.Append(all[i]); err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
			break
		}
	}
	if i == len(all) {
		t.Fatalf("the disk was not full after %d pages", i)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	appended(t, s, all[i:i+5]...)
	check(t, s, all[:i+5])
	closed(t, s)
	s = open(t, s.config.Dir)
	check(t, s, all[:i+5])
	closed(t, s)
}
