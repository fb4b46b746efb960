package service_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// webhook sends a correctly signed webhook, as the emulator would, with both header
// sets; edit may spoil it.
func (in *installation) webhook(kind, data string, edit ...func(http.Header)) answer {
	in.t.Helper()
	return in.webhookAt(time.Now(), fmt.Sprintf(`{"type":%q,"id":"t-%d","created_at":"2026-01-02T03:04:05.678Z","data":%s}`, kind, in.turn.Add(1), data), edit...)
}

func (in *installation) webhookAt(at time.Time, body string, edit ...func(http.Header)) answer {
	in.t.Helper()
	r, err := http.NewRequest(http.MethodPost, in.url()+"/webhooks/imagekit", strings.NewReader(body))
	if err != nil {
		in.t.Fatal(err)
	}
	secret, id := in.env["IMAGEKIT_WEBHOOK_SECRET"], fmt.Sprintf("msg_%d", in.turn.Add(1))
	sign := func(parts ...string) []byte {
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write([]byte(strings.Join(parts, ".")))
		return mac.Sum(nil)
	}
	ts, ms := strconv.FormatInt(at.Unix(), 10), strconv.FormatInt(at.UnixMilli(), 10)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Webhook-Id", id)
	r.Header.Set("Webhook-Timestamp", ts)
	r.Header.Set("Webhook-Signature", "v1,"+base64.StdEncoding.EncodeToString(sign(id, ts, body)))
	r.Header.Set("X-Ik-Signature", "t="+ms+",v1="+hex.EncodeToString(sign(ms, body)))
	for _, f := range edit {
		f(r.Header)
	}
	return in.send(r)
}

// badInput sends what must not count, and then looks that nothing was enqueued: no
// event in the ledger, the retries or the dead letters, no row.
func badInput(in *installation) {
	in.settles(time.Minute)
	events := func() int {
		return in.count(`SELECT (SELECT count(*) FROM trueup.ledger) + (SELECT count(*) FROM trueup.retries) + (SELECT count(*) FROM trueup.dead_letters) + (SELECT count(*) FROM public.imagekit_files)`)
	}
	before := events()
	in.badTokens()
	in.badReports()
	in.badWebhooks()
	in.settles(time.Minute)
	if after := events(); after != before {
		in.t.Errorf("bad input left %d traces in the database", after-before)
	}
	in.webhook("some.new.kind", `{"fileId":"aaaaaaaaaaaaaaaaaaaaaaaa","unheard":{"of":[1]}}`).want(in.t, http.StatusOK)
	in.webhook("video.transformation.ready", `{"asset":{"url":"https://x.example/v.mp4"}}`).want(in.t, http.StatusOK)
}

func (in *installation) badTokens() {
	now := time.Now()
	claims := func(edit func(jwt.MapClaims)) jwt.MapClaims {
		c := jwt.MapClaims{"sub": "ann", "iss": in.env["TRUEUP_JWT_ISSUER"], "aud": in.env["TRUEUP_JWT_AUDIENCE"], "iat": now.Unix(), "exp": now.Add(time.Hour).Unix()}
		edit(c)
		return c
	}
	signed := func(m jwt.SigningMethod, c jwt.MapClaims, key any) string {
		s, err := jwt.NewWithClaims(m, c).SignedString(key)
		if err != nil {
			in.t.Fatal(err)
		}
		return s
	}
	secret := []byte(in.env["TRUEUP_JWT_SECRET"])
	for name, token := range map[string]string{
		"garbage":        "not.a.token",
		"another secret": signed(jwt.SigningMethodHS256, claims(func(jwt.MapClaims) {}), []byte(strings.Repeat("x", 40))),
		"HS512":          signed(jwt.SigningMethodHS512, claims(func(jwt.MapClaims) {}), secret),
		"alg none":       signed(jwt.SigningMethodNone, claims(func(jwt.MapClaims) {}), jwt.UnsafeAllowNoneSignatureType),
		"no expiry":      signed(jwt.SigningMethodHS256, claims(func(c jwt.MapClaims) { delete(c, "exp") }), secret),
		"expired":        signed(jwt.SigningMethodHS256, claims(func(c jwt.MapClaims) { c["exp"] = now.Add(-time.Hour).Unix() }), secret),
		"empty sub":      signed(jwt.SigningMethodHS256, claims(func(c jwt.MapClaims) { c["sub"] = "" }), secret),
		"wrong audience": signed(jwt.SigningMethodHS256, claims(func(c jwt.MapClaims) { c["aud"] = "else" }), secret),
		"wrong issuer":   signed(jwt.SigningMethodHS256, claims(func(c jwt.MapClaims) { c["iss"] = "else" }), secret),
	} {
		r, _ := http.NewRequest(http.MethodPost, in.url()+"/save-metadata", strings.NewReader(`{"fileId":"aaaaaaaaaaaaaaaaaaaaaaaa"}`))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer "+token)
		if a := in.send(r); a.status != http.StatusUnauthorized || a.text(in.t, "code") == "" {
			in.t.Errorf("a token that is %s is answered %d %s, want 401 with a code", name, a.status, a.body)
		}
	}
}

