package simulate_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/trueup/trueup/"

// mayImport is what each part of the simulation stands on. No step is among it: what runs
// is what internal/service joins. The doors name worker/reconcile and ingest nowhere; the
// interfaces that they implement are internal/service's.
var mayImport = map[string][]string{
	".": {"internal/service", "internal/config", "internal/chance", "internal/emulator", "internal/imagekit", "internal/ticket", "internal/check", "internal/store", "internal/queue", "internal/queue/envelope",
		"internal/simulate/fault", "internal/simulate/queue", "internal/simulate/rows", "internal/simulate/library", "internal/simulate/wire"},
	"fault":   {},
	"wire":    {},
	"queue":   {"internal/event", "internal/queue", "internal/queue/envelope", "internal/chance", "internal/simulate/fault"},
	"rows":    {"internal/check", "internal/event", "internal/file", "internal/run", "internal/rule", "internal/store", "internal/chance", "internal/simulate/fault", "worker/reconcile"},
	"library": {"internal/emulator", "internal/imagekit", "internal/simulate/fault", "internal/simulate/wire"},
}

// TestStepsAreNotReimplemented reads the imports of everything here: a simulation that had
// its own idea of a step would prove nothing of trueup.
func TestStepsAreNotReimplemented(t *testing.T) {
	runs := false
	walk(t, func(dir, name string, f *ast.File) {
		allowed, known := mayImport[dir]
		if !known {
			t.Errorf("%s: nobody has said what %s may import", name, dir)
		}
		for _, i := range f.Imports {
			path, _ := strconv.Unquote(i.Path.Value)
			ours, is := strings.CutPrefix(path, module)
			if is && !contains(allowed, ours) {
				t.Errorf("%s imports %s", name, ours)
			}
		}
	}, func(name string, call string) {
		if name == "process.go" && call == "service.New" {
			runs = true
		}
		if strings.HasPrefix(call, "worker.") || strings.HasPrefix(call, "ingest.") || strings.HasPrefix(call, "verify.") {
			t.Errorf("%s calls %s", name, call)
		}
	})
	if !runs {
		t.Error("process.go does not run service.New")
	}
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

// walk reads every file here that is not a test.
func walk(t *testing.T, file func(dir, name string, f *ast.File), call func(name, call string)) {
	t.Helper()
	set, read := token.NewFileSet(), 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		f, err := parser.ParseFile(set, path, nil, 0)
		if err != nil {
			return err
		}
		read++
		file(filepath.ToSlash(filepath.Dir(path)), path, f)
		ast.Inspect(f, func(n ast.Node) bool {
			if c, ok := n.(*ast.CallExpr); ok {
				if s, ok := c.Fun.(*ast.SelectorExpr); ok {
					if x, ok := s.X.(*ast.Ident); ok {
						call(path, x.Name+"."+s.Sel.Name)
					}
				}
			}
			return true
		})
		return nil
	})
	if err != nil || read < 10 {
		t.Fatalf("%d files read: %v", read, err)
	}
}
