package spool

import (
	"encoding/binary"
	"fmt"

	"github.com/trueup/trueup/internal/file"
)

// blockKey names one block of bodies.
type blockKey struct{ page, off uint32 }

// Snapshot is what ImageKit said of the file; every call gives its own. It is an error
// to ask for an unreadable one.
func (s *Spool) Snapshot(e Entry) (*file.Snapshot, error) {
	snapshot, err := s.snapshot(e)
	if err != nil {
		return nil, fmt.Errorf("snapshot of %s from the spool: %w", e.FileID, err)
	}
	return snapshot, nil
}

func (s *Spool) snapshot(e Entry) (*file.Snapshot, error) {
	if e.Unreadable {
		return nil, fmt.Errorf("it was listed on page %d and could not be read", e.Page)
	}
	raw, err := s.block(e)
	if err != nil {
		return nil, err
	}
	if int64(e.at) >= int64(len(raw)) {
		return nil, errBody
	}
	return readBody(raw[e.at:], e.FileID)
}

// block is the unpacked block that holds e's body. Files that sort together were mostly
// listed together, so the last few are kept.
func (s *Spool) block(e Entry) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	if e.Page < 1 || e.Page > int64(len(s.pages)) {
		return nil, fmt.Errorf("there is no page %d", e.Page)
	}
	key := blockKey{uint32(e.Page), e.block} //nolint:gosec // just measured
	if raw, ok := s.blocks.Get(key); ok {
		return raw, nil
	}
	raw, err := s.readBlock(&s.pages[e.Page-1], e.block)
	if err != nil {
		return nil, err
	}
	if len(raw) <= 2*blockSize { // a giant would hold the memory of many
		s.blocks.Add(key, raw)
	}
	return raw, nil
}

func (s *Spool) readBlock(p *place, off uint32) ([]byte, error) {
	if uint64(off)+blockHead > uint64(p.head.bodies) {
		return nil, errBlock
	}
	f := s.segments[p.segment].f
	at := p.off + p.head.size() - int64(p.head.bodies) + int64(off)
	head := make([]byte, blockHead)
	if err := readAt(f, head, at); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint32(head)
	if uint64(off)+blockHead+uint64(n) > uint64(p.head.bodies) {
		return nil, errBlock
	}
	packed := make([]byte, n)
	if err := readAt(f, packed, at+blockHead); err != nil {
		return nil, err
	}
	return unpack(s.unpacker, head, packed)
}
