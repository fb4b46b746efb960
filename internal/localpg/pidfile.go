package localpg

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// pidfile is what PostgreSQL's postmaster.pid says.
type pidfile struct {
	pid, port int
}

func readPidfile(data string) (pidfile, bool) {
	text, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		return pidfile{}, false
	}
	lines := strings.Split(string(text), "\n")
	var f pidfile
	f.pid, _ = strconv.Atoi(strings.TrimSpace(lines[0]))
	if len(lines) > 3 {
		f.port, _ = strconv.Atoi(strings.TrimSpace(lines[3]))
	}
	return f, f.pid > 0
}

// dropStale removes a postmaster.pid that names a live process which is no
// PostgreSQL, because the number was given out again: PostgreSQL itself would
// refuse to start as long as that process lives. It does so only when it can see
// that nobody works in the data directory.
func dropStale(data string, f pidfile) (dropped bool) {
	if !alive(f.pid) || isPostgres(f.pid) != no || worksIn(data) != no {
		return false
	}
	again, ok := readPidfile(data)
	if !ok || again != f {
		return false
	}
	return os.Remove(filepath.Join(data, "postmaster.pid")) == nil
}

// answer is what a system can say about another process.
type answer int

const (
	unknown answer = iota
	no
	yes
)
