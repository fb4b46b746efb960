package spool

import (
	"os"
	"reflect"
	"testing"
	"time"
)

// Whatever stands in the folder: Open takes what checks, says what did not, and the
// spool can be used. Seeds are the files of a good one.
func FuzzOpen(f *testing.F) {
	k := newKilled(f)
	for _, name := range k.names {
		f.Add(k.files[name], k.files[k.names[0]], []byte("sorted"))
	}
	s := open(f, laid(f, k.files), lean)
	sortOf(f, f.Context(), s)
	sorted, err := os.ReadFile(s.path(sortedName))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(k.files[k.names[0]], k.files[k.names[1]], sorted)
	f.Fuzz(func(t *testing.T, one, two, sorted []byte) {
		dir := laid(t, map[string][]byte{segmentName(1): one, segmentName(2): two, sortedName: sorted})
		s := open(t, dir, lean)
		got(t, s)
		next := page(s.Pages()+1, seen("a", 1))
		appended(t, s, next)
		files := s.Files()
		closed(t, s)
		s = open(t, dir, lean)
		if s.Pages() != next.Number || s.Files() != files || s.Damaged() != "" {
			t.Errorf("%d pages of %d files, want %d of %d; damaged: %q", s.Pages(), s.Files(), next.Number, files, s.Damaged())
		}
	})
}

// What is behind the checksums: a wrong byte there is our own fault, and still no panic.
func FuzzDecode(f *testing.F) {
	lines := appendLine(nil, &line{}, &line{n: 3, id: [64]byte{'a', 'b', 'c'}, page: 1, updated: base.UnixMicro()})
	meta := appendMeta(nil, listing, new(page(1, seen("a", 1))))
	index := index(identity{listing, 1, 2}, []block{{0, 10, 11, "a"}, {10, 12, 13, "b"}}, 7)
	for _, b := range [][]byte{lines, meta, index, appendBody(nil, snapshot("a", base)), appendBody(nil, seen("b", 3).Snapshot)} {
		f.Add(b)
	}
	unpacker, err := newUnpacker()
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(unpacker.Close)
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = eachLine(b, int64(len(b)), 1, func(*line) error { return nil })
		_, _, _ = readMeta(b)
		_ = new(Sorted).parse(b, 22)
		_, _ = unpack(unpacker, make([]byte, blockHead), b)
		s, err := readBody(b, "a")
		if err != nil {
			return
		}
		again, err := readBody(appendBody(nil, s), "a")
		if err != nil || !reflect.DeepEqual(again, s) {
			t.Errorf("got %+v, want %+v, %v", again, s, err)
		}
	})
}

// A time is kept to the nanosecond, and a line's to the microsecond.
func FuzzTime(f *testing.F) {
	f.Add(int64(0), int64(0))
	f.Add(base.Unix(), int64(999_999_999))
	f.Fuzz(func(t *testing.T, sec, nsec int64) {
		in := time.Unix(sec, nsec).UTC()
		r := reader{b: appendTime(nil, in)}
		if out := r.time(); !r.done() || !out.Equal(in) || out.IsZero() != in.IsZero() {
			t.Errorf("%v came back as %v", in, out)
		}
	})
}
