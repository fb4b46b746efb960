package canary

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const word = "private_+/=\"abcdefgh<>&"

func TestFindsEveryForm(t *testing.T) {
	f, err := NewFinder([]Secret{{"KEY", word}})
	if err != nil {
		t.Fatal(err)
	}
	quoted, _ := json.Marshal(word)
	var logged strings.Builder
	slog.New(slog.NewTextHandler(&logged, nil)).Info("x", "key", word)
	var jsonLogged strings.Builder
	slog.New(slog.NewJSONHandler(&jsonLogged, nil)).Info("x", "err", fmt.Errorf("bad %s", word))
	for name, text := range map[string]string{
		"AsItIs":      "x" + word + "y",
		"JSON":        string(quoted),
		"TextLog":     logged.String(),
		"JSONLog":     jsonLogged.String(),
		"Query":       "?k=" + url.QueryEscape(word),
		"Path":        "/" + url.PathEscape(word),
		"Hex":         hex.EncodeToString([]byte("ab" + word + "c")),
		"Basic":       base64.StdEncoding.EncodeToString([]byte(word + ":")),
		"Base64Of1":   base64.StdEncoding.EncodeToString([]byte("a" + word)),
		"Base64Of2":   base64.StdEncoding.EncodeToString([]byte("ab" + word + "xyz")),
		"Base64URL":   base64.URLEncoding.EncodeToString([]byte("abcd" + word + "x")),
		"Printed":     fmt.Sprintf("%+v %x", struct{ k string }{"k"}, word),
		"GoQuoted":    fmt.Sprintf("%#v", struct{ K string }{word}),
		"Bytea":       `{"body":"\\x` + hex.EncodeToString([]byte(word)) + `"}`,
		"AcrossLines": "a\nb" + word,
	} {
		t.Run(name, func(t *testing.T) {
			if len(f.In(text)) == 0 {
				t.Errorf("not found in %s", text)
			}
			if strings.Contains(f.Excerpt(text), word) {
				t.Error("the excerpt repeats the secret")
			}
		})
	}
	for _, clean := range []string{"", "private", word[:len(word)-1], strings.ToUpper(word), base64.StdEncoding.EncodeToString([]byte(word[2:20]))} {
		if found := f.In(clean); len(found) > 0 {
			t.Errorf("%q: %v", clean, found)
		}
	}
}

func TestFromEnv(t *testing.T) {
	got, err := FromEnv(map[string]string{
		"IMAGEKIT_PRIVATE_KEY": "private_123456", "IMAGEKIT_WEBHOOK_SECRET": "whsec_aaaa, whsec_bbbb", "TRUEUP_OPS_TOKEN": "ann:token-of-ann-1,token-of-bob-2",
		"DATABASE_URL": "postgres://me:pass%40word@host/db", "NATS_URL": "nats://token-of-nats@a:4222,nats://u:word-of-nats@b:4222", "TRUEUP_ADDR": "127.0.0.1:3000",
	})
	var values []string
	for _, s := range got {
		values = append(values, s.Value)
	}
	if want := []string{"private_123456", "whsec_aaaa", "whsec_bbbb", "token-of-ann-1", "token-of-bob-2", "pass@word", "token-of-nats", "word-of-nats"}; err != nil || !slices.Equal(values, want) {
		t.Fatalf("%q, %v", values, err)
	}
	if _, err := FromEnv(map[string]string{"TRUEUP_KEYS": "short"}); err == nil {
		t.Error("a secret too short to be looked for passes in silence")
	}
}

// TestSearchBites: a leak in each kind of place is found, and a place that cannot be
// searched is no clean one.
func TestSearchBites(t *testing.T) {
	secrets := []Secret{{"KEY", word}}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "0.blk"), []byte(strings.Repeat("x", 1<<20-5)+word), 0o600); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/metrics":
			_, _ = w.Write([]byte(`up{key="` + url.QueryEscape(word) + `"} 1`))
		case r.URL.Path == "/healthz":
			w.Header().Set("X-Debug", base64.StdEncoding.EncodeToString([]byte(word)))
		case r.URL.Path == "/api/dead" && r.Header.Get("Authorization") != "":
			_, _ = w.Write([]byte(`{"items":[{"id":"d1"}],"next":""}`))
		case r.URL.Path == "/api/dead/d1":
			_ = json.NewEncoder(w).Encode(map[string]string{"body": word})
		default:
			_, _ = w.Write([]byte(`{"items":[],"next":""}`))
		}
	}))
	defer server.Close()
	r, err := Search(context.Background(), Places{Secrets: secrets, Texts: map[string]string{"log": "a " + word}, Operator: []string{server.URL}, OperatorToken: "t", Dirs: []string{dir}})
	if err != nil {
		t.Fatal(err)
	}
	for _, place := range []string{"text log", "page /metrics", "page /healthz", "page /api/dead/d1", "0.blk"} {
		if !slices.ContainsFunc(r.Leaks, func(l string) bool { return strings.Contains(l, place) && !strings.Contains(l, word) }) {
			t.Errorf("the leak in %s was not found: %q", place, r.Leaks)
		}
	}
	if len(r.Leaks) != 5 {
		t.Errorf("%d leaks: %q", len(r.Leaks), r.Leaks)
	}
	for name, p := range map[string]Places{
		"NoSecrets":  {Texts: map[string]string{"a": "b"}},
		"NoListener": {Secrets: secrets, Public: []string{"http://127.0.0.1:1"}},
		"NoDatabase": {Secrets: secrets, Database: "postgres://u:p@127.0.0.1:1/db?connect_timeout=2"},
		"NoStream":   {Secrets: secrets, NATS: "nats://127.0.0.1:1"},
	} {
		if _, err := Search(context.Background(), p); err == nil {
			t.Errorf("%s: a place that cannot be searched passes for clean", name)
		}
	}
}
