package spool

import (
	"bytes"
	"context"
	"io"
)

// merge yields the lines of several sorted runs in order, one per file. It holds one
// block of each.
type merge struct {
	// heap: the run whose current line comes first is at 0, and each comes before those
	// at 2i+1 and 2i+2.
	heap []*blockReader
}

func newMerge(f io.ReaderAt, runs [][]block) (*merge, error) {
	m := &merge{}
	for _, blocks := range runs {
		r := &blockReader{f: f, blocks: blocks}
		ok, err := r.next()
		if err != nil {
			return nil, err
		}
		if ok {
			m.heap = append(m.heap, r)
		}
	}
	for i := len(m.heap)/2 - 1; i >= 0; i-- {
		m.down(i)
	}
	return m, nil
}

// each gives the best line of every file.
func (m *merge) each(ctx context.Context, yield func(*line) error) error {
	var last line
	for n := 0; len(m.heap) > 0; n++ {
		if n%4096 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if l := &m.heap[0].line; !bytes.Equal(l.name(), last.name()) {
			if err := yield(l); err != nil {
				return err
			}
			last = *l
		}
		if err := m.advance(); err != nil {
			return err
		}
	}
	return nil
}

// advance goes on in the first run.
func (m *merge) advance() error {
	ok, err := m.heap[0].next()
	if err != nil {
		return err
	}
	if !ok {
		end := len(m.heap) - 1
		m.heap[0] = m.heap[end]
		m.heap = m.heap[:end]
	}
	m.down(0)
	return nil
}

func (m *merge) down(i int) {
	for {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(m.heap); child++ {
			if compareLines(&m.heap[child].line, &m.heap[least].line) < 0 {
				least = child
			}
		}
		if least == i {
			return
		}
		m.heap[i], m.heap[least] = m.heap[least], m.heap[i]
		i = least
	}
}
