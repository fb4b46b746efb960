package spool

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/file"
)

// library makes files as ImageKit describes them, in the order of their making: ids
// that begin with the second they were made in.
type library struct {
	*rand.Rand
	at time.Time
}

func newLibrary() *library { return &library{rand.New(rand.NewPCG(7, 7)), base} } //nolint:gosec // the same every time

func (l *library) page(number int64, files int) Page {
	p := page(number)
	for range files {
		p.Lines = append(p.Lines, l.file())
	}
	return p
}

func (l *library) file() Line {
	l.at = l.at.Add(time.Duration(l.IntN(60_000)) * time.Millisecond)
	id := fmt.Sprintf("%08x%016x", l.at.Unix(), l.Uint64())
	name := fmt.Sprintf("IMG_%s_%09x.jpg", l.at.Format("20060102_150405"), l.Uint32())
	path := fmt.Sprintf("/users/%d/%s", l.IntN(10_000), name)
	url := "https://ik.imagekit.io/exampleaccount" + path
	thumb := "https://ik.imagekit.io/exampleaccount/tr:n-ik_ml_thumbnail" + path
	kind, mime, version, private := "image", "image/jpeg", id, false
	size, w, h := l.Int64N(8<<20), l.Int32N(4000), l.Int32N(4000)
	updated := l.at.Add(time.Duration(l.IntN(100)) * time.Millisecond)
	return Line{FileID: id, UpdatedAt: updated, Hash: l.Int64(), Snapshot: &file.Snapshot{
		ID: id, URL: url, Name: &name, Path: &path, Type: &kind, MIME: &mime, SizeBytes: &size, Width: &w, Height: &h, ThumbnailURL: &thumb,
		Tags: []string{"holiday", fmt.Sprintf("album-%d", l.IntN(500))}, CustomMetadata: fmt.Appendf(nil, `{"price":%d,"brand":"acme"}`, l.IntN(1000)),
		VersionID: &version, FirstVersion: true, IsPrivate: &private, CreatedAt: l.at, UpdatedAt: updated,
	}}
}

// filled is a spool of that many files, a thousand a page.
func filled(t testing.TB, files int) *Spool {
	t.Helper()
	s, l := open(t, t.TempDir()), newLibrary()
	for n := int64(1); s.Files() < int64(files); n++ {
		appended(t, s, l.page(n, 1000))
	}
	return s
}

// heap is what is reachable now.
func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func disk(t testing.TB, dir, pattern string) (n int64) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if info, err := os.Stat(name); err == nil {
			n += info.Size()
		}
	}
	return n
}

// peak calls f, and says how much more than before was reachable at the worst of the
// moments that f samples.
func peak(f func(sample func())) uint64 {
	before, most := heap(), uint64(0)
	f(func() { most = max(most, heap()) })
	return most - min(most, before)
}

// sampled is a context that a sort asks now and then whether to go on: every so many
// times it looks at the heap.
type sampled struct {
	context.Context
	every, n int
	sample   func()
}

func (c *sampled) Err() error {
	if c.n++; c.n%c.every == 0 {
		c.sample()
	}
	return c.Context.Err()
}

// One operation is a spool of so many files: its sort, one pass over what was sorted,
// and opening it again. Run with -bench=Spool/5000000 -benchtime=1x for the large one.
func BenchmarkSpool(b *testing.B) {
	for _, files := range []int{100_000, 1_000_000, 5_000_000} {
		b.Run(fmt.Sprint(files), func(b *testing.B) { measure(b, files) })
	}
}

func measure(b *testing.B, files int) {
	start := time.Now()
	s := filled(b, files)
	filling := time.Since(start)
	b.ResetTimer()
	for range b.N {
		_ = os.Remove(s.path(sortedName))
		s.sorted = nil
		took(b, "sort-ms", func() { sortOf(b, b.Context(), s) })
		took(b, "all-ms", func() { count(b, sortOf(b, b.Context(), s), func() {}) })
		took(b, "open-ms", func() {
			closed(b, s)
			s = open(b, s.config.Dir)
		})
		took(b, "sort-again-ms", func() { sortOf(b, b.Context(), s) })
		took(b, "10k-snapshots-ms", func() { snapshots(b, s, 10_000) })
	}
	b.StopTimer()
	b.ReportMetric(float64(filling.Milliseconds()), "fill-ms")
	b.ReportMetric(float64(disk(b, s.config.Dir, "*.pages"))/float64(files), "B/file-in-pages")
	b.ReportMetric(float64(disk(b, s.config.Dir, sortedName))/float64(files), "B/file-sorted")
	live := peak(func(sample func()) {
		_ = os.Remove(s.path(sortedName))
		s.sorted = nil
		count(b, sortOf(b, &sampled{Context: b.Context(), every: 50, sample: sample}, s), sample)
	})
	b.ReportMetric(float64(live)/(1<<20), "MB-live-added")
	b.ReportMetric(float64(heap())/(1<<20), "MB-live-open")
}

func took(b *testing.B, what string, f func()) {
	start := time.Now()
	f()
	b.ReportMetric(float64(time.Since(start).Microseconds())/1000, what)
}

func sortOf(t testing.TB, ctx context.Context, s *Spool) *Sorted {
	t.Helper()
	x, err := s.Sort(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// count goes over everything and looks at the heap ten times.
func count(t testing.TB, x *Sorted, sample func()) (n int64) {
	t.Helper()
	for _, err := range x.All() {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n%(x.Files()/10+1) == 0 {
			sample()
		}
	}
	return n
}

// snapshots reads the first n snapshots in the order of ids.
func snapshots(t testing.TB, s *Spool, n int) {
	t.Helper()
	for e, err := range sortOf(t, t.Context(), s).All() {
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Snapshot(e); err != nil {
			t.Fatal(err)
		}
		if n--; n == 0 {
			return
		}
	}
}
