package localpg

import (
	"os"

	"golang.org/x/sys/windows"
)

// tryLock takes f without waiting. It locks a byte far behind the end, because a
// locked byte cannot be read by others, and they shall read whose lock it is.
func tryLock(f *os.File) error {
	at := &windows.Overlapped{OffsetHigh: 1}
	return windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, at)
}
