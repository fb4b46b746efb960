package localpg

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// lock is the right to run a server on a folder: one process at a time.
type lock struct{ f *os.File }

// takeLock takes the lock file, or says in held who has it.
func takeLock(path string) (l *lock, held string, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, "", fmt.Errorf("open the lock: %w", err)
	}
	if err := tryLock(f); err != nil {
		defer func() { _ = f.Close() }()
		text, _ := os.ReadFile(path)
		return nil, "process " + strings.TrimSpace(string(text)), nil
	}
	if err := f.Truncate(0); err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
		if err != nil {
			_ = f.Close()
			return nil, "", fmt.Errorf("write the lock: %w", err)
		}
	}
	return &lock{f: f}, "", nil
}

func (l *lock) release() { _ = l.f.Close() }
