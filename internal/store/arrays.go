package store

import (
	"encoding/binary"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// quickArrays teaches a connection to write the slices that settlements consist of byte
// for byte as pgx does, but without an interface value for each element: of a file there
// are some sixty, and that took a third of a settlement's time in this process.
func quickArrays(m *pgtype.Map) {
	for array, element := range map[uint32]uint32{
		pgtype.TextArrayOID: pgtype.TextOID, pgtype.BoolArrayOID: pgtype.BoolOID, pgtype.Int4ArrayOID: pgtype.Int4OID,
		pgtype.Int8ArrayOID: pgtype.Int8OID, pgtype.TimestamptzArrayOID: pgtype.TimestamptzOID,
	} {
		a, _ := m.TypeForOID(array)
		e, _ := m.TypeForOID(element)
		m.RegisterType(&pgtype.Type{Name: a.Name, OID: array, Codec: arrayCodec{&pgtype.ArrayCodec{ElementType: e}}})
	}
}

// arrayCodec is pgx's, and quicker for the slices it knows.
type arrayCodec struct{ *pgtype.ArrayCodec }

func (c arrayCodec) PlanEncode(m *pgtype.Map, oid uint32, format int16, value any) pgtype.EncodePlan {
	if format == pgtype.BinaryFormatCode {
		switch c.ElementType.OID {
		case pgtype.TextOID:
			switch value.(type) {
			case []string:
				return plain[string]{pgtype.TextOID, appendText}
			case []*string:
				return nullable[string]{pgtype.TextOID, appendText}
			}
		case pgtype.BoolOID:
			switch value.(type) {
			case []bool:
				return plain[bool]{pgtype.BoolOID, appendBool}
			case []*bool:
				return nullable[bool]{pgtype.BoolOID, appendBool}
			}
		case pgtype.Int4OID:
			if _, ok := value.([]*int32); ok {
				return nullable[int32]{pgtype.Int4OID, appendInt4}
			}
		case pgtype.Int8OID:
			if _, ok := value.([]*int64); ok {
				return nullable[int64]{pgtype.Int8OID, appendInt8}
			}
		case pgtype.TimestamptzOID:
			if _, ok := value.([]*time.Time); ok {
				return nullable[time.Time]{pgtype.TimestamptzOID, appendTimestamptz}
			}
		}
	}
	return c.ArrayCodec.PlanEncode(m, oid, format, value)
}

// plain and nullable are plans for a slice of values and of pointers to them; add appends
// one element without its length.
type (
	plain[T any] struct {
		element uint32
		add     func([]byte, T) []byte
	}
	nullable[T any] struct {
		element uint32
		add     func([]byte, T) []byte
	}
)

func (p plain[T]) Encode(value any, buf []byte) ([]byte, error) {
	list := value.([]T) //nolint:forcetypeassert // the plan was made for this type
	if list == nil {
		return nil, nil // NULL
	}
	buf = appendArrayHeader(buf, p.element, len(list), false)
	for _, v := range list {
		buf = appendElement(buf, v, p.add)
	}
	return buf, nil
}

func (p nullable[T]) Encode(value any, buf []byte) ([]byte, error) {
	list := value.([]*T) //nolint:forcetypeassert // as above
	if list == nil {
		return nil, nil
	}
	nulls := false
	for _, v := range list {
		nulls = nulls || v == nil
	}
	buf = appendArrayHeader(buf, p.element, len(list), nulls)
	for _, v := range list {
		if v == nil {
			buf = binary.BigEndian.AppendUint32(buf, 1<<32-1) // a length of -1 is NULL
			continue
		}
		buf = appendElement(buf, *v, p.add)
	}
	return buf, nil
}

// appendArrayHeader is of one dimension that counts from 1.
func appendArrayHeader(buf []byte, element uint32, n int, nulls bool) []byte {
	flag := uint32(0)
	if nulls {
		flag = 1
	}
	for _, word := range []uint32{1, flag, element, uint32(n), 1} {
		buf = binary.BigEndian.AppendUint32(buf, word)
	}
	return buf
}

// appendElement appends an element behind its length.
func appendElement[T any](buf []byte, v T, add func([]byte, T) []byte) []byte {
	at := len(buf)
	buf = add(append(buf, 0, 0, 0, 0), v)
	binary.BigEndian.PutUint32(buf[at:], uint32(len(buf)-at-4))
	return buf
}

func appendText(buf []byte, v string) []byte { return append(buf, v...) }

func appendBool(buf []byte, v bool) []byte {
	if v {
		return append(buf, 1)
	}
	return append(buf, 0)
}

func appendInt4(buf []byte, v int32) []byte { return binary.BigEndian.AppendUint32(buf, uint32(v)) }
func appendInt8(buf []byte, v int64) []byte { return binary.BigEndian.AppendUint64(buf, uint64(v)) }

// pgEpoch is where timestamptz counts its microseconds from: 2000-01-01 UTC.
const pgEpoch = 946_684_800 * 1_000_000

func appendTimestamptz(buf []byte, v time.Time) []byte { return appendInt8(buf, v.UnixMicro()-pgEpoch) }
