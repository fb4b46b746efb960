package ticket

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
)

// A report id is "rp_", the event's ULID, "_", and 128 bits of a MAC over both the
// event and the user, in base64url.
const (
	reportPrefix = "rp_"
	macLength    = 16
	reportLength = len(reportPrefix) + ulid.EncodedSize + 1 + (macLength*8+5)/6
)

// ErrNoReport means that the id was not given to this user by this installation.
// Forged, altered and somebody else's look the same on purpose.
var ErrNoReport = errors.New("no such report of this user")

// SealReport makes the id under which user may ask about the event.
func (k *Keys) SealReport(eventID, user string) string {
	return reportPrefix + eventID + "_" + base64.RawURLEncoding.EncodeToString(k.all[0].mac(eventID, user))
}

// OpenReport returns the event behind a report id of user and when it was accepted,
// to the millisecond. It needs no stored state.
func (k *Keys) OpenReport(id, user string) (eventID string, acceptedAt time.Time, err error) {
	if len(id) != reportLength || !strings.HasPrefix(id, reportPrefix) {
		return "", time.Time{}, ErrNoReport
	}
	eventID = id[len(reportPrefix) : len(reportPrefix)+ulid.EncodedSize]
	parsed, err := ulid.ParseStrict(eventID)
	if err != nil {
		return "", time.Time{}, ErrNoReport
	}
	if id[len(reportPrefix)+ulid.EncodedSize] != '_' {
		return "", time.Time{}, ErrNoReport
	}
	mac, err := base64.RawURLEncoding.Strict().DecodeString(id[len(reportPrefix)+ulid.EncodedSize+1:])
	if err != nil || !k.vouches(mac, eventID, user) {
		return "", time.Time{}, ErrNoReport
	}
	return eventID, ulid.Time(parsed.Time()).UTC(), nil
}

// vouches reports whether one of the keys made mac; it tries them all.
func (k *Keys) vouches(mac []byte, eventID, user string) bool {
	ok := false
	for _, key := range k.all {
		if hmac.Equal(mac, key.mac(eventID, user)) {
			ok = true
		}
	}
	return ok
}

// mac covers an event id of fixed length and then the user, so no two pairs read
// the same.
func (k key) mac(eventID, user string) []byte {
	h := hmac.New(sha256.New, k.report)
	h.Write([]byte(eventID))
	h.Write([]byte(user))
	return h.Sum(nil)[:macLength]
}
