package spool

import (
	"errors"
	"io"
)

// block is some 64 KiB of lines in a file of sorted ones. Where it stands and what it
// must sum up to is kept apart from it.
type block struct {
	off   int64
	n     uint32
	crc   uint32
	first string // the id it begins with
}

// blockWriter writes sorted lines as blocks.
type blockWriter struct {
	f    io.WriterAt
	off  int64
	full int // how long a block grows

	buf    []byte
	first  line
	prev   line
	blocks []block
	lines  int64
}

func (w *blockWriter) add(l *line) error {
	if len(w.buf) == 0 {
		w.first, w.prev = *l, line{}
	}
	w.buf = appendLine(w.buf, &w.prev, l)
	w.prev = *l
	w.lines++
	if len(w.buf) >= w.full {
		return w.flush()
	}
	return nil
}

func (w *blockWriter) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	if _, err := w.f.WriteAt(w.buf, w.off); err != nil {
		return err
	}
	w.blocks = append(w.blocks, block{w.off, uint32(len(w.buf)), checksum(w.buf), string(w.first.name())}) //nolint:gosec // full bounds it
	w.off += int64(len(w.buf))
	w.buf = w.buf[:0]
	return nil
}

// maxSortedBlock is what no block is longer than: a full one and its last line.
const (
	fullBlock      = 64 << 10
	maxSortedBlock = fullBlock + 128
)

// blockReader reads sorted lines back.
type blockReader struct {
	f      io.ReaderAt
	blocks []block // those not begun yet

	buf  []byte
	rest []byte
	line // the current one, after next has said true
}

var errSorted = errors.New("the sorted listing is damaged")

func (r *blockReader) next() (bool, error) {
	if len(r.rest) == 0 {
		if len(r.blocks) == 0 {
			return false, nil
		}
		if err := r.load(); err != nil {
			return false, err
		}
	}
	var err error
	r.rest, err = r.read(r.rest)
	return err == nil, err
}

func (r *blockReader) load() (err error) {
	b := r.blocks[0]
	r.blocks = r.blocks[1:]
	r.buf, err = section(r.f, r.buf, b.off, b.n, b.crc)
	r.rest, r.line = r.buf, line{}
	if err == nil && b.n == 0 {
		err = errSorted
	}
	return err
}
