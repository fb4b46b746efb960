package caller

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/trueup/trueup/internal/testenv/seed"
)

// signed is a token of this header and these claims, byte for byte, with the shared
// secret, so that a fuzzer reaches what lies behind the signature.
func signed(header, claims []byte) string {
	text := base64.RawURLEncoding.EncodeToString(header) + "." + base64.RawURLEncoding.EncodeToString(claims)
	h := hmac.New(sha256.New, []byte(shared))
	h.Write([]byte(text))
	return text + "." + base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// FuzzClaims holds that of everything the sign-in may sign, a user comes of those claims
// alone that say so by their exact names to any reader of JSON.
func FuzzClaims(f *testing.F) {
	for _, s := range seed.Files(f, "testdata/claims/*.json", 15) {
		f.Add([]byte(`{"alg":"HS256","typ":"JWT"}`), s.Data)
	}
	f.Add([]byte(`{"alg":"none"}`), []byte(`{"sub":"eve"}`))
	f.Add([]byte(`{"alg":"HS256","crit":["b64"],"b64":false}`), []byte(`{}`))
	f.Add([]byte(`{"alg":"HS256","jku":"https://evil.example","jwk":{"kty":"oct","k":"AA"},"kid":"../../etc"}`), []byte(`{}`))
	checker := must(New(Config{Secret: shared, Issuer: issuer, Audience: audience, Now: clock}))(f)
	f.Fuzz(func(t *testing.T, header, claims []byte) {
		user, err := checker.User(&http.Request{Header: http.Header{"Authorization": {"Bearer " + signed(header, claims)}}})
		if refusedProperly(t, user, err) {
			return
		}
		var h, c map[string]any
		if json.Unmarshal(header, &h) != nil || json.Unmarshal(claims, &c) != nil {
			t.Fatalf("a user of what is no JSON: %s %s", header, claims)
		}
		_, crit := h["crit"]
		typ, _ := h["typ"].(string)
		if h["alg"] != "HS256" || crit || !slices.Contains([]string{"", "jwt", "at+jwt", "application/at+jwt"}, strings.ToLower(typ)) {
			t.Fatalf("a user by the header %s", header)
		}
		exp, ok := c["exp"].(float64)
		if c["sub"] != user || c["iss"] != issuer || !addressed(c["aud"]) || !ok || exp < float64(start.Add(-leeway-time.Second).Unix()) {
			t.Fatalf("%q by the claims %s", user, claims)
		}
		for _, name := range []string{"nbf", "iat"} {
			if at, ok := c[name].(float64); ok && at > float64(start.Add(leeway+time.Second).Unix()) {
				t.Fatalf("%q before %s: %s", user, name, claims)
			}
		}
	})
}

func addressed(aud any) bool {
	list, ok := aud.([]any)
	return aud == audience || ok && slices.Contains(list, any(audience))
}

// refusedProperly fails for half an answer and reports whether it is a refusal.
func refusedProperly(t *testing.T, user string, err error) bool {
	var refusal *Refusal
	switch {
	case err == nil && !validSubject(user):
		t.Fatalf("the user %q", user)
	case err != nil && (user != "" || !errors.As(err, &refusal) || refusal.Reason == ""):
		t.Fatalf("%q beside %v", user, err)
	}
	return err != nil
}

// FuzzToken holds that nothing that was not signed with a key of ours names a user,
// whatever stands in the header.
func FuzzToken(f *testing.F) {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		f.Fatal(err)
	}
	public, _ := private.Public().(ed25519.PublicKey)
	good := must(jwt.NewWithClaims(jwt.SigningMethodHS256, claims(nil)).SignedString([]byte(shared)))(f)
	set := &keySet{now: clock, refreshAfter: time.Hour, staleFor: time.Hour, gap: time.Hour, good: start, tried: start, keys: []publicKey{{"o", "EdDSA", public}}}
	edToken := jwt.NewWithClaims(jwt.SigningMethodEdDSA, claims(nil))
	edToken.Header["kid"] = "o"
	byKeySet := must(edToken.SignedString(private))(f)
	// The public key as an HS256 secret: what a confused verifier takes.
	confused := must(jwt.NewWithClaims(jwt.SigningMethodHS256, claims(nil)).SignedString([]byte(public)))(f)
	unsigned := must(jwt.NewWithClaims(jwt.SigningMethodNone, claims(nil)).SignedString(jwt.UnsafeAllowNoneSignatureType))(f)
	for _, s := range []string{good, byKeySet, confused, unsigned, "", ".", "..", strings.Repeat(".", 3000), good + "=", good[:len(good)-1]} {
		f.Add("Bearer " + s)
	}
	f.Add("bearer\t" + good)
	secrets := must(New(Config{Secret: shared, Issuer: issuer, Audience: audience, Now: clock}))(f)
	published := must(New(Config{JWKSURL: "https://app.example.com/jwks", Issuer: issuer, Audience: audience, Now: clock}))(f)
	published.keys = set
	f.Fuzz(func(t *testing.T, line string) {
		r := &http.Request{Header: http.Header{"Authorization": {line}}}
		if user, err := secrets.User(r); !refusedProperly(t, user, err) && !strings.Contains(line, good) {
			t.Fatalf("%q by %q", user, line)
		}
		if user, err := published.User(r); !refusedProperly(t, user, err) && !strings.Contains(line, byKeySet) {
			t.Fatalf("%q by %q", user, line)
		}
	})
}

