package campaign

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// unit is one process of an installation that a campaign may break: kill -9, freeze and
// thaw (SIGSTOP, SIGCONT), and start again with everything as it was. Its methods may be
// called from anywhere; doing again what is done already does nothing.
type unit interface {
	// start brings it up and returns when it runs, not yet when it is ready.
	start() error
	kill9() error
	freeze() error
	thaw() error
	// ready returns nil when it does its work.
	ready(ctx context.Context) error
	// fell says that it ended although nobody ended it; nil when it did not.
	fell() error
	// said is the last of what it wrote.
	said() string
	// pid is its process, 0 while it is down.
	pid() int
}

// program is a unit that runs a command.
type program struct {
	name  string
	path  string
	args  []string
	env   []string
	as    *syscall.Credential // nil: as ourselves
	stdin bool                // it ends when its standard input does
	probe func(ctx context.Context) error

	mu     sync.Mutex
	now    *child // nil while it is down
	frozen bool
	falls  []string
	used   time.Duration // of the processor, by runs that have ended
	log    tail
}

// child is one run of a program.
type child struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	exited chan struct{}
	asked  bool // to end
}

func (p *program) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now != nil && !p.now.ended() {
		return nil
	}
	c := &child{cmd: exec.Command(p.path, p.args...), exited: make(chan struct{})}
	c.cmd.Env, c.cmd.Stdout, c.cmd.Stderr = p.env, &p.log, &p.log
	// Grandchildren must not hold Wait up, and nothing may outlive a killed campaign.
	c.cmd.WaitDelay = time.Second
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.as, Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if p.stdin {
		in, err := c.cmd.StdinPipe()
		if err != nil {
			return err
		}
		c.stdin = in
	}
	if err := c.run(func() { p.exited(c) }); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	p.now, p.frozen = c, false
	return nil
}

// run starts the command from a thread of its own, which the child's end is tied to.
func (c *child) run(ended func()) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := c.cmd.Start()
		started <- err
		if err == nil {
			_ = c.cmd.Wait()
			ended()
			close(c.exited)
		}
	}()
	return <-started
}

func (c *child) ended() bool {
	select {
	case <-c.exited:
		return true
	default:
		return false
	}
}

func (p *program) exited(c *child) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used += c.cmd.ProcessState.UserTime() + c.cmd.ProcessState.SystemTime()
	if !c.asked {
		p.falls = append(p.falls, fmt.Sprintf("%s ended by itself: %s", p.name, c.cmd.ProcessState))
	}
}

func (p *program) kill9() error {
	p.mu.Lock()
	c := p.now
	if c == nil {
		p.mu.Unlock()
		return nil
	}
	c.asked, p.now, p.frozen = true, nil, false
	p.mu.Unlock()
	_ = c.cmd.Process.Kill()
	<-c.exited
	if c.stdin != nil {
		_ = c.stdin.Close()
	}
	return nil
}

// stop asks it to end in order, and kills what does not listen.
func (p *program) stop(within time.Duration) {
	p.mu.Lock()
	c := p.now
	if c == nil {
		p.mu.Unlock()
		return
	}
	c.asked = true
	p.mu.Unlock()
	_ = p.thaw()
	if c.stdin != nil {
		_ = c.stdin.Close()
	}
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	late := time.NewTimer(within)
	defer late.Stop()
	select {
	case <-c.exited:
	case <-late.C:
	}
	_ = p.kill9()
}

func (p *program) freeze() error { return p.signal(syscall.SIGSTOP, true) }
func (p *program) thaw() error   { return p.signal(syscall.SIGCONT, false) }

func (p *program) signal(s syscall.Signal, frozen bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now == nil || p.now.ended() || p.frozen == frozen {
		return nil
	}
	p.frozen = frozen
	return p.now.cmd.Process.Signal(s)
}

func (p *program) ready(ctx context.Context) error {
	p.mu.Lock()
	down := p.now == nil || p.now.ended()
	p.mu.Unlock()
	if down {
		return fmt.Errorf("%s is down: %s", p.name, lastOf(p.said(), 400))
	}
	return p.probe(ctx)
}

func (p *program) fell() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.falls) == 0 {
		return nil
	}
	return errors.New(strings.Join(p.falls, "; "))
}

func (p *program) said() string { return p.log.String() }

func (p *program) pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now == nil || p.now.ended() {
		return 0
	}
	return p.now.cmd.Process.Pid
}

// tail keeps the last of what a process said.
type tail struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *tail) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.buf.Len() > 1<<20 {
		l.buf.Next(l.buf.Len() - 1<<19)
	}
	return l.buf.Write(b)
}

func (l *tail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func lastOf(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return "…" + s[len(s)-n:]
}

// family is a process and all its descendants, the process first.
func family(pid int) []int {
	all := []int{pid}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	children := map[int][]int{}
	for _, name := range stats {
		raw, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		// pid (name) state ppid …; the name may hold anything.
		text := string(raw)
		fields := strings.Fields(text[strings.LastIndex(text, ")")+1:])
		own, err1 := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		parent, err2 := strconv.Atoi(fields[1])
		if errors.Join(err1, err2) == nil {
			children[parent] = append(children[parent], own)
		}
	}
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all
}
