package spool

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/trueup/trueup/internal/file"
)

// batch is as many lines as are sorted at a time, in memory that is taken once.
type batch struct {
	keys  []key
	lines []short
	ids   []byte
}

// key is what is moved about while sorting: mostly the first eight bytes of an id
// already say which is less.
type key struct {
	first uint64
	line  uint32
}

// short is a line whose id stands elsewhere.
type short struct {
	updated, hash   int64
	page, block, at uint32
	id              uint32 // where it begins in ids
	n, flags        uint8
}

// lineMemory is what a line with an id of ImageKit's 24 characters takes.
const lineMemory = 16 + 40 + 24

func newBatch(files int64, memory int) *batch {
	n := int(min(files, int64(memory/lineMemory)))
	return &batch{make([]key, 0, n), make([]short, 0, n), make([]byte, 0, 24*n+file.MaxIDLength)}
}

// blockFor is how large the blocks of runs may be, so that one of each can be held to
// merge them.
func (h *batch) blockFor(files int64, memory int) int {
	runs := int(files)/max(cap(h.lines), 1) + 1
	return min(max(memory/runs, 4<<10), fullBlock)
}

func (h *batch) full() bool {
	return len(h.lines) == cap(h.lines) || len(h.ids)+file.MaxIDLength > cap(h.ids)
}

func (h *batch) add(l *line) {
	at := uint32(len(h.lines)) //nolint:gosec // memory bounds it
	h.keys = append(h.keys, key{binary.BigEndian.Uint64(l.id[:]), at})
	h.lines = append(h.lines, short{l.updated, l.hash, l.page, l.block, l.at, uint32(len(h.ids)), l.n, l.flags}) //nolint:gosec // memory bounds it
	h.ids = append(h.ids, l.name()...)
}

// drain writes everything in order as the end of w's blocks, and begins anew.
func (h *batch) drain(w *blockWriter) error {
	slices.SortFunc(h.keys, h.compare)
	for _, k := range h.keys {
		l := h.line(k)
		if err := w.add(&l); err != nil {
			return err
		}
	}
	h.keys, h.lines, h.ids = h.keys[:0], h.lines[:0], h.ids[:0]
	return w.flush()
}

func (h *batch) compare(a, b key) int {
	if a.first != b.first {
		return cmp.Compare(a.first, b.first)
	}
	if c := bytes.Compare(h.name(a), h.name(b)); c != 0 {
		return c
	}
	x, y := h.line(a), h.line(b)
	return compareLines(&x, &y)
}

func (h *batch) name(k key) []byte {
	s := &h.lines[k.line]
	return h.ids[s.id : s.id+uint32(s.n)]
}

func (h *batch) line(k key) line {
	s := &h.lines[k.line]
	l := line{n: s.n, flags: s.flags, page: s.page, block: s.block, at: s.at, updated: s.updated, hash: s.hash}
	copy(l.id[:], h.name(k))
	return l
}
