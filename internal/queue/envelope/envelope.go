// Package envelope writes and reads what stands in the stream: the events of one or more
// calls, as one message. It is apart from the queue because whoever looks at a stream needs
// it without a server.
//
// Its one invariant: an envelope has one reading, in every version that can read it, and no
// part of it, nor more than it, is an envelope. On the wire, version 1:
//
//	"tru" 0x01            magic and version
//	uvarint n, n bytes    envelope id
//	uvarint               number of events
//	per event:
//	  uvarint n, n bytes  everything about it but the body, as JSON
//	  uvarint n, n bytes  the body, byte for byte as received
//
// A reader ignores JSON fields it does not know, so that fields may be added while
// old and new versions run side by side; whatever cannot be read that way needs a
// new version byte. Text that is not UTF-8 loses its bad bytes (U+FFFD), times keep
// microseconds; evidence is the body, and that is kept exactly.
package envelope

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/trueup/trueup/internal/event"
)

const (
	wireMagic   = "tru\x01"
	maxIDBytes  = 64
	maxHeader   = 256 << 10 // of one event's JSON; ours are below 4 KiB
	maxInBinary = 4096      // events a reader accepts: a later version may pack more than queue.MaxEvents
)

var (
	// ErrVersion is an envelope of a version this trueup does not know.
	ErrVersion     = errors.New("envelope of a version this trueup does not know")
	errNotEnvelope = errors.New("not an envelope of trueup")
	errCut         = errors.New("envelope is cut short")
)

// wireEvent is an event without its body. Short names: it is written once per event.
type wireEvent struct {
	ID         string            `json:"i"`
	Source     event.Source      `json:"s"`
	Origin     event.Source      `json:"o,omitempty"`
	Kind       string            `json:"k,omitempty"`
	FileID     string            `json:"f,omitempty"`
	User       string            `json:"u,omitempty"`
	AcceptedAt int64             `json:"a"`
	UpdatedAt  *int64            `json:"t,omitempty"`
	WebhookID  string            `json:"w,omitempty"`
	DeadLetter string            `json:"d,omitempty"`
	Headers    map[string]string `json:"h,omitempty"`
}

// AppendEvent appends one event as it stands inside an envelope; the error is
// event.ErrTooLarge, where it has too much beside its body. The JSON is that of
// wireEvent, which reads it; it is written by hand because every request pays for it.
func AppendEvent(dst []byte, e *event.Event) ([]byte, error) {
	// Its length stands before it; two bytes are enough for nearly all.
	start := len(dst)
	dst = append(dst, 0, 0)
	dst = appendHead(dst, e)
	size := len(dst) - start - 2
	if size > maxHeader {
		return dst[:start], fmt.Errorf("encode event %s: %w: %d bytes beside its body", e.ID, event.ErrTooLarge, size)
	}
	var length [binary.MaxVarintLen64]byte
	n := binary.PutUvarint(length[:], uint64(size))
	dst = slices.Replace(dst, start, start+2, length[:n]...)
	return appendBytes(dst, e.Body), nil
}

func appendHead(dst []byte, e *event.Event) []byte {
	dst = append(dst, `{"i":`...)
	dst = appendText(dst, e.ID)
	dst = append(dst, `,"s":`...)
	dst = appendText(dst, string(e.Source))
	dst = appendField(dst, `,"o":`, string(e.Origin))
	dst = appendField(dst, `,"k":`, e.Kind)
	dst = appendField(dst, `,"f":`, e.FileID)
	dst = appendField(dst, `,"u":`, e.User)
	dst = append(dst, `,"a":`...)
	dst = strconv.AppendInt(dst, e.AcceptedAt.UnixMicro(), 10)
	if !e.UpdatedAt.IsZero() {
		dst = append(dst, `,"t":`...)
		dst = strconv.AppendInt(dst, e.UpdatedAt.UnixMicro(), 10)
	}
	dst = appendField(dst, `,"w":`, e.WebhookID)
	dst = appendField(dst, `,"d":`, e.DeadLetter)
	dst = appendHeaders(dst, e.Headers)
	return append(dst, '}')
}

func appendHeaders(dst []byte, headers map[string]string) []byte {
	if len(headers) == 0 {
		return dst
	}
	dst = append(dst, `,"h":`...)
	sep := byte('{')
	var few [8]string // as many as ingest keeps, without an allocation
	names := slices.AppendSeq(few[:0], maps.Keys(headers))
	slices.Sort(names)
	for _, name := range names {
		dst = appendText(append(dst, sep), name)
		dst = appendText(append(dst, ':'), headers[name])
		sep = ','
	}
	return append(dst, '}')
}

