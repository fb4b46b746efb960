package imagekit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/testenv/seed"
)

// FuzzDetails holds that whatever comes back, it is a fault or a snapshot that a
// database can hold and that is about the file asked for; and that a look-up and a
// listing read the same file the same way.
func FuzzDetails(f *testing.F) {
	for _, s := range seed.Files(f, "testdata/details/*", 12) {
		f.Add(s.Data)
	}
	c := reader(f, "owner_ticket")
	f.Fuzz(func(t *testing.T, body []byte) {
		s, err := c.one(body, id)
		var listed file.Answer
		manyErr := c.many(bytes.Join([][]byte{[]byte("["), body, []byte("]")}, nil), &listed)
		if err != nil {
			if !reflect.DeepEqual(s, file.Snapshot{}) && s.ID != id {
				t.Fatalf("half a snapshot beside %v: %+v", err, s)
			}
			return
		}
		if s.ID != id {
			t.Fatalf("asked about %s and believed %+v", id, s)
		}
		storableSnapshot(t, s)
		if manyErr != nil || len(listed.Snapshots) != 1 || !reflect.DeepEqual(listed.Snapshots[0], s) {
			t.Fatalf("a look-up reads %+v, a listing %+v (%v)", s, listed.Snapshots, manyErr)
		}
		var compact bytes.Buffer
		if err := json.Compact(&compact, body); err != nil {
			t.Fatalf("believed what is no JSON: %v", err)
		}
		if again, err := c.one(compact.Bytes(), id); err != nil || !reflect.DeepEqual(again, s) {
			t.Fatalf("read %+v, and %+v (%v) without its blanks", s, again, err)
		}
	})
}

// storableSnapshot fails for what no row could hold or no repeat could equal.
func storableSnapshot(t *testing.T, s file.Snapshot) {
	if s.URL == "" || strings.ContainsAny(s.URL, "?#") || !file.ValidID(s.ID) {
		t.Fatalf("believed %+v", s)
	}
	for _, at := range []time.Time{s.CreatedAt, s.UpdatedAt} {
		if at.Year() < 1970 || at.Year() > 9999 || at.Location() != time.UTC || at.Nanosecond()%1000 != 0 {
			t.Fatalf("a time that no column holds: %v", at)
		}
	}
	texts := append([]string{s.URL, text(s.Name), text(s.Path), text(s.Type), text(s.MIME), text(s.ThumbnailURL), text(s.VersionID)}, s.Tags...)
	for _, text := range texts {
		if strings.ContainsRune(text, 0) || !utf8.ValidString(text) {
			t.Fatalf("a text that no database holds: %q", text)
		}
	}
	if s.SizeBytes != nil && *s.SizeBytes < 0 || s.Width != nil && *s.Width < 0 || s.Height != nil && *s.Height < 0 {
		t.Fatalf("a negative size: %+v", s)
	}
	for _, sealed := range s.Tickets {
		if !strings.HasPrefix(sealed, "tu1.") {
			t.Fatalf("a ticket that is none: %q", sealed)
		}
	}
	for _, tag := range s.Tags {
		if strings.HasPrefix(tag, "tu1.") {
			t.Fatalf("a ticket among the tags: %q", tag)
		}
	}
	if s.CustomMetadata == nil {
		return
	}
	var fields map[string]any
	if err := json.Unmarshal(s.CustomMetadata, &fields); err != nil || len(fields) == 0 {
		t.Fatalf("metadata %q: %v", s.CustomMetadata, err)
	}
	if _, there := fields["owner_ticket"]; there {
		t.Fatalf("the ticket's field is left in %q", s.CustomMetadata)
	}
	if bytes.Contains(s.CustomMetadata, []byte(`\u0000`)) && !bytes.Contains(s.CustomMetadata, []byte(`\\u0000`)) {
		t.Fatalf("metadata holds U+0000: %q", s.CustomMetadata)
	}
}

