package localpg

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// launcherDir, when set, makes this binary a launcher that a test can kill: it
// starts a server on that folder, prints its URL and waits.
const launcherDir = "TRUEUP_LOCALPG_TEST_LAUNCHER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(launcherDir); dir != "" {
		if err := launcher(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func launcher(dir string) error {
	p, err := Obtain(context.Background(), ObtainOptions{Progress: os.Stderr})
	if err != nil {
		return err
	}
	s, err := Start(context.Background(), Config{Dir: dir, Programs: p})
	if err != nil {
		return err
	}
	fmt.Println(s.URL(Superuser))
	_, _ = io.Copy(io.Discard, os.Stdin)
	return s.Stop()
}

// folder is a fresh folder that every user may enter; t.TempDir's are private.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "trueup-localpg-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// installed is the real PostgreSQL of this machine, or one fetched.
func installed(t *testing.T) Programs {
	t.Helper()
	p, err := Obtain(t.Context(), ObtainOptions{Progress: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func config(t *testing.T, dir string) Config {
	t.Helper()
	return Config{Dir: dir, Programs: installed(t), Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}
}

// started is a running server, stopped at the test's end.
func started(t *testing.T, c Config) *Server {
	t.Helper()
	s, err := Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// fakePrograms puts programs that only know their version into dir.
func fakePrograms(t *testing.T, dir, version string, names ...string) {
	t.Helper()
	if len(names) == 0 {
		names = []string{"postgres", "initdb"}
	}
	for _, name := range names {
		script(t, filepath.Join(dir, name), `echo "`+name+` (PostgreSQL) `+version+`"`)
	}
}

func script(t *testing.T, path, body string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
}

// contains fails unless err says all of words.
func contains(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error does not say %q:\n%v", w, err)
		}
	}
}
