package planted

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	all    = flag.Bool("all", false, "plant every bug, not only those whose tests need no service")
	which  = flag.String("bug", "", "plant only bugs whose names match this `regexp`")
	record = flag.String("record", "", "append the outcome to this `file`, one line of JSON")
)

// fewest is how many bugs there are to be.
const fewest = 30

func bugs(t *testing.T) (root string, planted []bug) {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	planted, err = readBugs("bugs")
	if err != nil {
		t.Fatal(err)
	}
	return root, planted
}

// TestEveryBugFitsTheTree: each stands where it can be planted, and is Go.
func TestEveryBugFitsTheTree(t *testing.T) {
	root, planted := bugs(t)
	if len(planted) < fewest {
		t.Errorf("%d bugs, want %d at least", len(planted), fewest)
	}
	for _, b := range planted {
		for _, c := range b.Files {
			content, err := c.wrong(root)
			if err != nil {
				t.Errorf("%s: %v", b.Name, err)
				continue
			}
			if _, err := parser.ParseFile(token.NewFileSet(), c.File, content, parser.SkipObjectResolution); err != nil && strings.HasSuffix(c.File, ".go") {
				t.Errorf("%s: %v", b.Name, err)
			}
		}
	}
}

// TestEveryBugIsCaught plants one bug after the other.
func TestEveryBugIsCaught(t *testing.T) {
	root, planted := bugs(t)
	only, err := regexp.Compile(*which)
	if err != nil {
		t.Fatal(err)
	}
	var outcomes []outcome
	sound := &controls{root: root, done: map[string]error{}}
	for _, b := range planted {
		if !only.MatchString(b.Name) || !*all && !b.Quick {
			continue
		}
		t.Run(b.Name, func(t *testing.T) {
			o := plant(t, root, b, sound)
			outcomes = append(outcomes, o)
			if o.Caught == "" {
				t.Errorf("%s: nothing noticed that %s", b.Name, b.Says)
				return
			}
			t.Logf("%s: caught by %s in %s", b.Name, o.Caught, o.Took)
		})
	}
	if len(outcomes) == 0 {
		t.Fatal("no bug was planted")
	}
	report(t, outcomes)
}

// outcome is what became of one bug.
type outcome struct {
	Bug       string        `json:"bug"`
	Invariant string        `json:"invariant"`
	Says      string        `json:"says"`
	Caught    string        `json:"caught"` // by which test
	Took      time.Duration `json:"took"`   // from the start of go test, building included
}

// plant runs the bug's tests, the quickest first, until one notices.
func plant(t *testing.T, root string, b bug, sound *controls) outcome {
	t.Helper()
	overlay, err := b.overlay(root, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	o := outcome{Bug: b.Name, Invariant: b.Invariant, Says: b.Says}
	began := time.Now()
	tests := b.Tests
	if !*all {
		tests = tests[:1]
	}
	for _, s := range tests {
		if err := sound.passes(t, s); err != nil {
			t.Fatalf("%s fails without any bug: %v", s.Package, err)
		}
		start := time.Now()
		output, err := run(t, root, s, "-overlay="+overlay)
		if err == nil {
			t.Logf("%s %s did not notice", s.Package, s.Run)
			continue
		}
		name, err := failed(output)
		if err != nil {
			t.Fatalf("%s with %s: %v\n%s", s.Package, b.Name, err, tail(output))
		}
		o.Caught, o.Took = s.Package+" "+name, time.Since(start).Round(10*time.Millisecond)
		return o
	}
	o.Took = time.Since(began).Round(10 * time.Millisecond)
	return o
}

// controls are the suites that have passed without a bug.
type controls struct {
	root string
	mu   sync.Mutex
	done map[string]error
}

func (c *controls) passes(t *testing.T, s suite) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := fmt.Sprint(s)
	if err, ok := c.done[key]; ok {
		return err
	}
	output, err := run(t, c.root, s)
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, tail(output))
	} else if strings.Contains(output, "no tests to run") {
		err = errors.New("nothing was run")
	}
	c.done[key] = err
	return err
}

// run runs a suite; flags go to every go command under it, also those of tests that build
// the binary.
func run(t *testing.T, root string, s suite, flags ...string) (string, error) {
	t.Helper()
	timeout := "-timeout=5m"
	if !*all {
		timeout = "-timeout=1m"
	}
	// A bug may well eat all there is; where the shell can, it is bounded.
	args := append([]string{"-c", `ulimit -v 8000000 2>/dev/null; exec go "$@"`, "sh", "test", "-count=1", timeout, "-run", s.Run, s.Package}, s.Args...)
	cmd := exec.CommandContext(t.Context(), "sh", args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOFLAGS="+strings.Join(append([]string{os.Getenv("GOFLAGS")}, flags...), " "))
	output, err := cmd.CombinedOutput()
	return string(output), err
}

var hanging = regexp.MustCompile(`running tests:\n\s*(\S+)`)

var failure = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)`)

// failed names the test that failed first. A suite that did not come to run has caught
// nothing.
func failed(output string) (string, error) {
	if strings.Contains(output, "[build failed]") || strings.Contains(output, "[setup failed]") {
		return "", errors.New("it does not build")
	}
	names := failure.FindAllStringSubmatch(output, -1)
	switch {
	case len(names) > 0:
		return names[len(names)-1][1], nil // the innermost comes last
	case strings.Contains(output, "panic: test timed out"):
		if running := hanging.FindStringSubmatch(output); running != nil {
			return running[1] + " (hangs)", nil
		}
		return "(hangs)", nil
	case strings.Contains(output, "panic: "), strings.Contains(output, "fatal error: "):
		return "(ends the process)", nil
	}
	return "", errors.New("no test failed, and yet it did not pass")
}

func tail(s string) string { return s[max(0, len(s)-4000):] }

// report prints the table, and appends the record.
func report(t *testing.T, outcomes []outcome) {
	caught := 0
	for _, o := range outcomes {
		if o.Caught != "" {
			caught++
		}
		t.Logf("%-34s %-10s %-60s %s", o.Bug, o.Invariant, o.Caught, o.Took)
	}
	t.Logf("%d of %d bugs caught", caught, len(outcomes))
	if *record == "" {
		return
	}
	line, err := json.Marshal(map[string]any{"campaign": "planted", "n": len(outcomes), "counts": map[string]int{"planted": len(outcomes), "caught": caught}, "outcomes": outcomes})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(*record, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(append(line, '\n')); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}
