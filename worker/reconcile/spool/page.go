package spool

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"time"

	"github.com/trueup/trueup/internal/file"
)

// Page is one answer of the listing.
type Page struct {
	// Number counts from 1, without a gap.
	Number int64
	// Fence was drawn before the page was asked for.
	Fence int64
	// RequestID is ImageKit's, for the ledger; it may be empty.
	RequestID string
	// Cursor is what the walk needs to go on after this page. The spool only keeps it.
	Cursor json.RawMessage
	Lines  []Line
}

// Line is one file of a page.
type Line struct {
	FileID    string
	UpdatedAt time.Time
	Hash      int64 // of the row that this snapshot would make
	// Ticketed: the snapshot carries what looks like an ownership ticket.
	Ticketed bool
	// Unreadable: ImageKit lists the file in a form that cannot be believed.
	Unreadable bool
	// Snapshot is nil exactly when the line is unreadable.
	Snapshot *file.Snapshot
}

// PageInfo is a page without its lines.
type PageInfo struct {
	Number    int64
	Fence     int64
	RequestID string
	Cursor    json.RawMessage
	// Files is how many lines the page has.
	Files int64
}

// The head of a record. Lengths come before checksums, and the head's own checksum
// comes last: it covers all others and the one of the record before, which makes the
// chain.
const (
	magic    = 0x31707374 // "tsp1"
	headSize = 36
)

type head struct {
	meta, lines, bodies          uint32 // lengths
	metaCRC, linesCRC, bodiesCRC uint32
	prev                         uint32 // crc of the head before; of the spool's id for the first
	crc                          uint32
}

func (h *head) put(b []byte) {
	for i, v := range [...]uint32{magic, h.meta, h.lines, h.bodies, h.metaCRC, h.linesCRC, h.bodiesCRC, h.prev} {
		binary.LittleEndian.PutUint32(b[4*i:], v)
	}
	h.crc = checksum(b[:headSize-4])
	binary.LittleEndian.PutUint32(b[headSize-4:], h.crc)
}

// readHead is false for bytes that are no head.
func readHead(b []byte) (head, bool) {
	var v [headSize / 4]uint32
	for i := range v {
		v[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
	h := head{v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8]}
	return h, v[0] == magic && h.crc == checksum(b[:headSize-4])
}

// size is how long the whole record is.
func (h *head) size() int64 { return headSize + int64(h.meta) + int64(h.lines) + int64(h.bodies) }

func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

func newSum() hash.Hash32 { return crc32.New(crc32.MakeTable(crc32.Castagnoli)) }

// Limits that no answer of ImageKit comes near; lengths read from disk are measured
// against them, and against the file, before anything is allocated.
const (
	maxMeta   = 1 << 20
	maxLines  = 64 << 20
	maxBodies = 1 << 30
)

// recorder turns pages into records; it keeps its buffers from one to the next.
type recorder struct {
	record, lines []byte
	bodies        packer
}

// page is the record of p. The bytes are good until the next call.
func (r *recorder) page(id string, prev uint32, p *Page) ([]byte, head, error) {
	if err := r.fill(p); err != nil {
		return nil, head{}, err
	}
	rec := append(r.record[:0], make([]byte, headSize)...)
	rec = appendMeta(rec, id, p)
	h := head{prev: prev, meta: uint32(len(rec) - headSize), lines: uint32(len(r.lines)), bodies: uint32(len(r.bodies.out))} //nolint:gosec // fill has measured them
	h.metaCRC, h.linesCRC, h.bodiesCRC = checksum(rec[headSize:]), checksum(r.lines), checksum(r.bodies.out)
	if h.meta > maxMeta {
		return nil, head{}, fmt.Errorf("a cursor of %d bytes is too long", len(p.Cursor))
	}
	rec = append(append(rec, r.lines...), r.bodies.out...)
	h.put(rec)
	r.record = rec
	return rec, h, nil
}

// fill encodes lines and bodies.
func (r *recorder) fill(p *Page) error {
	r.lines = r.lines[:0]
	r.bodies.reset()
	var prev line
	for i := range p.Lines {
		l, err := r.line(uint32(p.Number), &p.Lines[i]) //nolint:gosec // Append has measured it
		if err != nil {
			return fmt.Errorf("file %q: %w", p.Lines[i].FileID, err)
		}
		r.lines = appendLine(r.lines, &prev, &l)
		prev = l
	}
	r.bodies.flush()
	if r.bodies.large || len(r.lines) > maxLines || len(r.bodies.out) > maxBodies {
		return errors.New("the page is too large")
	}
	return nil
}

// line encodes one line's body and says what the line is.
func (r *recorder) line(page uint32, in *Line) (line, error) {
	l := line{page: page, updated: in.UpdatedAt.UnixMicro(), hash: in.Hash}
	switch {
	case !file.ValidID(in.FileID):
		return l, errors.New("not an id")
	case in.Unreadable != (in.Snapshot == nil):
		return l, errors.New("a line has a snapshot or is unreadable")
	case in.Snapshot != nil && in.Snapshot.ID != in.FileID:
		return l, fmt.Errorf("the snapshot is of file %q", in.Snapshot.ID)
	}
	l.n = uint8(copy(l.id[:], in.FileID)) //nolint:gosec // at most 64
	if in.Ticketed {
		l.flags |= ticketed
	}
	if in.Unreadable {
		l.flags |= unreadable
		return l, nil
	}
	l.block, l.at = r.bodies.add(in.Snapshot)
	return l, nil
}

func appendMeta(b []byte, id string, p *Page) []byte {
	b = appendText(b, id)
	b = binary.AppendVarint(b, p.Number)
	b = binary.AppendVarint(b, p.Fence)
	b = binary.AppendUvarint(b, uint64(len(p.Lines)))
	b = appendText(b, p.RequestID)
	return appendOptional(b, p.Cursor, p.Cursor != nil)
}

func readMeta(b []byte) (id string, p PageInfo, ok bool) {
	r := reader{b: b}
	id = r.text()
	p.Number, p.Fence = r.varint(), r.varint()
	p.Files = int64(r.uvarint()) //nolint:gosec // counted afterwards
	p.RequestID = r.text()
	if c, some := r.optional(); some {
		p.Cursor = append(json.RawMessage{}, c...)
	}
	return id, p, r.done()
}
