package service

import (
	"math"
	"runtime"
	"runtime/debug"
	"testing"
)

func TestMemoryLimit(t *testing.T) {
	if got := memoryLimit(7, 100); got != 7 {
		t.Errorf("configured: %d", got)
	}
	if got := memoryLimit(0, 100); got != 80 {
		t.Errorf("of the machine: %d, want 80 %%", got)
	}
	if got := memoryLimit(0, 0); got != 0 {
		t.Errorf("nothing known: %d", got)
	}
	before := debug.SetMemoryLimit(1 << 40)
	defer debug.SetMemoryLimit(before)
	if got := memoryLimit(0, 100); got != 1<<40 || before != math.MaxInt64 {
		t.Errorf("GOMEMLIMIT: %d (was %d)", got, before)
	}
	if n := machineMemory(); runtime.GOOS == "linux" && n < 64<<20 {
		t.Errorf("this machine has %d bytes", n)
	}
}
