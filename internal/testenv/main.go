package testenv

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/trueup/trueup/internal/localpg"
)

// shared is what all tests of one test binary use together. A test binary has no
// other place to keep it than a variable; Main opens and ends it.
var shared session

type session struct {
	mu   sync.Mutex
	open bool           // Main runs
	work string         // the package's folder, where go build finds the module
	home string         // holds everything; removed at the end
	ends []func() error // run in reverse order at the end

	programs localpg.Programs
	postgres *localpg.Server
	built    map[string]string // import path and tags → binary
}

// Main runs a package's tests, then stops what they shared and looks for
// goroutines left behind. It is the whole of TestMain:
//
//	func TestMain(m *testing.M) { testenv.Main(m) }
//
// options are for goroutines that a library keeps for good.
func Main(m *testing.M, options ...goleak.Option) {
	options = append(options, goleak.IgnoreCurrent())
	shared.begin()
	code := m.Run()
	if err := shared.end(); err != nil {
		fmt.Fprintln(os.Stderr, "testenv:", err)
		code = max(code, 1)
	}
	if code == 0 {
		if err := goleak.Find(options...); err != nil {
			fmt.Fprintln(os.Stderr, "testenv: goroutines left behind:", err)
			code = 1
		}
	}
	os.Exit(code)
}

func (s *session) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = true
	s.work, _ = os.Getwd()
	s.built = map[string]string{}
}

func (s *session) end() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all error
	for i := len(s.ends) - 1; i >= 0; i-- {
		all = errors.Join(all, s.ends[i]())
	}
	if s.home != "" {
		all = errors.Join(all, os.RemoveAll(s.home))
	}
	s.open, s.home, s.ends, s.postgres = false, "", nil, nil
	return all
}

// folder returns a folder of that name below the binary's own; s.mu is held.
func (s *session) folder(t testing.TB, name string) string {
	t.Helper()
	if !s.open {
		t.Fatal("testenv: this package needs func TestMain(m *testing.M) { testenv.Main(m) }, which stops what tests share")
	}
	if s.home == "" {
		sweep()
		home, err := os.MkdirTemp("", homePrefix+strconv.Itoa(os.Getpid())+"-")
		if err != nil {
			t.Fatalf("testenv: %v", err)
		}
		if err := os.Chmod(home, 0o755); err != nil {
			t.Fatalf("testenv: %v", err)
		}
		s.home = home
	}
	dir := filepath.Join(s.home, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatalf("testenv: %v", err)
	}
	return dir
}

// Dir returns a fresh folder that is removed at the test's end. Unlike t.TempDir's,
// other users may enter it, as servers must that do not run as root: give it to
// whatever starts a PostgreSQL.
func Dir(t testing.TB) string {
	t.Helper()
	shared.mu.Lock()
	parent := shared.folder(t, "dirs")
	shared.mu.Unlock()
	dir, err := os.MkdirTemp(parent, "")
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatalf("testenv: %v", err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("testenv: %v", err)
		}
	})
	return dir
}

const homePrefix = "trueup-testenv-"

// sweep removes the folders of test binaries that were killed and so could not
// remove them. Their servers stopped with them.
func sweep() {
	left, _ := filepath.Glob(filepath.Join(os.TempDir(), homePrefix+"*"))
	for _, dir := range left {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), homePrefix), "-")
		n, err := strconv.Atoi(pid)
		if err == nil && errors.Is(syscall.Kill(n, 0), syscall.ESRCH) {
			_ = os.RemoveAll(dir)
		}
	}
}
