package campaign

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestToxics: each toxic of a link does to a request, or to its reply, what the matrix
// says of it. A request lost and a reply lost look the same to the caller; only one of
// them did its work.
func TestToxics(t *testing.T) {
	const size = 64 << 10
	for _, c := range []struct {
		toxic
		fails   bool // the caller gets no whole answer
		arrives bool // the service has read the whole request
		slow    bool // it takes at least 100 ms
	}{
		{toxic{"latency", "upstream", map[string]any{"latency": 150}}, false, true, true},
		{toxic{"latency", "downstream", map[string]any{"latency": 150}}, false, true, true},
		{toxic{"bandwidth", "upstream", map[string]any{"rate": 300}}, false, true, true},
		{toxic{"bandwidth", "downstream", map[string]any{"rate": 300}}, false, true, true},
		{toxic{"timeout", "upstream", map[string]any{"timeout": 0}}, true, false, false},
		{toxic{"timeout", "downstream", map[string]any{"timeout": 0}}, true, true, false},
		{toxic{"timeout", "downstream", map[string]any{"timeout": 100}}, true, true, false},
		{toxic{"reset_peer", "upstream", map[string]any{"timeout": 0}}, true, false, false},
		{toxic{"reset_peer", "downstream", map[string]any{"timeout": 0}}, true, true, false},
		{toxic{"slicer", "upstream", map[string]any{"average_size": 512, "size_variation": 4, "delay": 1000}}, false, true, true},
		{toxic{"slicer", "downstream", map[string]any{"average_size": 512, "size_variation": 4, "delay": 1000}}, false, true, true},
		{toxic{"limit_data", "upstream", map[string]any{"bytes": 1000}}, true, false, false},
		{toxic{"limit_data", "downstream", map[string]any{"bytes": 1000}}, true, true, false},
		{toxic{"slow_close", "downstream", map[string]any{"delay": 150}}, false, true, false},
		{toxic{Kind: "down"}, true, false, false},
	} {
		t.Run(strings.ReplaceAll(c.String(), "/", "-"), func(t *testing.T) {
			t.Parallel()
			var whole atomic.Int64
			service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if body, err := io.ReadAll(r.Body); err == nil && len(body) == size {
					whole.Add(1)
				}
				_, _ = w.Write(bytes.Repeat([]byte("r"), size))
			}))
			defer service.Close()
			port, err := freePort()
			if err != nil {
				t.Fatal(err)
			}
			l, err := newLink("test", port, strings.TrimPrefix(service.URL, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer l.close()
			caller := &http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
			if !c.fails {
				caller.Timeout = time.Minute
			}
			ask := func() error {
				resp, err := caller.Post("http://"+l.addr, "text/plain", bytes.NewReader(make([]byte, size)))
				if err != nil {
					return err
				}
				defer resp.Body.Close()
				got, err := io.ReadAll(resp.Body)
				if err == nil && len(got) != size {
					err = io.ErrUnexpectedEOF
				}
				return err
			}
			undo, err := l.add(c.toxic)
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			err = ask()
			if (err != nil) != c.fails {
				t.Errorf("the caller's error is %v, fails should be %t", err, c.fails)
			}
			if arrived := whole.Load() == 1; arrived != c.arrives {
				t.Errorf("the whole request arrived: %t, want %t", arrived, c.arrives)
			}
			if took := time.Since(began); c.slow && took < 100*time.Millisecond {
				t.Errorf("it took %s only", took)
			}
			if err := undo(); err != nil {
				t.Fatal(err)
			}
			caller.Timeout = time.Minute
			if err := ask(); err != nil {
				t.Errorf("after healing: %v", err)
			}
		})
	}
}
