package localpg

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// MinMajor is the oldest PostgreSQL that trueup's schema is tried on.
const MinMajor = 15

// Programs is one installation of the server's programs: initdb and postgres
// beside each other, checked to run.
type Programs struct {
	Bin     string // the folder that holds them, symbolic links resolved
	Lib     string // a folder the loader must be told of; empty: none
	Version string // as the program says it: "15.18"
	Major   int    // 15
	From    string // how it was found, for people
}

func (p Programs) path(name string) string { return filepath.Join(p.Bin, executable(name)) }

// env is the environment of every program started from p: nothing of the
// caller's PG* variables, which would redirect a client or a server.
func (p Programs) env() []string {
	var out []string
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(name, "PG") || name == loaderPath && p.Lib != "" {
			continue
		}
		out = append(out, kv)
	}
	if p.Lib != "" && loaderPath != "" {
		out = append(out, loaderPath+"="+p.Lib)
	}
	return out
}

func executable(name string) string {
	if runtime.GOOS == "windows" {
		return name + ".exe"
	}
	return name
}

var versionLine = regexp.MustCompile(`\(PostgreSQL\) (\d+)(\S*)`)

// inspect checks that dir holds programs we can use and says why when not.
func inspect(ctx context.Context, dir, lib, from string) (Programs, error) {
	p := Programs{Lib: lib, From: from}
	server, err := filepath.EvalSymlinks(filepath.Join(dir, executable("postgres")))
	if err != nil {
		return p, fmt.Errorf("no postgres in %s", dir)
	}
	p.Bin = filepath.Dir(server)
	if _, err := os.Stat(p.path("initdb")); err != nil {
		return p, fmt.Errorf("postgres in %s has no initdb beside it (a client-only or partial installation)", p.Bin)
	}
	if err := p.readVersion(ctx); err != nil {
		return p, err
	}
	if p.Major < MinMajor {
		return p, fmt.Errorf("postgres in %s is version %s, older than %d", p.Bin, p.Version, MinMajor)
	}
	if who, err := accountFor("", ""); err == nil && !who.canEnter(p.Bin) {
		return p, fmt.Errorf("postgres in %s cannot be run by user %q, and PostgreSQL refuses to run as root", p.Bin, who.name)
	}
	return p, nil
}

func (p *Programs) readVersion(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.path("postgres"), "--version")
	cmd.Env = p.env()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("postgres in %s does not run: %w: %s", p.Bin, err, firstLine(out))
	}
	m := versionLine.FindSubmatch(out)
	if m == nil {
		return fmt.Errorf("postgres in %s says %q where a version was expected", p.Bin, firstLine(out))
	}
	p.Major, _ = strconv.Atoi(string(m[1]))
	p.Version = string(m[1]) + string(m[2])
	return nil
}

func firstLine(b []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	return line
}
