package load

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trueup/trueup/ingest/signature"
)

const secret = "whsec_bG9hZC1sb2FkLWxvYWQtbG9hZA=="

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func TestWebhooksVerify(t *testing.T) {
	v, err := signature.New(secret)
	if err != nil {
		t.Fatal(err)
	}
	var bad atomic.Int64
	address := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if _, err := v.Verify(r.Header, body, time.Now()); err != nil || !json.Valid(body) {
			bad.Add(1)
		}
	})
	j := Job{Kind: Webhook, Address: address, Secret: secret, Connections: 4, For: 200 * time.Millisecond}
	r, err := j.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if bad.Load() > 0 || r.Accepted() == 0 || r.Only(http.StatusOK) != nil {
		t.Errorf("%d bad of %v", bad.Load(), r.Status)
	}
}

func TestReportsNameEachFileOnce(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]int{}
	address := serve(t, func(w http.ResponseWriter, r *http.Request) {
		var body struct{ FileID, URL string }
		if json.NewDecoder(r.Body).Decode(&body) != nil || len(body.FileID) != 24 || body.URL == "" || r.Header.Get("Authorization") != "Bearer me" {
			w.WriteHeader(http.StatusBadRequest)
		}
		mu.Lock()
		seen[body.FileID]++
		mu.Unlock()
		w.Header().Set("Transfer-Encoding", "chunked") // as Node may answer
		_, _ = io.WriteString(w, strings.Repeat("x", 5000))
	})
	j := Job{Kind: Report, Address: address, Token: "me", Connections: 4, For: 200 * time.Millisecond, Seed: 7}
	r, err := j.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Only(http.StatusOK); err != nil {
		t.Error(err)
	}
	for id, n := range seen {
		if n != 1 {
			t.Errorf("%s was named %d times", id, n)
		}
	}
}

// TestAStallIsSeenByAllThatWereDue is what a closed loop would hide: while the server
// stands still, requests go on falling due, and each of them waited.
func TestAStallIsSeenByAllThatWereDue(t *testing.T) {
	const stall = 300 * time.Millisecond
	var first sync.Once
	var gate sync.RWMutex
	address := serve(t, func(w http.ResponseWriter, r *http.Request) {
		first.Do(func() {
			gate.Lock()
			time.AfterFunc(stall, gate.Unlock)
		})
		gate.RLock()
		defer gate.RUnlock()
	})
	j := Job{Kind: Report, Address: address, Connections: 2, For: 600 * time.Millisecond, Rate: 500, Seed: 1}
	r, err := j.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// About half of all arrivals fell due during the stall; two connections alone would
	// have seen it twice.
	if p75 := r.Took.Quantile(0.75); p75 < stall/10 {
		t.Errorf("the stall was seen by few: p75 %s of %d, at most %s", p75, r.Took.Count(), r.Took.Max())
	}
	if n := r.Took.Count(); n < 150 || n > 600 {
		t.Errorf("%d arrivals in 0.6 s at 500 a second", n)
	}
}

func TestArrivalsGivenUpAreCounted(t *testing.T) {
	released := make(chan struct{})
	address := serve(t, func(w http.ResponseWriter, r *http.Request) { <-released })
	time.AfterFunc(200*time.Millisecond, func() { close(released) })
	j := Job{Kind: Report, Address: address, Connections: 1, For: 100 * time.Millisecond, Rate: 1000, Patience: 50 * time.Millisecond, Seed: 1}
	r, err := j.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r.GivenUp == 0 || r.Accepted() == 0 || int(r.GivenUp+r.Accepted()) != len(j.schedule(time.Now())) {
		t.Errorf("%d given up, %d accepted", r.GivenUp, r.Accepted())
	}
}

func TestTheOtherProcess(t *testing.T) {
	address := serve(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	in, out := io.Pipe()
	defer out.Close()
	go func() {
		_ = json.NewEncoder(out).Encode(Job{Kind: Webhook, Secret: secret, Address: address, Connections: 1, For: 50 * time.Millisecond})
	}()
	var said bytes.Buffer
	if err := Serve(t.Context(), in, &said); err != nil {
		t.Fatal(err)
	}
	var r Result
	if err := json.Unmarshal(said.Bytes(), &r); err != nil || r.Status[503] == 0 || r.Refused.Count() == 0 || r.Only(200) == nil {
		t.Errorf("%v %s", err, said.String())
	}
	t.Run("EndsWithWhoAsked", func(t *testing.T) {
		ask := strings.NewReader(`{"kind":"webhook","secret":"` + secret + `","address":"` + address + `","connections":1,"for":3600000000000}`)
		if err := Serve(context.Background(), ask, io.Discard); err == nil {
			t.Error("a job that was cut short gave a result")
		}
	})
}

func TestBrokenConnectionsAreCounted(t *testing.T) {
	address := serve(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	j := Job{Kind: Report, Address: address, Connections: 1, For: 50 * time.Millisecond}
	r, err := j.Run(t.Context())
	if err != nil || r.Status[0] == 0 || r.Failure == "" || r.Accepted() != 0 {
		t.Errorf("%v %+v", err, r)
	}
}
