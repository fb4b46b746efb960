package ticket

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/chacha20poly1305"
)

// version opens every ticket sealed today: "tu1.<key id>.<sealed, base64url>". All
// its characters are legal in a tag: no comma, no percent sign.
const version = "tu1."

// maxLength bounds what Open looks at: ImageKit keeps at most 500 characters of
// tags, so nothing longer was ever ours.
const maxLength = 512

// Errors of Open. A worker need not tell them apart, an operator may want to.
var (
	// ErrForged: it looks like a ticket and no key of ours opens it for this account.
	ErrForged = errors.New("ticket does not open: forged, altered, or sealed for another account")
	// ErrUnknownKey: it names a key that is not among ours: an old secret was dropped
	// too early, or it belongs to another installation.
	ErrUnknownKey = errors.New("ticket does not open: sealed with a key that is not configured")
)

// Ticket is what a sealed ticket proves: the file it came with was uploaded with a
// permission given to User.
type Ticket struct {
	User string
	// ID names the ticket, not its content: 24 hex digits, drawn at random. Two files
	// with one ID carry copies of one ticket.
	ID string
}

// Seal makes a fresh ticket for user in account. No two calls give the same one.
func (k *Keys) Seal(user, account string) (string, error) {
	if user == "" {
		return "", errors.New("seal ticket: no user")
	}
	first := k.all[0]
	aead, err := chacha20poly1305.NewX(first.ticket)
	if err != nil {
		return "", fmt.Errorf("seal ticket: %w", err)
	}
	nonce := make([]byte, aead.NonceSize(), aead.NonceSize()+len(user)+aead.Overhead())
	if _, err := rand.Read(nonce); err != nil {
		return "", fmt.Errorf("seal ticket: %w", err)
	}
	sealed := aead.Seal(nonce, nonce, []byte(user), bound(first.id, account))
	return version + first.id + "." + base64.RawURLEncoding.EncodeToString(sealed), nil
}

// Open returns what the ticket s proves for account. Whatever it is given, it
// returns a Ticket with a non-empty User or an error.
func (k *Keys) Open(s, account string) (Ticket, error) {
	id, text, ok := strings.Cut(strings.TrimPrefix(s, version), ".")
	if !ok || !strings.HasPrefix(s, version) || len(s) > maxLength {
		return Ticket{}, ErrForged
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(sealed) <= chacha20poly1305.NonceSizeX+chacha20poly1305.Overhead {
		return Ticket{}, ErrForged
	}
	result := ErrUnknownKey
	for _, key := range k.all {
		if key.id != id {
			continue
		}
		if t, err := key.open(sealed, account); err == nil {
			return t, nil
		}
		result = ErrForged
	}
	return Ticket{}, result
}

func (k key) open(sealed []byte, account string) (Ticket, error) {
	aead, err := chacha20poly1305.NewX(k.ticket)
	if err != nil {
		return Ticket{}, fmt.Errorf("open ticket: %w", err)
	}
	nonce, box := sealed[:aead.NonceSize()], sealed[aead.NonceSize():]
	user, err := aead.Open(nil, nonce, box, bound(k.id, account))
	if err != nil {
		return Ticket{}, ErrForged
	}
	return Ticket{User: string(user), ID: hex.EncodeToString(nonce[:12])}, nil
}

// bound is what a ticket is tied to besides its content. Neither the version nor a
// key id holds a NUL, so two different pairs never read the same.
func bound(id, account string) []byte {
	return []byte(version + id + "\x00" + account)
}

// LooksLikeTicket reports whether s is shaped like a ticket of ours, valid or not,
// of this version or another ("tu" digits "."). Such a tag is refused in what a
// client asks for and never stored as a tag.
func LooksLikeTicket(s string) bool {
	rest, ok := strings.CutPrefix(s, "tu")
	if !ok {
		return false
	}
	digits := 0
	for digits < len(rest) && rest[digits] >= '0' && rest[digits] <= '9' {
		digits++
	}
	return digits > 0 && digits < len(rest) && rest[digits] == '.'
}
