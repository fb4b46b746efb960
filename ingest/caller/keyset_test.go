package caller

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// signIn is a sign-in service: a real HTTP server with keys to publish.
type signIn struct {
	*httptest.Server
	mu      sync.Mutex
	answer  string
	status  int
	fetched int
}

func newSignIn(t *testing.T) *signIn {
	s := &signIn{status: http.StatusOK}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.fetched++
		w.WriteHeader(s.status)
		_, _ = w.Write([]byte(s.answer))
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *signIn) publish(t *testing.T, keys ...map[string]string) {
	t.Helper()
	s.say(http.StatusOK, string(must(json.Marshal(map[string]any{"keys": keys}))(t)))
}

func (s *signIn) say(status int, answer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status, s.answer = status, answer
}

func (s *signIn) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fetched
}

// pair is a key of a sign-in service with what it publishes of it.
type pair struct {
	method jwt.SigningMethod
	signer crypto.Signer
	public map[string]string
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func edKey(t *testing.T, id string) pair {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return pair{jwt.SigningMethodEdDSA, private, map[string]string{"kty": "OKP", "crv": "Ed25519", "kid": id, "x": b64(public), "use": "sig", "alg": "EdDSA"}}
}

func ecKey(t *testing.T, id string) pair {
	k := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	raw := must(k.PublicKey.Bytes())(t)
	return pair{jwt.SigningMethodES256, k, map[string]string{"kty": "EC", "crv": "P-256", "kid": id, "x": b64(raw[1:33]), "y": b64(raw[33:])}}
}

func rsaKey(t *testing.T, id string, bits int) pair {
	k := must(rsa.GenerateKey(rand.Reader, bits))(t)
	e := big.NewInt(int64(k.E)).Bytes()
	return pair{jwt.SigningMethodRS256, k, map[string]string{"kty": "RSA", "kid": id, "n": b64(k.N.Bytes()), "e": b64(e), "alg": "RS256"}}
}

// token signs a good token with p, naming the key id.
func (p pair) token(t *testing.T, id string) string {
	token := jwt.NewWithClaims(p.method, claims(set("exp", start.Add(100*time.Hour).Unix())))
	if id != "" {
		token.Header["kid"] = id
	}
	return "Bearer " + must(token.SignedString(p.signer))(t)
}

// watch is a checker of s with a clock in the test's hand.
func watch(t *testing.T, s *signIn) (*Checker, *time.Time) {
	now := start
	c := must(New(Config{JWKSURL: s.URL, Issuer: issuer, Audience: audience, Now: func() time.Time { return now }, Client: s.Client()}))(t)
	return c, &now
}

func TestJWKS(t *testing.T) {
	s := newSignIn(t)
	ed, ec, rs := edKey(t, "ed"), ecKey(t, "ec"), rsaKey(t, "rs", 2048)
	s.publish(t, ed.public, ec.public, rs.public, map[string]string{"kty": "novel", "kid": "x"}, map[string]string{"kty": "oct", "kid": "oct", "k": b64([]byte(shared))})
	c, _ := watch(t, s)
	accepted := func(t *testing.T, token string) {
		t.Helper()
		if user, reason := ask(c, token); user != "user_123" {
			t.Fatal(reason)
		}
	}
	refused := func(t *testing.T, token string, want Reason) {
		t.Helper()
		if _, reason := ask(c, token); reason != want {
			t.Fatalf("got %q, want %q", reason, want)
		}
	}
	t.Run("TakesEachAlgorithm", func(t *testing.T) {
		accepted(t, ed.token(t, "ed"))
		accepted(t, ec.token(t, "ec"))
		accepted(t, rs.token(t, "rs"))
	})
	t.Run("TakesNoKeyIDWhereOneKeyFits", func(t *testing.T) { accepted(t, ed.token(t, "")) })
	t.Run("BindsAKeyToItsAlgorithm", func(t *testing.T) { refused(t, ec.token(t, "rs"), UnknownKey) })
	t.Run("RefusesAnotherKeyUnderAKnownID", func(t *testing.T) { refused(t, edKey(t, "ed").token(t, "ed"), BadToken) })
	t.Run("RefusesAPublishedSecret", func(t *testing.T) {
		refused(t, "Bearer "+hs256(t, claims(nil), map[string]any{"kid": "oct"}), WrongAlgorithm)
	})
	t.Run("RefusesThePublicKeyAsASecret", func(t *testing.T) {
		token := jwt.NewWithClaims(jwt.SigningMethodHS256, claims(nil))
		token.Header["kid"] = "ed"
		refused(t, "Bearer "+must(token.SignedString([]byte(ed.public["x"])))(t), WrongAlgorithm)
	})
	t.Run("RefusesOtherRSAAlgorithms", func(t *testing.T) {
		token := jwt.NewWithClaims(jwt.SigningMethodPS256, claims(nil))
		token.Header["kid"] = "rs"
		refused(t, "Bearer "+must(token.SignedString(rs.signer))(t), WrongAlgorithm)
	})
	if n := s.count(); n != 1 {
		t.Fatalf("fetched %d times", n)
	}
}

func TestJWKSPassesOverUnfitKeys(t *testing.T) {
	s := newSignIn(t)
	weak, encryption, mislabelled, good := rsaKey(t, "weak", 1024), edKey(t, "enc"), ecKey(t, "mis"), edKey(t, "good")
	encryption.public["use"] = "enc"
	mislabelled.public["alg"] = "ES512"
	s.publish(t, weak.public, encryption.public, mislabelled.public, good.public)
	c, _ := watch(t, s)
	for id, p := range map[string]pair{"weak": weak, "enc": encryption, "mis": mislabelled} {
		if _, reason := ask(c, p.token(t, id)); reason != UnknownKey {
			t.Errorf("%s: %q", id, reason)
		}
	}
	if user, _ := ask(c, good.token(t, "good")); user == "" {
		t.Error("the good one is not taken")
	}
}

func TestJWKSRotation(t *testing.T) {
	s := newSignIn(t)
	old, next := edKey(t, "old"), edKey(t, "next")
	s.publish(t, old.public)
	c, now := watch(t, s)
	if user, _ := ask(c, old.token(t, "old")); user == "" {
		t.Fatal("old key not taken")
	}
	t.Run("FetchesAtOnceForANewKey", func(t *testing.T) {
		s.publish(t, old.public, next.public)
		*now = now.Add(10 * time.Second)
		if user, reason := ask(c, next.token(t, "next")); user == "" {
			t.Fatal(reason)
		}
	})
	t.Run("FetchesNoOftenerForInventedKeys", func(t *testing.T) {
		before := s.count()
		for range 50 {
			if _, reason := ask(c, next.token(t, "invented")); reason != UnknownKey {
				t.Fatal(reason)
			}
		}
		if n := s.count() - before; n != 0 {
			t.Fatalf("fetched %d times", n)
		}
		*now = now.Add(10 * time.Second)
		for range 50 {
			ask(c, next.token(t, "invented"))
		}
		if n := s.count() - before; n != 1 {
			t.Fatalf("fetched %d times", n)
		}
	})
	t.Run("DropsAWithdrawnKey", func(t *testing.T) {
		s.publish(t, next.public)
		*now = now.Add(5 * time.Minute)
		if user, _ := ask(c, next.token(t, "next")); user == "" {
			t.Fatal("the key that stayed is not taken")
		}
		if _, reason := ask(c, old.token(t, "old")); reason != UnknownKey {
			t.Fatal(reason)
		}
	})
	for name, broken := range map[string]struct {
		status int
		answer string
	}{
		"Failing":   {http.StatusInternalServerError, "oops"},
		"HTML":      {http.StatusOK, "<html>"},
		"Empty":     {http.StatusOK, `{"keys":[]}`},
		"Oversized": {http.StatusOK, `{"keys":[]` + strings.Repeat(" ", maxKeySet) + `}`},
	} {
		t.Run("GoesOnWithItsKeysWhile"+name, func(t *testing.T) {
			s.say(broken.status, broken.answer)
			before := s.count()
			*now = now.Add(6 * time.Minute)
			if user, reason := ask(c, next.token(t, "next")); user == "" {
				t.Fatal(reason)
			}
			if s.count() != before+1 {
				t.Fatal("the fault never fired")
			}
		})
	}
	t.Run("ButNotForEver", func(t *testing.T) {
		*now = now.Add(time.Hour)
		if _, reason := ask(c, next.token(t, "next")); reason != KeysUnavailable {
			t.Fatal(reason)
		}
	})
	t.Run("AndRecovers", func(t *testing.T) {
		s.publish(t, next.public)
		*now = now.Add(10 * time.Second)
		if user, reason := ask(c, next.token(t, "next")); user == "" {
			t.Fatal(reason)
		}
	})
}

func TestJWKSThatNeverAnswered(t *testing.T) {
	s := newSignIn(t)
	s.say(http.StatusServiceUnavailable, "")
	c, now := watch(t, s)
	k := edKey(t, "k")
	if _, reason := ask(c, k.token(t, "k")); reason != KeysUnavailable {
		t.Fatal(reason)
	}
	s.publish(t, k.public)
	*now = now.Add(10 * time.Second)
	if user, reason := ask(c, k.token(t, "k")); user == "" {
		t.Fatal(reason)
	}
}

func TestJWKSIsFetchedOnceForManyAtOnce(t *testing.T) {
	s := newSignIn(t)
	k := edKey(t, "k")
	s.publish(t, k.public)
	c, _ := watch(t, s)
	token := k.token(t, "k")
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if user, reason := ask(c, token); user == "" {
				t.Error(reason)
			}
		})
	}
	wg.Wait()
	if n := s.count(); n != 1 {
		t.Fatalf("fetched %d times", n)
	}
}

func TestJWKSRedirectIsNotFollowed(t *testing.T) {
	s := newSignIn(t)
	k := edKey(t, "k")
	s.publish(t, k.public)
	redirect := httptest.NewServer(http.RedirectHandler(s.URL, http.StatusFound))
	defer redirect.Close()
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	c := must(New(Config{JWKSURL: redirect.URL, Issuer: issuer, Audience: audience, Now: clock}))(t)
	if _, reason := ask(c, k.token(t, "k")); reason != KeysUnavailable || s.count() != 0 {
		t.Fatal(reason, s.count())
	}
}
