package localpg

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sort"
	"strconv"
	"time"
)

// process is the server's first process: our child, or one adopted.
type process struct {
	pid     int
	adopted bool
	exited  chan struct{} // closed when it is gone
	leave   chan struct{} // closed to stop watching an adopted one
}

// run starts cmd from a thread of its own and keeps that thread until the process
// is gone: the kernel's promise to stop it when its parent ends follows the thread,
// not the process, that started it.
func run(cmd *exec.Cmd) (*process, error) {
	p := &process{exited: make(chan struct{})}
	started := make(chan error)
	go func() {
		defer close(p.exited)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := cmd.Start()
		if err == nil {
			p.pid = cmd.Process.Pid
		}
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended stands in its log
		}
	}()
	return p, <-started
}

// watch follows a process that is not our child.
func watch(pid int) *process {
	p := &process{pid: pid, adopted: true, exited: make(chan struct{}), leave: make(chan struct{})}
	go func() {
		defer close(p.exited)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for alive(pid) {
			select {
			case <-tick.C:
			case <-p.leave:
				return
			}
		}
	}()
	return p
}

// command is the server's command line: loopback only, no socket file, durable.
func (s *Server) command(out *os.File) *exec.Cmd {
	args := []string{
		"-D", s.place.data(), "-p", strconv.Itoa(s.Port()),
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=on",
		"-c", "logging_collector=off", "-c", "log_destination=stderr",
	}
	names := make([]string, 0, len(s.cfg.Parameters))
	for name := range s.cfg.Parameters {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		args = append(args, "-c", name+"="+s.cfg.Parameters[name])
	}
	cmd := exec.Command(s.cfg.Programs.path("postgres"), args...) //nolint:noctx // it outlives every context; Stop ends it, and not by SIGKILL
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = s.cfg.Programs.env(), s.place.root, out, out
	separate(cmd, s.place.who)
	return cmd
}

// halt stops p and waits until it is gone: fast, then immediate, never by SIGKILL,
// which would leave its children working on shared memory.
func (s *Server) halt(p *process) error {
	steps := []struct {
		ask  func(Programs, string, int) error
		wait time.Duration
	}{{askToStop, s.cfg.StopWait}, {tellToQuit, s.cfg.StopWait}}
	for _, step := range steps {
		select {
		case <-p.exited:
			return nil
		default:
		}
		err := step.ask(s.cfg.Programs, s.place.data(), p.pid)
		if err != nil && !errors.Is(err, os.ErrProcessDone) && alive(p.pid) {
			s.cfg.Logger.Warn("cannot ask PostgreSQL to stop", "pid", p.pid, "error", err)
		}
		t := time.NewTimer(step.wait)
		select {
		case <-p.exited:
			t.Stop()
			return nil
		case <-t.C:
		}
	}
	if p.leave != nil {
		close(p.leave)
	}
	return fmt.Errorf("PostgreSQL (process %d) does not stop; its log is %s", p.pid, s.place.log())
}
