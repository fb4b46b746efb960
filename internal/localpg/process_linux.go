package localpg

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

const loaderPath = "LD_LIBRARY_PATH"

// followParent makes the kernel ask the server to stop when the thread that
// started it ends, so that a kill -9 of trueup leaves no server behind.
func followParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGINT }

func proc(pid int, name string) string { return filepath.Join("/proc", strconv.Itoa(pid), name) }

func isZombie(pid int) bool {
	stat, err := os.ReadFile(proc(pid, "stat"))
	if err != nil {
		return false
	}
	after := bytes.LastIndexByte(stat, ')') // the name before it may hold anything
	return after >= 0 && bytes.HasPrefix(stat[after+1:], []byte(" Z"))
}

func isPostgres(pid int) answer {
	exe, err := os.Readlink(proc(pid, "exe"))
	if err != nil {
		return unknown
	}
	if strings.HasPrefix(filepath.Base(exe), "postgres") {
		return yes
	}
	return no
}

// worksIn reports whether any process has data as its current folder, which every
// PostgreSQL process has.
func worksIn(data string) answer {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return unknown
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if cwd, err := os.Readlink(proc(pid, "cwd")); err == nil && cwd == data {
			return yes
		}
	}
	return no
}
