package signature

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

type vectors struct {
	Secrets map[string]string
	Bodies  map[string]string
	SHA256  map[string]string
	Now     int64
	Vectors []vector
}

type vector struct {
	Name    string
	Body    string
	Secrets []string
	Now     int64
	Headers http.Header
	Scheme  Scheme
	Form    Form
	Secret  int
	Refused Reason
}

func load(t testing.TB) vectors {
	t.Helper()
	raw, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func (v vectors) verifier(t testing.TB, names ...string) *Verifier {
	t.Helper()
	var secrets []string
	for _, name := range names {
		secrets = append(secrets, v.Secrets[name])
	}
	verifier, err := New(secrets...)
	if err != nil {
		t.Fatal(err)
	}
	return verifier
}

func TestVectors(t *testing.T) {
	all := load(t)
	if len(all.Vectors) < 30 {
		t.Fatalf("only %d vectors were read", len(all.Vectors))
	}
	for name, want := range all.SHA256 {
		if sum := sha256.Sum256([]byte(all.Bodies[name])); hex.EncodeToString(sum[:]) != want {
			t.Fatalf("body %s is not the one the vectors were made with", name)
		}
	}
	for _, v := range all.Vectors {
		t.Run(v.Name, func(t *testing.T) {
			now := all.Now
			if v.Now != 0 {
				now = v.Now
			}
			verifier := all.verifier(t, v.Secrets...)
			match, err := verifier.Verify(v.Headers, []byte(all.Bodies[v.Body]), time.Unix(now, 0))
			var refusal *Refusal
			if errors.As(err, &refusal) {
				if refusal.Reason != v.Refused {
					t.Fatalf("refused as %q, want %q", refusal.Reason, v.Refused)
				}
				return
			}
			if v.Refused != "" || match.Scheme != v.Scheme || match.Form != v.Form || match.Secret != v.Secret {
				t.Fatalf("got %+v, want %+v", match, v)
			}
		})
	}
}

func TestEveryChangedByteIsRefused(t *testing.T) {
	all := load(t)
	verifier := all.verifier(t, "current", "old")
	body, at := []byte(all.Bodies["A"]), time.Unix(all.Now, 0)
	for _, legacy := range []bool{true, false} {
		for i := range body {
			h := http.Header{}
			Sign(h, all.Secrets["current"], "msg_1", at, body)
			if legacy {
				h = http.Header{HeaderLegacy: h[HeaderLegacy]}
			} else {
				h.Del(HeaderLegacy)
			}
			changed := append([]byte(nil), body...)
			changed[i] ^= 1
			if m, err := verifier.Verify(h, changed, at); err == nil {
				t.Fatalf("byte %d changed and accepted: %+v", i, m)
			}
		}
	}
}

func TestSignedByHexInUpperCase(t *testing.T) {
	all := load(t)
	h := http.Header{}
	at := time.Unix(all.Now, 0)
	SignLegacy(h, all.Secrets["current"], at, nil)
	stamp, mac, _ := strings.Cut(h.Get(HeaderLegacy), ",v1=")
	h.Set(HeaderLegacy, stamp+", v1="+strings.ToUpper(mac))
	if _, err := all.verifier(t, "current").Verify(h, nil, at); err != nil {
		t.Fatal(err)
	}
}

func TestNew(t *testing.T) {
	for name, secrets := range map[string][]string{
		"RefusesNone":     nil,
		"RefusesEmpty":    {""},
		"RefusesShort":    {"whsec_"},
		"RefusesOneOfTwo": {"whsec_Zm9vYmFyLWVtdWxhdG9yLXNlY3JldA==", "secret-short"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := New(secrets...); err == nil || strings.Contains(err.Error(), "secret-short") {
				t.Fatal(err)
			}
		})
	}
	t.Run("NeverTakesAGuessableDecodedKey", func(t *testing.T) {
		// Sixteen bytes as they stand, but six when decoded.
		v, err := New("whsec_AAAAAAAA==")
		if err != nil {
			t.Fatal(err)
		}
		if len(v.keys) != 1 || v.keys[0].form != Raw {
			t.Fatalf("%d keys", len(v.keys))
		}
	})
}

func Example() {
	verifier, _ := New("whsec_Zm9vYmFyLWVtdWxhdG9yLXNlY3JldA==")
	body := []byte(`{"type":"file.deleted","data":{"fileId":"598821f949c0a938d57563bd"}}`)
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

	h := http.Header{}
	Sign(h, "whsec_Zm9vYmFyLWVtdWxhdG9yLXNlY3JldA==", "msg_1", now, body)

	match, err := verifier.Verify(h, body, now)
	fmt.Println(match.Scheme, match.Form, match.ID, err)
	_, err = verifier.Verify(h, body, now.Add(time.Hour))
	fmt.Println(err)
	// Output:
	// standard raw msg_1 <nil>
	// webhook signature refused: too_old
}
