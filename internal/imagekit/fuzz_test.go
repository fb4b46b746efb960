package imagekit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/testenv/seed"
)

// scripted answers every request with the same thing.
type scripted struct {
	status int
	header http.Header
	body   []byte
	asked  *http.Request
}

func (s *scripted) RoundTrip(r *http.Request) (*http.Response, error) {
	s.asked = r
	return &http.Response{Status: http.StatusText(s.status), StatusCode: s.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: s.header, Body: io.NopCloser(bytes.NewReader(s.body)), ContentLength: int64(len(s.body)), Request: r}, nil
}

// FuzzAnswer is a whole answer, status and headers too, to each of the questions. It
// holds that there is a snapshot or a fault; that only what ImageKit itself could have
// said is an absence; that no wait is longer than allowed; and that what is kept for
// people is short, printable, and never our key.
func FuzzAnswer(f *testing.F) {
	for _, s := range seed.Files(f, "answer/testdata/details/*", 12) {
		f.Add(200, "application/json; charset=utf-8", "0c8f6f0e", "", "", s.Data)
	}
	f.Add(404, "application/json", "r", "", "", []byte(`{"message":"The requested file does not exist."}`))
	f.Add(404, "text/html", "r", "", "", []byte(`<html>404</html>`))
	f.Add(400, "application/json", "r", "", "", []byte(`{"message":"Your request contains invalid fileId parameter."}`))
	f.Add(429, "application/json", "r", "120000", "", []byte(`{"message":"slow down"}`))
	f.Add(429, "application/json", "r", "1e400", "-1", []byte(``))
	f.Add(302, "application/json", "r", "", "9", []byte(`moved`))
	f.Add(500, "application/json", key, "NaN", "", []byte(`{"message":"`+key+`"}`))
	transport := &scripted{}
	c, err := New(Config{PrivateKey: key, Transport: transport, TicketField: "owner_ticket", MaxWait: time.Minute, LooksLikeTicket: func(s string) bool { return strings.HasPrefix(s, "tu1.") }})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, status int, kind, request, reset, after string, body []byte) {
		transport.status, transport.body = status, body
		transport.header = http.Header{"Content-Type": {kind}, "X-Ik-Requestid": {request}, "X-Ratelimit-Reset": {reset}, "Retry-After": {after}, "Location": {"https://elsewhere.example/" + reset}}
		a, err := c.Details(context.Background(), id)
		believable(t, a, err, body, true)
		if err == nil && (len(a.Snapshots) != 1 || a.Snapshots[0].ID != id || status != http.StatusOK) {
			t.Fatalf("believed %+v of status %d", a, status)
		}
		a, err = c.Search(context.Background(), []string{id})
		believable(t, a, err, body, false)
		for _, s := range a.Snapshots {
			if s.ID != id {
				t.Fatalf("an answer about %s, which nobody asked for", s.ID)
			}
		}
	})
}

func believable(t *testing.T, a file.Answer, err error, body []byte, byID bool) {
	var fault *file.Fault
	if err != nil && (!errors.As(err, &fault) || len(a.Snapshots) > 0) {
		t.Fatalf("%T %v beside %+v", err, err, a)
	}
	if a.Rate.Reset < 0 || a.Rate.Reset > time.Minute || a.Rate.Interval < 0 || a.Rate.Limit < 0 {
		t.Fatalf("rate %+v", a.Rate)
	}
	texts := []string{a.RequestID}
	if fault != nil {
		texts = append(texts, fault.Excerpt, fault.RequestID, fault.Error())
		if fault.Wait < 0 || fault.Wait > time.Minute {
			t.Fatalf("a wait of %v", fault.Wait)
		}
		if fault.Absent() && (!byID || len(bytes.TrimSpace(body)) > 0 && !json.Valid(body) || fault.Status != 404 && fault.Status != 400) {
			t.Fatalf("an absence nobody said: %+v after %q", fault, body)
		}
		if len(fault.Excerpt) > 200 {
			t.Fatalf("an excerpt of %d bytes", len(fault.Excerpt))
		}
	}
	for _, s := range texts {
		if strings.Contains(s, key) || !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
			t.Fatalf("not for people: %q", s)
		}
	}
}

// FuzzSearchPath holds that no ids make a query that asks for anything but them.
func FuzzSearchPath(f *testing.F) {
	for _, s := range []string{id, id + "\n" + noSuchFile, "a", `a"] OR id = "b`, "a%22", "../../x", "", strings.Repeat("a", 65)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, lines string) {
		ids := strings.Split(lines, "\n")
		path, err := searchPath(ids)
		if err != nil {
			return
		}
		r, err := http.NewRequest(http.MethodGet, DefaultBaseURL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf(`type = "file" AND id IN ["%s"]`, strings.Join(ids, `","`))
		if q := r.URL.Query(); r.URL.Path != "/v1/files" || len(q) != 2 || q.Get("searchQuery") != want || len(path) > maxURL {
			t.Fatalf("%q asks %v", ids, q)
		}
		for _, id := range ids {
			if !file.ValidID(id) {
				t.Fatalf("asked for %q", id)
			}
		}
	})
}
