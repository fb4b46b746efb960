package spool

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/file"
)

// filledBy sets every field of a snapshot by reflection: one that is added to it and
// forgotten here comes back empty.
func filledBy(t *testing.T, r *rand.Rand) *file.Snapshot {
	t.Helper()
	s := &file.Snapshot{}
	v := reflect.ValueOf(s).Elem()
	for i := range v.NumField() {
		fill(t, r, v.Field(i))
	}
	return s
}

func fill(t *testing.T, r *rand.Rand, v reflect.Value) {
	t.Helper()
	switch p := v.Addr().Interface().(type) {
	case *time.Time:
		*p = []time.Time{{}, base, time.Unix(r.Int64N(1<<40)-1<<39, r.Int64N(1e9)).UTC(), time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC)}[r.IntN(4)]
		return
	case *json.RawMessage:
		*p = []json.RawMessage{nil, {}, json.RawMessage(`{"a": [1, "ü"]}`), json.RawMessage("not json\x00")}[r.IntN(4)]
		return
	case *[]string:
		*p = [][]string{nil, {}, {""}, {"a", "b,c", "\xff"}}[r.IntN(4)]
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if r.IntN(3) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(t, r, v.Elem())
		}
	case reflect.String:
		v.SetString([]string{"", "x", "häuser/ü\x00", strings.Repeat("long", r.IntN(5000))}[r.IntN(4)])
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Int64:
		v.SetInt([]int64{0, -1, math.MaxInt64, math.MinInt64, r.Int64()}[r.IntN(5)])
	case reflect.Int32:
		v.SetInt([]int64{0, -1, math.MaxInt32, math.MinInt32}[r.IntN(4)])
	default:
		t.Fatalf("the spool does not know fields of type %s", v.Type())
	}
}

func TestSnapshotsComeBackExactly(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3)) //nolint:gosec // the same every time
	for n := range 20_000 {
		in := filledBy(t, r)
		b := appendBody(nil, in)
		out, err := readBody(append(b, "what follows"...), in.ID)
		if err != nil {
			t.Fatalf("%d: %v", n, err)
		}
		if !reflect.DeepEqual(in, out) {
			t.Fatalf("%d:\n got %+v\nwant %+v", n, out, in)
		}
	}
}

func TestBodiesThatEndEarly(t *testing.T) {
	in := snapshot("a", base)
	in.Tickets = []string{"t1", "t2"}
	b := appendBody(nil, in)
	for n := range b {
		if _, err := readBody(b[:n], "a"); err == nil {
			t.Errorf("cut at byte %d of %d: it reads", n, len(b))
		}
	}
}

func TestBlocks(t *testing.T) {
	t.Run("AreOfOnePageOnly", func(t *testing.T) {
		s := open(t, t.TempDir())
		all := pages(3, 400) // several blocks a page
		appended(t, s, all...)
		check(t, s, all)
	})
	t.Run("TakeAGiant", func(t *testing.T) {
		s := open(t, t.TempDir())
		giant := seen("b", 2)
		giant.Snapshot.CustomMetadata = []byte(`{"a":"` + strings.Repeat("0123456789", 500_000) + `"}`)
		all := []Page{page(1, seen("a", 1), giant, seen("c", 3))}
		appended(t, s, all...)
		check(t, s, all)
		if s.blocks.Len() != 1 {
			t.Errorf("%d blocks are kept; a giant must not be", s.blocks.Len())
		}
	})
	t.Run("GiveEveryCallerItsOwn", func(t *testing.T) {
		s := open(t, t.TempDir())
		appended(t, s, page(1, seen("a", 1)))
		e, _, err := sortOf(t, t.Context(), s).Find("a")
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			got, err := s.Snapshot(e)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, seen("a", 1).Snapshot) {
				t.Errorf("got %+v", got)
			}
			got.CustomMetadata[0], got.Tags[0], *got.Name = 'x', "x", "x"
		}
	})
}

func TestSnapshotRefuses(t *testing.T) {
	s := open(t, t.TempDir())
	appended(t, s, page(1, garbled("a"), seen("b", 1)))
	good, _, err := sortOf(t, t.Context(), s).Find("b")
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Entry){
		"Unreadable":     func(e *Entry) { e.Unreadable = true },
		"PageZero":       func(e *Entry) { e.Page = 0 },
		"NoSuchPage":     func(e *Entry) { e.Page = 2 },
		"NoSuchBlock":    func(e *Entry) { e.block = 1 << 30 },
		"NotABlock":      func(e *Entry) { e.block = 1 },
		"BehindTheBlock": func(e *Entry) { e.at = 1 << 30 },
	} {
		t.Run(name, func(t *testing.T) {
			e := good
			change(&e)
			if got, err := s.Snapshot(e); err == nil {
				t.Errorf("got %+v", got)
			}
		})
	}
	closed(t, s)
	if _, err := s.Snapshot(good); err == nil {
		t.Error("a closed spool gives a snapshot")
	}
}
