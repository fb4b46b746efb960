package service_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/trueup/trueup/internal/testenv"
)

// startServe runs `trueup serve` with the emulator as ImageKit, the embedded queue and
// a migrated database.
func startServe(t testing.TB, more map[string]string) *installation {
	t.Helper()
	return startServeTagged(t, more, nil)
}

// startServeTagged is startServe with a serve built with tags.
func startServeTagged(t testing.TB, more map[string]string, tags []string) *installation {
	t.Helper()
	in := &installation{t: t}
	database := testenv.Postgres(t)
	at := func() string { return fmt.Sprintf("127.0.0.1:%d", testenv.Freeport(t)) }
	imagekit, public, ops := at(), at(), at()
	in.env = map[string]string{
		"DATABASE_URL": database, "TRUEUP_ADDR": public, "TRUEUP_OPS_ADDR": ops, "TRUEUP_DATA_DIR": testenv.Dir(t),
		"TRUEUP_URL": "http://" + public, "TRUEUP_OPS_URL": "http://" + ops, "TRUEUP_OPS_TOKEN": "serve-operator-token",
		"IMAGE_KIT_BASE_URL": "http://" + imagekit, "IMAGEKIT_URL_ENDPOINT": "http://" + imagekit + "/demo_id",
		"IMAGEKIT_PUBLIC_KEY": "public_serve", "IMAGEKIT_PRIVATE_KEY": "private_serve0123456789abcdef", "IMAGEKIT_WEBHOOK_SECRET": "whsec_c2VydmUtc2VydmUtc2VydmU=",
		"TRUEUP_JWT_SECRET": strings.Repeat("serve-secret-", 4), "TRUEUP_JWT_ISSUER": "serve", "TRUEUP_JWT_AUDIENCE": "trueup",
		"TRUEUP_NOT_FOUND_GRACE": "3s", "TRUEUP_ABSENT_CONFIRM": "1s", "TRUEUP_POLL_EVERY": "0", "TRUEUP_RECONCILE_EVERY": "0",
	}
	maps.Copy(in.env, more)
	must(t, in.env, "migrate", "up")
	emulatorEnv := maps.Clone(in.env)
	emulatorEnv["TRUEUP_EMULATOR_ADDR"], emulatorEnv["TRUEUP_DATA_DIR"] = imagekit, testenv.Dir(t)
	start(t, emulatorEnv, "emulator")
	serve := startTagged(t, in.env, tags, "serve")
	in.dev = serve
	in.answers(in.env["TRUEUP_URL"]+"/readyz", in.env["IMAGE_KIT_BASE_URL"]+"/_emulator/settings")
	in.connect()
	in.settings(map[string]any{"webhooks": map[string]any{"enabled": true, "url": in.env["TRUEUP_URL"] + "/webhooks/imagekit"}})
	return in
}

// answers waits until each address answers 200.
func (in *installation) answers(urls ...string) {
	in.t.Helper()
	plain := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	for _, u := range urls {
		testenv.Eventually(in.t, time.Minute, func() error {
			resp, err := plain.Get(u)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				return fmt.Errorf("GET %s: %s", u, resp.Status)
			}
			return nil
		})
	}
}

// TestServeAsksWhoCalls: without a token 401, with one of the JWKS's keys 202, in each
// algorithm; nothing else is let in.
func TestServeAsksWhoCalls(t *testing.T) {
	t.Parallel()
	keys := newKeySet(t)
	in := startServe(t, map[string]string{"TRUEUP_JWT_SECRET": "", "TRUEUP_JWKS_URL": keys.url})
	if a := in.call("", "POST", "/save-metadata", map[string]string{"fileId": "aaaaaaaaaaaaaaaaaaaaaaaa"}).want(t, http.StatusUnauthorized); a.text(t, "code") != "missing_token" {
		t.Errorf("refused as %s", a.body)
	}
	id := in.uploadServer(nil, 1)
	in.awaitRow(id)
	for alg, token := range keys.tokens(t, "jwks-user") {
		r, _ := http.NewRequest(http.MethodPost, in.url()+"/save-metadata", strings.NewReader(fmt.Sprintf(`{"fileId":%q}`, id)))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer "+token)
		want := http.StatusAccepted
		if alg == "stranger" {
			want = http.StatusUnauthorized
		}
		if a := in.send(r); a.status != want {
			t.Errorf("%s: %d %s, want %d", alg, a.status, a.body, want)
		}
	}
	in.settles(time.Minute)
	if owner := in.owner(id); owner != "jwks-user" {
		t.Errorf("the row belongs to %q, want jwks-user", owner)
	}
}

