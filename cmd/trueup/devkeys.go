package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/trueup/trueup/ingest/caller"
)

const (
	devAccount  = "demo_id"
	devIssuer   = "trueup-dev"
	devAudience = "trueup"
)

// devKeys are dev's own secrets and ports. They are made once per data directory and
// kept there apart from dev.env, which comes and goes with each start.
type devKeys struct {
	PublicKey     string   `json:"publicKey"`
	PrivateKey    string   `json:"privateKey"`
	WebhookSecret string   `json:"webhookSecret"`
	JWTSecret     string   `json:"jwtSecret"`
	TicketKey     string   `json:"ticketKey"`
	OpsToken      string   `json:"opsToken"`
	Ports         devPorts `json:"ports"`

	path string
}

// devPorts are the ports that the system chose where the address said :0.
type devPorts struct {
	Public   string `json:"public,omitempty"`
	Ops      string `json:"ops,omitempty"`
	Emulator string `json:"emulator,omitempty"`
}

// loadDevKeys reads the keys, or makes them the first time.
func loadDevKeys(dir string) (*devKeys, error) {
	k := &devKeys{path: filepath.Join(dir, "dev-keys.json")}
	raw, err := os.ReadFile(k.path)
	switch {
	case err == nil:
		if err := json.Unmarshal(raw, k); err != nil {
			return nil, fmt.Errorf("read %s: %w", k.path, err)
		}
		return k, nil
	case !errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("read dev's keys: %w", err)
	}
	k.PublicKey = "public_" + random(24) + "="
	k.PrivateKey = "private_" + random(24) + "="
	k.WebhookSecret = "whsec_" + base64.StdEncoding.EncodeToString([]byte(random(16)))
	k.JWTSecret, k.TicketKey, k.OpsToken = random(32), random(32), random(24)
	return k, k.save()
}

// random is n random bytes as hex.
func random(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails: crypto/rand ends the process instead
	return hex.EncodeToString(b)
}

// save writes whole or not at all.
func (k *devKeys) save() error {
	raw, err := json.MarshalIndent(k, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(k.path), ".dev-keys-") // 0600
	if err != nil {
		return fmt.Errorf("keep dev's keys: %w", err)
	}
	_, err = f.Write(append(raw, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), k.path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("keep dev's keys: %w", err), os.Remove(f.Name()))
	}
	return nil
}

// freePort is a port of host that is free now: the kept one if it still is.
func freePort(host, kept string) (string, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", net.JoinHostPort(host, cmp.Or(kept, "0")))
	if err != nil && kept != "" {
		l, err = lc.Listen(context.Background(), "tcp", net.JoinHostPort(host, "0"))
	}
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

// devToken is a token of the user that requests without one are, good for a year.
func devToken(secret, issuer, audience string) (string, error) {
	now := time.Now()
	return jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"sub": caller.DevUser, "iss": issuer, "aud": audience, "iat": now.Unix(), "exp": now.AddDate(1, 0, 0).Unix(),
	}).SignedString([]byte(secret))
}
