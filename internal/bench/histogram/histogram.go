// Package histogram counts durations so that a percentile can be told of millions of
// them, merged over connections, processes and slices.
//
// It is apart because the process that makes load counts and the one that prints
// judges: both must mean the same bucket. Its one invariant: a quantile is never less
// than what was recorded, and at most one part in 128 more.
package histogram

import (
	"encoding/json"
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"time"
)

// sub is the number of bits kept of a value: each power of two has 128 buckets.
const sub = 7

// Histogram of durations in nanoseconds. The zero value is empty. It is not safe for
// concurrent use: each goroutine has its own, to be merged afterwards.
type Histogram struct {
	counts []uint64
	n      uint64
	most   uint64
}

func bucket(v uint64) int {
	if v < 1<<sub {
		return int(v)
	}
	shift := bits.Len64(v) - sub - 1
	return shift<<sub + int(v>>shift)
}

// upper is the largest value of bucket i.
func upper(i int) uint64 {
	if i < 1<<(sub+1) {
		return uint64(i)
	}
	shift := i>>sub - 1
	return uint64(i-shift<<sub+1)<<shift - 1
}

// Record counts d; a negative one counts as none at all.
func (h *Histogram) Record(d time.Duration) {
	v := uint64(max(d, 0))
	h.add(bucket(v), 1)
	h.most = max(h.most, v)
}

func (h *Histogram) add(i int, n uint64) {
	if i >= len(h.counts) {
		h.counts = append(h.counts, make([]uint64, i+1-len(h.counts))...)
	}
	h.counts[i] += n
	h.n += n
}

// Merge adds what o has counted; nil adds nothing.
func (h *Histogram) Merge(o *Histogram) {
	if o == nil {
		return
	}
	for i, n := range o.counts {
		if n > 0 {
			h.add(i, n)
		}
	}
	h.most = max(h.most, o.most)
}

// Count is how many were recorded.
func (h *Histogram) Count() uint64 { return h.n }

// Max is the longest, exactly.
func (h *Histogram) Max() time.Duration { return time.Duration(h.most) }

// Quantile is the smallest recorded duration that a share q of all do not exceed,
// within the bucket's width; zero when nothing was recorded.
func (h *Histogram) Quantile(q float64) time.Duration {
	left := uint64(math.Ceil(q * float64(h.n)))
	for i, n := range h.counts {
		if n > 0 && n >= left {
			return time.Duration(min(upper(i), h.most))
		}
		left -= n
	}
	return h.Max()
}

// wire is the JSON of a histogram: only the buckets that hold something.
type wire struct {
	Counts map[string]uint64 `json:"counts"`
	Max    uint64            `json:"maxNs"`
}

// MarshalJSON writes the buckets that hold something.
func (h *Histogram) MarshalJSON() ([]byte, error) {
	w := wire{Counts: map[string]uint64{}, Max: h.most}
	for i, n := range h.counts {
		if n > 0 {
			w.Counts[strconv.Itoa(i)] = n
		}
	}
	return json.Marshal(w)
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (h *Histogram) UnmarshalJSON(b []byte) error {
	var w wire
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	*h = Histogram{most: w.Max}
	for text, n := range w.Counts {
		i, err := strconv.Atoi(text)
		if err != nil || i < 0 || i > bucket(math.MaxUint64) {
			return fmt.Errorf("histogram: %q is no bucket", text)
		}
		h.add(i, n)
	}
	return nil
}
