package service_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// Node's part of the tests: what ImageKit and the Neon guide give their users is
// JavaScript, and it has to work unmodified.

// script is one of testdata/node's running under node. It ends when its standard input
// does, so it never outlives the test binary.
type script struct {
	t      testing.TB
	stdin  io.WriteCloser
	stdout *bufio.Reader // nil where nobody asked for it
	log    *tail
}

// startScript runs name with only the environment given. args come before it; reads
// says that the test reads its standard output.
func startScript(t testing.TB, env map[string]string, reads bool, name string, args ...string) *script {
	t.Helper()
	dir := nodeFolder(t)
	cmd := exec.Command("node", append(args, name)...)
	cmd.Dir, cmd.Env = dir, []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}
	for k, v := range env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	s := &script{t: t, log: &tail{}}
	cmd.Stdout, cmd.Stderr = s.log, s.log
	var err error
	if reads {
		cmd.Stdout = nil
		out, pipeErr := cmd.StdoutPipe()
		s.stdout, err = bufio.NewReader(out), pipeErr
	}
	if err == nil {
		s.stdin, err = cmd.StdinPipe()
	}
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatalf("start node %s: %v", name, err)
	}
	t.Cleanup(func() { s.end(cmd) })
	return s
}

func (s *script) end(cmd *exec.Cmd) {
	_ = s.stdin.Close()
	late := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	if err := cmd.Wait(); err != nil {
		s.t.Errorf("node %v: %v", cmd.Args[1:], err)
	}
	if s.t.Failed() {
		s.t.Logf("what node %v said last:\n%s", cmd.Args[1:], last(s.log.String(), 4000))
	}
}

// ask writes one JSON line and reads one back.
func (s *script) ask(t testing.TB, question any, answer any) {
	t.Helper()
	if err := json.NewEncoder(s.stdin).Encode(question); err != nil {
		t.Fatalf("ask node: %v\n%s", err, last(s.log.String(), 4000))
	}
	line, err := s.stdout.ReadBytes('\n')
	if err != nil {
		t.Fatalf("no answer from node: %v\n%s", err, last(s.log.String(), 4000))
	}
	if err := json.Unmarshal(line, answer); err != nil {
		t.Fatalf("node said %s: %v", line, err)
	}
}

// needs fails the test unless a program is there: one that quietly did not run would
// prove nothing.
func needs(t testing.TB, program, remedy string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Fatalf("this test needs %s: install %s, then run it again", program, remedy)
	}
}

// nodeFolder is a folder of the test's own with testdata/node's scripts, in which their
// packages are found as the lock file names them.
func nodeFolder(t testing.TB) string {
	t.Helper()
	for _, program := range []string{"node", "npm"} {
		needs(t, program, "Node.js 20 or later (Debian: apt-get install nodejs npm)")
	}
	modules, err := nodeModules(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/node")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(modules, filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// nodeModules installs what the lock file names into the user's cache, once for all
// test binaries, and returns the folder. An installation that was cut short is not
// taken for one: the folder gets its name when it is whole.
func nodeModules(ctx context.Context) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	lock, err := os.ReadFile("testdata/node/package-lock.json")
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(lock)
	dir := filepath.Join(cache, "trueup", "service-node-"+hex.EncodeToString(sum[:6]))
	modules := filepath.Join(dir, "node_modules")
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	held, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer func() { _ = held.Close() }() // and so let go
	if err := syscall.Flock(int(held.Fd()), syscall.LOCK_EX); err != nil {
		return "", fmt.Errorf("wait for %s: %w", held.Name(), err)
	}
	if _, err := os.Stat(modules); err == nil {
		return modules, nil
	}
	return modules, install(ctx, dir)
}

func install(ctx context.Context, dir string) error {
	next, err := os.MkdirTemp(filepath.Dir(dir), "service-node-next-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(next) }()
	for _, name := range []string{"package.json", "package-lock.json"} {
		content, err := os.ReadFile(filepath.Join("testdata/node", name))
		if err == nil {
			err = os.WriteFile(filepath.Join(next, name), content, 0o644)
		}
		if err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	cmd.Dir = next
	if out, err := cmd.CombinedOutput(); err != nil {
		return errors.Join(fmt.Errorf("npm ci: %w", err), errors.New(string(out)))
	}
	return os.Rename(next, dir)
}
