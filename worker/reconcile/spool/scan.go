package spool

import (
	"errors"
	"fmt"
	"io"
)

// found is a page that stands in a file of pages, checked.
type found struct {
	head
	PageInfo
	off int64 // of its record
}

// scanner reads a file of pages from its front and believes nothing.
type scanner struct {
	f    io.ReaderAt
	size int64
	id   string

	off  int64  // of the next record
	prev uint32 // the checksum it must name
	last int64  // the number of the page before

	meta, lines, chunk []byte
}

// errTorn: the file ends within a record. At the very end of a spool this is what a
// process leaves that was killed while it wrote.
var errTorn = errors.New("it ends in the middle of a page")

// next is the next page, every byte of it checked; io.EOF means that the file ends
// where a page does. Any other error but errTorn is damage.
func (s *scanner) next(each func(*line) error) (found, error) {
	if s.off == s.size {
		return found{}, io.EOF
	}
	p := found{off: s.off}
	var err error
	if p.head, err = s.head(); err != nil {
		return found{}, err
	}
	if err := s.sections(&p); err != nil {
		return found{}, err
	}
	if err := eachLine(s.lines, p.Files, uint32(p.Number), each); err != nil { //nolint:gosec // one more than the last
		return found{}, err
	}
	s.off, s.prev, s.last = s.off+p.size(), p.crc, p.Number
	return p, nil
}

func (s *scanner) head() (head, error) {
	if s.size-s.off < headSize {
		return head{}, errTorn
	}
	b := make([]byte, headSize)
	if err := readAt(s.f, b, s.off); err != nil {
		return head{}, err
	}
	h, ok := readHead(b)
	switch {
	case !ok:
		return head{}, errors.New("its head does not check")
	case h.meta > maxMeta || h.lines > maxLines || h.bodies > maxBodies:
		return head{}, errors.New("it is impossibly long")
	case h.size() > s.size-s.off:
		return head{}, errTorn
	}
	return h, nil
}

// sections checks what follows the head, and keeps meta and lines.
func (s *scanner) sections(p *found) (err error) {
	at := p.off + headSize
	if s.meta, err = section(s.f, s.meta, at, p.meta, p.metaCRC); err != nil {
		return err
	}
	at += int64(p.meta)
	if s.lines, err = section(s.f, s.lines, at, p.lines, p.linesCRC); err != nil {
		return err
	}
	if err := s.check(at+int64(p.lines), int64(p.bodies), p.bodiesCRC); err != nil {
		return err
	}
	id, info, ok := readMeta(s.meta)
	switch {
	case !ok:
		return errors.New("its number and cursor do not read")
	case id != s.id:
		return fmt.Errorf("it belongs to another listing (%.40q)", id)
	case info.Number != s.last+1:
		return fmt.Errorf("it calls itself page %d", info.Number)
	case p.prev != s.prev:
		return errors.New("it does not follow the page before")
	}
	p.PageInfo = info
	return nil
}

var errSum = errors.New("its checksum does not agree")

// section reads n bytes into buf's memory and checks them.
func section(f io.ReaderAt, buf []byte, off int64, n, crc uint32) ([]byte, error) {
	buf = sized(buf, int(n))
	if err := readAt(f, buf, off); err != nil {
		return buf, err
	}
	if checksum(buf) != crc {
		return buf, errSum
	}
	return buf, nil
}

// check checks bytes that need not be kept.
func (s *scanner) check(off, n int64, crc uint32) error {
	s.chunk = sized(s.chunk, int(min(max(n, 1), 256<<10)))
	sum := newSum()
	if _, err := io.CopyBuffer(struct{ io.Writer }{sum}, struct{ io.Reader }{io.NewSectionReader(s.f, off, n)}, s.chunk); err != nil {
		return err
	}
	if sum.Sum32() != crc {
		return errSum
	}
	return nil
}

// eachLine takes the lines of a page apart; an error of each ends it and comes back.
func eachLine(b []byte, files int64, page uint32, each func(*line) error) (err error) {
	var l line
	for ; len(b) > 0 && files > 0; files-- {
		if b, err = l.read(b); err != nil {
			return err
		}
		if l.page != page {
			return errLine
		}
		if err := each(&l); err != nil {
			return err
		}
	}
	if len(b) > 0 || files != 0 {
		return errLine
	}
	return nil
}

// sized is b with n bytes, in its old memory where that is large enough.
func sized(b []byte, n int) []byte {
	if cap(b) < n {
		return make([]byte, n)
	}
	return b[:n]
}

func readAt(f io.ReaderAt, b []byte, off int64) error {
	n, err := f.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