// appendField leaves an empty field out.
func appendField(dst []byte, name, value string) []byte {
	if value == "" {
		return dst
	}
	return appendText(append(dst, name...), value)
}

// appendText appends s as a JSON string: as it is where nothing in it needs care.
func appendText(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, _ := json.Marshal(s) // a string cannot fail
			return append(dst, quoted...)
		}
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}

// AppendPreamble appends what stands before so many events.
func AppendPreamble(dst []byte, id string, events int) []byte {
	dst = append(dst, wireMagic...)
	dst = binary.AppendUvarint(dst, uint64(len(id)))
	dst = append(dst, id...)
	return binary.AppendUvarint(dst, uint64(events))
}

// MaxPreamble bounds what AppendPreamble adds.
const MaxPreamble = len(wireMagic) + binary.MaxVarintLen64 + maxIDBytes + binary.MaxVarintLen64

// Encode writes an envelope; errors are those of AppendEvent.
func Encode(env *event.Envelope) ([]byte, error) {
	out := AppendPreamble(nil, env.ID, len(env.Events))
	for i := range env.Events {
		var err error
		if out, err = AppendEvent(out, &env.Events[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Decode reads an envelope. The bodies are parts of data, not copies.
func Decode(data []byte) (event.Envelope, error) {
	r := wireReader{rest: data, json: jsonv2.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))}
	if len(data) < len(wireMagic) || string(data[:3]) != wireMagic[:3] {
		return event.Envelope{}, errNotEnvelope
	}
	if data[3] != wireMagic[3] {
		return event.Envelope{}, fmt.Errorf("%w: %d", ErrVersion, data[3])
	}
	r.rest = data[len(wireMagic):]
	env := event.Envelope{ID: string(r.bytes(maxIDBytes))}
	n := r.number(maxInBinary)
	if r.err != nil {
		return event.Envelope{}, r.err
	}
	env.Events = make([]event.Event, 0, min(n, len(r.rest)/2)) // an event takes two bytes at least
	for range n {
		env.Events = append(env.Events, r.event())
		if r.err != nil {
			return event.Envelope{}, fmt.Errorf("event %d of %d: %w", len(env.Events), n, r.err)
		}
	}
	if len(r.rest) > 0 {
		return event.Envelope{}, fmt.Errorf("%d bytes after the last event", len(r.rest))
	}
	return env, nil
}

// wireReader takes an envelope apart; after the first error it yields nothing.
type wireReader struct {
	rest []byte
	err  error
	json jsonv2.Options
}

func (r *wireReader) number(limit int) int {
	if r.err != nil {
		return 0
	}
	n, size := binary.Uvarint(r.rest)
	switch {
	case size <= 0:
		r.err = errCut
		return 0
	case n > uint64(limit):
		r.err = fmt.Errorf("%d is more than %d", n, limit)
		return 0
	}
	r.rest = r.rest[size:]
	return int(n)
}

func (r *wireReader) bytes(limit int) []byte {
	n := r.number(limit)
	if r.err != nil {
		return nil
	}
	if n > len(r.rest) {
		r.err = errCut
		return nil
	}
	out := r.rest[:n:n]
	r.rest = r.rest[n:]
	return out
}

func (r *wireReader) event() event.Event {
	head := r.bytes(maxHeader)
	body := r.bytes(len(r.rest))
	if r.err != nil {
		return event.Event{}
	}
	var w wireEvent
	if err := jsonv2.Unmarshal(head, &w, r.json); err != nil {
		r.err = err
		return event.Event{}
	}
	e := event.Event{
		ID: w.ID, Source: w.Source, Origin: w.Origin, Kind: w.Kind, FileID: w.FileID, User: w.User,
		AcceptedAt: time.UnixMicro(w.AcceptedAt).UTC(), WebhookID: w.WebhookID, DeadLetter: w.DeadLetter, Headers: w.Headers,
	}
	if len(e.Headers) == 0 {
		e.Headers = nil
	}
	if w.UpdatedAt != nil {
		e.UpdatedAt = time.UnixMicro(*w.UpdatedAt).UTC()
	}
	if len(body) > 0 {
		e.Body = body
	}
	return e
}

func appendBytes(dst, b []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(b)))
	return append(dst, b...)
}
