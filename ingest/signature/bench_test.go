package signature

import (
	"bytes"
	"net/http"
	"testing"
	"time"
)

// signedSample is a webhook as ImageKit sends it, with both header sets.
func signedSample() (h http.Header, body []byte, now time.Time) {
	body, now, h = bytes.Repeat([]byte("x"), 900), time.Unix(1_790_000_000, 0), http.Header{}
	Sign(h, benchSecret, "msg_01JZ0000000000000000000000", now, body)
	return h, body, now
}

const benchSecret = "whsec_Zm9vYmFyLWVtdWxhdG9yLXNlY3JldA=="

func BenchmarkVerify(b *testing.B) {
	v, err := New(benchSecret)
	if err != nil {
		b.Fatal(err)
	}
	h, body, now := signedSample()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(h, body, now); err != nil {
			b.Fatal(err)
		}
	}
}

// TestVerifyAllocatesWithinItsCeiling guards what each webhook costs, independent of
// the clock. The ceiling is what it takes today: one secret in two readings, both
// header sets. Whoever lowers it lowers this, too.
func TestVerifyAllocatesWithinItsCeiling(t *testing.T) {
	v, err := New(benchSecret)
	if err != nil {
		t.Fatal(err)
	}
	h, body, now := signedSample()
	got := testing.AllocsPerRun(200, func() {
		if _, err := v.Verify(h, body, now); err != nil {
			t.Fatal(err)
		}
	})
	const ceiling = 17
	if got > ceiling {
		t.Errorf("%v allocations, at most %v", got, float64(ceiling))
	}
}
