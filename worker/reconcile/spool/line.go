package spool

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"time"

	"github.com/trueup/trueup/internal/file"
)

const (
	ticketed = 1 << iota
	unreadable
)

// line is what the sort knows of a file: no pointers, and nothing of its body but where
// it stands.
type line struct {
	id            [file.MaxIDLength]byte
	n             uint8 // how much of id
	flags         uint8
	page          uint32
	block, at     uint32 // of the body: offset of its block in the page's bodies, and its place in there
	updated, hash int64  // updated in µs
}

var errLine = errors.New("a line does not read")

// appendLine writes l as what differs from the line before. Ids that were listed or
// sorted one after another begin alike.
func appendLine(b []byte, prev, l *line) []byte {
	same := 0
	for same < int(min(prev.n, l.n)) && prev.id[same] == l.id[same] {
		same++
	}
	b = append(b, byte(same), l.n-byte(same), l.flags)
	b = append(b, l.id[same:l.n]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(l.hash)) //nolint:gosec // its bits
	b = binary.AppendVarint(b, l.updated-prev.updated)
	b = binary.AppendVarint(b, int64(l.page)-int64(prev.page))
	b = binary.AppendUvarint(b, uint64(l.block))
	return binary.AppendUvarint(b, uint64(l.at))
}

// read turns l, the line before, into the one that b begins with, and returns the rest
// of b.
func (l *line) read(b []byte) ([]byte, error) {
	if len(b) < 3 {
		return nil, errLine
	}
	same, more, flags := int(b[0]), int(b[1]), b[2]
	if same > int(l.n) || same+more == 0 || same+more > len(l.id) || flags > ticketed|unreadable || len(b) < 3+more+8 {
		return nil, errLine
	}
	l.n, l.flags = uint8(same+more), flags //nolint:gosec // at most 64
	b = b[3+copy(l.id[same:l.n], b[3:]):]
	l.hash = int64(binary.LittleEndian.Uint64(b)) //nolint:gosec // its bits
	r := reader{b: b[8:]}
	l.updated += r.varint()
	l.page = uint32(int64(l.page) + r.varint()) //nolint:gosec // whoever uses it looks
	l.block, l.at = r.uint32(), r.uint32()
	if r.bad {
		return nil, errLine
	}
	return r.b, nil
}

func (l *line) name() []byte { return l.id[:l.n] }

// compareLines puts ids in byte order, and of the same file the line to believe first:
// one that could be read, then the newest, then the one that was listed last.
func compareLines(a, b *line) int {
	if c := bytes.Compare(a.name(), b.name()); c != 0 {
		return c
	}
	return cmp.Or(cmp.Compare(a.flags&unreadable, b.flags&unreadable), cmp.Compare(b.updated, a.updated), cmp.Compare(b.page, a.page),
		cmp.Compare(b.block, a.block), cmp.Compare(b.at, a.at))
}

// entry is l for those outside.
func (l *line) entry() Entry {
	return Entry{
		FileID: string(l.name()), UpdatedAt: time.UnixMicro(l.updated).UTC(), Hash: l.hash,
		Ticketed: l.flags&ticketed != 0, Unreadable: l.flags&unreadable != 0, Page: int64(l.page), block: l.block, at: l.at,
	}
}

// Entry is one file of the sorted listing.
type Entry struct {
	FileID     string
	UpdatedAt  time.Time // to the microsecond
	Hash       int64
	Ticketed   bool
	Unreadable bool
	// Page is the number of the page that it was listed on: Spool.Page has its fence.
	Page int64

	block, at uint32
}
