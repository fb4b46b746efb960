package store_test

import (
	"fmt"
	"testing"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
)

// BenchmarkSettle reports files per second, for files never seen and for repeats.
func BenchmarkSettle(b *testing.B) {
	for _, size := range []int{1, 100, 500} {
		for _, what := range []string{"fresh", "repeat"} {
			b.Run(fmt.Sprintf("%s/%d", what, size), func(b *testing.B) {
				r := newRig(b)
				next := 0
				call := func() {
					if what == "repeat" {
						next = 0
					}
					fence := r.fence()
					pending, seen := make([]event.Pending, size), make([]file.Observation, size)
					for i := range size {
						next++
						id := fmt.Sprintf("f%09d", next)
						pending[i], seen[i] = webhook(id), lookAt(fence, id, snap(id, 0))
					}
					r.settle(pending, seen...)
				}
				call()
				for b.Loop() {
					call()
				}
				b.ReportMetric(float64(size)*float64(b.N)/b.Elapsed().Seconds(), "files/s")
			})
		}
	}
}
