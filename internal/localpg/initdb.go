package localpg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// prepare makes the data directory where there is none, and refuses one of another
// major version.
func (s *Server) prepare(ctx context.Context) error {
	text, err := os.ReadFile(filepath.Join(s.place.data(), "PG_VERSION"))
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(s.place.data()); err == nil {
			return fmt.Errorf("%s is there but is no PostgreSQL data directory; move it away or choose another data directory", s.place.data())
		}
		return s.initdb(ctx)
	}
	if err != nil {
		return fmt.Errorf("read the version of %s: %w", s.place.data(), err)
	}
	have, p := strings.TrimSpace(string(text)), s.cfg.Programs
	if have != fmt.Sprint(p.Major) {
		return fmt.Errorf("the data in %s was made by PostgreSQL %s, but the programs found in %s are version %s; install PostgreSQL %s (or name it: --postgres-bin), or choose another data directory. Nothing was changed",
			s.place.data(), have, p.Bin, p.Version, have)
	}
	return nil
}

// initdb makes a data directory beside its place and moves it there when whole:
// one that a kill left half made is never mistaken for data.
func (s *Server) initdb(ctx context.Context) error {
	old, _ := filepath.Glob(filepath.Join(s.place.root, "data.making-*"))
	for _, dir := range old {
		_ = os.RemoveAll(dir)
	}
	draft, err := os.MkdirTemp(s.place.root, "data.making-")
	if err != nil {
		return fmt.Errorf("make a data directory: %w", err)
	}
	if err := s.place.who.give(draft); err != nil {
		return fmt.Errorf("make a data directory: %w", err)
	}
	cmd := exec.CommandContext(ctx, s.cfg.Programs.path("initdb"), "-D", draft, "-U", Superuser,
		"--auth=scram-sha-256", "--pwfile="+s.place.password(), "-E", "UTF8", "--locale="+locale())
	cmd.Env, cmd.Dir = s.cfg.Programs.env(), s.place.root
	separate(cmd, s.place.who)
	runtime.LockOSThread() // as in run: its end would be initdb's
	defer runtime.UnlockOSThread()
	if out, err := cmd.CombinedOutput(); err != nil {
		_ = os.RemoveAll(draft)
		return fmt.Errorf("initdb as user %s: %w: %s", s.place.who.name, err, tail(string(out)))
	}
	if err := os.Rename(draft, s.place.data()); err != nil {
		return fmt.Errorf("put the data directory in its place: %w", err)
	}
	flushNames(s.place.root)
	return nil
}

// locale is one that every system has and that sorts bytes, so that a database
// made here orders text as production's "C" columns do.
func locale() string {
	if runtime.GOOS == "linux" {
		return "C.UTF-8"
	}
	return "C"
}
