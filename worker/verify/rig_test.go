package verify

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/imagekit"
)

// library is a real HTTP server that holds files, fails as told and logs what it
// was asked. The Verifier under test speaks to it through the real client.
type library struct {
	*httptest.Server
	mu    sync.Mutex
	files map[string]time.Time // updatedAt by fileId
	// lag hides files from searches and listings.
	lag map[string]bool
	// idSearch is false where id IN is refused; idMax is the largest arity taken.
	idSearch bool
	idMax    int
	// fail answers in the library's place when it returns true. It runs with mu held.
	fail func(w http.ResponseWriter, c call) bool
	log  []call
	// header of every answer.
	header http.Header
}

// call is one line of the library's log.
type call struct {
	at       time.Time
	endpoint string // details, search, list
	ids      []string
	nth      int // how many calls there were before it
}

var quoted = regexp.MustCompile(`"([A-Za-z0-9_-]+)"[,\]]`)

func newLibrary(t testing.TB, ids ...string) *library {
	l := &library{files: map[string]time.Time{}, lag: map[string]bool{}, idSearch: true, idMax: 500, header: http.Header{}}
	for _, id := range ids {
		l.files[id] = epoch
	}
	l.Server = httptest.NewServer(http.HandlerFunc(l.serve))
	t.Cleanup(l.Close)
	return l
}

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)

func (l *library) serve(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := call{at: time.Now(), nth: len(l.log)}
	query := r.URL.Query()
	switch parts := strings.Split(r.URL.Path, "/"); {
	case len(parts) == 5 && parts[4] == "details":
		c.endpoint, c.ids = "details", []string{parts[3]}
	case query.Has("searchQuery"):
		c.endpoint = "search"
		for _, m := range quoted.FindAllStringSubmatch(query.Get("searchQuery"), -1) {
			c.ids = append(c.ids, m[1])
		}
	default:
		c.endpoint = "list"
	}
	l.log = append(l.log, c)
	for k, v := range l.header {
		w.Header()[k] = v
	}
	if l.fail != nil && l.fail(w, c) {
		return
	}
	l.answer(w, c)
}

func (l *library) answer(w http.ResponseWriter, c call) {
	rows := []any{}
	switch c.endpoint {
	case "details":
		at, found := l.files[c.ids[0]]
		if !found {
			say(w, 404, "The requested file does not exist.")
			return
		}
		say(w, 200, object(c.ids[0], at))
		return
	case "search":
		if !l.idSearch || len(c.ids) > l.idMax {
			say(w, 400, "Invalid searchQuery.")
			return
		}
		for _, id := range c.ids {
			if at, found := l.files[id]; found && !l.lag[id] {
				rows = append(rows, object(id, at))
			}
		}
	case "list":
		for id, at := range l.files {
			rows = append(rows, object(id, at))
			break
		}
	}
	say(w, 200, rows)
}

// say writes an answer; a string becomes an error's message.
func say(w http.ResponseWriter, status int, body any) {
	if text, ok := body.(string); ok {
		body = map[string]string{"message": text, "help": "For support kindly contact us at support@imagekit.io ."}
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("x-ik-requestId", "req-"+strconv.Itoa(status))
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func object(id string, updated time.Time) map[string]any {
	return map[string]any{
		"type": "file", "fileId": id, "name": id + ".jpg", "filePath": "/" + id + ".jpg",
		"url":         "https://ik.imagekit.io/demo_id/" + id + ".jpg?updatedAt=1",
		"versionInfo": map[string]string{"id": id, "name": "Version 1"},
		"tags":        nil, "customMetadata": map[string]any{}, "size": 10,
		"createdAt": epoch.Format(time.RFC3339Nano), "updatedAt": updated.Format(time.RFC3339Nano),
	}
}

func (l *library) calls(endpoint string) []call {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(l.log), func(c call) bool { return endpoint != "" && c.endpoint != endpoint })
}

func (l *library) with(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
}

// rows stands for the database: it counts fences and says what is known.
type rows struct {
	mu    sync.Mutex
	last  int64
	known map[string]file.Known
	asked [][]string
	err   error
}

func (r *rows) Fence(_ context.Context, ids []string) (file.Fence, map[string]file.Known, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last++
	r.asked = append(r.asked, ids)
	known := map[string]file.Known{}
	for _, id := range ids {
		if k, ok := r.known[id]; ok {
			known[id] = k
		}
	}
	return file.Fence{Number: r.last, At: time.Now()}, known, r.err
}

// liveFiles answers as the store does.
func (r *rows) liveFiles(_ context.Context, n int, except []string) ([]string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var ids []string
	for id, k := range r.known {
		if k.Live && !k.Suspect && !slices.Contains(except, id) && len(ids) < n {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids, nil
}

func (r *rows) live(high time.Time, ids ...string) *rows {
	for _, id := range ids {
		r.known[id] = file.Known{Seen: true, Live: true, High: high}
	}
	return r
}

func newRows() *rows { return &rows{known: map[string]file.Known{}} }

// verifier joins the real client, the library and the rows.
func verifier(t testing.TB, l *library, r *rows, change ...func(*Config)) *Verifier {
	t.Helper()
	client, err := imagekit.New(imagekit.Config{BaseURL: l.URL, PrivateKey: "private_key", Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	c := Config{Library: client, Fences: r, LiveFiles: r.liveFiles, Budget: BudgetConfig{StartRate: 1000}}
	for _, f := range change {
		f(&c)
	}
	v, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func look(t testing.TB, v *Verifier, asks ...Ask) []Answer {
	t.Helper()
	answers, err := v.Look(t.Context(), asks)
	if err != nil {
		t.Fatalf("Look: %v", err)
	}
	for i, a := range answers {
		if (a.Observation == nil) == (a.Fault == nil) {
			t.Fatalf("answer %d has not exactly one of observation and fault: %+v", i, a)
		}
	}
	return answers
}

// names makes n file ids.
func names(prefix string, n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("%s%03d", prefix, i)
	}
	return ids
}

func asksFor(ids []string, change ...func(*Ask)) []Ask {
	asks := make([]Ask, len(ids))
	for i, id := range ids {
		asks[i] = Ask{FileID: id}
		for _, f := range change {
			f(&asks[i])
		}
	}
	return asks
}

func byID(a *Ask) { a.ByID = true }
