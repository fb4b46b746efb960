// Package ticket seals what trueup must recognise later without having stored it:
// ownership tickets, which travel to ImageKit inside a signed upload and come back
// with the file, and report ids, which travel to a client and come back with its
// question. It is apart because ingest seals what the worker opens, and neither
// imports the other.
//
// Its one invariant: nothing opens that was not sealed by one of the keys, for the
// same account (tickets) or the same user (report ids). It does no I/O, and what is
// inside a ticket cannot be read without a key.
package ticket

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

// MinSecret is the shortest secret that is taken as a key, in bytes.
const MinSecret = 32

// Keys are the secrets of one installation, shared by its replicas. The first
// seals, all open, so a new secret is put in front and the old one kept behind it
// until nothing sealed with it matters any more.
type Keys struct {
	all []key
}

// key is one secret, split into one subkey per purpose, so that a report id can
// never stand in for a ticket.
type key struct {
	id     string // eight hex digits, public: it stands in every ticket
	ticket []byte
	report []byte
}

// NewKeys takes the secrets, newest first; there must be at least one, each of at
// least MinSecret bytes. Its errors never show a secret.
func NewKeys(secrets ...string) (*Keys, error) {
	if len(secrets) == 0 {
		return nil, errors.New("ticket keys: no secret given")
	}
	keys := &Keys{all: make([]key, 0, len(secrets))}
	for i, secret := range secrets {
		if len(secret) < MinSecret {
			return nil, fmt.Errorf("ticket keys: secret %d of %d is shorter than %d bytes", i+1, len(secrets), MinSecret)
		}
		k, err := newKey(secret)
		if err != nil {
			return nil, fmt.Errorf("ticket keys: secret %d of %d: %w", i+1, len(secrets), err)
		}
		keys.all = append(keys.all, k)
	}
	return keys, nil
}

func newKey(secret string) (key, error) {
	id, err := expand(secret, "trueup key id", 4)
	if err != nil {
		return key{}, err
	}
	sealing, err := expand(secret, "trueup ownership ticket", chacha20poly1305.KeySize)
	if err != nil {
		return key{}, err
	}
	report, err := expand(secret, "trueup report id", sha256.Size)
	if err != nil {
		return key{}, err
	}
	return key{id: hex.EncodeToString(id), ticket: sealing, report: report}, nil
}

// Derive is the secret in force where none was configured: it depends on the
// private key alone, so replicas agree, and it dies with that key, so whoever
// rotates the private key should set secrets of his own first.
func Derive(privateKey string) (string, error) {
	secret, err := expand(privateKey, "trueup keys derived from the private key", 32)
	if err != nil {
		return "", fmt.Errorf("derive ticket key: %w", err)
	}
	return hex.EncodeToString(secret), nil
}

func expand(secret, purpose string, n int) ([]byte, error) {
	return hkdf.Key(sha256.New, []byte(secret), nil, purpose, n)
}
