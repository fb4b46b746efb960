package ingest

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/trueup/trueup/ingest/signature"
	"github.com/trueup/trueup/internal/testenv/contract"
)

// exchange is one entry of testdata/contract.txt.
type exchange struct {
	name     string
	request  []string
	answer   []string
	enqueued int
}

func readExchanges(t *testing.T) []exchange {
	t.Helper()
	raw := must(os.ReadFile("testdata/contract.txt"))(t)
	var all []exchange
	for line := range strings.SplitSeq(string(raw), "\n") {
		if name, ok := strings.CutPrefix(line, "== "); ok {
			all = append(all, exchange{name: name})
			continue
		}
		if len(all) == 0 || line == "" || line[0] == '#' {
			continue
		}
		e := &all[len(all)-1]
		switch rest := strings.TrimPrefix(line[1:], " "); line[0] {
		case '>':
			e.request = append(e.request, rest)
		case '<':
			e.answer = append(e.answer, rest)
		case 'e':
			e.enqueued = must(strconv.Atoi(strings.TrimPrefix(line, "enqueued ")))(t)
		default:
			t.Fatalf("%s: cannot read %q", e.name, line)
		}
	}
	return all
}

func TestContract(t *testing.T) {
	all := readExchanges(t)
	if len(all) < 60 {
		t.Fatalf("only %d exchanges were read", len(all))
	}
	document := must(contract.Load(OpenAPI()))(t)
	recorder := &contract.Recorder{Document: document}
	for _, e := range all {
		t.Run(e.name, func(t *testing.T) {
			b := setup(t, nil)
			server := httptest.NewServer(b.handler)
			defer server.Close()
			transport := &http.Transport{DisableCompression: true}
			defer transport.CloseIdleConnections()
			recorder.Next = transport

			res := must(recorder.RoundTrip(e.build(b, server.URL)))(t)
			body := must(io.ReadAll(res.Body))(t)
			e.check(t, res, string(body))
			if got := len(b.queue.taken()); got != e.enqueued {
				t.Errorf("%d events reached the queue, want %d", got, e.enqueued)
			}
		})
	}
	for _, err := range recorder.Errors() {
		t.Error(err)
	}
	for _, operation := range document.Operations() {
		if recorder.Seen()[operation] == 0 {
			t.Errorf("%s is in the document and in no exchange", operation)
		}
	}
}

// build makes the request of e.
func (e exchange) build(b *bench, url string) *http.Request {
	method, path, _ := strings.Cut(e.request[0], " ")
	header, rest := http.Header{}, e.request[1:]
	for len(rest) > 0 && rest[0] != "" {
		name, value, _ := strings.Cut(rest[0], ": ")
		header.Add(name, b.tokens(value))
		rest = rest[1:]
	}
	body := ""
	if len(rest) > 1 {
		body = filled(strings.Join(rest[1:], "\n"))
	}
	r := must(http.NewRequest(method, url+path, strings.NewReader(body)))(b.t)
	if header.Get("Sign") != "" {
		sign(header, b.now, []byte(body))
	}
	r.Header = header
	return r
}

func sign(h http.Header, now time.Time, body []byte) {
	how := h.Get("Sign")
	h.Del("Sign")
	secret := webhookSecret
	switch how {
	case "other secret":
		secret = "whsec_c29tZS1vdGhlci1zZWNyZXQtdmFsdWU="
	case "old":
		now = now.Add(-signature.Tolerance - time.Second)
	case "future":
		now = now.Add(signature.Tolerance + time.Second)
	}
	if how == "legacy" {
		signature.SignLegacy(h, secret, now, body)
		return
	}
	signature.Sign(h, secret, "msg_1", now, body)
	if how == "doubled" {
		h.Add(signature.HeaderSignature, h.Get(signature.HeaderSignature))
	}
}

var placeholder = regexp.MustCompile(`\{(large|deep|many) (\d+)\}`)

func filled(body string) string {
	return placeholder.ReplaceAllStringFunc(body, func(s string) string {
		var kind string
		var n int
		if _, err := fmt.Sscanf(strings.Trim(s, "{}"), "%s %d", &kind, &n); err != nil {
			panic(err)
		}
		switch kind {
		case "deep":
			return strings.Repeat("[", n) + strings.Repeat("]", n)
		case "many":
			return "[" + strings.TrimSuffix(strings.Repeat(`{"fileId":"a"},`, n), ",") + "]"
		}
		return `{"fileId":"` + strings.Repeat("a", n-13) + `"}`
	})
}

var named = regexp.MustCompile(`\{(\w+)\}`)

// tokens fills in tokens: good ones of a user, and ones wrong in one way.
func (b *bench) tokens(value string) string {
	return named.ReplaceAllStringFunc(value, func(s string) string {
		claims := jwt.MapClaims{"sub": "user_123", "iss": issuer, "aud": audience, "exp": b.now.Add(time.Hour).Unix()}
		var method jwt.SigningMethod = jwt.SigningMethodHS256
		var key any = []byte(jwtSecret)
		switch name := strings.Trim(s, "{}"); name {
		case "other_secret":
			key = []byte("another-secret-of-32-bytes-or-more")
		case "alg_none":
			method, key = jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType
		case "hs512":
			method = jwt.SigningMethodHS512
		case "expired":
			claims["exp"] = b.now.Add(-time.Minute).Unix()
		case "no_expiry":
			delete(claims, "exp")
		case "empty_sub":
			claims["sub"] = ""
		case "wrong_audience":
			claims["aud"] = "another"
		case "wrong_issuer":
			claims["iss"] = "https://evil.example"
		default:
			claims["sub"] = name
		}
		return must(jwt.NewWithClaims(method, claims).SignedString(key))(b.t)
	})
}

// check holds an answer against the expected lines.
func (e exchange) check(t *testing.T, res *http.Response, body string) {
	t.Helper()
	if got := strconv.Itoa(res.StatusCode); got != e.answer[0] {
		t.Fatalf("answered %s %s, want %s", got, body, e.answer[0])
	}
	for _, line := range e.answer[1:] {
		if line[0] == '{' {
			if !like(line, body) {
				t.Errorf("answered %s, want %s", body, line)
			}
			continue
		}
		name, want, _ := strings.Cut(line, ": ")
		if got := res.Header.Get(name); !like(want, got) || got == "" {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

// like matches with * for any text and ? for any one character.
func like(pattern, s string) bool {
	p := regexp.QuoteMeta(pattern)
	p = strings.ReplaceAll(strings.ReplaceAll(p, `\*`, `.*`), `\?`, `.`)
	return regexp.MustCompile(`(?s)^` + p + `$`).MatchString(s)
}
