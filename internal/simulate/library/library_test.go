package library_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/imagekit"
	"github.com/trueup/trueup/internal/service"
	"github.com/trueup/trueup/internal/simulate/fault"
	"github.com/trueup/trueup/internal/simulate/library"
)

var _ service.Library = (*imagekit.Client)(nil)

func TestASimulatedLibrary(t *testing.T) {
	for name, run := range map[string]func(*testing.T){
		"AnswersInVirtualTime":                 answers,
		"DeliversWhatWasUploaded":              delivered,
		"FailsBeforeAndAfter":                  failures,
		"AHangIsCutAtTheTimeoutInNoTime":       hangs,
		"AConnectionIsCutInTheMiddle":          cuts,
		"SendsSignedWebhooksAndRepeatsThem":    webhooks,
		"HoldsBackWhatMustNotLeaveAnyMore":     heldBack,
		"CarriesOutWhatNobodyWaitsForAtTheEnd": abandoned,
	} {
		t.Run(name, func(t *testing.T) { synctest.Test(t, run) })
	}
}

func open(t testing.TB, c library.Config) *library.Library {
	t.Helper()
	l, err := library.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func client(t testing.TB, l *library.Library, hook fault.Hook) *imagekit.Client {
	t.Helper()
	c, err := l.Client(imagekit.Config{}, hook)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// do sends any request to the library, with its key.
func do(t testing.TB, l http.RoundTripper, method, path, kind string, body io.Reader) []byte {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, library.Origin+path, body)
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth("private_simulated", "")
	r.Header.Set("Content-Type", kind)
	w, err := l.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Body.Close()
	answer, err := io.ReadAll(w.Body)
	if err != nil || w.StatusCode/100 != 2 {
		t.Fatalf("%s %s: %d %s %v", method, path, w.StatusCode, answer, err)
	}
	return answer
}

func upload(t testing.TB, l http.RoundTripper, name string) (fileID string) {
	t.Helper()
	var b bytes.Buffer
	form := multipart.NewWriter(&b)
	_ = form.WriteField("file", base64.StdEncoding.EncodeToString([]byte("bytes of "+name)))
	_ = form.WriteField("fileName", name)
	_ = form.WriteField("useUniqueFileName", "false")
	_ = form.Close()
	var made struct{ FileID string }
	if err := json.Unmarshal(do(t, l, "POST", "/api/v1/files/upload", form.FormDataContentType(), &b), &made); err != nil {
		t.Fatal(err)
	}
	return made.FileID
}

func set(t testing.TB, l http.RoundTripper, path string, v any) {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	method := "POST"
	if path == "/_emulator/settings" {
		method = "PATCH"
	}
	do(t, l, method, path, "application/json", bytes.NewReader(b))
}

func answers(t *testing.T) {
	l := open(t, library.Config{})
	id := upload(t, l, "a.txt")
	a, err := client(t, l, nil).Details(t.Context(), id)
	if err != nil || *a.Snapshots[0].Name != "a.txt" || !a.Snapshots[0].CreatedAt.Equal(time.Now()) || !a.Date.Equal(time.Now()) {
		t.Errorf("%+v, %v", a, err)
	}
	a, err = client(t, l, nil).Search(t.Context(), []string{id, "000000000000000000000000"})
	if err != nil || len(a.Snapshots) != 1 {
		t.Errorf("%+v, %v", a, err)
	}
}

func failures(t *testing.T) {
	l := open(t, library.Config{})
	id := upload(t, l, "a.txt")
	var calls []fault.Call
	after := false
	c := client(t, l, func(_ context.Context, call fault.Call, do func() error) error {
		calls = append(calls, call)
		if after {
			if err := do(); err != nil {
				return err
			}
		}
		return errors.New("connection reset by peer")
	})
	for range 2 {
		var f *file.Fault
		if _, err := c.Details(t.Context(), id); !errors.As(err, &f) || f.Kind != file.Unreachable {
			t.Errorf("%v", err)
		}
		after = true
	}
	var log struct{ Items []struct{ Endpoint string } }
	if err := json.Unmarshal(do(t, l, "GET", "/_emulator/requests", "", nil), &log); err != nil {
		t.Fatal(err)
	}
	want := fault.Call{Door: fault.ImageKit, Method: "details", Key: id}
	if len(log.Items) != 2 || len(calls) != 2 || calls[0] != want {
		t.Errorf("the library was asked %v, the hook heard %v", log.Items, calls)
	}
}

func hangs(t *testing.T) {
	l := open(t, library.Config{})
	id := upload(t, l, "a.txt")
	set(t, l, "/_emulator/faults", map[string]any{"path": "/v1/files/*", "latency": "1h", "times": 1})
	began := time.Now()
	var f *file.Fault
	if _, err := client(t, l, nil).Details(t.Context(), id); !errors.As(err, &f) || f.Kind != file.TimedOut || time.Since(began) != 10*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}

func cuts(t *testing.T) {
	l := open(t, library.Config{})
	id := upload(t, l, "a.txt")
	set(t, l, "/_emulator/faults", map[string]any{"path": "/v1/files/*", "close": true, "times": 1})
	var f *file.Fault
	if a, err := client(t, l, nil).Details(t.Context(), id); !errors.As(err, &f) || f.Kind != file.Unreachable || a.Status != http.StatusOK {
		t.Errorf("%+v, %v", a, err)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func webhooks(t *testing.T) {
	heard := make(chan *http.Request, 2)
	status := http.StatusServiceUnavailable
	l := open(t, library.Config{
		WebhookSecret: "whsec_simulated", WebhookURL: "http://ingest.invalid/webhooks/imagekit",
		Sender: roundTripper(func(r *http.Request) (*http.Response, error) {
			heard <- r
			w := &http.Response{StatusCode: status, Status: http.StatusText(status), Body: http.NoBody}
			status = http.StatusOK
			return w, nil
		}),
	})
	began := time.Now()
	upload(t, l, "a.txt")
	first, second := <-heard, <-heard
	if first.Header.Get("webhook-id") == "" || first.Header.Get("webhook-id") != second.Header.Get("webhook-id") || time.Since(began) != 5*time.Second {
		t.Errorf("%v, then %v after %v", first.Header, second.Header, time.Since(began))
	}
}

func heldBack(t *testing.T) {
	l := open(t, library.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	c := client(t, l, func(_ context.Context, _ fault.Call, do func() error) error {
		cancel()
		return do()
	})
	if _, err := c.Details(ctx, "f1"); err == nil {
		t.Error("a call that was cancelled was answered")
	}
	if log := do(t, l, "GET", "/_emulator/requests", "", nil); bytes.Contains(log, []byte(`"details"`)) {
		t.Errorf("it left: %s", log)
	}
}

func abandoned(t *testing.T) {
	l := open(t, library.Config{})
	id := upload(t, l, "a.txt")
	set(t, l, "/_emulator/faults", map[string]any{"method": "DELETE", "close": true, "times": 1})
	r, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, library.Origin+"/v1/files/"+id, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth("private_simulated", "")
	if w, err := l.RoundTrip(r); err == nil {
		t.Errorf("a connection that was cut answered %s", w.Status)
	}
	var f *file.Fault
	if _, err := client(t, l, nil).Details(t.Context(), id); !errors.As(err, &f) || !f.Absent() {
		t.Errorf("it failed and nothing happened: %v", err)
	}
}

func BenchmarkDetails(b *testing.B) {
	l := open(b, library.Config{})
	set(b, l, "/_emulator/settings", map[string]any{"rateLimit": map[string]any{"perSecond": 0}})
	id, c := upload(b, l, "a.txt"), client(b, l, nil)
	for b.Loop() {
		if _, err := c.Details(b.Context(), id); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	for b.Loop() {
		l, err := library.Open(library.Config{})
		if err != nil {
			b.Fatal(err)
		}
		if err := l.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// delivered: the bytes of an upload come back although nothing is on disk.
func delivered(t *testing.T) {
	l := open(t, library.Config{})
	upload(t, l, "a.txt")
	if got := do(t, l, "GET", l.Endpoint()[len(library.Origin):]+"/a.txt", "", nil); string(got) != "bytes of a.txt" {
		t.Errorf("%q", got)
	}
}
