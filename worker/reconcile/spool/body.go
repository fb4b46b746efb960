package spool

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/trueup/trueup/internal/file"
)

// blockSize is how much of bodies is compressed together. A block may be longer by its
// last body.
const (
	blockSize = 64 << 10
	blockHead = 12 // length compressed, length, checksum of what is compressed
	maxBlock  = 256 << 20
)

// packer packs bodies into blocks, and takes blocks apart again. Of what was tried on
// 100,000 snapshots of 388 bytes, zstd's fastest level left 72 in 1.4 µs, s2 102 in 0.8.
type packer struct {
	encoder  *zstd.Encoder
	raw, out []byte
	large    bool // a block is too long to be read again
}

func newPacker() (packer, error) {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false),
		zstd.WithWindowSize(2*blockSize), zstd.WithLowerEncoderMem(true))
	return packer{encoder: e}, err
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
	p.out = p.encoder.EncodeAll(p.raw, append(p.out, make([]byte, blockHead)...))
	head, packed := p.out[from:], p.out[from+blockHead:]
	binary.LittleEndian.PutUint32(head, uint32(len(packed)))    //nolint:gosec // fill measures it
	binary.LittleEndian.PutUint32(head[4:], uint32(len(p.raw))) //nolint:gosec // fill measures it
	binary.LittleEndian.PutUint32(head[8:], checksum(packed))
	p.raw = p.raw[:0]
}

var errBlock = errors.New("a block of snapshots does not read")

func newUnpacker() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(maxBlock))
}

// unpack is the block behind a head.
func unpack(d *zstd.Decoder, head, packed []byte) ([]byte, error) {
	n := binary.LittleEndian.Uint32(head[4:])
	if checksum(packed) != binary.LittleEndian.Uint32(head[8:]) || n > maxBlock {
		return nil, errBlock
	}
	raw, err := d.DecodeAll(packed, nil)
	if err != nil || len(raw) != int(n) {
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
