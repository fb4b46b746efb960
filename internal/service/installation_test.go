package service_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/trueup/trueup/internal/config"
	"github.com/trueup/trueup/internal/testenv"
	"github.com/trueup/trueup/internal/testenv/contract"
)

// installation is a running trueup as those around it see it: addresses, keys, the
// database. Everything it asks of trueup goes over HTTP or through the binary, and
// every exchange with the public listener is held against its OpenAPI document.
type installation struct {
	t      testing.TB
	env    map[string]string // as dev.env has it
	public []string          // one address, or several that take turns
	turn   atomic.Int64
	db     *pgxpool.Pool // reads as the superuser
	client *http.Client
	record *contract.Recorder

	dev     *process   // `dev` runs everything in one
	ingests []*process // or the roles run apart
	workers []*process
}

// startDev starts `trueup dev` in a fresh folder on free ports. more goes into its
// environment.
func startDev(t testing.TB, more map[string]string, flags ...string) *installation {
	t.Helper()
	return startDevTagged(t, more, nil, flags...)
}

// startDevPlanted is startDev with the binary whose worker misbehaves where an event's
// body asks for it.
func startDevPlanted(t testing.TB, more map[string]string) *installation {
	t.Helper()
	return startDevTagged(t, more, []string{"planted"})
}

func startDevTagged(t testing.TB, more map[string]string, tags []string, flags ...string) *installation {
	t.Helper()
	dir := testenv.Dir(t)
	env := map[string]string{"TRUEUP_ADDR": "127.0.0.1:0", "TRUEUP_OPS_ADDR": "127.0.0.1:0", "TRUEUP_EMULATOR_ADDR": "127.0.0.1:0", "TRUEUP_DATA_DIR": dir}
	maps.Copy(env, more)
	in := &installation{t: t}
	in.dev = startTagged(t, env, tags, append([]string{"dev", "--no-sample"}, flags...)...)
	in.env = in.awaitDev()
	in.connect()
	return in
}

// awaitDev waits for dev.env, whose appearance says that everything is ready.
func (in *installation) awaitDev() map[string]string {
	in.t.Helper()
	var env map[string]string
	dir := ""
	for _, kv := range in.dev.env {
		if v, ok := strings.CutPrefix(kv, "TRUEUP_DATA_DIR="); ok {
			dir = v
		}
	}
	testenv.Eventually(in.t, 2*time.Minute, func() (err error) {
		select {
		case <-in.dev.exited:
			in.t.Fatalf("trueup dev ended:\n%s", last(in.dev.log.String(), 4000))
		default:
		}
		env, err = config.ReadDevEnv(dir)
		return err
	})
	return env
}

