package store

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// TestQuickArraysWriteWhatPgxWrites holds both to the same bytes, with NULL arrays, NULL
// elements and empty arrays among them.
func TestQuickArraysWriteWhatPgxWrites(t *testing.T) {
	theirs, ours := pgtype.NewMap(), pgtype.NewMap()
	quickArrays(ours)
	same := func(oid uint32, value any) {
		t.Helper()
		switch ours.PlanEncode(oid, pgtype.BinaryFormatCode, value).(type) {
		case plain[string], nullable[string], plain[bool], nullable[bool], nullable[int32], nullable[int64], nullable[time.Time]:
		default:
			t.Fatalf("%T is left to pgx", value)
		}
		before := []byte("before")
		want, err := theirs.Encode(oid, pgtype.BinaryFormatCode, value, before)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ours.Encode(oid, pgtype.BinaryFormatCode, value, before)
		if err != nil || (got == nil) != (want == nil) || !bytes.Equal(got, want) {
			t.Fatalf("%v\ngot  %x (%v)\nwant %x", value, got, err, want)
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	text := func() string { return strings.Repeat("ü\x00'\"", r.IntN(4)) + fmt.Sprint(r.Uint32()) }
	moment := func() time.Time { return time.Unix(r.Int64N(1<<35)-1<<34, r.Int64N(1e9)) }
	for range 2000 {
		same(pgtype.TextArrayOID, some(r, text))
		same(pgtype.TextArrayOID, some(r, orNil(r, text)))
		same(pgtype.BoolArrayOID, some(r, func() bool { return r.IntN(2) == 0 }))
		same(pgtype.BoolArrayOID, some(r, orNil(r, func() bool { return r.IntN(2) == 0 })))
		same(pgtype.Int4ArrayOID, some(r, orNil(r, func() int32 { return int32(r.Uint32()) })))
		same(pgtype.Int8ArrayOID, some(r, orNil(r, func() int64 { return int64(r.Uint64()) })))
		same(pgtype.TimestamptzArrayOID, some(r, orNil(r, moment)))
	}
}

// some are up to five values, or nil.
func some[T any](r *rand.Rand, draw func() T) []T {
	n := r.IntN(7) - 1
	if n < 0 {
		return nil
	}
	out := make([]T, n)
	for i := range out {
		out[i] = draw()
	}
	return out
}

func orNil[T any](r *rand.Rand, draw func() T) func() *T {
	return func() *T {
		if r.IntN(3) == 0 {
			return nil
		}
		return ptr(draw())
	}
}

// TestOtherArraysAreLeftToPgx: whatever else a slice may be is its affair.
func TestOtherArraysAreLeftToPgx(t *testing.T) {
	m := pgtype.NewMap()
	quickArrays(m)
	for _, c := range []struct {
		oid   uint32
		value any
		want  string
	}{
		{pgtype.Int8ArrayOID, []int64{1, math.MaxInt64}, "{1,9223372036854775807}"},
		{pgtype.Int4ArrayOID, []*int64{new(int64)}, "{0}"},
		{pgtype.TextArrayOID, [][]string{{"a"}, {"b"}}, "{{a},{b}}"},
		{pgtype.TextArrayOID, []string{"a", "b c"}, `{a,"b c"}`},
	} {
		if _, err := m.Encode(c.oid, pgtype.BinaryFormatCode, c.value, nil); err != nil {
			t.Errorf("%T: %v", c.value, err)
		}
		if got, err := m.Encode(c.oid, pgtype.TextFormatCode, c.value, nil); err != nil || string(got) != c.want {
			t.Errorf("%T: got %s (%v), want %s", c.value, got, err, c.want)
		}
	}
	if got, err := m.Encode(pgtype.TimestamptzArrayOID, pgtype.BinaryFormatCode, []string{"no time"}, nil); err == nil {
		t.Errorf("texts as times: %x", got)
	}
}

func BenchmarkEncodeTexts(b *testing.B) {
	value := make([]*string, 500)
	for i := range value {
		value[i] = ptr(fmt.Sprintf("https://ik.imagekit.io/demo/%06d.png", i))
	}
	for _, name := range []string{"pgx", "quick"} {
		b.Run(name, func(b *testing.B) {
			m, buf := pgtype.NewMap(), make([]byte, 0, 1<<16)
			if name == "quick" {
				quickArrays(m)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := m.Encode(pgtype.TextArrayOID, pgtype.BinaryFormatCode, value, buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
