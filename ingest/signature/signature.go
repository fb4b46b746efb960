// Package signature answers one question: did ImageKit send these bytes, just now?
// It knows both schemes, Standard Webhooks (webhook-id, webhook-timestamp,
// webhook-signature) and the older x-ik-signature. It is apart, and pure, so that
// vectors and a fuzzer can reach all of it: no I/O, no clock, no parsing of bodies.
//
// Its one invariant: Verify succeeds only for a body signed with one of the secrets
// at most five minutes from now.
//
// ImageKit most likely sends both sets on each delivery. One set that verifies is
// whole proof over the raw body and its time, so the other, whatever it holds, can
// add nothing and take nothing away; refusing for its sake would only lose events.
// Header lines that occur twice are refused always, verified or not: two readers of
// such a request may see different ones.
package signature

import (
	"crypto/hmac"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Tolerance is how far a signature's time may lie from now, both ways, inclusive.
const Tolerance = 5 * time.Minute

// MinSecret is the shortest key that is taken, in bytes, in either reading.
const MinSecret = 16

// The headers of both schemes.
const (
	HeaderID        = "Webhook-Id"
	HeaderTimestamp = "Webhook-Timestamp"
	HeaderSignature = "Webhook-Signature"
	HeaderLegacy    = "X-Ik-Signature"
)

// Scheme names a way of signing.
type Scheme string

const (
	Standard Scheme = "standard" // Standard Webhooks
	Legacy   Scheme = "legacy"   // x-ik-signature
)

// Form names the reading of a secret that made the key.
type Form string

const (
	// Raw is the secret as it stands, "whsec_" included: what ImageKit's SDKs use.
	Raw Form = "raw"
	// Decoded is what Standard Webhooks specifies: the base64 after "whsec_". It is
	// accepted in case the service differs from its SDKs.
	Decoded Form = "decoded"
)

// Match says what verified.
type Match struct {
	Scheme Scheme
	Form   Form
	Secret int    // index into the secrets given to New
	ID     string // webhook-id; only of the standard scheme, which signs it
	At     time.Time
}

// Reason says in one stable word why nothing verified. The list is closed.
type Reason string

const (
	Missing   Reason = "missing"   // neither set is there
	Doubled   Reason = "doubled"   // a signature header occurs twice
	Malformed Reason = "malformed" // a set cannot be read
	TooOld    Reason = "too_old"
	TooNew    Reason = "too_new"
	Mismatch  Reason = "mismatch" // no secret gives that signature
)

// Refusal is the error of Verify. It holds nothing of the request.
type Refusal struct{ Reason Reason }

func (r *Refusal) Error() string { return "webhook signature refused: " + string(r.Reason) }

// Verifier holds the secrets. It is safe for concurrent use.
type Verifier struct {
	keys []key
}

type key struct {
	bytes  []byte
	form   Form
	secret int
}

// New takes the secrets of all endpoints and rotations; at least one. Raw readings
// are tried before decoded ones. Its errors never show a secret.
func New(secrets ...string) (*Verifier, error) {
	if len(secrets) == 0 {
		return nil, errors.New("webhook secrets: none given")
	}
	var raw, decoded []key
	for i, secret := range secrets {
		if len(secret) < MinSecret {
			return nil, fmt.Errorf("webhook secrets: secret %d of %d is shorter than %d bytes", i+1, len(secrets), MinSecret)
		}
		raw = append(raw, key{[]byte(secret), Raw, i})
		// A secret that decodes to next to nothing would be a key anybody can guess.
		if b, ok := decode(secret); ok && len(b) >= MinSecret {
			decoded = append(decoded, key{b, Decoded, i})
		}
	}
	return &Verifier{keys: append(raw, decoded...)}, nil
}

func decode(secret string) ([]byte, bool) {
	text := strings.TrimRight(strings.TrimPrefix(secret, "whsec_"), "=")
	b, err := base64.RawStdEncoding.DecodeString(text)
	return b, err == nil
}

// Verify looks for a signature of body in h that is good at now. The error is a
// *Refusal; when both sets are there and both fail, it tells of the standard one.
func (v *Verifier) Verify(h http.Header, body []byte, now time.Time) (Match, error) {
	for _, name := range []string{HeaderID, HeaderTimestamp, HeaderSignature, HeaderLegacy} {
		if len(h[name]) > 1 {
			return Match{}, &Refusal{Doubled}
		}
	}
	standard, standardErr := v.standard(h, body, now)
	if standardErr == nil {
		return standard, nil // that it was good, and how soon, is no secret: the answer says so
	}
	legacy, legacyErr := v.legacy(h, body, now)
	switch {
	case legacyErr == nil:
		return legacy, nil
	case standardErr.Reason == Missing:
		return Match{}, legacyErr
	default:
		return Match{}, standardErr
	}
}

func (v *Verifier) standard(h http.Header, body []byte, now time.Time) (Match, *Refusal) {
	s, refusal := readStandard(h)
	if refusal != nil {
		return Match{}, refusal
	}
	if r := fresh(now.Unix()-s.at, int64(Tolerance/time.Second)); r != nil {
		return Match{}, r
	}
	k, ok := v.match(s.macs, s.id+"."+s.text+".", body)
	if !ok {
		return Match{}, &Refusal{Mismatch}
	}
	return Match{Standard, k.form, k.secret, s.id, time.Unix(s.at, 0).UTC()}, nil
}

func (v *Verifier) legacy(h http.Header, body []byte, now time.Time) (Match, *Refusal) {
	s, refusal := readLegacy(h)
	if refusal != nil {
		return Match{}, refusal
	}
	if r := fresh(now.UnixMilli()-s.at, int64(Tolerance/time.Millisecond)); r != nil {
		return Match{}, r
	}
	k, ok := v.match(s.macs, s.text+".", body)
	if !ok {
		return Match{}, &Refusal{Mismatch}
	}
	return Match{Legacy, k.form, k.secret, "", time.UnixMilli(s.at).UTC()}, nil
}

func fresh(age, tolerance int64) *Refusal {
	switch {
	case age > tolerance:
		return &Refusal{TooOld}
	case age < -tolerance:
		return &Refusal{TooNew}
	}
	return nil
}

// match returns the first key whose MAC over head and body is among macs. It computes
// and compares all of them whatever it finds, so that its time says nothing about
// which key, or how much of a MAC, was right.
func (v *Verifier) match(macs [][]byte, head string, body []byte) (key, bool) {
	found := -1
	for i, k := range v.keys {
		want := sum(k.bytes, head, body)
		for _, mac := range macs {
			if hmac.Equal(mac, want) && found < 0 {
				found = i
			}
		}
	}
	if found < 0 {
		return key{}, false
	}
	return v.keys[found], true
}
