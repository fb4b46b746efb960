package spool

import (
	"encoding/binary"
	"math"
	"time"
)

// reader takes values off the front of b. After the first that is not there it is bad
// and gives zeroes, so that whoever reads asks once, at the end.
type reader struct {
	b   []byte
	bad bool
}

// done reports that everything was read and nothing is left.
func (r *reader) done() bool { return !r.bad && len(r.b) == 0 }

func (r *reader) take(n uint64) []byte {
	if r.bad || n > uint64(len(r.b)) {
		r.bad = true
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) byte() byte {
	if v := r.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	r.skip(n)
	if r.bad {
		return 0
	}
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	r.skip(n)
	if r.bad {
		return 0
	}
	return v
}

// skip goes past a number of n bytes; package binary says with n <= 0 that there is none.
func (r *reader) skip(n int) {
	if n <= 0 || r.bad {
		r.bad = true
		return
	}
	r.b = r.b[n:]
}

func (r *reader) uint32() uint32 {
	v := r.uvarint()
	if v > math.MaxUint32 {
		r.bad = true
		return 0
	}
	return uint32(v)
}

func (r *reader) text() string { return string(r.take(r.uvarint())) }

// optional is what appendOptional wrote; the bytes are the reader's own.
func (r *reader) optional() ([]byte, bool) {
	n := r.uvarint()
	if n == 0 {
		return nil, false
	}
	return r.take(n - 1), true
}

func (r *reader) pointer() *string {
	v, ok := r.optional()
	if !ok {
		return nil
	}
	s := string(v)
	return &s
}

func readNumber[T int32 | int64](r *reader) *T {
	if r.byte() == 0 {
		return nil
	}
	v := r.varint()
	n := T(v)
	if int64(n) != v {
		r.bad = true
	}
	return &n
}

func (r *reader) texts() []string {
	n := r.uvarint()
	if n == 0 || n-1 > uint64(len(r.b)) { // each takes a byte at least
		r.bad = r.bad || n != 0
		return nil
	}
	v := make([]string, 0, n-1)
	for range n - 1 {
		v = append(v, r.text())
	}
	return v
}

func (r *reader) time() time.Time {
	sec, nsec := r.varint(), r.uvarint()
	if nsec >= uint64(time.Second) {
		r.bad = true
		return time.Time{}
	}
	return time.Unix(sec, int64(nsec)).UTC()
}
