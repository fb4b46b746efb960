//go:build unix

package localpg

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSurvivor starts a server that no kernel ties to its parent, as on systems
// that cannot.
func TestSurvivor(t *testing.T) {
	survivor := func(t *testing.T, c Config) (url string, pid int) {
		first, err := Start(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		do(t, first.URL(Superuser), makeRow)
		if err := first.Stop(); err != nil {
			t.Fatal(err)
		}
		cmd := first.command(nil)
		untie(cmd.SysProcAttr)
		cmd.Stdout, cmd.Stderr = nil, nil
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			_ = cmd.Wait()
		}()
		t.Cleanup(func() {
			_ = cmd.Process.Signal(syscall.SIGINT)
			<-gone
		})
		eventually(t, func() error {
			_, err := tryAsk(t.Context(), first.URL(Superuser), "SELECT 'x'")
			return err
		})
		return first.URL(Superuser), cmd.Process.Pid
	}
	t.Run("IsAdopted", func(t *testing.T) {
		c := config(t, folder(t))
		url, pid := survivor(t, c)
		s, err := Start(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if !s.Adopted() || s.PID() != pid || s.URL(Superuser) != url {
			t.Errorf("adopted %t, process %d (want %d), %s (want %s)", s.Adopted(), s.PID(), pid, s.URL(Superuser), url)
		}
		if got := ask(t, url, readRow); got != "kept" {
			t.Errorf("row is %q", got)
		}
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
		if _, err := tryAsk(t.Context(), url, "SELECT 'x'"); err == nil {
			t.Error("Stop left the adopted server running")
		}
	})
	t.Run("ThatDiesIsReplaced", func(t *testing.T) {
		c := config(t, folder(t))
		url, pid := survivor(t, c)
		s := started(t, c)
		kill(t, pid)
		eventually(t, func() error {
			if s.Adopted() {
				return errors.New("still the adopted one")
			}
			_, err := tryAsk(t.Context(), url, readRow)
			return err
		})
	})
	t.Run("OfAnotherPasswordIsNotTouched", func(t *testing.T) {
		c := config(t, folder(t))
		c.Patience = 300 * time.Millisecond
		_, pid := survivor(t, c)
		if err := os.WriteFile(filepath.Join(c.Dir, "password"), []byte("another\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Start(t.Context(), c)
		if err == nil {
			_ = s.Stop()
		}
		contains(t, err, strconv.Itoa(pid), "does not let us in")
		if !alive(pid) {
			t.Error("it was stopped")
		}
	})
}

func TestStalePidfile(t *testing.T) {
	// stopped is a data directory whose server is down, with a pidfile naming pid.
	stopped := func(t *testing.T, pid int) (Config, *Server) {
		c := config(t, folder(t))
		c.Patience = time.Second
		s, err := Start(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprintf("%d\n%s\n1\n%d\n\n127.0.0.1\n  1  1\nready   \n", pid, s.Data(), s.Port())
		if err := s.place.keep(filepath.Join(s.Data(), "postmaster.pid"), strings.TrimSpace(text)); err != nil {
			t.Fatal(err)
		}
		return c, s
	}
	// sleeper is a live process of the server's user that is no PostgreSQL.
	sleeper := func(t *testing.T, who account, dir string) int {
		cmd := exec.Command("sleep", "600")
		separate(cmd, who)
		cmd.Dir = dir
		p, err := run(cmd)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = syscall.Kill(p.pid, syscall.SIGKILL)
			<-p.exited
		})
		return p.pid
	}
	who, err := accountFor("", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Run("NamingADeadProcessIsNoObstacle", func(t *testing.T) {
		cmd := exec.Command("true")
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		c, _ := stopped(t, cmd.Process.Pid)
		started(t, c)
	})
	t.Run("NamingAnotherProgramOfTheSameUserIsRemoved", func(t *testing.T) {
		c, _ := stopped(t, sleeper(t, who, "/"))
		started(t, c)
	})
	t.Run("IsNotRemovedWhileAnyoneWorksInTheData", func(t *testing.T) {
		c, s := stopped(t, 1)
		pid := sleeper(t, who, s.Data())
		file := filepath.Join(s.Data(), "postmaster.pid")
		if err := s.place.keep(file, strconv.Itoa(pid)+"\n"+s.Data()); err != nil {
			t.Fatal(err)
		}
		again, err := Start(t.Context(), c)
		if err == nil {
			_ = again.Stop()
		}
		contains(t, err, "postmaster.pid")
		if _, err := os.Stat(file); err != nil {
			t.Error(err)
		}
	})
}
