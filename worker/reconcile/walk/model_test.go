package walk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/trueup/trueup/internal/file"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var epoch = time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)

// query is what was asked.
type query struct {
	from time.Time
	skip int
}

func (q query) String() string { return fmt.Sprintf("%s+%d", q.from.Format(time.RFC3339Nano), q.skip) }

// library is a model of ImageKit's listing that does exactly what is written. A test
// makes it hostile by before and by answer.
type library struct {
	files []file.Snapshot // by createdAt, then id
	size  int             // of a page
	asked []query
	shown map[string]bool
	// before is called before the nth call is answered and may change the library.
	before func(l *library, n int, q query)
	// answer replaces the honest page, of the nth call, with another.
	answer func(n int, q query, honest []file.Snapshot) (file.Answer, error)
}

func (l *library) ListCreated(_ context.Context, from time.Time, skip int) (file.Answer, error) {
	q := query{from, skip}
	n := len(l.asked)
	l.asked = append(l.asked, q)
	if l.before != nil {
		l.before(l, n, q)
	}
	page := l.page(q)
	a, err := rows(page...), error(nil)
	if l.answer != nil {
		a, err = l.answer(n, q, page)
	}
	if l.shown == nil {
		l.shown = map[string]bool{}
	}
	for _, s := range a.Snapshots {
		l.shown[s.ID] = true
	}
	for _, id := range a.Unreadable {
		l.shown[id] = true
	}
	return a, err
}

func (l *library) page(q query) []file.Snapshot {
	from := q.from.Truncate(time.Second)
	at, _ := slices.BinarySearchFunc(l.files, from, func(f file.Snapshot, t time.Time) int {
		if q.from.IsZero() || !f.CreatedAt.Before(t) {
			return 1
		}
		return -1
	})
	at = min(at+q.skip, len(l.files))
	return slices.Clone(l.files[at:min(at+cmp.Or(l.size, 1000), len(l.files))])
}

// rows is an answer that has just these files.
func rows(files ...file.Snapshot) file.Answer {
	return file.Answer{Snapshots: files, Rows: len(files), Status: 200, RequestID: "r"}
}

// add puts files where they belong.
func (l *library) add(files ...file.Snapshot) {
	l.files = append(l.files, files...)
	slices.SortStableFunc(l.files, func(a, b file.Snapshot) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
}

// remove takes away the files of which gone says so.
func (l *library) remove(gone func(i int, f file.Snapshot) bool) {
	i := -1
	l.files = slices.DeleteFunc(l.files, func(f file.Snapshot) bool { i++; return gone(i, f) })
}

// made is file number i, created at at.
func made(i int, at time.Time) file.Snapshot {
	id := fmt.Sprintf("f%07d", i)
	return file.Snapshot{ID: id, URL: "https://ik/" + id, CreatedAt: at, UpdatedAt: at}
}

// spread is n files, evenly from epoch on.
func spread(n int, over time.Duration) *library {
	l := &library{}
	for i := range n {
		l.files = append(l.files, made(i, epoch.Add(time.Duration(int64(over)/int64(max(n, 1))*int64(i)).Truncate(time.Millisecond))))
	}
	return l
}

const year = 365 * 24 * time.Hour

// outcome is a walk from its beginning to whatever end.
type outcome struct {
	*Walk
	ids    []string // as they were given out, unreadable ones included
	pages  []Page
	broken *Broken
}

// walked walks to the end, or until it is broken. More than limit calls are a failure.
func walked(t testing.TB, l Lister, limit int, change ...func(*Config)) outcome {
	t.Helper()
	c := Config{Lister: l}
	for _, f := range change {
		f(&c)
	}
	w, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	o := outcome{Walk: w}
	for w.Calls() <= limit {
		page, err := w.Next(t.Context())
		switch {
		case errors.Is(err, io.EOF):
			if len(o.pages) > 0 && !o.pages[len(o.pages)-1].Last {
				t.Errorf("ended after a page that was not the last")
			}
			return o
		case errors.As(err, &o.broken):
			return o
		case err != nil:
			continue // of the moment: the same again
		}
		o.pages = append(o.pages, page)
		ids := append(idsOf(page.Files), page.Unreadable...)
		if len(set(ids)) != len(ids) {
			t.Errorf("page %d names files twice", len(o.pages))
		}
		o.ids = append(o.ids, ids...)
	}
	t.Fatalf("no end after %d calls, notes %v", limit, w.Notes())
	return o
}

// is checks that exactly these files came, each once, in a whole listing.
func (o outcome) is(t testing.TB, files []file.Snapshot) {
	t.Helper()
	if o.broken != nil {
		t.Fatalf("broken: %v", o.broken)
	}
	if !o.Whole() {
		t.Errorf("not whole: %v", o.Notes())
	}
	o.shows(t, files)
	if twice := len(o.ids) - len(set(o.ids)); twice > 0 {
		t.Errorf("%d files came twice", twice)
	}
}

// shows checks that these files came, and no others.
func (o outcome) shows(t testing.TB, files []file.Snapshot) {
	t.Helper()
	got := set(o.ids)
	for _, f := range files {
		if !got[f.ID] {
			t.Fatalf("%s of %s did not come (%d of %d did); notes %v", f.ID, f.CreatedAt.Format(time.RFC3339Nano), len(got), len(files), o.Notes())
		}
	}
	if len(got) != len(files) {
		t.Errorf("%d files came, want %d", len(got), len(files))
	}
}

func set(ids []string) map[string]bool {
	m := make(map[string]bool, len(ids))
	for _, id := range ids {
		m[id] = true
	}
	return m
}
