package hint

import "testing"

// sampleNotice has the shape and size of a real file.created.
const sampleNotice = `{"type":"file.created","id":"c4f5b8c0-1111-4222-8333-444455556666","created_at":"2026-01-02T03:04:05.678Z","data":{"type":"file",` +
	`"fileId":"6543f1a2b3c4d5e6f7a8b9c0","name":"holiday.jpg","filePath":"/u/user_123/holiday.jpg","tags":["a","b"],"AITags":null,` +
	`"versionInfo":{"id":"6543f1a2b3c4d5e6f7a8b9c0","name":"Version 1"},"isPrivateFile":false,"isPublished":true,"customCoordinates":null,` +
	`"customMetadata":{},"url":"https://ik.imagekit.io/demo_id/u/user_123/holiday.jpg","thumbnail":"https://ik.imagekit.io/demo_id/tr:n-ik_ml_thumbnail/u/user_123/holiday.jpg",` +
	`"fileType":"image","mime":"image/jpeg","width":1200,"height":800,"size":183422,"hasAlpha":false,"createdAt":"2026-01-02T03:04:05.678Z","updatedAt":"2026-01-02T03:04:05.678Z"}}`

const sampleReport = `{"fileId":"6543f1a2b3c4d5e6f7a8b9c0","url":"https://ik.imagekit.io/demo_id/u/user_123/holiday.jpg"}`

func BenchmarkParseNotice(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if n, err := ParseNotice([]byte(sampleNotice)); err != nil || n.FileID == "" {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkParseReports(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := ParseReports([]byte(sampleReport)); err != nil {
			b.Fatal(err)
		}
	}
}

// TestParsersAllocateWithinTheirCeilings guards what each body costs, independent of the
// clock. Ceilings are what it takes today, and a little for other versions of Go; whoever
// lowers the cost lowers them, too.
func TestParsersAllocateWithinTheirCeilings(t *testing.T) {
	for name, c := range map[string]struct {
		parse   func()
		ceiling float64
	}{
		"Notice": {func() { _, _ = ParseNotice([]byte(sampleNotice)) }, 42},
		"Report": {func() { _, _, _ = ParseReports([]byte(sampleReport)) }, 20},
	} {
		if got := testing.AllocsPerRun(200, c.parse); got > c.ceiling {
			t.Errorf("%s: %v allocations, at most %v", name, got, c.ceiling)
		}
	}
}
