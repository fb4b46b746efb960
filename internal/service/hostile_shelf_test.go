package service_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/imagekit"
)

// shelf plays ImageKit from a small library, answer by answer, under trueup's own client:
// it takes the place of the network. Whatever is wrong with an answer is a trick, done to
// an honest one.
type shelf struct {
	mu     sync.Mutex
	books  map[string]book
	page   int // rows that a page has at most; ImageKit's own 1,000 would need large libraries
	tricks []trick

	asked map[string]int  // by kind, and for details by kind and id
	shown map[string]int  // files on whole list pages that could be read, with the version shown
	named map[string]bool // files that a list page has shown in whatever form
	odd   map[string]bool // those among them that were not as they are
	names map[string]int  // answers that tricks have touched, by the word of the last
	last  string          // the word of the last list call's trick; empty: honest
}

// book is a file on the shelf.
type book struct {
	id      string
	version int
	created time.Time
	updated time.Time
}

// question is one request, and what may be said of it.
type question struct {
	kind string // list, details, search, one
	n    int    // how many of this kind came before; for details: about this file
	id   string
	from time.Time
	skip int
	s    *shelf // locked
}

// reply is an answer on its way: rows, unless body or err says otherwise.
type reply struct {
	status  int
	content string
	rows    []string // of a list; JSON
	body    *string
	cut     bool // the connection breaks in the middle of the body
	err     error
	date    time.Time
	// was names what a trick has done.
	was string
}

type trick func(q *question, r *reply)

func newShelf() *shelf {
	return &shelf{books: map[string]book{}, page: 1000, asked: map[string]int{}, shown: map[string]int{}, names: map[string]int{}, named: map[string]bool{}, odd: map[string]bool{}}
}

// shelfBegan is when the first file was made.
var shelfBegan = time.Date(2025, 3, 1, 8, 0, 0, 0, time.UTC)

// made is the nth file of the model, in its first version: some are made in one second.
func made(n int) book {
	at := shelfBegan.Add(time.Duration(n/3)*37*time.Minute + time.Duration(n%3)*137*time.Millisecond)
	return book{id: fmt.Sprintf("f%03d%020x", n, uint64(n)*0x9e3779b97f4a7c15), version: 1, created: at, updated: at}
}

// row is the file as ImageKit writes it.
func (b book) object() map[string]any {
	const when = "2006-01-02T15:04:05.000Z"
	name := fmt.Sprintf("%s_v%d.jpg", b.id[:4], b.version)
	return map[string]any{
		"type": "file", "fileId": b.id, "name": name, "filePath": "/h/" + name, "tags": []string{"t" + b.id[3:4], "v" + strconv.Itoa(b.version)},
		"versionInfo": map[string]any{"id": b.id, "name": fmt.Sprintf("Version %d", b.version)}, "isPrivateFile": false,
		"customMetadata": map[string]any{"n": b.version}, "url": "https://ik.example/h/" + name + "?updatedAt=" + strconv.FormatInt(b.updated.UnixMilli(), 10),
		"thumbnail": "https://ik.example/h/" + name + "?tr=n-ik_ml_thumbnail", "fileType": "image", "mime": "image/jpeg",
		"width": 640, "height": 480, "size": 1000 + b.version, "createdAt": b.created.UTC().Format(when), "updatedAt": b.updated.UTC().Format(when),
	}
}

func (b book) json() string {
	raw, _ := json.Marshal(b.object())
	return string(raw)
}

// snapshot is the file as trueup's client reads it.
func (b book) snapshot() *file.Snapshot {
	client, err := imagekit.New(imagekit.Config{BaseURL: "https://imagekit.invalid", PrivateKey: "private_hostile", Transport: single{b}})
	if err != nil {
		panic(err)
	}
	a, err := client.Details(context.Background(), b.id)
	if err != nil {
		panic(err)
	}
	return &a.Snapshots[0]
}

// single answers with one file.
type single struct{ book }

func (s single) RoundTrip(r *http.Request) (*http.Response, error) {
	a := reply{status: http.StatusOK, content: "application/json"}
	a.says(s.json())
	return a.response(r), nil
}

// with is the file's row with other values in it; nil takes a field out.
func (b book) with(fields map[string]any) string {
	o := b.object()
	for k, v := range fields {
		if v == nil {
			delete(o, k)
			continue
		}
		o[k] = v
	}
	raw, _ := json.Marshal(o)
	return string(raw)
}

// put puts files on the shelf.
func (s *shelf) put(books ...book) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(books...)
}

func (s *shelf) add(books ...book) {
	for _, b := range books {
		s.books[b.id] = b
	}
}

func (s *shelf) take(ids ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		delete(s.books, id)
	}
}

// overwrite gives files a next version.
func (s *shelf) overwrite(ids ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		s.rewrite(id)
	}
}

func (s *shelf) rewrite(id string) {
	b := s.books[id]
	b.version, b.updated = b.version+1, b.updated.Add(time.Duration(b.version)*time.Hour)
	s.books[id] = b
}

// play begins to play tricks, with all counts at zero; none means that it is honest.
func (s *shelf) play(tricks ...trick) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tricks, s.last = tricks, ""
	clear(s.asked)
	clear(s.shown)
	clear(s.names)
	clear(s.named)
	clear(s.odd)
}

// holds are the files on the shelf, in the order of their creation.
func (s *shelf) holds() []book {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ordered()
}

func (s *shelf) ordered() []book { return inOrder(s.books) }

