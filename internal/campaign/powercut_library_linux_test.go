package campaign

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/check/collect"
	"github.com/trueup/trueup/internal/testenv"
)

// library is ImageKit's stand-in. It is in another building: no power cut takes it.
type library struct {
	url     string
	program *program
	http    *http.Client
}

const (
	cutPrivateKey = "private_powercut0123456789abcdef"
	cutSecret     = "whsec_cG93ZXJjdXQtcG93ZXJjdXQtcG93ZXJjdXQ="
	cutIssuer     = "powercut"
)

// cutJWTSecret signs the users' tokens.
var cutJWTSecret = strings.Repeat("powercut-secret-", 3)

func openLibrary(t testing.TB, dir string) (*library, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	l := &library{url: "http://" + loopback(port), http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: 20 * time.Second}}
	env := l.env()
	env["TRUEUP_EMULATOR_ADDR"], env["TRUEUP_DATA_DIR"] = loopback(port), filepath.Join(dir, "library")
	l.program = &program{name: "emulator", path: testenv.Trueup(t), args: []string{"emulator"}, env: environment(env), probe: answers(l.url + "/_emulator/settings")}
	if err := l.program.start(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return l, until(ctx, func() error { return l.program.ready(ctx) })
}

func (l *library) close() {
	l.program.stop(5 * time.Second)
	l.http.CloseIdleConnections()
}

// env is what trueup has to know of the library and of those who call.
func (l *library) env() map[string]string {
	return map[string]string{
		"IMAGE_KIT_BASE_URL": l.url, "IMAGEKIT_URL_ENDPOINT": l.url + "/demo_id",
		"IMAGEKIT_PUBLIC_KEY": "public_powercut", "IMAGEKIT_PRIVATE_KEY": cutPrivateKey, "IMAGEKIT_WEBHOOK_SECRET": cutSecret,
		"TRUEUP_JWT_SECRET": cutJWTSecret, "TRUEUP_JWT_ISSUER": cutIssuer, "TRUEUP_JWT_AUDIENCE": "trueup", "TRUEUP_OPS_TOKEN": cutOpsToken,
		"TRUEUP_KEYS": cutSeal, "TRUEUP_ACCOUNT": cutAccount,
	}
}

const (
	cutOpsToken = "powercut-operator-token"
	cutSeal     = "powercut-seal-powercut-seal-powercut-seal"
	cutAccount  = "demo_id"
)

// call makes one request with the private key and decodes its answer into out.
func (l *library) call(ctx context.Context, method, path string, body, out any) error {
	var payload io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return err
		}
		payload = bytes.NewReader(raw)
	}
	r, err := http.NewRequestWithContext(ctx, method, l.url+path, payload)
	if err != nil {
		return err
	}
	r.SetBasicAuth(cutPrivateKey, "")
	r.Header.Set("Content-Type", "application/json")
	resp, err := l.http.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s %s", method, path, resp.Status, raw)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(raw, out)
}

// fill empties the library and puts n new files into it. ImageKit takes latency to
// answer, so that something is always under way.
func (l *library) fill(ctx context.Context, n int, latency time.Duration) (fileIDs []string, err error) {
	if err := l.call(ctx, "POST", "/_emulator/reset", nil, nil); err != nil {
		return nil, err
	}
	free := map[string]any{"perSecond": 0, "burst": 0}
	if err := l.call(ctx, "PATCH", "/_emulator/settings", map[string]any{"webhooks": map[string]any{"enabled": false}, "rateLimit": free, "writeRateLimit": free}, nil); err != nil {
		return nil, err
	}
	if err := l.call(ctx, "POST", "/_emulator/files/generate", map[string]any{"count": n, "folder": "/cut", "spread": "20m"}, nil); err != nil {
		return nil, err
	}
	truth, err := l.truth(ctx)
	if err != nil || len(truth) != n {
		return nil, fmt.Errorf("%d files generated, want %d: %w", len(truth), n, err)
	}
	if latency > 0 {
		err = l.call(ctx, "POST", "/_emulator/faults", map[string]any{"method": "GET", "path": "/v1/*", "latency": latency.String()}, nil)
	}
	return slices.Sorted(maps.Keys(truth)), err
}

// truth is every file as it is now.
func (l *library) truth(ctx context.Context) (map[string]json.RawMessage, error) {
	now := &collect.ImageKit{Client: l.http, URL: l.url}
	err := now.Collect(ctx)
	return now.Truth, err
}

// hurry lets ImageKit answer at once again.
func (l *library) hurry(ctx context.Context) error {
	return l.call(ctx, "DELETE", "/_emulator/faults", nil, nil)
}