// FuzzMany holds that a listing never yields what one look-up would not, and counts
// every row that was there.
func FuzzMany(f *testing.F) {
	for _, s := range seed.Files(f, "testdata/listings/*.json", 8) {
		f.Add(s.Data)
	}
	c := reader(f, "owner_ticket")
	f.Fuzz(func(t *testing.T, body []byte) {
		var a file.Answer
		err := c.many(body, &a)
		if err != nil && len(a.Snapshots)+len(a.Unreadable)+a.Nameless+a.Rows > 0 {
			t.Fatalf("half an answer beside %v: %+v", err, a)
		}
		for _, s := range a.Snapshots {
			storableSnapshot(t, s)
		}
		for _, id := range a.Unreadable {
			if !file.ValidID(id) {
				t.Errorf("unreadable %q", id)
			}
		}
		if len(a.Snapshots)+len(a.Unreadable)+a.Nameless > a.Rows {
			t.Errorf("%d rows, of which %d read, %d unreadable, %d nameless", a.Rows, len(a.Snapshots), len(a.Unreadable), a.Nameless)
		}
	})
}

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
	for _, s := range seed.Files(f, "testdata/details/*", 12) {
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

// TestAnswersAreReadFrugally: what an answer costs in memory is bounded by its size.
func TestAnswersAreReadFrugally(t *testing.T) {
	c := reader(t, "owner_ticket")
	both := func(name string, body []byte) {
		seed.Frugal(t, "look-up "+name, len(body), func() { _, _ = c.one(body, id) })
		seed.Frugal(t, "listing "+name, len(body), func() { _ = c.many(body, &file.Answer{}) })
	}
	for _, pattern := range []string{"testdata/details/*", "testdata/listings/*"} {
		for _, s := range seed.Files(t, pattern, 8) {
			both(s.Name, s.Data)
		}
	}
	for _, target := range []string{"FuzzDetails", "FuzzMany"} {
		for name, args := range seed.Kept(t, target, 30) {
			both(target+" "+name, []byte(args[0]))
		}
	}
	// The structures of encoding/json are larger than what they are read from, and the
	// whole of one answer to a look-up is at most 1 MiB. A page may be 64 MiB.
	for name, body := range costly() {
		raw := []byte(body)
		seed.Within(t, "look-up "+name, 50*uint64(len(raw)), func() { _, _ = c.one(raw, id) })
		seed.Frugal(t, "listing "+name, len(raw), func() { _ = c.many(raw, &file.Answer{}) })
	}
}

// costly are bodies that make a parser's own structures large.
func costly() map[string]string {
	const limit = 1 << 18
	open := strings.TrimSuffix(sample, "}")
	return map[string]string{
		"brackets":        strings.Repeat("[", limit),
		"a list of lists": "[" + strings.Repeat("[],", limit/3) + "[]]",
		"tags":            open + `,"tags":[` + strings.Repeat(`"",`, limit/3) + `""]}`,
		"tickets":         open + `,"tags":[` + strings.Repeat(`"tu1.x",`, limit/8) + `""]}`,
		"a thumbnail":     open + `,"thumbnail":"https://x/?` + strings.Repeat("a&", limit/2) + `"}`,
		"unlike tickets":  open + `,"tags":[` + unlike(limit) + `""]}`,
		"one large row":   "[" + open + `,"tags":[` + strings.Repeat(`"",`, 1<<19) + `""]}]`,
		"NULs":            open + `,"name":"` + strings.Repeat(`\u0000`, limit/6) + `"}`,
		"a long number":   open + `,"customMetadata":{"n":1` + strings.Repeat("0", limit) + `}}`,
	}
}

func unlike(limit int) string {
	var b strings.Builder
	for i := 0; b.Len() < limit; i++ {
		fmt.Fprintf(&b, `"tu1.%06x",`, i)
	}
	return b.String()
}
