package service

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// machineMemory is what the container, else the machine, has; zero where neither says.
func machineMemory() uint64 {
	var info unix.Sysinfo_t
	var most uint64
	if unix.Sysinfo(&info) == nil {
		most = uint64(info.Totalram) * uint64(info.Unit) //nolint:unconvert // 32 bits on some machines
	}
	// Version 2 of cgroups, then 1. A limit that is none is larger than the machine.
	for _, name := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		text, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		if n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err == nil && n > 0 && (most == 0 || n < most) {
			return n
		}
	}
	return most
}
