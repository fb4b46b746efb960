package store_test

import (
	"fmt"
	"testing"

	"github.com/trueup/trueup/internal/file"
)

// BenchmarkHash reports the cost of 1,000 snapshots, a listing's page.
func BenchmarkHash(b *testing.B) {
	r := newRig(b)
	page := make([]*file.Snapshot, 1000)
	for i := range page {
		page[i] = snap(fmt.Sprintf("f%09d", i), i)
	}
	for b.Loop() {
		if _, err := r.st.Hash(r.ctx, page); err != nil {
			b.Fatal(err)
		}
	}
}
