package envelope

import (
	"bytes"
	"encoding/binary"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/testenv/seed"
)

// FuzzDecode holds that an envelope has one reading: what was read is written
// and read again as the same, and neither a part of it nor more than it is an envelope.
func FuzzDecode(f *testing.F) {
	for _, s := range seed.Files(f, "testdata/*.hex", 2) {
		f.Add(vector(f, strings.TrimSuffix(s.Name, filepath.Ext(s.Name))))
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		env, err := Decode(wire)
		if err != nil {
			if len(env.Events) > 0 || env.ID != "" {
				t.Fatalf("half an envelope beside %v: %+v", err, env)
			}
			return
		}
		if len(env.Events) > maxInBinary || len(env.ID) > maxIDBytes {
			t.Fatalf("%d events, an id of %d bytes", len(env.Events), len(env.ID))
		}
		for _, e := range env.Events {
			if !bytes.Contains(wire, e.Body) || cap(e.Body) != len(e.Body) {
				t.Fatalf("a body that is no part of the wire, or reaches into what follows: %q", e.Body)
			}
			if e.AcceptedAt.Location() != time.UTC || !utf8.ValidString(e.FileID+e.User+e.Kind+e.ID) {
				t.Fatalf("%+v", e)
			}
		}
		for _, other := range [][]byte{wire[:len(wire)-1], append(bytes.Clone(wire), 0)} {
			if env, err := Decode(other); err == nil {
				t.Fatalf("a byte more or less is an envelope too: %+v", env)
			}
		}
		again, err := Encode(&env)
		if err != nil {
			t.Skip("more than we would write") // a reader takes longer headers than ours
		}
		env2, err := Decode(again)
		if err != nil || !reflect.DeepEqual(env, env2) {
			t.Errorf("read %+v\nthen %+v (%v)", env, env2, err)
		}
	})
}

// FuzzEncode holds that whatever an event holds comes back as it was.
func FuzzEncode(f *testing.F) {
	f.Add("01JZ", "client", "report", "f", "user", "h", "v", int64(1), []byte("{}"))
	f.Add("", "", "\u2028<", "", "\"\\", "", "", int64(-1<<60), []byte{0, 0xff})
	f.Fuzz(func(t *testing.T, id, source, kind, fileID, user, name, value string, at int64, body []byte) {
		for _, s := range []string{id, source, kind, fileID, user, name, value} {
			if !utf8.ValidString(s) {
				return // text loses bad bytes; only bodies keep theirs
			}
		}
		if len(body) == 0 {
			body = nil
		}
		e := event.Event{
			ID: id, Source: event.Source(source), Kind: kind, FileID: fileID, User: user,
			AcceptedAt: time.UnixMicro(at).UTC(), Headers: map[string]string{name: value}, Body: body,
		}
		want := event.Envelope{ID: "e", Events: []event.Event{e, e}}
		wire, err := Encode(&want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(wire)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v (%v)\nwant %+v", got, err, want)
		}
	})
}

// TestDecodeIsFrugal: no number inside an envelope makes its reader allocate more than
// the envelope's own size warrants.
func TestDecodeIsFrugal(t *testing.T) {
	try := func(name string, wire []byte) {
		seed.Frugal(t, name, len(wire), func() { _, _ = Decode(wire) })
	}
	for _, s := range seed.Files(t, "testdata/*.hex", 2) {
		try(s.Name, vector(t, strings.TrimSuffix(s.Name, ".hex")))
	}
	for name, args := range seed.Kept(t, "FuzzDecode", 10) {
		try(name, []byte(args[0]))
	}
	head := func(events int) []byte { return AppendPreamble(nil, "e", events) }
	try("many events said, none there", head(maxInBinary))
	try("a length beyond everything", binary.AppendUvarint(head(1), 1<<62))
	most := append(head(maxInBinary), make([]byte, 2*maxInBinary)...)
	seed.Within(t, "as many events of two bytes as there may be", 1<<20, func() { _, _ = Decode(most) })
	large := head(1)
	large = appendBytes(large, []byte(`{"i":"a","s":"client","a":1}`))
	try("one large body", appendBytes(large, make([]byte, 1<<20)))
	var names bytes.Buffer
	names.WriteString(`{"i":"a","h":{`)
	for names.Len() < maxHeader-100 {
		names.WriteString(`"` + string(rune('a'+names.Len()%26)) + strings.Repeat("x", names.Len()%50) + `":"",`)
	}
	names.WriteString(`"z":""}}`)
	try("one large header", appendBytes(appendBytes(head(1), names.Bytes()), nil))
}
