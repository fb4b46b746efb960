package spool

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"strings"
)

// Sorted is the listing in the byte order of its file ids, each file once. Several may
// read it at a time.
type Sorted struct {
	f      *os.File
	of     identity
	blocks []block
	files  int64
}

// identity is which pages were sorted.
type identity struct {
	id    string
	pages int64
	chain uint32
}

// The end of the file: magic, length and checksum of the index before it, and their own.
const (
	sortedMagic = 0x31737374 // "tss1"
	tailSize    = 16
)

// writeSorted writes everything that m yields: blocks, then where they are and what was
// sorted.
func writeSorted(ctx context.Context, path string, of identity, m *merge) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := &blockWriter{f: f, full: fullBlock}
	if err := m.each(ctx, w.add); err != nil {
		return err
	}
	if err := w.flush(); err != nil {
		return err
	}
	_, err = f.WriteAt(index(of, w.blocks, w.lines), w.off)
	return err
}

func index(of identity, blocks []block, files int64) []byte {
	b := appendText(nil, of.id)
	b = binary.AppendVarint(b, of.pages)
	b = binary.AppendUvarint(b, uint64(of.chain))
	b = binary.AppendVarint(b, files)
	for _, k := range blocks {
		b = binary.AppendUvarint(b, uint64(k.n))
		b = binary.AppendUvarint(b, uint64(k.crc))
		b = appendText(b, k.first)
	}
	tail := binary.LittleEndian.AppendUint32(nil, sortedMagic)
	tail = binary.LittleEndian.AppendUint32(tail, uint32(len(b))) //nolint:gosec // 100 bytes per 64 KiB of lines
	tail = binary.LittleEndian.AppendUint32(tail, checksum(b))
	return append(b, binary.LittleEndian.AppendUint32(tail, checksum(tail))...)
}

// findSorted is the sorted listing that stands at path, if it is of these pages and
// every byte of it checks.
func findSorted(path string, of identity) (*Sorted, error) {
	x, err := readSorted(path, of)
	if err != nil {
		return nil, err
	}
	if err := x.check(); err != nil {
		return nil, errors.Join(err, x.f.Close())
	}
	return x, nil
}

// readSorted believes the blocks; they are checked when they are read.
func readSorted(path string, of identity) (*Sorted, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	x := &Sorted{f: f}
	err = x.readIndex()
	if err == nil && x.of != of {
		err = errors.New("another listing was sorted")
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return x, nil
}

func (x *Sorted) readIndex() error {
	info, err := x.f.Stat()
	if err != nil {
		return err
	}
	if info.Size() < tailSize {
		return errSorted
	}
	tail := make([]byte, tailSize)
	if err := readAt(x.f, tail, info.Size()-tailSize); err != nil {
		return err
	}
	n, crc := binary.LittleEndian.Uint32(tail[4:]), binary.LittleEndian.Uint32(tail[8:])
	from := info.Size() - tailSize - int64(n)
	if binary.LittleEndian.Uint32(tail) != sortedMagic || checksum(tail[:12]) != binary.LittleEndian.Uint32(tail[12:]) || from < 0 {
		return errSorted
	}
	b, err := section(x.f, nil, from, n, crc)
	if err != nil {
		return err
	}
	return x.parse(b, from)
}

// parse reads the index; the blocks must fill the file up to it.
func (x *Sorted) parse(b []byte, size int64) error {
	r := reader{b: b}
	x.of = identity{r.text(), r.varint(), r.uint32()}
	x.files = r.varint()
	var off int64
	for !r.bad && len(r.b) > 0 {
		k := block{off, r.uint32(), r.uint32(), r.text()}
		if k.n > maxSortedBlock {
			return errSorted
		}
		x.blocks = append(x.blocks, k)
		off += int64(k.n)
	}
	if r.bad || off != size {
		return errSorted
	}
	return nil
}

// check reads it through.
func (x *Sorted) check() error {
	r := &blockReader{f: x.f, blocks: x.blocks}
	var last line
	for n := int64(0); ; n++ {
		ok, err := r.next()
		switch {
		case err != nil:
			return err
		case !ok && n != x.files, ok && bytes.Compare(last.name(), r.name()) >= 0:
			return errSorted
		case !ok:
			return nil
		}
		last = r.line
	}
}

// Files is how many files there are.
func (x *Sorted) Files() int64 { return x.files }

// All yields every file. An error is the last thing it yields.
func (x *Sorted) All() iter.Seq2[Entry, error] { return x.After("") }

// After yields the files behind id.
func (x *Sorted) After(id string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		r := &blockReader{f: x.f, blocks: x.from(id)}
		for {
			ok, err := r.next()
			if err != nil {
				yield(Entry{}, fmt.Errorf("read the sorted listing: %w", err))
				return
			}
			if !ok {
				return
			}
			if string(r.name()) > id && !yield(r.entry(), nil) {
				return
			}
		}
	}
}

// Find is the entry of one file; ok is false when it was not listed.
func (x *Sorted) Find(id string) (e Entry, ok bool, err error) {
	r := &blockReader{f: x.f, blocks: x.from(id)}
	for {
		more, err := r.next()
		if err != nil {
			return Entry{}, false, fmt.Errorf("read the sorted listing: %w", err)
		}
		if !more || string(r.name()) > id {
			return Entry{}, false, nil
		}
		if string(r.name()) == id {
			return r.entry(), true, nil
		}
	}
}

// from are the blocks behind all that hold only ids before id.
func (x *Sorted) from(id string) []block {
	i, same := slices.BinarySearchFunc(x.blocks, id, func(b block, id string) int { return strings.Compare(b.first, id) })
	if !same && i > 0 {
		i--
	}
	return x.blocks[i:]
}
