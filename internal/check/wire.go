package check

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// event is what the checker reads of one event inside a message of the stream.
type event struct {
	ID, Source, Origin, Kind, FileID, User string
	WebhookID, DeadLetter                  string
	AcceptedAt                             time.Time
	Headers                                map[string]string
	Body                                   []byte
}

// decode is the checker's own reading of a message. Version 1 is:
//
//	't' 'r' 'u' 1, then length-prefixed pieces, each length a uvarint:
//	the envelope's id · the number of events (a bare uvarint) · for each event a JSON
//	object and then the body as received
//
// In the object i is the id, s the source, o the origin (left out where it is not said),
// k the kind, f the file, u the user, a the time of acceptance in microseconds, w the
// webhook's id, d the dead letter that it replays, h the headers.
func decode(data []byte) (id string, events []event, err error) {
	if len(data) < 4 || string(data[:3]) != "tru" {
		return "", nil, errors.New("not an envelope")
	}
	if data[3] != 1 {
		return "", nil, fmt.Errorf("envelope version %d", data[3])
	}
	p := pieces{left: data[4:]}
	id = string(p.piece())
	for n := p.uvarint(); n > 0 && p.err == nil; n-- {
		head, body := p.piece(), p.piece()
		if p.err != nil {
			break
		}
		e, err := decodeEvent(head, body)
		if err != nil {
			return "", nil, err
		}
		events = append(events, e)
	}
	switch {
	case p.err != nil:
		return "", nil, p.err
	case len(p.left) > 0:
		return "", nil, fmt.Errorf("%d bytes too many", len(p.left))
	}
	return id, events, nil
}

func decodeEvent(head, body []byte) (event, error) {
	var w struct {
		I, S, O, K, F, U, W, D string
		A                      int64
		H                      map[string]string
	}
	if err := json.Unmarshal(head, &w); err != nil {
		return event{}, fmt.Errorf("an event's head: %w", err)
	}
	return event{
		ID: w.I, Source: w.S, Origin: w.O, Kind: w.K, FileID: w.F, User: w.U, WebhookID: w.W, DeadLetter: w.D,
		AcceptedAt: time.UnixMicro(w.A).UTC(), Headers: w.H, Body: body,
	}, nil
}

// pieces takes bytes apart; after the first error it yields nothing.
type pieces struct {
	left []byte
	err  error
}

func (p *pieces) uvarint() uint64 {
	if p.err != nil {
		return 0
	}
	n, size := binary.Uvarint(p.left)
	if size <= 0 {
		p.err = errors.New("envelope cut short")
		return 0
	}
	p.left = p.left[size:]
	return n
}

func (p *pieces) piece() []byte {
	n := p.uvarint()
	if p.err == nil && n > uint64(len(p.left)) {
		p.err = errors.New("envelope cut short")
	}
	if p.err != nil {
		return nil
	}
	out := p.left[:n]
	p.left = p.left[n:]
	return out
}

// eventOf is the event behind a report id: "rp_", its 26 characters, "_" and a MAC.
func eventOf(reportID string) string {
	const prefix, length = "rp_", 26
	if len(reportID) < len(prefix)+length+1 || reportID[:len(prefix)] != prefix || reportID[len(prefix)+length] != '_' {
		return ""
	}
	return reportID[len(prefix) : len(prefix)+length]
}