func inOrder(books map[string]book) []book {
	return slices.SortedFunc(maps.Values(books), func(a, b book) int {
		return cmp.Or(a.created.Compare(b.created), cmp.Compare(a.id, b.id))
	})
}

// want is what imagekit_files should hold, by trueup's own contract.
func (s *shelf) want() map[string]row {
	out := map[string]row{}
	for _, b := range s.holds() {
		var o map[string]any
		_ = json.Unmarshal([]byte(b.json()), &o)
		out[b.id] = projection(o)
	}
	return out
}

// RoundTrip answers a request.
func (s *shelf) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.understand(r)
	a := s.honest(q)
	for _, t := range s.tricks {
		t(q, &a)
	}
	if a.was != "" {
		s.names[a.was]++
	}
	if q.kind == "list" {
		s.last = a.was
		s.note(&a)
	}
	if a.err != nil {
		return nil, a.err
	}
	return a.response(r), nil
}

var (
	idsIn      = regexp.MustCompile(`id IN \[([^]]*)\]`)
	createdMin = regexp.MustCompile(`createdAt >= "([^"]+)"`)
)

func (s *shelf) understand(r *http.Request) *question {
	v := r.URL.Query()
	q := &question{kind: "one", s: s}
	expression := v.Get("searchQuery")
	if id, ok := strings.CutPrefix(strings.TrimSuffix(r.URL.Path, "/details"), "/v1/files/"); ok {
		q.kind, q.id = "details", id
	} else if ids := idsIn.FindStringSubmatch(expression); ids != nil {
		q.kind, q.id = "search", strings.ReplaceAll(ids[1], `"`, "")
	} else if v.Get("sort") == "ASC_CREATED" {
		q.kind = "list"
		if m := createdMin.FindStringSubmatch(expression); m != nil {
			q.from, _ = time.Parse("2006-01-02T15:04:05", m[1])
		}
		q.skip, _ = strconv.Atoi(v.Get("skip"))
	}
	key := q.kind
	if key == "details" {
		s.asked[key]++
		key += q.id
	}
	q.n = s.asked[key]
	s.asked[key]++
	return q
}

func (s *shelf) honest(q *question) reply {
	a := reply{status: http.StatusOK, content: "application/json", date: time.Now()}
	switch q.kind {
	case "details":
		b, ok := s.books[q.id]
		if !ok {
			a.absent()
			return a
		}
		a.says(b.json())
	case "search":
		for id := range strings.SplitSeq(q.id, ",") {
			if b, ok := s.books[strings.TrimSpace(id)]; ok {
				a.rows = append(a.rows, b.json())
			}
		}
	case "one":
		a.rows = texts(s.ordered()[:min(1, len(s.books))])
	default:
		a.rows = texts(s.at(q.from, q.skip))
	}
	return a
}

// at is the page at a place.
func (s *shelf) at(from time.Time, skip int) []book { return pageOf(s.ordered(), from, skip, s.page) }

func pageOf(all []book, from time.Time, skip, page int) []book {
	all = slices.DeleteFunc(all, func(b book) bool { return b.created.Before(from) })
	all = all[min(skip, len(all)):]
	return all[:min(page, len(all))]
}

func texts(books []book) []string {
	rows := make([]string, len(books))
	for i, b := range books {
		rows[i] = b.json()
	}
	return rows
}

func (a *reply) says(body string) { a.body = &body }

func (a *reply) absent() {
	a.status = http.StatusNotFound
	a.says(`{"message":"The requested file does not exist.","help":"For support kindly contact us at support@imagekit.io ."}`)
}

func (a *reply) refuses(status int) {
	a.status = status
	a.says(`{"message":"Your account cannot be authenticated.","help":"For support kindly contact us at support@imagekit.io ."}`)
}

// note remembers which files a list page has shown as they are.
func (s *shelf) note(a *reply) {
	if a.err != nil || a.cut || a.body != nil || a.status != http.StatusOK || !strings.Contains(a.content, "json") {
		return
	}
	for _, raw := range a.rows {
		var o map[string]any
		if json.Unmarshal([]byte(raw), &o) != nil {
			continue
		}
		id, _ := o["fileId"].(string)
		s.named[id] = true
		b, held := s.books[id]
		if held && raw == b.json() {
			s.shown[id] = b.version
		} else if !held && o["type"] == "file" {
			s.shown[id] = -1
		} else {
			s.odd[id] = true
		}
	}
}

func (a *reply) response(r *http.Request) *http.Response {
	body := "[" + strings.Join(a.rows, ",") + "]"
	if a.body != nil {
		body = *a.body
	}
	h := http.Header{"Content-Type": {a.content}, "Date": {a.date.UTC().Format(http.TimeFormat)}, "X-Ik-Requestid": {"req"}}
	var content io.Reader = strings.NewReader(body)
	if a.cut {
		content = io.MultiReader(bytes.NewReader([]byte(body[:len(body)/2])), failing{})
	}
	return &http.Response{Status: http.StatusText(a.status), StatusCode: a.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: h, Body: io.NopCloser(content), Request: r, ContentLength: -1}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

var errNobodyThere = errors.New("connection reset by peer")

// shelfLibrary is ImageKit as a run asks for it: like the real one within the budget, but
// that a transient fault is tried again once and at once, not for a minute.
type shelfLibrary struct{ hostileSource }

func (l shelfLibrary) Healthy(context.Context) error { return nil }
