package emulator

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestOfficialNodeSDK drives the emulator with @imagekit/nodejs as published, and
// has the SDK unwrap the emulator's webhooks. It needs node and npm, and says so
// where they are missing: a test that quietly did not run proves nothing.
func TestOfficialNodeSDK(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	dir := nodeSDK(ctx, t)
	script, err := os.ReadFile("testdata/nodesdk/journey.mjs")
	if err != nil {
		t.Fatal(err)
	}
	// Beside node_modules, where imports are looked up; one name for each run.
	f, err := os.CreateTemp(dir, "journey-*.mjs")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.Remove(f.Name()) }()
	if _, err := f.Write(script); err != nil || f.Close() != nil {
		t.Fatal("write journey:", err)
	}
	a := start(t, Config{})
	cmd := exec.CommandContext(ctx, "node", f.Name())
	cmd.Env = append(os.Environ(), "IMAGE_KIT_BASE_URL="+a.URL(), "IMAGEKIT_PRIVATE_KEY="+testPrivate,
		"IMAGEKIT_WEBHOOK_SECRET="+testSecret, "TEST_PUBLIC_KEY="+testPublic, "TEST_VECTORS="+nodeVectors(t))
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if want := fmt.Sprintf("\ndone %d\n", bytes.Count(script, []byte("\nawait step("))); err != nil || !strings.Contains(string(out), want) {
		t.Fatalf("the journey did not reach its end, %q: %v", want, err)
	}
}

func nodeVectors(t *testing.T) string {
	at := time.Unix(1767323045, 0)
	sign := func(secret, id, body string) string {
		return SignWebhook(secret, id, []byte(body), at).Get("webhook-signature")
	}
	const idA, idB = "msg_2b7a6f5e4d3c2b1a", "msg_0d9b4a2e6a554f0e"
	spec := WebhookSettings{SpecKey: true}
	b, err := json.Marshal(map[string]string{
		"bodyA": bodyA, "bodyB": bodyB, "idA": idA, "idB": idB,
		"w3": sign(testSecret, idA, bodyA), "w4": sign(testSecret, idB, bodyB), "w5": sign(oldSecret, idB, bodyB),
		"w9": spec.sign(testSecret, idA, []byte(bodyA), at).Get("webhook-signature"),
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// nodeSDK installs the SDK, as its lock file says, into the user's cache, once.
func nodeSDK(ctx context.Context, t *testing.T) string {
	t.Helper()
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("this test needs %s: install Node.js 20 or later (Debian: apt-get install nodejs npm), then run it again", program)
		}
	}
	lock, err := os.ReadFile("testdata/nodesdk/package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(lock, []byte(`"@imagekit/nodejs": "7.11.0"`)) {
		t.Fatal("the lock file does not pin @imagekit/nodejs 7.11.0")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(lock)
	dir := filepath.Join(cache, "trueup", "nodesdk-"+hex.EncodeToString(sum[:6]))
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	if err := installSDK(ctx, dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// installSDK fills a directory beside dir and then renames it, so that two test
// runs at once, or one that is cut short, leave a whole one or none.
func installSDK(ctx context.Context, dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	next, err := os.MkdirTemp(filepath.Dir(dir), "nodesdk-next-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(next) }()
	for _, name := range []string{"package.json", "package-lock.json"} {
		b, err := os.ReadFile(filepath.Join("testdata/nodesdk", name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(next, name), b, 0o644); err != nil {
			return err
		}
	}
	cmd := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	cmd.Dir = next
	if out, err := cmd.CombinedOutput(); err != nil {
		return errors.Join(err, errors.New("npm ci: "+string(out)))
	}
	if err := os.Rename(next, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		if _, there := os.Stat(dir); there != nil {
			return err
		}
	}
	return nil
}
