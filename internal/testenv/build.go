package testenv

import (
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

// Trueup builds the real binary, once per test binary and set of build tags, and
// returns its path. It is built with the race detector when the tests are. With the
// tag planted its worker misbehaves on request; see worker/plant_on.go.
func Trueup(t testing.TB, tags ...string) string {
	t.Helper()
	return build(t, "github.com/trueup/trueup/cmd/trueup", raceBuilt, tags...)
}

// build compiles a command of this module once per test binary.
func build(t testing.TB, command string, race bool, tags ...string) string {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	key := strings.Join(append([]string{command}, tags...), ",")
	if done, ok := shared.built[key]; ok {
		return done
	}
	// Each set of tags has a folder of its own, so that the program keeps its name.
	folder := filepath.Join(append([]string{shared.folder(t, "bin")}, tags...)...)
	to := filepath.Join(folder, path.Base(command))
	args := []string{"build", "-o", to, "-tags", strings.Join(tags, ",")}
	if race {
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(t.Context(), "go", append(args, command)...)
	cmd.Dir = shared.work
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("testenv: build %s: %v\n%s", command, err, out)
	}
	shared.built[key] = to
	return to
}
