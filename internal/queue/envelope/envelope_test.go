package envelope

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/event"
)

func full() event.Event {
	return event.Event{
		ID: "01JZ0000000000000000000000", Source: event.Replay, Origin: event.Webhook, Kind: event.KindDeleted,
		FileID: "6543f_-", User: "user <&> \u2028 ü", AcceptedAt: time.UnixMicro(1_790_000_000_123_456).UTC(),
		UpdatedAt: time.UnixMicro(0).UTC(), WebhookID: "wh_1", DeadLetter: "01JZ0000000000000000000001",
		Headers: map[string]string{"user-agent": "x", "x-empty": ""}, Body: []byte("{}\n\x00\xff"),
	}
}

func ev(id string) event.Event {
	return event.Event{
		ID: id, Source: event.Client, Origin: event.Client, Kind: event.KindReport, FileID: "f_" + id, User: "user_123",
		AcceptedAt: time.UnixMicro(1_790_000_000_123_456).UTC(), Body: []byte(`{"fileId":"f_` + id + `"}`),
	}
}

func TestRoundTrip(t *testing.T) {
	many := event.Envelope{ID: "e"}
	for i := range 256 {
		many.Events = append(many.Events, ev(fmt.Sprint(i)))
	}
	for name, want := range map[string]event.Envelope{
		"Everything":        {ID: "01JZ0000000000000000000002", Events: []event.Event{full()}},
		"NothingBesideAnID": {ID: "e", Events: []event.Event{{ID: "a", AcceptedAt: time.UnixMicro(0).UTC()}}},
		"NoEvents":          {ID: "e", Events: []event.Event{}},
		"ALargeBody":        {ID: "e", Events: []event.Event{{AcceptedAt: time.UnixMicro(1).UTC(), Body: bytes.Repeat([]byte{0xfe}, 1<<20)}}},
		"AFullEnvelope":     many,
	} {
		t.Run(name, func(t *testing.T) {
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
}

// TestVectors keeps the wire as it is: envelopes that an earlier version
// stored are read for ever. The files hold hex, with comments.
func TestVectors(t *testing.T) {
	const version1, future = "version1", "version1-unknown-fields"
	for _, name := range []string{version1, future} {
		env, err := Decode(vector(t, name))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want := event.Envelope{ID: "01JZ0000000000000000000002", Events: []event.Event{full()}}
		if !reflect.DeepEqual(env, want) {
			t.Errorf("%s: got %+v\nwant %+v", name, env, want)
		}
		wire, err := Encode(&want)
		if err != nil {
			t.Fatal(err)
		}
		if name == version1 && !bytes.Equal(wire, vector(t, version1)) {
			t.Errorf("what is written has changed; now it is\n%x", wire)
		}
	}
}

func vector(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".hex"))
	if err != nil {
		t.Fatal(err)
	}
	var digits strings.Builder
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		digits.WriteString(strings.Join(strings.Fields(line), ""))
	}
	out, err := hex.DecodeString(digits.String())
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestRefusesToRead(t *testing.T) {
	good, err := Encode(&event.Envelope{ID: "e", Events: []event.Event{ev("a"), ev("b")}})
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		wire []byte
		want error // nil: any
	}{
		"Nothing":             {nil, errNotEnvelope},
		"SomethingElse":       {[]byte(`{"fileId":"x"}`), errNotEnvelope},
		"ALaterVersion":       {[]byte("tru\x02..."), ErrVersion},
		"OnlyTheMagic":        {[]byte(wireMagic), errCut},
		"CutInTheLastBody":    {good[:len(good)-1], errCut},
		"MoreThanItSays":      {append(bytes.Clone(good), 0), nil},
		"TooManyEvents":       {append([]byte(wireMagic), 1, 'e', 0xff, 0xff, 0x7f), nil},
		"ALengthBeyondTheEnd": {append([]byte(wireMagic), 1, 'e', 1, 0xff, 0x01), errCut},
		"AHugeLength":         {append([]byte(wireMagic), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01), nil},
		"AHeaderNotJSON":      {append([]byte(wireMagic), 1, 'e', 1, 1, '{', 0), nil},
	} {
		t.Run(name, func(t *testing.T) {
			env, err := Decode(tt.wire)
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("got %+v, %v", env, err)
			}
		})
	}
	t.Run("AnyPrefixOfAGoodOne", func(t *testing.T) {
		for n := range good {
			if _, err := Decode(good[:n]); err == nil {
				t.Errorf("%d of %d bytes were read as an envelope", n, len(good))
			}
		}
	})
}