// kill9Dev kills dev with everything in it and starts it again. Ports, keys, library
// and rows are the same afterwards.
func (in *installation) kill9Dev() {
	in.t.Helper()
	in.dev.kill9()
	// A leftover is removed first thing at a start; without it the next one is new.
	if err := os.Remove(filepath.Join(in.env["TRUEUP_DATA_DIR"], config.DevEnvName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		in.t.Fatal(err)
	}
	in.dev.restart()
	after := in.awaitDev()
	for _, name := range []string{"TRUEUP_URL", "TRUEUP_OPS_URL", "IMAGE_KIT_BASE_URL", "DATABASE_URL", "IMAGEKIT_PRIVATE_KEY", "IMAGEKIT_WEBHOOK_SECRET", "TRUEUP_JWT_SECRET", "TRUEUP_KEYS", "TRUEUP_OPS_TOKEN"} {
		if after[name] != in.env[name] {
			in.t.Errorf("%s changed over a kill -9", name)
		}
	}
}

// connect opens the database and the recording client.
func (in *installation) connect() {
	in.t.Helper()
	if in.public == nil {
		in.public = []string{in.env["TRUEUP_URL"]}
	}
	db, err := pgxpool.New(context.Background(), in.env["DATABASE_URL"])
	if err != nil {
		in.t.Fatal(err)
	}
	in.t.Cleanup(db.Close)
	in.db = db
	// One connection a request: a test kills the other end.
	plain := &http.Transport{DisableKeepAlives: true}
	raw := in.fetch(&http.Client{Transport: plain, Timeout: 10 * time.Second}, in.public[0]+"/openapi.json")
	doc, err := contract.Load(raw)
	if err != nil {
		in.t.Fatal(err)
	}
	in.record = &contract.Recorder{Next: plain, Document: doc}
	in.client = &http.Client{Transport: in.record, Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	in.t.Cleanup(func() {
		for _, err := range in.record.Errors() {
			in.t.Errorf("OpenAPI: %v", err)
		}
	})
}

func (in *installation) fetch(c *http.Client, u string) []byte {
	in.t.Helper()
	resp, err := c.Get(u)
	if err != nil {
		in.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		in.t.Fatalf("GET %s: %s %v", u, resp.Status, err)
	}
	return raw
}

// url is the public address whose turn it is.
func (in *installation) url() string {
	return in.public[int(in.turn.Add(1))%len(in.public)]
}

// token is a signed-in user's.
func (in *installation) token(user string) string {
	in.t.Helper()
	now := time.Now()
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"sub": user, "iss": in.env["TRUEUP_JWT_ISSUER"], "aud": in.env["TRUEUP_JWT_AUDIENCE"],
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix()}).SignedString([]byte(in.env["TRUEUP_JWT_SECRET"]))
	if err != nil {
		in.t.Fatal(err)
	}
	return token
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// get reads one field of a JSON answer by its path of keys.
func (a answer) get(t testing.TB, path ...string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(a.body, &v); err != nil {
		t.Fatalf("answer %d is not JSON: %s", a.status, a.body)
	}
	for _, key := range path {
		m, ok := v.(map[string]any)
		if !ok {
			t.Fatalf("no %v in %s", path, a.body)
		}
		v = m[key]
	}
	return v
}

func (a answer) text(t testing.TB, path ...string) string {
	t.Helper()
	s, _ := a.get(t, path...).(string)
	return s
}

// want fails unless the status is as said.
func (a answer) want(t testing.TB, status int) answer {
	t.Helper()
	if a.status != status {
		t.Fatalf("status %d, want %d: %s", a.status, status, a.body)
	}
	return a
}

// call sends JSON as user (empty: nobody) to a public path and returns the answer; a
// connection that fails is status 0.
func (in *installation) call(user, method, path string, body any) answer {
	in.t.Helper()
	var payload io.Reader
	if body != nil {
		raw, ok := body.([]byte)
		if !ok {
			var err error
			if raw, err = json.Marshal(body); err != nil {
				in.t.Fatal(err)
			}
		}
		payload = bytes.NewReader(raw)
	}
	r, err := http.NewRequest(method, in.url()+path, payload)
	if err != nil {
		in.t.Fatal(err)
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if user != "" {
		r.Header.Set("Authorization", "Bearer "+in.token(user))
	}
	return in.send(r)
}

func (in *installation) send(r *http.Request) answer {
	in.t.Helper()
	resp, err := in.client.Do(r)
	if err != nil {
		return answer{body: []byte(err.Error())}
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{body: []byte(err.Error())}
	}
	return answer{status: resp.StatusCode, header: resp.Header, body: raw}
}

// report reports a file as user and returns the report's id.
func (in *installation) report(user, fileID string) string {
	in.t.Helper()
	return in.call(user, "POST", "/save-metadata", map[string]string{"fileId": fileID, "url": "https://evil.example/x.jpg"}).want(in.t, http.StatusAccepted).text(in.t, "reportId")
}

// outcome waits until a report is not pending any more and returns its state.
func (in *installation) outcome(user, reportID string) answer {
	in.t.Helper()
	var a answer
	testenv.Eventually(in.t, time.Minute, func() error {
		a = in.call(user, "GET", "/reports/"+reportID+"?wait=20s", nil)
		if a.status != http.StatusOK {
			return fmt.Errorf("GET /reports: %d %s", a.status, a.body)
		}
		if a.text(in.t, "state") == "pending" {
			return errors.New("still pending")
		}
		return nil
	})
	return a
}

// ops asks the operator API.
func (in *installation) ops(method, path string, body any) answer {
	in.t.Helper()
	var payload io.Reader
	if body != nil {
		raw, _ := json.Marshal(body)
		payload = bytes.NewReader(raw)
	}
	r, err := http.NewRequest(method, in.env["TRUEUP_OPS_URL"]+path, payload)
	if err != nil {
		in.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+in.env["TRUEUP_OPS_TOKEN"])
	r.Header.Set("Content-Type", "application/json")
	if method == http.MethodPost {
		r.Header.Set("Idempotency-Key", fmt.Sprintf("k%d", in.turn.Add(1)))
	}
	plain := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	resp, err := plain.Do(r)
	if err != nil {
		return answer{body: []byte(err.Error())}
	}
	defer resp.Body.Close()
	raw, _ := io.ReadAll(resp.Body)
	return answer{status: resp.StatusCode, header: resp.Header, body: raw}
}

// story is `why` of a file, as sentences.
func (in *installation) story(fileID string) []string {
	in.t.Helper()
	raw := in.ops("GET", "/api/files/"+url.PathEscape(fileID), nil).want(in.t, http.StatusOK)
	var p struct {
		Why []string `json:"why"`
	}
	if err := json.Unmarshal(raw.body, &p); err != nil {
		in.t.Fatal(err)
	}
	return p.Why
}
