package spool

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"time"

	"github.com/klauspost/compress/s2"

	"github.com/trueup/trueup/internal/file"
)

// blockSize is how much of bodies is compressed together. A block may be longer by its
// last body.
const (
	blockSize = 64 << 10
	blockHead = 12 // length compressed, length, checksum of what is compressed
	maxBlock  = 256 << 20
)

// packer packs bodies into blocks.
type packer struct {
	raw, out []byte
	large    bool // a block is too long to be read again
}

func (p *packer) reset() { p.raw, p.out, p.large = p.raw[:0], p.out[:0], false }

// add appends a body and says where it will stand: the offset of its block, and its own
// in there.
func (p *packer) add(s *file.Snapshot) (block, at uint32) {
	if len(p.raw) >= blockSize {
		p.flush()
	}
	block, at = uint32(len(p.out)), uint32(len(p.raw)) //nolint:gosec // fill measures them
	p.raw = appendBody(p.raw, s)
	return block, at
}

func (p *packer) flush() {
	if len(p.raw) == 0 {
		return
	}
	p.large = p.large || len(p.raw) > maxBlock
	from := len(p.out)
	p.out = append(p.out, make([]byte, blockHead+s2.MaxEncodedLen(len(p.raw)))...)
	packed := s2.EncodeBetter(p.out[from+blockHead:], p.raw)
	binary.LittleEndian.PutUint32(p.out[from:], uint32(len(packed)))  //nolint:gosec // fill measures it
	binary.LittleEndian.PutUint32(p.out[from+4:], uint32(len(p.raw))) //nolint:gosec // fill measures it
	binary.LittleEndian.PutUint32(p.out[from+8:], checksum(packed))
	p.out, p.raw = p.out[:from+blockHead+len(packed)], p.raw[:0]
}

var errBlock = errors.New("a block of snapshots does not read")

// unpack is the block behind a head.
func unpack(blockHead, packed []byte) ([]byte, error) {
	want := binary.LittleEndian.Uint32(blockHead[4:])
	if checksum(packed) != binary.LittleEndian.Uint32(blockHead[8:]) || want > maxBlock {
		return nil, errBlock
	}
	if n, err := s2.DecodedLen(packed); err != nil || n != int(want) {
		return nil, errBlock
	}
	raw, err := s2.Decode(nil, packed)
	if err != nil {
		return nil, errBlock
	}
	return raw, nil
}

// appendBody writes a snapshot without its id, every field as it is: nil and empty are
// two things.
func appendBody(b []byte, s *file.Snapshot) []byte {
	b = appendText(b, s.URL)
	for _, p := range [...]*string{s.Name, s.Path, s.Type, s.MIME, s.ThumbnailURL, s.VersionID} {
		b = appendPointer(b, p)
	}
	b = appendNumber(b, s.SizeBytes)
	b = appendNumber(b, s.Width)
	b = appendNumber(b, s.Height)
	b = appendTexts(b, s.Tags)
	b = appendOptional(b, s.CustomMetadata, s.CustomMetadata != nil)
	b = append(b, bit(s.FirstVersion, 1)|bit(s.IsPrivate != nil, 2)|bit(s.IsPrivate != nil && *s.IsPrivate, 4))
	b = appendTime(b, s.CreatedAt)
	b = appendTime(b, s.UpdatedAt)
	return appendTexts(b, s.Tickets)
}

var errBody = errors.New("a snapshot does not read")

// readBody is the snapshot that b begins with.
func readBody(b []byte, id string) (*file.Snapshot, error) {
	r := reader{b: b}
	s := &file.Snapshot{ID: id, URL: r.text()}
	for _, p := range [...]**string{&s.Name, &s.Path, &s.Type, &s.MIME, &s.ThumbnailURL, &s.VersionID} {
		*p = r.pointer()
	}
	s.SizeBytes, s.Width, s.Height = readNumber[int64](&r), readNumber[int32](&r), readNumber[int32](&r)
	s.Tags = r.texts()
	if m, ok := r.optional(); ok {
		s.CustomMetadata = append(json.RawMessage{}, m...)
	}
	flags := r.byte()
	s.FirstVersion = flags&1 != 0
	if flags&2 != 0 {
		private := flags&4 != 0
		s.IsPrivate = &private
	}
	s.CreatedAt, s.UpdatedAt = r.time(), r.time()
	s.Tickets = r.texts()
	if r.bad {
		return nil, errBody
	}
	return s, nil
}

func bit(on bool, b byte) byte {
	if on {
		return b
	}
	return 0
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// appendOptional writes one more than the length: 0 is nil.
func appendOptional(b, v []byte, some bool) []byte {
	if !some {
		return append(b, 0)
	}
	return append(binary.AppendUvarint(b, uint64(len(v))+1), v...)
}

func appendPointer(b []byte, p *string) []byte {
	if p == nil {
		return append(b, 0)
	}
	return append(binary.AppendUvarint(b, uint64(len(*p))+1), *p...)
}

func appendNumber[T int32 | int64](b []byte, p *T) []byte {
	if p == nil {
		return append(b, 0)
	}
	return binary.AppendVarint(append(b, 1), int64(*p))
}

func appendTexts(b []byte, v []string) []byte {
	if v == nil {
		return append(b, 0)
	}
	b = binary.AppendUvarint(b, uint64(len(v))+1)
	for _, s := range v {
		b = appendText(b, s)
	}
	return b
}

// appendTime keeps the instant, zero too, and no zone.
func appendTime(b []byte, t time.Time) []byte {
	return binary.AppendUvarint(binary.AppendVarint(b, t.Unix()), uint64(t.Nanosecond())) //nolint:gosec // never negative
}
