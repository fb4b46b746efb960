package service_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/testenv"
)

// process is the real binary running one command.
type process struct {
	t    testing.TB
	name string
	args []string
	env  []string
	tags []string // of the build

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{}
	err    error
	log    *tail
}

// tail keeps the last of what a process said.
type tail struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *tail) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.buf.Len() > 1<<20 {
		l.buf.Next(l.buf.Len() - 1<<19)
	}
	return l.buf.Write(p)
}

func (l *tail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// start runs `trueup args…` with only the environment given; the test's cleanup stops
// it and, where the test failed, shows what it said.
func start(t testing.TB, env map[string]string, args ...string) *process {
	t.Helper()
	return startTagged(t, env, nil, args...)
}

// startTagged is start for a binary built with tags.
func startTagged(t testing.TB, env map[string]string, tags []string, args ...string) *process {
	t.Helper()
	p := &process{t: t, name: args[0], args: args, tags: tags, log: &tail{}}
	p.env = append(p.env, "PATH="+os.Getenv("PATH"), "HOME="+os.Getenv("HOME"), "TMPDIR="+os.TempDir())
	for k, v := range env {
		p.env = append(p.env, k+"="+v)
	}
	p.run()
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Logf("what trueup %s said last:\n%s", strings.Join(args, " "), last(p.log.String(), 6000))
		}
	})
	return p
}

func last(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return "…" + s[len(s)-n:]
}

func (p *process) run() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	cmd := exec.Command(testenv.Trueup(p.t, p.tags...), p.args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = p.env, p.log, p.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		p.t.Fatalf("start trueup %v: %v", p.args, err)
	}
	exited := make(chan struct{})
	p.cmd, p.exited = cmd, exited
	go func() {
		err := cmd.Wait()
		p.mu.Lock()
		p.err = err
		p.mu.Unlock()
		close(exited)
	}()
}

// signal sends and waits for the end; SIGKILL if it does not come.
func (p *process) signal(sig syscall.Signal) {
	p.mu.Lock()
	cmd, exited := p.cmd, p.exited
	p.mu.Unlock()
	_ = cmd.Process.Signal(sig)
	select {
	case <-exited:
	case <-time.After(60 * time.Second):
		p.t.Errorf("trueup %v did not end within a minute of %v", p.args, sig)
		_ = cmd.Process.Kill()
		<-exited
	}
}

func (p *process) stop()  { p.signal(syscall.SIGTERM) }
func (p *process) kill9() { p.signal(syscall.SIGKILL) }

// restart runs the same command again after an end.
func (p *process) restart() { p.run() }

// code is the exit code of an ended process.
func (p *process) code() int {
	<-p.exited
	return p.cmd.ProcessState.ExitCode()
}

// once runs `trueup args…` to its end and returns what it wrote and its exit code.
func once(t testing.TB, env map[string]string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, testenv.Trueup(t), args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}
	for k, v := range env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if cmd.ProcessState == nil {
		t.Fatalf("trueup %v: %v", args, err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// must is once, for a command that has to succeed.
func must(t testing.TB, env map[string]string, args ...string) string {
	t.Helper()
	stdout, stderr, code := once(t, env, args...)
	if code != 0 {
		t.Fatalf("trueup %v: exit %d\n%s%s", args, code, stdout, stderr)
	}
	return stdout
}

// said waits until the process has written text.
func (p *process) said(text string) {
	p.t.Helper()
	testenv.Eventually(p.t, time.Minute, func() error {
		if strings.Contains(p.log.String(), text) {
			return nil
		}
		return fmt.Errorf("trueup %v has not said %q; it said:\n%s", p.args, text, last(p.log.String(), 2000))
	})
}
