//go:build unix

package localpg

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// ask runs one statement that answers one text.
func ask(t *testing.T, url, sql string) string {
	t.Helper()
	got, err := tryAsk(t.Context(), url, sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return got
}

func tryAsk(ctx context.Context, url, sql string) (got string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, c.Close(ctx)) }()
	err = c.QueryRow(ctx, sql).Scan(&got)
	return got, err
}

const (
	makeRow = "CREATE TABLE kept AS SELECT 'kept'::text AS word"
	readRow = "SELECT word FROM kept"
)

func do(t *testing.T, url, sql string) {
	t.Helper()
	c, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(t.Context()) }()
	if _, err := c.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// eventually asks until cond returns nil.
func eventually(t *testing.T, cond func() error) {
	t.Helper()
	until := time.Now().Add(time.Minute)
	for {
		err := cond()
		if err == nil {
			return
		}
		if time.Now().After(until) {
			t.Fatal(err)
		}
		if pause(t.Context(), 20*time.Millisecond) != nil {
			t.Fatal(err)
		}
	}
}

func TestServer(t *testing.T) {
	dir := folder(t)
	s := started(t, config(t, dir))
	url := s.URL(Superuser)

	t.Run("IsDurable", func(t *testing.T) {
		if got := ask(t, url, "SHOW fsync"); got != "on" {
			t.Errorf("fsync = %s", got)
		}
	})
	t.Run("ListensOnLoopbackOnly", func(t *testing.T) {
		if got := ask(t, url, "SHOW listen_addresses"); got != "127.0.0.1" {
			t.Errorf("listen_addresses = %s", got)
		}
		if got := ask(t, url, "SHOW unix_socket_directories"); got != "" {
			t.Errorf("unix_socket_directories = %s", got)
		}
	})
	t.Run("DoesNotRunAsRoot", func(t *testing.T) {
		st, err := os.Stat(s.Data())
		if err != nil {
			t.Fatal(err)
		}
		if uid := st.Sys().(*syscall.Stat_t).Uid; uid == 0 {
			t.Error("the data belongs to root")
		}
	})
	t.Run("RefusesAnotherPassword", func(t *testing.T) {
		_, err := tryAsk(t.Context(), strings.Replace(url, s.password, "wrong", 1), "SELECT 'in'")
		contains(t, err, "28P01")
	})
	t.Run("KeepsThePasswordToItself", func(t *testing.T) {
		for _, path := range []string{s.place.password(), s.place.port(), s.place.log()} {
			st, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if st.Mode().Perm() != 0o600 {
				t.Errorf("%s has mode %v", path, st.Mode())
			}
		}
		if out, err := os.ReadFile("/proc/" + strconv.Itoa(s.PID()) + "/cmdline"); err == nil && strings.Contains(string(out), s.password) {
			t.Error("the password stands in the command line")
		}
	})
	t.Run("ASecondStarterGetsOneClearSentence", func(t *testing.T) {
		second, err := Start(t.Context(), config(t, dir))
		if err == nil {
			_ = second.Stop()
		}
		if !errors.Is(err, ErrInUse) {
			t.Fatalf("error %v", err)
		}
		contains(t, err, "in use by process "+strconv.Itoa(os.Getpid()), dir)
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("more than one line: %v", err)
		}
		ask(t, url, "SELECT 'still here'")
	})
}