// FuzzKeySet holds that of any answer of a sign-in only keys are kept that are bound to
// one algorithm, and never a symmetric one.
func FuzzKeySet(f *testing.F) {
	for _, s := range []string{
		`{"keys":[{"kty":"OKP","kid":"o","alg":"EdDSA","use":"sig","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`,
		`{"keys":[{"kty":"oct","k":"c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTMy"}]}`,
		`{"keys":[{"kty":"EC","crv":"P-256","kid":"e","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}`,
		`{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"},{"kty":"OKP","crv":"X25519","x":"AAAA","x5u":"https://evil.example"},null,7]}`,
		`{"keys":null}`, `[]`, `{"keys":[{}],"keys":[]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		keys, err := decode(body)
		if (err == nil) == (len(keys) == 0) || len(keys) > maxKeys {
			t.Fatalf("%d keys beside %v", len(keys), err)
		}
		for _, k := range keys {
			if algorithm, ok := algorithmOf(k.key); !ok || algorithm != k.algorithm || !slices.Contains((&keySet{}).algorithms(), algorithm) {
				t.Fatalf("a %T for %q", k.key, k.algorithm)
			}
		}
	})
}

// TestTokensAreReadFrugally: a token costs no more memory than its size warrants.
func TestTokensAreReadFrugally(t *testing.T) {
	checker := must(New(Config{Secret: shared, Issuer: issuer, Audience: audience, Now: clock}))(t)
	try := func(name, line string) {
		r := &http.Request{Header: http.Header{"Authorization": {line}}}
		seed.Frugal(t, name, len(line), func() { _, _ = checker.User(r) })
	}
	for _, s := range seed.Files(t, "testdata/claims/*.json", 15) {
		try(s.Name, "Bearer "+signed([]byte(`{"alg":"HS256","typ":"JWT"}`), s.Data))
	}
	for name, args := range seed.Kept(t, "FuzzClaims", 10) {
		try(name, "Bearer "+signed([]byte(args[0]), []byte(args[1])))
	}
	try("dots", "Bearer "+strings.Repeat(".", MaxToken-100))
	try("a megabyte", "Bearer "+strings.Repeat("a", 1<<20))
	brackets := &http.Request{Header: http.Header{"Authorization": {"Bearer " + signed([]byte(`{"alg":"HS256"}`), []byte(strings.Repeat("[", 5000)))}}}
	seed.Within(t, "brackets", 256<<10, func() { _, _ = checker.User(brackets) })
	try("many names", "Bearer "+signed([]byte(`{"alg":"HS256"}`), []byte(`{`+strings.Repeat(`"":0,`, 1000)+`"a":0}`)))
}
