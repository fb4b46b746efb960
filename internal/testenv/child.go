package testenv

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// child is a service run as a process of its own.
type child struct {
	cmd    *exec.Cmd
	log    string
	exited chan struct{}
}

// spawn starts cmd with its output in the file log.
func spawn(t testing.TB, cmd *exec.Cmd, log string) *child {
	t.Helper()
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	defer func() { _ = out.Close() }()
	if cmd.Stdout == nil {
		cmd.Stdout = out
	}
	cmd.Stderr = out
	followParent(cmd)
	c := &child{cmd: cmd, log: log, exited: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // the child follows the thread that started it
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
			close(c.exited)
		}
	}()
	if err := <-started; err != nil {
		t.Fatalf("testenv: start %s: %v", filepath.Base(cmd.Path), err)
	}
	return c
}

// kill sends SIGKILL and returns when the process is gone.
func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	<-c.exited
}

// stop asks with a signal, and kills what does not listen.
func (c *child) stop(signal os.Signal) {
	_ = c.cmd.Process.Signal(signal)
	t := time.NewTimer(10 * time.Second)
	defer t.Stop()
	select {
	case <-c.exited:
	case <-t.C:
		c.kill()
	}
}

// up waits until ready returns nil, and shows the service's log when it ends or
// never gets there.
func (c *child) up(t testing.TB, ready func() error) {
	t.Helper()
	err := poll(time.Minute, func() error {
		select {
		case <-c.exited:
			return errors.Join(errGone, errors.New(c.cmd.ProcessState.String()))
		default:
			return ready()
		}
	})
	if err != nil {
		text, _ := os.ReadFile(c.log)
		t.Fatalf("testenv: %s is not ready: %v\n%s", filepath.Base(c.cmd.Path), err, text)
	}
}

// errGone ends a poll early.
var errGone = errors.New("it ended")

// unprivileged makes cmd, started by root, run as a user who may not do
// everything, and gives that user the folder dir.
func unprivileged(cmd *exec.Cmd, dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, errU := strconv.ParseUint(u.Uid, 10, 32)
		gid, errG := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(errU, errG); err != nil {
			return fmt.Errorf("user %s: %w", name, err)
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
		return os.Chown(dir, int(uid), int(gid))
	}
	return errors.New("there is neither a user postgres nor nobody")
}
