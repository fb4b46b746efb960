package signature

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
)

// maxMACs bounds the signatures of one header; a rotation shows two.
const maxMACs = 16

// maxID bounds webhook-id, which ends up in events.
const maxID = 128

// signed is one header set, read but not believed.
type signed struct {
	id   string
	text string // the timestamp as it was signed
	at   int64  // seconds in the standard scheme, milliseconds in the legacy one
	macs [][]byte
}

func readStandard(h http.Header) (signed, *Refusal) {
	s := signed{id: h.Get(HeaderID), text: h.Get(HeaderTimestamp)}
	list := h.Get(HeaderSignature)
	if s.id == "" && s.text == "" && list == "" {
		return s, &Refusal{Missing}
	}
	var ok bool
	if s.at, ok = number(s.text); !ok || !plainID(s.id) {
		return s, &Refusal{Malformed}
	}
	for entry := range strings.FieldsSeq(list) {
		// Entries of other versions (v1a, v2) are for other readers.
		if text, ok := strings.CutPrefix(entry, "v1,"); ok {
			s.add(base64.StdEncoding.Strict().DecodeString(text))
		}
	}
	return s, s.usable()
}

func readLegacy(h http.Header) (signed, *Refusal) {
	var s signed
	list := h.Get(HeaderLegacy)
	if list == "" {
		return s, &Refusal{Missing}
	}
	for part := range strings.SplitSeq(list, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch name {
		case "t":
			if s.text != "" {
				return s, &Refusal{Doubled}
			}
			s.text = value
		case "v1":
			s.add(hex.DecodeString(value))
		}
	}
	var ok bool
	if s.at, ok = number(s.text); !ok {
		return s, &Refusal{Malformed}
	}
	return s, s.usable()
}

func (s *signed) add(mac []byte, err error) {
	if err == nil && len(mac) == sha256.Size {
		s.macs = append(s.macs, mac)
	}
}

// usable refuses a set without anything to compare. An entry that cannot be a MAC
// is left out rather than refused: in "v1,AAAA v1,<good>" the good one counts.
func (s *signed) usable() *Refusal {
	switch {
	case len(s.macs) > maxMACs:
		return &Refusal{Malformed}
	case len(s.macs) == 0:
		return &Refusal{Mismatch}
	}
	return nil
}

// number reads a timestamp: decimal digits only, so that what is compared with the
// clock is what was signed.
func number(text string) (int64, bool) {
	if len(text) == 0 || len(text) > 15 {
		return 0, false
	}
	for _, c := range []byte(text) {
		if c < '0' || c > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil
}

// plainID keeps the signed text unambiguous: without dots in the id there is one
// way only to split "id.timestamp.body".
func plainID(id string) bool {
	if len(id) == 0 || len(id) > maxID {
		return false
	}
	for _, c := range []byte(id) {
		if c <= ' ' || c > '~' || c == '.' {
			return false
		}
	}
	return true
}
