package testenv

import (
	"os/exec"
	"path"
	"path/filepath"
	"testing"
)

// Trueup builds the real binary, once per test binary, and returns its path. It is
// built with the race detector when the tests are.
func Trueup(t testing.TB) string {
	t.Helper()
	return build(t, "github.com/trueup/trueup/cmd/trueup", raceBuilt)
}

// build compiles a command of this module once per test binary.
func build(t testing.TB, command string, race bool) string {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if done, ok := shared.built[command]; ok {
		return done
	}
	to := filepath.Join(shared.folder(t, "bin"), path.Base(command))
	args := []string{"build", "-o", to}
	if race {
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(t.Context(), "go", append(args, command)...)
	cmd.Dir = shared.work
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("testenv: build %s: %v\n%s", command, err, out)
	}
	shared.built[command] = to
	return to
}
