package campaign

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// freezeFamilies stops processes and all that descend from them, and returns when none of
// their threads can do anything more. A parent is stopped before its children are
// looked for, so that none is born unseen.
func freezeFamilies(roots []int) (all []int, err error) {
	seen := map[int]bool{}
	for next := roots; len(next) > 0; {
		for _, pid := range next {
			seen[pid] = true
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil && !errors.Is(err, syscall.ESRCH) {
				return all, fmt.Errorf("stop process %d: %w", pid, err)
			}
			all = append(all, pid)
		}
		if err := still(next); err != nil {
			return all, err
		}
		if next, err = unseenChildren(seen); err != nil {
			return all, err
		}
	}
	return all, nil
}

// still waits until every thread of the processes has stopped. One that is in the
// middle of an fsync stops when the disk has answered.
func still(pids []int) error {
	for until := time.Now().Add(30 * time.Second); ; pause(time.Millisecond) {
		moving := ""
		for _, pid := range pids {
			tasks, _ := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "task", "*", "stat"))
			for _, task := range tasks {
				if state, _ := stateOf(task); !strings.Contains("TtZXx", state) {
					moving = task + " is in state " + state
				}
			}
		}
		if moving == "" {
			return nil
		}
		if time.Now().After(until) {
			return errors.New("not stopped: " + moving)
		}
	}
}

// stateOf reads the state letter and the parent out of a stat file of /proc; "X" for
// one that is gone.
func stateOf(path string) (state string, parent int) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "X", 0
	}
	after := bytes.LastIndexByte(text, ')') // the name before it may hold anything
	f := strings.Fields(string(text[after+1:]))
	if after < 0 || len(f) < 2 {
		return "X", 0
	}
	parent, _ = strconv.Atoi(f[1])
	return f[0], parent
}

func unseenChildren(seen map[int]bool) (children []int, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || seen[pid] {
			continue
		}
		if _, parent := stateOf(filepath.Join("/proc", e.Name(), "stat")); seen[parent] {
			children = append(children, pid)
		}
	}
	return children, nil
}

// endAll kills processes, stopped ones too, and waits until they have let go of their
// files.
func endAll(pids []int) error {
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	for until := time.Now().Add(30 * time.Second); ; pause(time.Millisecond) {
		left := 0
		for _, pid := range pids {
			if state, _ := stateOf(filepath.Join("/proc", strconv.Itoa(pid), "stat")); !strings.Contains("ZX", state) {
				left = pid
			}
		}
		if left == 0 {
			return nil
		}
		if time.Now().After(until) {
			return fmt.Errorf("process %d does not end", left)
		}
	}
}

// sweepCuts removes what campaigns that were killed have left: their processes, which
// may be stopped for ever, their mounts and their images. Theirs is what lies below a
// folder of ours whose number is of no living process.
func sweepCuts() {
	left, _ := filepath.Glob(filepath.Join(os.TempDir(), cutPrefix+"*"))
	for _, dir := range left {
		number, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), cutPrefix), "-")
		pid, err := strconv.Atoi(number)
		if err != nil || !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			continue
		}
		clearCut(dir)
	}
}

func clearCut(dir string) {
	_ = endAll(worksBelow(dir))
	for _, mount := range mountsBelow(dir) {
		_ = unmount(mount)
	}
	_ = os.RemoveAll(dir)
}

// clearOnInterrupt has nothing left over when the campaign is told to stop: a test that
// is interrupted runs no cleanup. Our own children end with us.
func clearOnInterrupt(dir string) (stop func()) {
	told, done, gone := make(chan os.Signal, 1), make(chan struct{}), make(chan struct{})
	signal.Notify(told, os.Interrupt, syscall.SIGTERM)
	go func() {
		defer close(gone)
		select {
		case <-told:
			// The test does not know and may be making new ones.
			for range 50 {
				_ = endAll(family(os.Getpid())[1:])
				clearCut(dir)
				if _, err := os.Stat(dir); err != nil {
					break
				}
			}
			os.Exit(130)
		case <-done:
		}
	}()
	return func() {
		signal.Stop(told)
		close(done)
		<-gone
	}
}

const cutPrefix = "trueup-powercut-"

// worksBelow are the processes whose current folder is in dir, as that of every
// process of ours is.
func worksBelow(dir string) (pids []int) {
	links, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, link := range links {
		if at, err := os.Readlink(link); err == nil && strings.HasPrefix(at, dir+"/") {
			if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(link))); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

func mountsBelow(dir string) (mounts []string) {
	text, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			mounts = append(mounts, f[4])
		}
	}
	return mounts
}
