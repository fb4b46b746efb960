package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/trueup/trueup/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// The scripts run the real program, as its own process, and read like its manual.
func TestScripts(t *testing.T) {
	scripts(t, "testdata/script", nil)
}

// These have empty databases in DATABASE_URL and OTHER_DATABASE_URL, and free ports in the addresses.
func TestScriptsWithServices(t *testing.T) {
	scripts(t, "testdata/services", func(env *testscript.Env) {
		for _, name := range []string{"TRUEUP_ADDR", "TRUEUP_OPS_ADDR", "TRUEUP_EMULATOR_ADDR"} {
			env.Setenv(name, fmt.Sprintf("127.0.0.1:%d", testenv.Freeport(t)))
		}
		env.Setenv("DATABASE_URL", testenv.Postgres(t))
		env.Setenv("OTHER_DATABASE_URL", testenv.Postgres(t))
	})
}

func scripts(t *testing.T, dir string, setup func(*testscript.Env)) {
	path := filepath.Dir(testenv.Trueup(t))
	testscript.Run(t, testscript.Params{
		Dir: dir, RequireExplicitExec: true, RequireUniqueNames: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "eventually": eventually, "control": control, "keep": keep, "sql": sql},
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", path+string(filepath.ListSeparator)+env.Getenv("PATH"))
			if setup != nil {
				setup(env)
			}
			return nil
		},
	})
}

// exits CODE COMMAND… runs a command and demands its exit code, which testscript's
// own exec does not tell apart.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND [ARG…]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	if got := codeOf(ts, args[1:]); got != want {
		ts.Fatalf("%q exits %d, want %d", args[1:], got, want)
	}
}

func codeOf(ts *testscript.TestScript, args []string) int {
	err := ts.Exec(args[0], args[1:]...)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	ts.Fatalf("%v", err)
	return -1
}

// control METHOD URL [BODY] speaks to the emulator's control; the answer is stdout.
func control(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: control METHOD URL [BODY]")
	}
	req, err := http.NewRequestWithContext(context.Background(), args[0], args[1], strings.NewReader(strings.Join(args[2:], "")))
	ts.Check(err)
	req.Header.Set("Content-Type", "application/json")
	req.SetBasicAuth(ts.Getenv("IMAGEKIT_PRIVATE_KEY"), "")
	res, err := http.DefaultClient.Do(req)
	ts.Check(err)
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	ts.Check(err)
	if res.StatusCode/100 != 2 {
		ts.Fatalf("%s %s: %s: %s", args[0], args[1], res.Status, answer)
	}
	_, _ = ts.Stdout().Write(answer)
}

// keep NAME PATTERN sets a variable to the pattern's first group in stdout.
func keep(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: keep NAME PATTERN")
	}
	found := regexp.MustCompile(`(?m)` + args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
	if len(found) != 2 {
		ts.Fatalf("no %q in:\n%s", args[1], ts.ReadFile("stdout"))
	}
	ts.Setenv(args[0], found[1])
}

// eventually PATTERN COMMAND… repeats a command until its output matches.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: eventually PATTERN COMMAND [ARG…]")
	}
	pattern := regexp.MustCompile(`(?m)` + args[0])
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	again := time.NewTicker(200 * time.Millisecond)
	defer again.Stop()
	for {
		codeOf(ts, args[1:])
		if pattern.MatchString(ts.ReadFile("stdout")) {
			return
		}
		select {
		case <-again.C:
		case <-deadline.C:
			ts.Fatalf("%q never said %q; at last:\n%s%s", args[1:], args[0], ts.ReadFile("stdout"), ts.ReadFile("stderr"))
		}
	}
}
