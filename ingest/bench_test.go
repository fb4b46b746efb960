package ingest

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/trueup/trueup/ingest/signature"
	"github.com/trueup/trueup/internal/event"
)

// sampleNotice has the shape and size of a real file.created.
const sampleNotice = `{"type":"file.created","id":"c4f5b8c0-1111-4222-8333-444455556666","created_at":"2026-01-02T03:04:05.678Z","data":{"type":"file",` +
	`"fileId":"6543f1a2b3c4d5e6f7a8b9c0","name":"holiday.jpg","filePath":"/u/user_123/holiday.jpg","tags":["a","b"],"AITags":null,` +
	`"versionInfo":{"id":"6543f1a2b3c4d5e6f7a8b9c0","name":"Version 1"},"isPrivateFile":false,"isPublished":true,"customCoordinates":null,` +
	`"customMetadata":{},"url":"https://ik.imagekit.io/demo_id/u/user_123/holiday.jpg","thumbnail":"https://ik.imagekit.io/demo_id/tr:n-ik_ml_thumbnail/u/user_123/holiday.jpg",` +
	`"fileType":"image","mime":"image/jpeg","width":1200,"height":800,"size":183422,"hasAlpha":false,"createdAt":"2026-01-02T03:04:05.678Z","updatedAt":"2026-01-02T03:04:05.678Z"}}`

const sampleReport = `{"fileId":"6543f1a2b3c4d5e6f7a8b9c0","url":"https://ik.imagekit.io/demo_id/u/user_123/holiday.jpg"}`

// forgetful takes everything and keeps nothing, so that a benchmark sees the handler.
type forgetful struct{}

func (forgetful) Publish(context.Context, []event.Event) error { return nil }

// BenchmarkRequest is the whole handler without a connection and without a queue.
func BenchmarkRequest(b *testing.B) {
	for name, make := range requestsOf(b) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				make()
			}
		})
	}
}

func requestsOf(t testing.TB) map[string]func() {
	b := setup(t, func(c *Config) { c.Queue = forgetful{}; c.UserRate = -1 })
	bearer := "Bearer " + b.token("user_123")
	signed := http.Header{}
	signature.Sign(signed, webhookSecret, "msg_1", start, []byte(sampleNotice))
	send := func(path, body string, h http.Header, want int) func() {
		h.Set("Content-Type", "application/json")
		return func() {
			r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
			r.Header = h
			if w := b.do(r); w.Code != want {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
		}
	}
	return map[string]func(){
		"Webhook": send("/webhooks/imagekit", sampleNotice, signed, http.StatusOK),
		"Report":  send("/save-metadata", sampleReport, http.Header{"Authorization": {bearer}}, http.StatusAccepted),
	}
}

// TestRequestsAllocateWithinTheirCeilings guards what each request costs, independent
// of the clock. Ceilings are what it takes today, and a little for other versions of
// Go; whoever lowers the cost lowers them, too.
func TestRequestsAllocateWithinTheirCeilings(t *testing.T) {
	ceilings := map[string]float64{"Webhook": 125, "Report": 160}
	for name, f := range requestsOf(t) {
		if got := testing.AllocsPerRun(200, f); got > ceilings[name] {
			t.Errorf("%s: %v allocations, at most %v", name, got, ceilings[name])
		}
	}
}
