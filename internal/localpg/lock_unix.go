//go:build unix

package localpg

import (
	"os"
	"syscall"
)

// tryLock takes f without waiting; the system gives it back when we end, however
// we end.
func tryLock(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }
