package spool

import (
	"context"
	"fmt"
	"os"
	"slices"
)

// Sort sorts the listing by file id in byte order and keeps of each file one entry: of
// lines that could be read before others the newest, and of equally old ones that which
// was listed last. It holds no more than Config.SortMemory of lines. A sort that was
// finished is found again, also by the next process, as long as no page came after it;
// one that was not begins anew. The Sorted ends with the spool, or with the next Sort
// that has more to sort. An error about damage goes away by opening the spool again.
func (s *Spool) Sort(ctx context.Context) (*Sorted, error) {
	s.sorting.Lock()
	defer s.sorting.Unlock()
	in, old, err := s.input()
	if err != nil {
		return nil, fmt.Errorf("sort the spool: %w", err)
	}
	if old != nil && old.of == in.of {
		return old, nil
	}
	x, err := findSorted(s.path(sortedName), in.of)
	if err != nil {
		x, err = s.sort(ctx, in)
	}
	if err != nil {
		return nil, fmt.Errorf("sort the spool: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old != nil {
		_ = old.f.Close() // it was only read from
	}
	s.sorted = x
	return x, nil
}

// input is what there is to sort: what was appended so far.
type input struct {
	of       identity
	pages    []place
	segments []*segment
	files    int64
}

// input also says which Sorted is open.
func (s *Spool) input() (input, *Sorted, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return input{}, nil, errClosed
	}
	of := identity{s.config.ID, int64(len(s.pages)), s.chain}
	return input{of, slices.Clip(s.pages), slices.Clip(s.segments), s.files}, s.sorted, nil
}

// sort makes the file of sorted lines. Nothing of it is synced: whatever a power cut
// leaves does not check, and is sorted again.
func (s *Spool) sort(ctx context.Context, in input) (*Sorted, error) {
	f, err := os.OpenFile(s.path(runsName), os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _, _ = f.Close(), os.Remove(f.Name()) }()
	runs, err := split(ctx, in, f, s.config.SortMemory)
	if err != nil {
		return nil, err
	}
	m, err := newMerge(f, runs)
	if err != nil {
		return nil, err
	}
	if err := writeSorted(ctx, s.path(newName), in.of, m); err != nil {
		_ = os.Remove(s.path(newName)) // what of it is there is of no use
		return nil, err
	}
	if err := os.Rename(s.path(newName), s.path(sortedName)); err != nil {
		return nil, err
	}
	return readSorted(s.path(sortedName), in.of)
}

// split writes the lines as sorted runs, one behind the other, and says where the blocks
// of each are.
func split(ctx context.Context, in input, f *os.File, memory int) (runs [][]block, err error) {
	h := newBatch(in.files, memory)
	w := &blockWriter{f: f, full: h.blockFor(in.files, memory)}
	end := func() error {
		if err := h.drain(w); err != nil {
			return err
		}
		runs, w.blocks = append(runs, w.blocks), nil
		return nil
	}
	each := func(l *line) error {
		if h.full() {
			if err := end(); err != nil {
				return err
			}
		}
		h.add(l)
		return nil
	}
	var buf []byte
	for i := range in.pages {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if buf, err = in.page(i, buf, each); err != nil {
			return nil, fmt.Errorf("page %d: %w", i+1, err)
		}
	}
	return runs, end()
}

// page reads the lines of one page; buf is memory to use.
func (in *input) page(i int, buf []byte, each func(*line) error) ([]byte, error) {
	p := &in.pages[i]
	buf, err := section(in.segments[p.segment].f, buf, p.off+headSize+int64(p.head.meta), p.head.lines, p.head.linesCRC)
	if err != nil {
		return buf, err
	}
	return buf, eachLine(buf, p.files, uint32(i+1), each) //nolint:gosec // Append bounds it
}
