package spool

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	lockName   = "lock"
	sortedName = "sorted"
	runsName   = "runs.tmp"
	newName    = "sorted.tmp"
	pagesEnd   = ".pages"
)

func segmentName(n int) string { return fmt.Sprintf("%08d%s", n, pagesEnd) }

// segmentNames are the files of pages in dir, in their order.
func segmentNames(dir string) ([]string, error) {
	all, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range all {
		if isSegment(e.Name()) {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

func isSegment(name string) bool {
	digits, ok := strings.CutSuffix(name, pagesEnd)
	return ok && len(digits) == 8 && strings.Trim(digits, "0123456789") == ""
}

func isOurs(name string) bool {
	return isSegment(name) || slices.Contains([]string{lockName, sortedName, runsName, newName}, name)
}

func openSegment(path string) (segmentFile, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
}

// makeFolder makes dir, private, and notes on disk whatever it had to make above it.
func makeFolder(dir string, sync func(folder string) error) error {
	var made []string
	for up := filepath.Clean(dir); ; up = filepath.Dir(up) {
		if _, err := os.Stat(up); !errors.Is(err, os.ErrNotExist) {
			break
		}
		made = append(made, up)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, m := range made {
		if err := sync(filepath.Dir(m)); err != nil {
			return err
		}
	}
	return os.Chmod(dir, 0o700) //nolint:gosec // a directory needs its x bit
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// removeFolder deletes our files in dir and then dir. What is not ours stays, and is an
// error.
func removeFolder(dir string) error {
	names, err := ours(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return os.Remove(dir)
}

// ours are the names in dir, none of them a stranger's.
func ours(dir string) ([]string, error) {
	all, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(all))
	for i, e := range all {
		if names[i] = e.Name(); !isOurs(names[i]) {
			return nil, fmt.Errorf("%s holds %q, which is not of a spool: remove it by hand", dir, names[i])
		}
	}
	return names, nil
}

// Prune removes the spools in the folders of dir, except those that keep wants and those
// that are open. A dir that is not there holds none. It goes on after an error.
func Prune(dir string, keep func(id string) bool) error {
	all, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("prune spools: %w", err)
	}
	var errs []error
	for _, e := range all {
		if e.IsDir() && !keep(e.Name()) {
			errs = append(errs, prune(filepath.Join(dir, e.Name())))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("prune spools: %w", err)
	}
	return nil
}

func prune(dir string) error {
	if _, err := ours(dir); err != nil {
		return err // before a lock is left among a stranger's files
	}
	unlock, err := lockFolder(dir)
	if errors.Is(err, errLocked) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	return removeFolder(dir)
}

var errLocked = errors.New("it is in use")
