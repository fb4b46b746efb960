package walk

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/emulator"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/imagekit"
)

const privateKey = "private_emulatorKey0123456789abcdef="

// account is a running emulator, and the real client to ask it with.
type account struct {
	*imagekit.Client
	t   *testing.T
	url string
}

func newAccount(t *testing.T) *account {
	t.Helper()
	e, err := emulator.New(emulator.Config{Dir: t.TempDir(), PublicKey: "public_emulatorKey0123456789abcdef=", PrivateKey: privateKey})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	client, err := imagekit.New(imagekit.Config{BaseURL: e.URL(), PrivateKey: privateKey})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.Close()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the emulator: %v", err)
		}
	})
	a := &account{Client: client, t: t, url: e.URL()}
	a.control("PATCH", "settings", `{"rateLimit":{"perSecond":0},"writeRateLimit":{"perSecond":0}}`)
	return a
}

func (a *account) control(method, path, body string) {
	a.t.Helper()
	request, err := http.NewRequestWithContext(a.t.Context(), method, a.url+"/_emulator/"+path, bytes.NewReader([]byte(body)))
	if err != nil {
		a.t.Fatal(err)
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		a.t.Fatal(err)
	}
	defer response.Body.Close()
	var said map[string]any
	if err := json.NewDecoder(response.Body).Decode(&said); err != nil || response.StatusCode/100 != 2 {
		a.t.Fatalf("%s %s: %d %v %v", method, path, response.StatusCode, said, err)
	}
}

func (a *account) generate(n int, spread string) {
	a.control("POST", "files/generate", fmt.Sprintf(`{"count":%d,"folder":"/many","spread":%q}`, n, spread))
}

func TestTheEmulatorsListing(t *testing.T) {
	tests := []struct {
		name   string
		count  int
		spread string
		calls  int
	}{
		{"TwentyThousandOverAYear", 20_000, "8760h", 23},
		{"TwoAndAHalfThousandAtOnce", 2500, "0s", 6},
		{"FiveThousandInTenSeconds", 5000, "10s", 0},
		{"None", 0, "", 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := newAccount(t)
			if tt.count > 0 {
				a.generate(tt.count, tt.spread)
			}
			o := walked(t, a, 60)
			if o.broken != nil || !o.Whole() || len(set(o.ids)) != tt.count || len(o.ids) != tt.count || len(o.Notes()) > 0 {
				t.Fatalf("broken %v, whole %v, %d files (%d given out), notes %v", o.broken, o.Whole(), len(set(o.ids)), len(o.ids), o.Notes())
			}
			if tt.calls > 0 && o.Calls() != tt.calls {
				t.Errorf("%d calls, want %d", o.Calls(), tt.calls)
			}
		})
	}
	t.Run("RefusesToSkip", func(t *testing.T) {
		a := newAccount(t)
		a.generate(2500, "0s")
		a.control("PATCH", "settings", `{"skipCap":1000}`)
		o := walked(t, a, 60)
		if o.broken == nil || o.broken.Fault == nil || o.broken.Fault.Kind != file.BadRequest || len(o.ids) != 1950 || o.Whole() {
			t.Errorf("broken %v with %d files", o.broken, len(o.ids))
		}
	})
	t.Run("GarblesSomePages", func(t *testing.T) {
		a := newAccount(t)
		a.generate(5000, "8760h")
		a.control("POST", "faults", `{"method":"GET","path":"/v1/files","status":200,"body":"<html>","headers":{"Content-Type":"text/html"},"times":3}`)
		a.control("POST", "faults", `{"method":"GET","path":"/v1/files","status":503,"times":2}`)
		o := walked(t, a, 60)
		if o.broken != nil || !o.Whole() || len(o.ids) != 5000 || len(o.Notes()) > 0 {
			t.Errorf("broken %v, whole %v, %d files, notes %v", o.broken, o.Whole(), len(o.ids), o.Notes())
		}
	})
	t.Run("AnswersOtherQuestions", func(t *testing.T) {
		a := newAccount(t)
		a.generate(1500, "8760h")
		newest, err := a.Newest(t.Context())
		if err != nil || len(newest.Snapshots) != 1 || newest.Rows != 1 {
			t.Fatalf("newest %+v, error %v", newest, err)
		}
		last := newest.Snapshots[0]
		lately, err := a.ListUpdated(t.Context(), last.UpdatedAt.Add(-24*time.Hour), 0)
		if err != nil || len(lately.Snapshots) < 4 || len(lately.Snapshots) > 6 {
			t.Errorf("%d files were updated in the last day, error %v", len(lately.Snapshots), err)
		}
		for i, f := range lately.Snapshots {
			if f.UpdatedAt.After(last.UpdatedAt) || i > 0 && f.UpdatedAt.Before(lately.Snapshots[i-1].UpdatedAt) {
				t.Errorf("out of order: %v", f.UpdatedAt)
			}
		}
		if rest, err := a.ListUpdated(t.Context(), last.UpdatedAt.Add(-24*time.Hour), 2); err != nil || len(rest.Snapshots) != len(lately.Snapshots)-2 {
			t.Errorf("after two, %d files, error %v", len(rest.Snapshots), err)
		}
	})
}
