package service_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// TestAttacksOnTokens: a user comes only of a token that a published key signed, with
// the algorithm of that key. trueup itself, serve with a JWKS, decides.
func TestAttacksOnTokens(t *testing.T) {
	t.Parallel()
	keys, x := newKeySet(t), newTrap(t)
	in := startServe(t, map[string]string{"TRUEUP_JWT_SECRET": "", "TRUEUP_JWKS_URL": keys.url, "TRUEUP_RATE_PER_USER": "0"})
	good := keys.tokens(t, "ann")["RS256"]
	ask := func(authorization ...string) answer {
		t.Helper()
		r, err := http.NewRequest(http.MethodPost, in.url()+"/generate-upload-token", strings.NewReader(`{"uploadPayload":{"fileName":"x.png"}}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header["Authorization"] = authorization
		return in.send(r)
	}
	upload := ask("Bearer "+good).want(t, http.StatusOK).text(t, "token")
	before := in.traces()
	for name, token := range keys.forgeries(t, x.url) {
		if a := ask("Bearer " + token); a.status != http.StatusUnauthorized {
			t.Errorf("a token that is %s: %d %s", name, a.status, a.body)
		}
	}
	for name, lines := range map[string][]string{
		"an upload token":       {"Bearer " + upload},
		"two tokens":            {"Bearer " + good, "Bearer " + good},
		"two tokens in a line":  {"Bearer " + good + ", Bearer " + good},
		"Basic":                 {"Basic " + base64.StdEncoding.EncodeToString([]byte("ann:"+good))},
		"nothing but dots":      {"Bearer " + strings.Repeat(".", 8000)},
		"more than 8 KiB":       {"Bearer " + good + strings.Repeat("A", 8<<10)},
		"four parts":            {"Bearer " + good + ".AAAA"},
		"a signature cut short": {"Bearer " + good[:len(good)-4]},
		"padded":                {"Bearer " + good + "="},
	} {
		if a := ask(lines...); a.status != http.StatusUnauthorized {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	if status := in.bare("POST", "/save-metadata", "Authorization: Bearer "+strings.Repeat("A", 1<<20)); status != 431 {
		t.Errorf("a token of a megabyte is answered %d", status)
	}
	// An app's token permits no upload, as a token or as a signature.
	fields := map[string]string{"token": good, "fileName": "x.png"}
	if a := in.sendUpload("v2", fields, 1); a.status/100 == 2 {
		t.Errorf("an upload with an app's token: %d %s", a.status, a.body)
	}
	if after := in.traces(); after != before {
		t.Errorf("forged tokens left %d traces", after-before)
	}
	x.sprung(t)
	ask("Bearer "+good).want(t, http.StatusOK)

	t.Run("KeysBehindARedirectAreNone", func(t *testing.T) {
		moved := httptest.NewServer(http.RedirectHandler(keys.url, http.StatusFound))
		defer moved.Close()
		in.dev.stop()
		in.dev.set("TRUEUP_JWKS_URL", moved.URL)
		in.dev.restart()
		in.answers(in.env["TRUEUP_URL"] + "/readyz")
		if a := ask("Bearer " + good); a.status/100 == 2 {
			t.Errorf("a key from behind a redirect is believed: %d", a.status)
		}
	})
}

// forgeries are tokens of ann's that no published key signed as it should have, by what
// is wrong with them. evil is an address where the forger's own keys are.
func (k *keySet) forgeries(t testing.TB, evil string) map[string]string {
	t.Helper()
	mine, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	claims := jwt.MapClaims{"sub": "ann", "iss": "serve", "aud": "trueup", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix()}
	sign := func(m jwt.SigningMethod, key any, header, change map[string]any) string {
		t.Helper()
		c := maps.Clone(claims)
		maps.Copy(c, change)
		token := jwt.NewWithClaims(m, c)
		token.Header["kid"] = "r"
		maps.Copy(token.Header, header)
		s, err := token.SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	der, err := x509.MarshalPKIXPublicKey(&k.rsa.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	pkcs1 := x509.MarshalPKCS1PublicKey(&k.rsa.PublicKey)
	public := func(kind string, raw []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw}) }
	jwk := map[string]any{"kty": "RSA", "kid": "r", "n": base64.RawURLEncoding.EncodeToString(mine.N.Bytes()), "e": "AQAB"}
	rs, hs := jwt.SigningMethodRS256, jwt.SigningMethodHS256
	all := map[string]string{
		"unsigned":                      sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, nil, nil),
		"unsigned, NONE in capitals":    rawToken(`{"alg":"NONE","typ":"JWT","kid":"r"}`, claims, nil),
		"HS256 by the public key (PEM)": sign(hs, public("PUBLIC KEY", der), nil, nil),
		"HS256 by the key (PKCS #1)":    sign(hs, public("RSA PUBLIC KEY", pkcs1), nil, nil),
		"HS256 by the key (DER)":        sign(hs, der, nil, nil),
		"HS256 by the modulus":          sign(hs, k.rsa.N.Bytes(), nil, nil),
		"HS256 by nothing":              sign(hs, []byte{}, nil, nil),
		"signed by a stranger":          sign(rs, mine, nil, nil),
		"with jku":                      sign(rs, mine, map[string]any{"jku": evil + "/jwks.json"}, nil),
		"with x5u":                      sign(rs, mine, map[string]any{"x5u": evil + "/cert.pem"}, nil),
		"with its own jwk":              sign(rs, mine, map[string]any{"jwk": jwk}, nil),
		"with its own x5c":              sign(rs, mine, map[string]any{"x5c": []string{base64.StdEncoding.EncodeToString(der)}}, nil),
		"with a kid that is an address": sign(rs, mine, map[string]any{"kid": evil + "/key"}, nil),
		"with a kid that is a path":     sign(hs, []byte{}, map[string]any{"kid": "../../../../dev/null"}, nil),
		"with a kid that is SQL":        sign(hs, []byte("x"), map[string]any{"kid": "x' UNION SELECT 'x'--"}, nil),
		"with crit":                     sign(rs, k.rsa, map[string]any{"crit": []string{"b64"}, "b64": false}, nil),
		"of another type":               sign(rs, k.rsa, map[string]any{"typ": "logout+jwt"}, nil),
		"PS256 by the right key":        sign(jwt.SigningMethodPS256, k.rsa, nil, nil),
		"RS512 by the right key":        sign(jwt.SigningMethodRS512, k.rsa, nil, nil),
		"the EC key's for RS256":        sign(jwt.SigningMethodES256, k.ec, nil, nil),
		"of another issuer":             sign(rs, k.rsa, nil, map[string]any{"iss": "another"}),
		"of two issuers":                sign(rs, k.rsa, nil, map[string]any{"iss": []string{"serve", "another"}}),
		"for another audience":          sign(rs, k.rsa, nil, map[string]any{"aud": "another"}),
		"of no audience":                sign(rs, k.rsa, nil, map[string]any{"aud": nil}),
		"expired":                       sign(rs, k.rsa, nil, map[string]any{"exp": time.Now().Add(-time.Hour).Unix()}),
		"without an end":                sign(rs, k.rsa, nil, map[string]any{"exp": nil}),
		"with its end in capitals":      sign(rs, k.rsa, nil, map[string]any{"exp": 1, "EXP": time.Now().Add(time.Hour).Unix()}),
		"with its user in capitals":     sign(rs, k.rsa, nil, map[string]any{"sub": nil, "SUB": "ann"}),
		"not yet":                       sign(rs, k.rsa, nil, map[string]any{"nbf": time.Now().Add(time.Hour).Unix()}),
		"of nobody":                     sign(rs, k.rsa, nil, map[string]any{"sub": ""}),
		"of a list of users":            sign(rs, k.rsa, nil, map[string]any{"sub": []string{"ann"}}),
		"of a user with NUL":            sign(rs, k.rsa, nil, map[string]any{"sub": "ann\x00"}),
		"of a user of a kilobyte":       sign(rs, k.rsa, nil, map[string]any{"sub": strings.Repeat("a", 1024)}),
	}
	parts := strings.Split(sign(rs, k.rsa, nil, nil), ".")
	all["changed after signing"] = parts[0] + "." + base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"sub":"eve","iss":"serve","aud":"trueup","exp":%d}`, time.Now().Add(time.Hour).Unix())) + "." + parts[2]
	all["signed for another algorithm"] = rawToken(`{"alg":"HS256","typ":"JWT","kid":"r"}`, claims, k.rsa)
	return all
}

// rawToken is a token whose header is exactly this, signed as RS256 by key where there
// is one.
func rawToken(header string, claims jwt.MapClaims, key *rsa.PrivateKey) string {
	body := jwt.NewWithClaims(jwt.SigningMethodNone, claims)
	text, _ := body.SigningString()
	_, payload, _ := strings.Cut(text, ".")
	text = base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + payload
	if key == nil {
		return text + "."
	}
	sum := sha256.Sum256([]byte(text))
	signature, _ := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// TestAttacksOverRotation: while keys are rotated nobody loses a file, a report or a
// webhook; with the old keys gone nobody gains by what was sealed with them.
func TestAttacksOverRotation(t *testing.T) {
	t.Parallel()
	const newKey, newHook = "the-key-that-seals-after-rotation-2", "whsec_YWZ0ZXItcm90YXRpb24tYWZ0ZXI="
	in := startServe(t, map[string]string{"TRUEUP_KEYS": attackKey, "TRUEUP_RATE_PER_USER": "0", "TRUEUP_OWNERSHIP": "signed", "TRUEUP_NOT_FOUND_GRACE": "500ms"})
	oldHook := in.env["IMAGEKIT_WEBHOOK_SECRET"]
	kept := in.uploadV2("ann", map[string]any{"folder": "/rotate"}, 1)
	in.awaitRow(kept)
	flight, stale := in.grant("ann", map[string]any{"fileName": "f.png"}), in.grant("ann", map[string]any{"fileName": "s.png"})
	report := in.report("ann", kept)
	restart := func(keys, hooks string) {
		t.Helper()
		in.dev.stop()
		in.dev.set("TRUEUP_KEYS", keys)
		in.dev.set("IMAGEKIT_WEBHOOK_SECRET", hooks)
		in.dev.restart()
		in.answers(in.env["TRUEUP_URL"] + "/readyz")
	}
	signedWith := func(secret string) int {
		t.Helper()
		was := in.env["IMAGEKIT_WEBHOOK_SECRET"]
		defer func() { in.env["IMAGEKIT_WEBHOOK_SECRET"] = was }()
		in.env["IMAGEKIT_WEBHOOK_SECRET"] = secret
		return in.webhook("file.updated", fmt.Sprintf(`{"fileId":%q}`, kept)).status
	}
	webhooks := func(old, recent int) {
		t.Helper()
		if a, b, c := signedWith(oldHook), signedWith(newHook), signedWith("whsec_c29tZWJvZHktZWxzZXMtc2VjcmV0"); a != old || b != recent || c != http.StatusUnauthorized {
			t.Errorf("webhooks by the old, the new and a strange secret: %d, %d, %d, want %d, %d, 401", a, b, c, old, recent)
		}
	}

	restart(newKey+","+attackKey, newHook+","+oldHook)
	in.outcomeIs("ann", report, "verified")
	id := in.sendUpload("v2", flight, 2).want(t, http.StatusOK).text(t, "fileId")
	in.belongs(id, "ann", "proven")
	webhooks(http.StatusOK, http.StatusOK)
	fresh := in.grant("ann", map[string]any{"fileName": "n.png"})
	if ticketOf(t, fresh)[:12] == ticketOf(t, flight)[:12] {
		t.Error("the new key does not seal")
	}

	restart(newKey, newHook)
	webhooks(http.StatusUnauthorized, http.StatusOK)
	in.call("ann", "GET", "/reports/"+report, nil).want(t, http.StatusNotFound)
	in.settings(map[string]any{"webhooks": map[string]any{"enabled": false}}) // it still signs with the old secret
	late := in.sendUpload("v2", stale, 3).want(t, http.StatusOK).text(t, "fileId")
	forged := in.uploadServer(map[string]string{"folder": "/rotate", "tags": sealedBy(t, attackKey, "eve", attackAccount)}, 4)
	in.notClaimable("eve", in.reportMany("eve", []string{late, forged, kept, id})...)
	for file, owner := range map[string]string{late: "", forged: "", kept: "ann", id: "ann"} {
		if is := in.awaitRow(file).User; is != owner {
			t.Errorf("%s belongs to %q, want %q", file, is, owner)
		}
	}
	last := in.sendUpload("v2", fresh, 5).want(t, http.StatusOK).text(t, "fileId")
	in.outcomeIs("ann", in.report("ann", last), "verified")
	in.belongs(last, "ann", "proven")
	in.settles(time.Minute)
	in.converges(time.Minute)
	in.identity()
}