func (in *installation) badReports() {
	for name, c := range map[string]struct {
		body   string
		status int
	}{
		"no fileId":             {`{"url":"https://x.example"}`, 400},
		"a path for a fileId":   {`{"fileId":"../../v1/files"}`, 400},
		"a long fileId":         {`{"fileId":"` + strings.Repeat("a", 65) + `"}`, 400},
		"a number for a fileId": {`{"fileId":7}`, 400},
		"no JSON":               {`fileId=x`, 400},
		"cut JSON":              {`{"fileId":"aaaaaaaaaaaaaaaaaaaaaaaa"`, 400},
		"deep JSON":             {`{"fileId":"aaaaaaaaaaaaaaaaaaaaaaaa","url":` + strings.Repeat("[", 100000) + strings.Repeat("]", 100000) + `}`, 400},
		"too much":              {`{"fileId":"aaaaaaaaaaaaaaaaaaaaaaaa","url":"` + strings.Repeat("x", 300<<10) + `"}`, 413},
		"101 reports":           {"[" + strings.TrimSuffix(strings.Repeat(`{"fileId":"aaaaaaaaaaaaaaaaaaaaaaaa"},`, 101), ",") + "]", 400},
		"no report":             {"[]", 400},
	} {
		if a := in.call("ann", "POST", "/save-metadata", []byte(c.body)); a.status != c.status {
			in.t.Errorf("%s: %d %s, want %d", name, a.status, last(string(a.body), 200), c.status)
		}
	}
	r, _ := http.NewRequest(http.MethodPost, in.url()+"/save-metadata", strings.NewReader("fileId=x"))
	r.Header.Set("Content-Type", "text/plain")
	r.Header.Set("Authorization", "Bearer "+in.token("ann"))
	in.send(r).want(in.t, http.StatusUnsupportedMediaType)
	in.call("ann", "GET", "/no-such-path", nil).want(in.t, http.StatusNotFound)
	in.call("ann", "DELETE", "/save-metadata", nil).want(in.t, http.StatusMethodNotAllowed)
}

func (in *installation) badWebhooks() {
	data := `{"fileId":"aaaaaaaaaaaaaaaaaaaaaaaa"}`
	without := func(h http.Header) {
		for _, k := range []string{"Webhook-Signature", "X-Ik-Signature"} {
			h.Del(k)
		}
	}
	for name, edit := range map[string]func(http.Header){
		"unsigned": without,
		"forged":   func(h http.Header) { without(h); h.Set("Webhook-Signature", "v1,AAAA") },
		"forged legacy": func(h http.Header) {
			v := h.Get("X-Ik-Signature")
			without(h)
			h.Set("X-Ik-Signature", strings.Replace(v, "v1=", "v1=00", 1))
		},
		"headers doubled": func(h http.Header) {
			h.Add("Webhook-Signature", h.Get("Webhook-Signature"))
			h.Add("X-Ik-Signature", h.Get("X-Ik-Signature"))
		},
	} {
		in.webhookIs(name, in.webhook("file.created", data, edit), http.StatusUnauthorized)
	}
	body := `{"type":"file.created","id":"x","created_at":"2026-01-02T03:04:05.678Z","data":` + data + `}`
	in.webhookIs("old", in.webhookAt(time.Now().Add(-time.Hour), body), http.StatusUnauthorized)
	in.webhookIs("from the future", in.webhookAt(time.Now().Add(time.Hour), body), http.StatusUnauthorized)
	in.webhookIs("too large", in.webhookAt(time.Now(), `{"type":"x","id":"y","created_at":"z","data":{"fileId":"`+string(bytes.Repeat([]byte("a"), 1100<<10))+`"}}`), http.StatusRequestEntityTooLarge)
	in.webhookIs("not JSON by type", in.webhook("file.created", data, func(h http.Header) { h.Set("Content-Type", "text/plain") }), http.StatusUnsupportedMediaType)
}

func (in *installation) webhookIs(name string, a answer, status int) {
	in.t.Helper()
	if a.status != status {
		in.t.Errorf("a webhook that is %s is answered %d %s, want %d", name, a.status, last(string(a.body), 200), status)
	}
}
