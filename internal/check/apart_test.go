package check

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// The checker shares no code with what it judges. Its tests may, to compare.
func TestImportsNothingOfOurs(t *testing.T) {
	allowed := []string{"github.com/trueup/trueup/internal/check", "github.com/jackc/pgx/v5", "github.com/nats-io/", "golang.org/x/crypto/chacha20poly1305"}
	files := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		files++
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, i := range f.Imports {
			name, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			host, _, _ := strings.Cut(name, "/")
			ok := !strings.Contains(host, ".") // of the standard library
			for _, a := range allowed {
				ok = ok || name == a || strings.HasPrefix(name, strings.TrimSuffix(a, "/")+"/")
			}
			if !ok {
				t.Errorf("%s imports %s", path, name)
			}
		}
		return nil
	})
	if err != nil || files < 10 {
		t.Fatalf("%d files read: %v", files, err)
	}
}
