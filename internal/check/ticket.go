package check

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"regexp"
	"strings"

	"golang.org/x/crypto/chacha20poly1305"
)

// ticketLike is the shape of an ownership ticket, valid or not: it never stands in the
// table's own tags.
var ticketLike = regexp.MustCompile(`^tu[0-9]+\.`)

// opener opens tickets with the campaign's own keys.
type opener struct {
	account string
	keys    []openKey
}

type openKey struct {
	id     string
	secret []byte
}

func newOpener(s *Settings) *opener {
	o := &opener{account: s.Account}
	for _, secret := range s.Keys {
		id, err := hkdf.Key(sha256.New, []byte(secret), nil, "trueup key id", 4)
		if err != nil {
			continue
		}
		key, err := hkdf.Key(sha256.New, []byte(secret), nil, "trueup ownership ticket", 32)
		if err != nil {
			continue
		}
		o.keys = append(o.keys, openKey{hex.EncodeToString(id), key})
	}
	return o
}

// open is the user a ticket was sealed for; "" for what does not open. A ticket is
// "tu1.<key id>.<base64url of 24 bytes of nonce and the sealed user>", sealed by
// XChaCha20-Poly1305 over "tu1.<key id>", a NUL and the account.
func (o *opener) open(ticket string) string {
	parts := strings.Split(ticket, ".")
	if len(parts) != 3 || parts[0] != "tu1" {
		return ""
	}
	sealed, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || len(sealed) < 24 {
		return ""
	}
	for _, k := range o.keys {
		if k.id != parts[1] {
			continue
		}
		box, err := chacha20poly1305.NewX(k.secret)
		if err != nil {
			continue
		}
		user, err := box.Open(nil, sealed[:24], sealed[24:], []byte("tu1."+k.id+"\x00"+o.account))
		if err == nil {
			return string(user)
		}
	}
	return ""
}
