package service_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/testenv"
)

// TestQueueIsFull: with the worker paused the queue fills up. What does not fit is
// refused with a 503, what was accepted is settled once the worker goes on, to the
// event, and then the queue takes more.
func TestQueueIsFull(t *testing.T) {
	t.Parallel()
	in := startServe(t, map[string]string{"TRUEUP_QUEUE_MAX_BYTES": "256KiB", "TRUEUP_RATE_PER_USER": "0"})
	in.webhooks(false)
	in.settings(map[string]any{"rateLimit": map[string]any{"perSecond": 0, "burst": 0}})
	ids := in.generate("/full", 20)
	must(t, in.env, "pause", "--note", "fill it")
	accepted := in.fill(ids)
	if a := in.call("", "GET", "/readyz", nil); a.status != http.StatusServiceUnavailable || !strings.Contains(a.text(t, "why"), "full") {
		t.Errorf("/readyz of a full queue: %d %s", a.status, a.body)
	}
	if a := in.webhook("file.updated", fmt.Sprintf(`{"fileId":%q,"padding":%q}`, ids[0], strings.Repeat("x", 200<<10))); a.refused(in) != nil {
		t.Errorf("a webhook that does not fit: %v", a.refused(in))
	}
	if n := in.lines(); n != 0 {
		t.Errorf("%d events were settled by a paused worker", n)
	}
	must(t, in.env, "resume")
	accepted += in.awaitAccepting(ids[0])
	in.settledOnce(accepted)
	in.answers(in.env["TRUEUP_URL"] + "/readyz")
	in.nothingParked()
	in.dev.neverEnded()
}

// fill reports files in arrays until one is refused, which has to be a proper 503, and
// returns how many events were accepted.
func (in *installation) fill(ids []string) (accepted int) {
	in.t.Helper()
	var body []map[string]string
	for _, id := range ids {
		body = append(body, map[string]string{"fileId": id, "url": "https://x.example/" + strings.Repeat("u", 600)})
	}
	for range 200 {
		a := in.call("ann", "POST", "/save-metadata", body)
		if a.status == http.StatusAccepted {
			accepted += len(ids)
			continue
		}
		if err := a.refused(in); err != nil {
			in.t.Fatal(err)
		}
		if accepted == 0 {
			in.t.Fatal("nothing was accepted: this proves nothing")
		}
		return accepted
	}
	in.t.Fatalf("%d events were accepted and it is not full yet", accepted)
	return 0
}

// TestDiskIsFull: the disk of the queue has no room left. Events are refused, the
// process lives; when there is room again it accepts again by itself, and all that was
// ever accepted is settled.
func TestDiskIsFull(t *testing.T) {
	t.Parallel()
	disk := tmpfs(t, "24m")
	in := startServe(t, map[string]string{"TRUEUP_DATA_DIR": disk, "TRUEUP_RATE_PER_USER": "0"})
	in.webhooks(false)
	in.settings(map[string]any{"rateLimit": map[string]any{"perSecond": 0, "burst": 0}})
	ids := in.generate("/disk", 20)
	in.reportMany("ann", ids)
	accepted := len(ids)
	in.settledOnce(accepted)

	ballast := filepath.Join(disk, "ballast")
	fillDisk(t, ballast)
	must(t, in.env, "pause", "--note", "nothing is to be removed meanwhile")
	accepted += in.fillDisk(ids)
	if a := in.call("", "GET", "/readyz", nil); a.status != http.StatusServiceUnavailable || a.text(t, "why") == "" {
		t.Errorf("/readyz on a full disk: %d %s", a.status, a.body)
	}
	in.dev.neverEnded()
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	accepted += in.awaitAccepting(ids[0])
	must(t, in.env, "resume")
	in.settles(time.Minute)
	in.converges(time.Minute)
	// An envelope whose confirmation failed may be stored all the same.
	if n := in.lines(); n < accepted {
		t.Errorf("%d events have an end, %d were accepted", n, accepted)
	}
	in.identity()
	in.nothingParked()
	in.dev.neverEnded()
}

// fillDisk is fill for a disk that may have some bytes left at first.
func (in *installation) fillDisk(ids []string) (accepted int) {
	in.t.Helper()
	testenv.Eventually(in.t, time.Minute, func() error {
		a := in.call("ann", "POST", "/save-metadata", map[string]string{"fileId": ids[0], "url": strings.Repeat("u", 60<<10)})
		if a.status == http.StatusAccepted {
			accepted++
			return errors.New("still accepted on a full disk")
		}
		return a.refused(in)
	})
	return accepted
}

// fillDisk writes until there is no room left.
func fillDisk(t testing.TB, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; size /= 16 {
		for err == nil {
			_, err = f.Write(make([]byte, size))
		}
		if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, io.ErrShortWrite) {
			t.Fatalf("the disk is not full, but: %v", err)
		}
		err = nil
	}
}

// tmpfs is a small disk of the test's own.
func tmpfs(t testing.TB, size string, flags ...uintptr) string {
	t.Helper()
	dir := testenv.Dir(t)
	var flag uintptr
	for _, f := range flags {
		flag |= f
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", flag, "size="+size); err != nil {
		t.Fatalf("this test mounts a small disk and needs the right to: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// TestDataDirCannotBeUsed: a directory that cannot be written, or that another process
// uses, is one sentence and an exit code.
func TestDataDirCannotBeUsed(t *testing.T) {
	t.Parallel()
	in := startServe(t, nil)
	readOnly := tmpfs(t, "1m", syscall.MS_RDONLY)
	file := filepath.Join(testenv.Dir(t), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, dir string
		code      int
		says      string
	}{
		{"ReadOnly", filepath.Join(readOnly, "data"), 2, "TRUEUP_DATA_DIR"},
		{"BelowAFile", filepath.Join(file, "data"), 2, "TRUEUP_DATA_DIR"},
		{"UsedByAnotherServe", in.env["TRUEUP_DATA_DIR"], 1, "another process uses"},
	} {
		t.Run(c.name, func(t *testing.T) {
			env := map[string]string{}
			for k, v := range in.env {
				env[k] = v
			}
			env["TRUEUP_DATA_DIR"], env["TRUEUP_ADDR"], env["TRUEUP_OPS_ADDR"] = c.dir, "127.0.0.1:0", "127.0.0.1:0"
			_, stderr, code := once(t, env, "serve")
			var said []string
			for line := range strings.Lines(stderr) {
				if !strings.HasPrefix(line, "{") && !strings.Contains(line, "trueup help") {
					said = append(said, strings.TrimSpace(line))
				}
			}
			text := strings.Join(said, " ")
			if code != c.code || !strings.Contains(text, c.says) || len(said) > 2 {
				t.Errorf("exit %d with %q, want %d and one message with %q", code, text, c.code, c.says)
			}
		})
	}
	in.dev.neverEnded()
	in.answers(in.env["TRUEUP_URL"] + "/readyz")
}
