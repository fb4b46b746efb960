package signature

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/testenv/seed"
)

// headers is a request's four signature headers; empty ones are not sent.
func headers(id, stamp, list, legacy string) http.Header {
	h := http.Header{}
	for name, value := range map[string]string{HeaderID: id, HeaderTimestamp: stamp, HeaderSignature: list, HeaderLegacy: legacy} {
		if value != "" {
			h[name] = []string{value}
		}
	}
	return h
}

// FuzzVerify holds that only what Sign made is accepted; that nothing in one header set
// takes away what the other proves; and that what is accepted reads one way.
func FuzzVerify(f *testing.F) {
	all := load(f)
	if len(all.Vectors) < 30 {
		f.Fatalf("seeds are missing: %d vectors", len(all.Vectors))
	}
	for _, v := range all.Vectors {
		f.Add(v.Headers.Get(HeaderID), v.Headers.Get(HeaderTimestamp), v.Headers.Get(HeaderSignature), v.Headers.Get(HeaderLegacy), []byte(all.Bodies[v.Body]))
	}
	current, both, old := all.verifier(f, "current"), all.verifier(f, "old", "current"), all.verifier(f, "old")
	now := time.Unix(all.Now, 0)
	f.Fuzz(func(t *testing.T, id, stamp, list, legacy string, body []byte) {
		h := headers(id, stamp, list, legacy)
		match, err := current.Verify(h, body, now)
		if err == nil {
			accepted(t, all, match, h, body, now)
		}
		// A rotation adds a secret and takes nothing away; the old one alone says nothing.
		again, err2 := both.Verify(h, body, now)
		if err == nil && (err2 != nil || again.Scheme != match.Scheme || again.At != match.At) {
			t.Fatalf("beside an older secret %+v becomes %+v (%v)", match, again, err2)
		}
		if _, err3 := old.Verify(h, body, now); err2 == nil && err != nil && err3 != nil {
			t.Fatal("two secrets accept what neither accepts alone")
		}
		signedBody(t, current, all.Secrets["current"], id, list, legacy, body, now)
	})
}

// accepted fails unless what was accepted is one of the vectors' bodies, in time, and
// what the match says is what the header says.
func accepted(t *testing.T, all vectors, match Match, h http.Header, body []byte, now time.Time) {
	if age := now.Sub(match.At).Abs(); age > Tolerance+time.Second {
		t.Fatalf("accepted at an age of %s", age)
	}
	if string(body) != all.Bodies["A"] && string(body) != all.Bodies["B"] {
		t.Fatalf("accepted a body nobody signed: %q", body)
	}
	switch match.Scheme {
	case Standard:
		if n, err := strconv.ParseInt(h.Get(HeaderTimestamp), 10, 64); err != nil || n != match.At.Unix() || match.ID != h.Get(HeaderID) || strings.Contains(match.ID, ".") {
			t.Fatalf("%+v for id %q at %q", match, h.Get(HeaderID), h.Get(HeaderTimestamp))
		}
	case Legacy:
		if match.ID != "" || !strings.Contains(h.Get(HeaderLegacy), fmt.Sprintf("%d", match.At.UnixMilli())) {
			t.Fatalf("%+v for %q", match, h.Get(HeaderLegacy))
		}
	}
}

// signedBody signs the fuzzer's own body and holds that it is accepted, that the
// fuzzer's headers beside it change nothing, and that no other body passes with it.
func signedBody(t *testing.T, v *Verifier, secret, id, list, legacy string, body []byte, now time.Time) {
	h := http.Header{}
	Sign(h, secret, id, now, body)
	good, goodLegacy := h.Get(HeaderSignature), h.Get(HeaderLegacy)
	if plainID(id) {
		h[HeaderLegacy] = []string{legacy}
		if _, err := v.Verify(h, body, now); err != nil {
			t.Fatalf("a good standard set beside %q: %v", legacy, err)
		}
		if strings.Count(list, "v1,") < maxMACs-1 {
			h[HeaderSignature] = []string{list + " " + good}
			if _, err := v.Verify(h, body, now); err != nil {
				t.Fatalf("a good signature after %q: %v", list, err)
			}
		}
	}
	h[HeaderSignature], h[HeaderLegacy] = []string{list}, []string{goodLegacy}
	if _, err := v.Verify(h, body, now); err != nil {
		t.Fatalf("a good legacy set beside %q: %v", list, err)
	}
	h[HeaderSignature] = []string{good}
	other := append([]byte{' '}, body...)
	if m, err := v.Verify(h, other, now); err == nil {
		t.Fatalf("another body passed: %+v", m)
	}
	h[HeaderLegacy] = append(h[HeaderLegacy], legacy)
	if m, err := v.Verify(h, body, now); err == nil {
		t.Fatalf("a doubled header passed: %+v", m)
	}
}

// TestVerifyIsFrugal: whatever stands in the headers, and a body of any size costs no
// copy of it.
func TestVerifyIsFrugal(t *testing.T) {
	all := load(t)
	v, now := all.verifier(t, "current", "old"), time.Unix(all.Now, 0)
	try := func(name, id, stamp, list, legacy string, body []byte) {
		h := headers(id, stamp, list, legacy)
		seed.Frugal(t, name, len(id)+len(stamp)+len(list)+len(legacy), func() { _, _ = v.Verify(h, body, now) })
	}
	for _, x := range all.Vectors {
		try(x.Name, x.Headers.Get(HeaderID), x.Headers.Get(HeaderTimestamp), x.Headers.Get(HeaderSignature), x.Headers.Get(HeaderLegacy), []byte(all.Bodies[x.Body]))
	}
	for name, args := range seed.Kept(t, "FuzzVerify", 10) {
		try(name, args[0], args[1], args[2], args[3], []byte(args[4]))
	}
	stamp := strconv.FormatInt(all.Now, 10)
	try("a header of signatures", "msg_1", stamp, strings.Repeat("v1,AAAA ", 1<<17), "", nil)
	try("a header of good lengths", "msg_1", stamp, strings.Repeat("v1,"+strings.Repeat("A", 43)+"= ", 1<<14), "", nil)
	try("a legacy header of signatures", "", "", "", "t=1,"+strings.Repeat("v1="+strings.Repeat("a", 64)+",", 1<<14), nil)
	try("a large body", "msg_1", stamp, "v1,AAAA", "t=1,v1=00", make([]byte, 8<<20))
}
