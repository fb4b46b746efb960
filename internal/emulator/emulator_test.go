package emulator

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

const (
	testPublic  = "public_emulatorKey0123456789abcdef="
	testPrivate = "private_emulatorKey0123456789abcdef="
	testSecret  = "whsec_Zm9vYmFyLWVtdWxhdG9yLXNlY3JldA=="
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("EMULATOR_TEST_CHILD"); dir != "" {
		os.Exit(child(dir))
	}
	goleak.VerifyTestMain(m)
}

// account is a running emulator with what a test needs to talk to it.
type account struct {
	*Emulator
	t    *testing.T
	http *http.Client
	stop func()
}

// start runs an emulator over dir (a fresh one when empty) until the test ends.
func start(t *testing.T, c Config) *account {
	t.Helper()
	if c.Dir == "" {
		c.Dir = t.TempDir()
	}
	c.PublicKey, c.PrivateKey, c.WebhookSecret = testPublic, testPrivate, testSecret
	e, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	transport := &http.Transport{}
	a := &account{Emulator: e, t: t, http: &http.Client{Transport: transport, Timeout: 60 * time.Second}}
	a.stop = sync.OnceFunc(func() {
		transport.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(a.stop)
	return a
}

// quiet is an emulator without limits.
func quiet(t *testing.T) *account {
	t.Helper()
	a := start(t, Config{})
	a.settings1(`{"rateLimit":{"perSecond":0},"writeRateLimit":{"perSecond":0}}`)
	return a
}

// reply is an answer, read.
type reply struct {
	status int
	header http.Header
	body   []byte
}

func (r reply) object() map[string]any {
	var m map[string]any
	if json.Unmarshal(r.body, &m) != nil {
		return map[string]any{"not json": string(r.body)}
	}
	return m
}

func (r reply) list() []map[string]any {
	var l []map[string]any
	if json.Unmarshal(r.body, &l) != nil {
		return []map[string]any{{"not json": string(r.body)}}
	}
	return l
}

func (r reply) text(field string) string { s, _ := r.object()[field].(string); return s }

func (a *account) send(req *http.Request) reply {
	a.t.Helper()
	resp, err := a.http.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, b}
}

func (a *account) request(method, path, body string) *http.Request {
	a.t.Helper()
	req, err := http.NewRequest(method, a.URL()+path, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	if !strings.HasPrefix(path, "/_emulator") {
		req.SetBasicAuth(testPrivate, "do_not_set")
	}
	return req
}

// call asks with the private key.
func (a *account) call(method, path, body string) reply {
	a.t.Helper()
	return a.send(a.request(method, path, body))
}

// must asks and wants a status.
func (a *account) must(status int, method, path, body string) reply {
	a.t.Helper()
	r := a.call(method, path, body)
	if r.status != status {
		a.t.Fatalf("%s %s: %d %s, want %d", method, path, r.status, r.body, status)
	}
	return r
}

func (a *account) settings1(patch string) {
	a.t.Helper()
	a.must(200, "PATCH", "/_emulator/settings", patch)
}

func multipartBody(t *testing.T, fields map[string]string, file []byte) (io.Reader, string) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for _, k := range slices.Sorted(maps.Keys(fields)) {
		_ = w.WriteField(k, fields[k])
	}
	if file != nil {
		part, err := w.CreateFormFile("file", "anonymous_file")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = part.Write(file)
	}
	_ = w.Close()
	return &b, w.FormDataContentType()
}

// post uploads without a key; with one when basic.
func (a *account) post(version string, basic bool, fields map[string]string, file []byte) reply {
	a.t.Helper()
	body, kind := multipartBody(a.t, fields, file)
	req, err := http.NewRequest(http.MethodPost, a.URL()+"/api/"+version+"/files/upload", body)
	if err != nil {
		a.t.Fatal(err)
	}
	req.Header.Set("Content-Type", kind)
	if basic {
		req.SetBasicAuth(testPrivate, "")
	}
	return a.send(req)
}

// put uploads a picture from the server side; fields are pairs.
func (a *account) put(name string, fields ...string) reply {
	a.t.Helper()
	m := map[string]string{"fileName": name, "useUniqueFileName": "false"}
	for i := 0; i < len(fields); i += 2 {
		m[fields[i]] = fields[i+1]
	}
	r := a.post("v1", true, m, plainPNG(7, 5))
	if r.status != 200 {
		a.t.Fatalf("upload %s: %d %s", name, r.status, r.body)
	}
	return r
}

// inbox is a webhook receiver that keeps what it got.
type inbox struct {
	*httptest.Server
	mu     sync.Mutex
	got    []delivery
	came   chan struct{}
	status func(n int) int
}

type delivery struct {
	header http.Header
	body   []byte
}

func (d delivery) object() map[string]any { return reply{body: d.body}.object() }
func (d delivery) kind() string           { s, _ := d.object()["type"].(string); return s }
func (d delivery) fileID() string {
	data, _ := d.object()["data"].(map[string]any)
	s, _ := data["fileId"].(string)
	return s
}

// newInbox answers the n-th delivery (from 0) with status(n), or 200.
func newInbox(t *testing.T, status func(n int) int) *inbox {
	in := &inbox{came: make(chan struct{}, 10_000), status: status}
	in.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		in.mu.Lock()
		n := len(in.got)
		in.got = append(in.got, delivery{r.Header.Clone(), b})
		in.mu.Unlock()
		if in.status != nil {
			w.WriteHeader(in.status(n))
		}
		in.came <- struct{}{}
	}))
	t.Cleanup(in.Close)
	return in
}