// TestSignedMode: only tickets own; V1 is gone; a claim owns nothing.
func TestSignedMode(t *testing.T) {
	t.Parallel()
	in := startServe(t, map[string]string{"TRUEUP_OWNERSHIP": "signed", "TRUEUP_UPLOAD_FOLDER": "/u/{sub}"})
	in.call("ann", "GET", "/generate-auth-params", nil).want(t, http.StatusGone)

	mine := in.uploadV2("ann", map[string]any{}, 1)
	in.outcomeIs("ann", in.report("ann", mine), "verified")
	if r := in.awaitRow(mine); r.User != "ann" || !strings.HasPrefix(r.Path, "/u/ann/") {
		t.Errorf("row %+v, want ann's under /u/ann/", r)
	}
	nested := in.call("ann", "POST", "/generate-upload-token", map[string]any{"uploadPayload": map[string]any{"fileName": "x.png", "folder": "/u/bob"}}).want(t, http.StatusOK)
	if folder := nested.text(t, "uploadPayload", "folder"); !strings.HasPrefix(folder, "/u/ann/") {
		t.Errorf("signed for folder %s, want one under /u/ann/", folder)
	}
	in.call("ann", "POST", "/generate-upload-token", map[string]any{"uploadPayload": map[string]any{"fileName": "x.png", "folder": "/u/ann/../bob"}}).want(t, http.StatusBadRequest)

	// A V1 upload signed elsewhere has no ticket: nobody's, whoever reports it.
	fields := in.signV1()
	fields["fileName"] = "forged.png"
	ct, body := form(t, fields, "x.png", picture(2))
	nobodys := in.imagekit("POST", "/api/v1/files/upload", false, ct, body).want(t, http.StatusOK).text(t, "fileId")
	in.outcomeIs("eve", in.report("eve", nobodys), "rejected")
	if owner := in.owner(nobodys); owner != "" {
		t.Errorf("an upload without a ticket belongs to %q", owner)
	}
	// A stolen ticket on an attacker's file gives the file to the ticket's user, and the
	// attacker nothing.
	in.converges(time.Minute)
	in.identity()
}

// keySet is a JWKS on loopback.
type keySet struct {
	url  string
	rsa  *rsa.PrivateKey
	ec   *ecdsa.PrivateKey
	ed   ed25519.PrivateKey
	evil *ecdsa.PrivateKey
}

func newKeySet(t testing.TB) *keySet {
	t.Helper()
	k := &keySet{}
	var err error
	if k.rsa, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	if k.ec, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	if k.evil, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	if _, k.ed, err = ed25519.GenerateKey(rand.Reader); err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	point, err := k.ec.PublicKey.Bytes() // 0x04, x, y
	if err != nil {
		t.Fatal(err)
	}
	edPublic, _ := k.ed.Public().(ed25519.PublicKey)
	set := map[string]any{"keys": []map[string]string{
		{"kty": "RSA", "kid": "r", "alg": "RS256", "use": "sig", "n": b64(k.rsa.N.Bytes()), "e": b64(big.NewInt(int64(k.rsa.E)).Bytes())},
		{"kty": "EC", "kid": "e", "alg": "ES256", "use": "sig", "crv": "P-256", "x": b64(point[1:33]), "y": b64(point[33:])},
		{"kty": "OKP", "kid": "o", "alg": "EdDSA", "use": "sig", "crv": "Ed25519", "x": b64(edPublic)},
	}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(set)
	}))
	t.Cleanup(server.Close)
	k.url = server.URL + "/jwks.json"
	return k
}

// tokens are one of each algorithm, and a stranger's.
func (k *keySet) tokens(t testing.TB, user string) map[string]string {
	t.Helper()
	sign := func(m jwt.SigningMethod, kid string, key crypto.PrivateKey) string {
		token := jwt.NewWithClaims(m, jwt.MapClaims{"sub": user, "iss": "serve", "aud": "trueup", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix()})
		token.Header["kid"] = kid
		s, err := token.SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	return map[string]string{"RS256": sign(jwt.SigningMethodRS256, "r", k.rsa), "ES256": sign(jwt.SigningMethodES256, "e", k.ec),
		"EdDSA": sign(jwt.SigningMethodEdDSA, "o", k.ed), "stranger": sign(jwt.SigningMethodES256, "e", k.evil)}
}
