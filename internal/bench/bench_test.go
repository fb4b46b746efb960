package bench_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trueup/trueup/internal/bench"
	"github.com/trueup/trueup/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// TestShort runs the real binary as CI does. What it judges does not depend on the
// clock, so it must hold here, too.
func TestShort(t *testing.T) {
	dir, profiles := testenv.Dir(t), t.TempDir()
	cmd := exec.CommandContext(t.Context(), testenv.Trueup(t), "bench", "verify", "--short", "--json", "--data-dir", dir, "--profiles", profiles)
	var out, progress bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &progress
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s\n%s", err, out.String(), progress.String())
	}
	var report struct {
		Figures []map[string]any
		Machine map[string]any
		NotRun  []bench.NotRun
	}
	if err := json.Unmarshal(out.Bytes(), &report); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	if len(report.Figures) != 3 || len(report.NotRun) != 0 || report.Machine["processors"] == nil {
		t.Fatal(out.String())
	}
	for _, f := range report.Figures {
		for _, name := range []string{"name", "value", "unit", "ceiling", "ratio", "target", "met", "spread"} {
			if _, ok := f[name]; !ok || len(f) != 8 {
				t.Errorf("%s is missing, or there is more: %v", name, f)
			}
		}
		if f["value"] == nil || f["met"] != true {
			t.Errorf("not met: %v", f)
		}
	}
	for _, kind := range []string{"cpu", "allocs", "mutex", "block"} {
		if i, err := os.Stat(filepath.Join(profiles, "verify."+kind+".prof")); err != nil || i.Size() == 0 {
			t.Errorf("the profile of %s: %v", kind, err)
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestWhatCannotBeMeasuredIsNamed(t *testing.T) {
	dir := testenv.Dir(t)
	// Without node the guide's line says so, and that is no failure; a database that
	// cannot be started is one.
	t.Run("NoNode", func(t *testing.T) {
		t.Setenv("PATH", dir)
		r, err := bench.Run(t.Context(), bench.Config{Self: os.Args[0], PartCommand: "x", Dir: dir}, "guide")
		if err != nil || len(r.NotRun) != 1 || r.NotRun[0].Failed || !strings.Contains(r.NotRun[0].Why, "node is not installed") || r.Failed() != nil {
			t.Errorf("%+v %v", r, err)
		}
	})
	t.Run("NoPostgreSQL", func(t *testing.T) {
		c := bench.Config{Self: testenv.Trueup(t), PartCommand: "bench-part", Dir: dir, PostgresBin: dir, NoDownload: true, Short: true}
		r, err := bench.Run(t.Context(), c, "verify")
		if err != nil || len(r.NotRun) != 1 || !r.NotRun[0].Failed || r.Failed() == nil {
			t.Errorf("%+v %v", r, err)
		}
	})
}

func TestNames(t *testing.T) {
	for name, wrong := range map[string]bool{"all": false, "verify": false, "ingest": true, "nonsense": true} {
		if err := bench.Check(name, true); (err != nil) != wrong {
			t.Errorf("%s, short: %v", name, err)
		}
	}
	if err := bench.Check("ingest", false); err != nil {
		t.Error(err)
	}
}
