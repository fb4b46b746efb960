// Package seed hands fuzz targets what they start from, and holds parsers to a
// memory they may take. Seeds are files under a package's testdata, real samples
// that people can read; what a fuzzer found worth keeping is under testdata/fuzz,
// in the form that `go test -fuzz` writes.
//
// It is apart from the rest of testenv so that a parser's tests need no server.
//
// Its one invariant: a folder that is missing or has lost files fails the test. A
// fuzzer without seeds would look just like one that finds nothing.
package seed

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// File is one seed.
type File struct {
	Name string // without its folder
	Data []byte
}

// Files reads the files that match pattern, at least so many, in order.
func Files(t testing.TB, pattern string, least int) []File {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	if len(names) < least {
		t.Fatalf("seeds are missing: %d files match %s, and there were %d", len(names), pattern, least)
	}
	slices.Sort(names)
	files := make([]File, len(names))
	for i, name := range names {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if len(raw) == 0 {
			t.Fatalf("seed %s is empty", name)
		}
		files[i] = File{filepath.Base(name), raw}
	}
	return files
}

// Lines reads one file of one seed a line, at least so many; # begins a comment line.
func Lines(t testing.TB, name string, least int) []string {
	t.Helper()
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatalf("seeds are missing: %v", err)
	}
	var lines []string
	for line := range strings.Lines(string(raw)) {
		if line = strings.TrimRight(line, "\r\n"); line != "" && line[0] != '#' {
			lines = append(lines, line)
		}
	}
	if len(lines) < least {
		t.Fatalf("seeds are missing: %d in %s, and there were %d", len(lines), name, least)
	}
	return lines
}

// Kept reads what is kept under testdata/fuzz of a target: the arguments of each
// entry, text and bytes alike as strings. It has at least so many entries.
func Kept(t testing.TB, target string, least int) map[string][]string {
	t.Helper()
	kept := map[string][]string{}
	for _, f := range Files(t, filepath.Join("testdata", "fuzz", target, "*"), least) {
		args, err := arguments(string(f.Data))
		if err != nil {
			t.Fatalf("%s of %s: %v", f.Name, target, err)
		}
		kept[f.Name] = args
	}
	return kept
}

// arguments reads an entry as `go test -fuzz` writes it: a first line with its
// version, then one Go conversion of a literal a line. Only text and bytes matter here.
func arguments(entry string) ([]string, error) {
	head, rest, _ := strings.Cut(entry, "\n")
	if strings.TrimSpace(head) != "go test fuzz v1" {
		return nil, fmt.Errorf("begins with %q", head)
	}
	var out []string
	for line := range strings.Lines(rest) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		call, err := parser.ParseExpr(line)
		if err != nil {
			return nil, fmt.Errorf("line %q: %w", line, err)
		}
		text, ok := literal(call)
		if !ok {
			continue // a number
		}
		out = append(out, text)
	}
	return out, nil
}

func literal(x ast.Expr) (string, bool) {
	call, ok := x.(*ast.CallExpr)
	if !ok || len(call.Args) != 1 {
		return "", false
	}
	lit, ok := call.Args[0].(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(lit.Value)
	return text, err == nil
}

// Allocation is what a parser may allocate for an input of n bytes: ten times as much,
// and what it costs to begin at all.
func Allocation(n int) uint64 { return 10*uint64(n) + 64<<10 }

// Frugal fails when parse allocates more for an input of n bytes than Allocation allows.
func Frugal(t testing.TB, name string, n int, parse func()) {
	t.Helper()
	Within(t, name, Allocation(n), parse)
}

// Within is Frugal with a limit of its own, for inputs made to be costly. The least of
// three runs counts, so that what the runtime does beside it does not. Tests that call
// it must not run in parallel.
func Within(t testing.TB, name string, limit uint64, parse func()) {
	t.Helper()
	least := ^uint64(0)
	for range 3 {
		least = min(least, allocated(parse))
	}
	if least > limit {
		t.Errorf("%s: %d bytes allocated, at most %d may be", name, least, limit)
	}
}

func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// Exposes reports whether a secret, or a part of it that would be of use, stands
// anywhere in v as Go prints it in every verb that shows a value.
func Exposes(v any, secret string) bool {
	if reflect.TypeOf(v) == nil || secret == "" {
		return false
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		text := fmt.Sprintf(verb, v)
		if strings.Contains(text, secret) || strings.Contains(text, fmt.Sprintf("%x", secret)) {
			return true
		}
	}
	return false
}