func TestRestart(t *testing.T) {
	dir := folder(t)
	first, err := Start(t.Context(), config(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	url := first.URL(Superuser)
	do(t, url, makeRow)
	for range 2 { // Stop may be called again
		if err := first.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tryAsk(t.Context(), url, "SELECT 'x'"); err == nil {
		t.Fatal("a stopped server answers")
	}
	if err := first.Err(); err != nil {
		t.Errorf("Err after Stop: %v", err)
	}

	second := started(t, config(t, dir))
	if second.URL(Superuser) != url {
		t.Errorf("URL was %s, is %s", url, second.URL(Superuser))
	}
	if got := ask(t, url, readRow); got != "kept" {
		t.Errorf("row is %q", got)
	}
}

func TestKill9OfTheServer(t *testing.T) {
	t.Run("IsStartedAgainOnTheSamePort", func(t *testing.T) {
		s := started(t, config(t, folder(t)))
		url, before := s.URL(Superuser), s.PID()
		do(t, url, makeRow)
		kill(t, before)
		eventually(t, func() error {
			if s.PID() == before {
				return errors.New("still the killed process")
			}
			got, err := tryAsk(t.Context(), url, readRow)
			if err == nil && got != "kept" {
				err = fmt.Errorf("row is %q", got)
			}
			return err
		})
		if s.Err() != nil {
			t.Errorf("Err: %v", s.Err())
		}
	})
	t.Run("StaysDownWhenToldSoAndRecoversAtTheNextStart", func(t *testing.T) {
		c := config(t, folder(t))
		c.KeepDown = true
		s := started(t, c)
		url := s.URL(Superuser)
		do(t, url, makeRow)
		kill(t, s.PID())
		<-s.Done()
		if !errors.Is(s.Err(), ErrDied) {
			t.Errorf("Err: %v", s.Err())
		}
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
		started(t, c)
		if got := ask(t, url, readRow); got != "kept" {
			t.Errorf("row is %q", got)
		}
	})
}

func kill(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

func TestKill9OfTheLauncher(t *testing.T) {
	for name, when := range map[string]string{
		"WhileTheServerRuns": "", "WhileInitdbWorks": "early",
	} {
		t.Run(name, func(t *testing.T) {
			dir := folder(t)
			url := killedLauncher(t, dir, when == "early")
			s := started(t, config(t, dir))
			if url == "" {
				return // killed before it had a URL to print
			}
			if s.URL(Superuser) != url {
				t.Errorf("URL was %s, is %s", url, s.URL(Superuser))
			}
			if got := ask(t, url, readRow); got != "kept" {
				t.Errorf("row is %q", got)
			}
			if left, _ := filepath.Glob(filepath.Join(s.place.root, "data.making-*")); len(left) > 0 {
				t.Errorf("left over: %v", left)
			}
		})
	}
}

// killedLauncher runs a launcher on dir and kills it: early, when initdb has begun
// to write; else when the server runs and holds a row.
func killedLauncher(t *testing.T, dir string, early bool) (url string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), launcherDir+"="+dir)
	cmd.Stderr = t.Output()
	stdin, errIn := cmd.StdinPipe()
	stdout, errOut := cmd.StdoutPipe()
	if err := errors.Join(errIn, errOut, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stdin.Close() }()
	if early {
		eventually(t, func() error {
			if found, _ := filepath.Glob(filepath.Join(dir, "data.making-*", "base", "*", "PG_VERSION")); len(found) > 0 {
				return nil
			}
			return errors.New("initdb has not begun")
		})
	} else {
		line, err := bufio.NewReader(stdout).ReadString('\n')
		if err != nil {
			t.Fatalf("the launcher printed no URL: %v", err)
		}
		url = strings.TrimSpace(line)
		do(t, url, makeRow)
	}
	kill(t, cmd.Process.Pid)
	_ = cmd.Wait()
	return url
}

func TestRefusals(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spoil func(p place) error
		says  []string
	}{
		{
			"AnotherMajorVersion",
			func(p place) error { return os.WriteFile(filepath.Join(p.data(), "PG_VERSION"), []byte("14\n"), 0o600) },
			[]string{"made by PostgreSQL 14", "are version", "Nothing was changed", "install PostgreSQL 14"},
		},
		{"DataWithoutItsPassword", func(p place) error { return os.Remove(p.password()) }, []string{"password", "is gone"}},
		{"AFolderThatIsNoData", func(p place) error { return os.Remove(filepath.Join(p.data(), "PG_VERSION")) }, []string{"no PostgreSQL data directory"}},
		{
			"SettingsTheServerCannotRead",
			func(p place) error {
				return os.WriteFile(filepath.Join(p.data(), "postgresql.conf"), []byte("no such setting\n"), 0o600)
			},
			[]string{"postgresql.conf", "server.log"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := config(t, folder(t))
			s, err := Start(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(s.Stop(), tc.spoil(s.place)); err != nil {
				t.Fatal(err)
			}
			again, err := Start(t.Context(), c)
			if err == nil {
				_ = again.Stop()
			}
			contains(t, err, tc.says...)
			if _, err := os.Stat(filepath.Join(s.Data(), "base")); err != nil {
				t.Errorf("the data is gone: %v", err)
			}
		})
	}
}

func TestPortTakenByAnotherProgram(t *testing.T) {
	c := config(t, folder(t))
	first, err := Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	squatter, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(first.Port())))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = squatter.Close() }()
	second := started(t, c)
	if second.Port() == first.Port() {
		t.Fatal("two listen on one port")
	}
	ask(t, second.URL(Superuser), "SELECT 'x'")
}

func TestStopNeverKills(t *testing.T) {
	c := config(t, folder(t))
	c.StopWait = 50 * time.Millisecond
	s, err := Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	pid, process := s.PID(), s.now
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil { // deaf, but not dead
		t.Fatal(err)
	}
	contains(t, s.Stop(), "does not stop", strconv.Itoa(pid))
	if !alive(pid) {
		t.Error("it was killed")
	}
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	<-process.exited // it heard the signals after all
}

func TestStartGivenUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c := config(t, folder(t))
	s, err := Start(ctx, c)
	if err == nil {
		_ = s.Stop()
		t.Fatal("started for a caller that had gone")
	}
	started(t, c) // and nothing is in the way of the next
}

func TestFolderTheServersUserCannotEnter(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root runs the server as somebody else")
	}
	private := folder(t)
	if err := os.Chmod(private, 0o700); err != nil {
		t.Fatal(err)
	}
	c := config(t, filepath.Join(private, "deep", "postgres"))
	first, err := Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(first.place.root) })
	if first.place.root == first.place.home {
		t.Fatalf("the data lies in %s", first.place.root)
	}
	url := first.URL(Superuser)
	do(t, url, makeRow)
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	// Opening the folder later must not make the data seem to have vanished.
	if err := os.Chmod(private, 0o755); err != nil {
		t.Fatal(err)
	}
	started(t, c)
	if got := ask(t, url, readRow); got != "kept" {
		t.Errorf("row is %q", got)
	}
}