// wait returns the deliveries once there are n.
func (in *inbox) wait(t *testing.T, n int) []delivery {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		in.mu.Lock()
		got := slices.Clone(in.got)
		in.mu.Unlock()
		if len(got) >= n {
			return got
		}
		select {
		case <-in.came:
		case <-deadline:
			t.Fatalf("%d webhooks came, want %d", len(got), n)
		}
	}
}

// eventually polls until f is true.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for !f() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("never happened: " + what)
		}
	}
}

func kinds(ds []delivery) (out []string) {
	for _, d := range ds {
		out = append(out, d.kind())
	}
	return out
}

// v1Fields are the fields of a browser's upload with a fresh token.
func v1Fields(token string, expire int64, more ...string) map[string]string {
	m := map[string]string{
		"fileName": "a.png", "publicKey": testPublic, "token": token,
		"expire": fmt.Sprint(expire), "signature": SignUpload(testPrivate, token, expire),
	}
	for i := 0; i < len(more); i += 2 {
		m[more[i]] = more[i+1]
	}
	return m
}

func TestJourneyOfABrowserUpload(t *testing.T) {
	in := newInbox(t, nil)
	a := start(t, Config{WebhookURL: in.URL})
	up := a.post("v1", false, v1Fields(newUUID(), time.Now().Unix()+600, "folder", "/users/42"), plainPNG(30, 20))
	if up.status != 200 || !validID(up.text("fileId")) || up.object()["width"] != 30.0 {
		t.Fatalf("upload: %d %s", up.status, up.body)
	}
	if up.header.Get("Access-Control-Allow-Origin") != "*" || up.header.Get("x-ik-requestId") == "" {
		t.Errorf("upload headers: %v", up.header)
	}
	id := up.text("fileId")
	d := a.must(200, "GET", "/v1/files/"+id+"/details", "")
	if d.text("mime") != "image/png" || d.text("type") != "file" || !strings.HasPrefix(d.text("filePath"), "/users/42/a_") {
		t.Errorf("details: %s", d.body)
	}
	if d.header.Get("X-RateLimit-Limit") != "40" {
		t.Errorf("rate headers: %v", d.header)
	}
	created := in.wait(t, 1)[0]
	if created.kind() != "file.created" || created.fileID() != id {
		t.Errorf("webhook: %s", created.body)
	}
	a.must(204, "DELETE", "/v1/files/"+id, "")
	if r := a.must(404, "GET", "/v1/files/"+id+"/details", ""); r.text("message") != sayNoFile {
		t.Errorf("after delete: %s", r.body)
	}
	if r := a.must(404, "DELETE", "/v1/files/"+id, ""); r.text("message") != sayNoFile {
		t.Errorf("second delete: %s", r.body)
	}
	if deleted := in.wait(t, 2)[1]; deleted.kind() != "file.deleted" || deleted.fileID() != id {
		t.Errorf("webhook: %s", deleted.body)
	}
}
