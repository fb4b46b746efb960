package caller

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"time"

	"github.com/MicahParks/jwkset"
)

const (
	maxKeySet     = 512 << 10 // bytes of a JWKS answer
	maxKeys       = 100
	minRSABits    = 2048
	fetchTimeout  = 5 * time.Second
	clientTimeout = fetchTimeout
)

// keySet is the keys behind one URL. It fetches when a request needs it and owns no
// goroutine: keys are renewed by the first request after RefreshAfter, and at once,
// but never more often than RefreshGap, for a token that names a key it has not got.
// While the URL fails the keys at hand are used on, up to StaleFor.
//
// jwkset decodes the keys. Its own storage waits inside the request for its rate
// limiter when a key is unknown, so tokens with invented key ids could hold every
// other request of an instance; here they are answered at once.
type keySet struct {
	url                         string
	client                      *http.Client
	refreshAfter, staleFor, gap time.Duration
	now                         func() time.Time

	// fetching is held during a fetch, so there is one at a time.
	fetching sync.Mutex

	// mu guards what follows; it is never held during I/O.
	mu      sync.Mutex
	keys    []publicKey
	good    time.Time // when keys were fetched; zero: never
	tried   time.Time // when a fetch last began
	lastErr error
}

// publicKey is one key with the only algorithm it is for.
type publicKey struct {
	id, algorithm string
	key           any
}

func newKeySet(c Config) (*keySet, error) {
	if err := safeURL(c.JWKSURL); err != nil {
		return nil, err
	}
	s := &keySet{
		url: c.JWKSURL, client: c.Client, now: c.Now,
		refreshAfter: orDuration(c.RefreshAfter, 5*time.Minute),
		staleFor:     orDuration(c.StaleFor, time.Hour),
		gap:          orDuration(c.RefreshGap, 10*time.Second),
	}
	if s.client == nil {
		s.client = &http.Client{
			Timeout:       clientTimeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	return s, nil
}

func orDuration(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

// safeURL refuses keys that travel unprotected: whoever can change them is everybody.
func safeURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil {
		return errors.New("the JWKS URL is not an absolute URL without credentials")
	}
	if u.Scheme == "https" || u.Scheme == "http" && loopback(u.Hostname()) {
		return nil
	}
	return errors.New("the JWKS URL must be https, or http on loopback")
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

func (s *keySet) algorithms() []string { return []string{"RS256", "ES256", "EdDSA"} }

// key returns the key named id for algorithm. A token without a key id is served
// only when exactly one key is for its algorithm.
func (s *keySet) key(ctx context.Context, algorithm, id string) (any, error) {
	keys, age := s.held()
	found, ok := pick(keys, algorithm, id)
	if ok && age < s.refreshAfter {
		return found, nil
	}
	s.refresh(ctx, ok)
	keys, _ = s.held()
	if found, ok = pick(keys, algorithm, id); ok {
		return found, nil
	}
	if len(keys) == 0 {
		return nil, &Refusal{Reason: KeysUnavailable, Err: s.failure()}
	}
	return nil, &Refusal{Reason: UnknownKey}
}

func pick(keys []publicKey, algorithm, id string) (any, bool) {
	var found any
	n := 0
	for _, k := range keys {
		if k.algorithm == algorithm && (id == "" || k.id == id) {
			found, n = k.key, n+1
		}
	}
	return found, n == 1
}

// held returns the keys that may still be used, and their age.
func (s *keySet) held() ([]publicKey, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	age := s.now().Sub(s.good)
	if s.good.IsZero() || age > s.staleFor {
		return nil, age
	}
	return s.keys, age
}

func (s *keySet) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lastErr
}

// refresh fetches unless somebody did within the gap. A request that has a key to go
// on with does not wait for another's fetch; one that has none does.
func (s *keySet) refresh(ctx context.Context, canGoOn bool) {
	if canGoOn {
		if !s.fetching.TryLock() {
			return
		}
	} else {
		s.fetching.Lock()
	}
	defer s.fetching.Unlock()
	if !s.due() {
		return
	}
	// Other requests wait for this answer too: the one that happens to ask may leave.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTimeout)
	defer cancel()
	keys, err := s.fetch(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lastErr = err; err == nil {
		s.keys, s.good = keys, s.now()
	}
}

// due claims the next fetch.
func (s *keySet) due() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if !s.tried.IsZero() && now.Sub(s.tried) < s.gap {
		return false
	}
	s.tried = now
	return true
}

func (s *keySet) fetch(ctx context.Context) ([]publicKey, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return nil, fmt.Errorf("fetch JWKS: %w", err)
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	res, err := s.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("fetch JWKS: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("fetch JWKS: status %d", res.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxKeySet+1))
	if err != nil {
		return nil, fmt.Errorf("fetch JWKS: %w", err)
	}
	if len(body) > maxKeySet {
		return nil, fmt.Errorf("fetch JWKS: more than %d bytes", maxKeySet)
	}
	return decode(body)
}

// decode keeps the keys we can use and passes over all others, as RFC 7517 asks.
// An answer without any is an error, so that a broken deployment of the sign-in does
// not throw away keys that still work.
func decode(body []byte) ([]publicKey, error) {
	var set struct{ Keys []json.RawMessage }
	if err := json.Unmarshal(body, &set); err != nil {
		return nil, errors.New("fetch JWKS: the answer is not a key set")
	}
	var keys []publicKey
	for _, raw := range set.Keys {
		if k, ok := decodeKey(raw); ok && len(keys) < maxKeys {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("fetch JWKS: no usable RS256, ES256 or EdDSA key in it")
	}
	return keys, nil
}

func decodeKey(raw json.RawMessage) (publicKey, bool) {
	// x5c and x5u are left out: the key itself is what we asked this URL for.
	var m struct {
		jwkset.JWKMarshal
		X5C, X5U json.RawMessage
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return publicKey{}, false
	}
	bare := m.JWKMarshal
	bare.X5C, bare.X5U, bare.X5T, bare.X5TS256 = nil, "", "", ""
	jwk, err := jwkset.NewJWKFromMarshal(bare, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
	if err != nil {
		return publicKey{}, false
	}
	algorithm, ok := algorithmOf(jwk.Key())
	if !ok || bare.ALG != "" && string(bare.ALG) != algorithm || bare.USE != "" && bare.USE != jwkset.UseSig {
		return publicKey{}, false
	}
	return publicKey{id: bare.KID, algorithm: algorithm, key: jwk.Key()}, true
}

// algorithmOf binds a key to the one algorithm it is for. Symmetric keys have none:
// a secret that is published is not one.
func algorithmOf(key any) (string, bool) {
	switch k := key.(type) {
	case *rsa.PublicKey:
		return "RS256", k.N.BitLen() >= minRSABits
	case *ecdsa.PublicKey:
		return "ES256", k.Curve == elliptic.P256()
	case ed25519.PublicKey:
		return "EdDSA", len(k) == ed25519.PublicKeySize
	}
	return "", false
}
