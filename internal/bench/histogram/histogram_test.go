package histogram

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestBucketsHoldTheirValues(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	values := []uint64{0, 1, 127, 128, 255, 256, 257, 1 << 20, math.MaxInt64, math.MaxUint64}
	for range 10_000 {
		values = append(values, r.Uint64()>>r.IntN(64))
	}
	for _, v := range values {
		i := bucket(v)
		if up := upper(i); v > up || float64(up-v) > float64(v)/128 {
			t.Fatalf("%d is in bucket %d, which ends at %d", v, i, up)
		}
		if i > 0 && upper(i-1) >= v {
			t.Fatalf("%d fits the bucket before %d too, which ends at %d", v, i, upper(i-1))
		}
	}
}

func TestQuantilesAreThoseOfTheSortedValues(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var whole, first, second Histogram
	var all []time.Duration
	for i := range 20_001 {
		d := time.Duration(r.ExpFloat64() * float64(time.Millisecond))
		all = append(all, d)
		whole.Record(d)
		if i%3 == 0 {
			first.Record(d)
		} else {
			second.Record(d)
		}
	}
	slices.Sort(all)
	raw, err := json.Marshal(&second)
	if err != nil {
		t.Fatal(err)
	}
	var travelled Histogram
	if err := json.Unmarshal(raw, &travelled); err != nil {
		t.Fatal(err)
	}
	first.Merge(&travelled)
	first.Merge(nil)
	for name, h := range map[string]*Histogram{"Whole": &whole, "MergedAfterJSON": &first} {
		t.Run(name, func(t *testing.T) {
			for _, q := range []float64{0.001, 0.5, 0.9, 0.99, 0.999, 1} {
				want := all[int(math.Ceil(q*float64(len(all))))-1]
				if got := h.Quantile(q); got < want || got > want+want/128 {
					t.Errorf("quantile %v is %s, want %s", q, got, want)
				}
			}
			if h.Count() != uint64(len(all)) || h.Max() != all[len(all)-1] || h.Quantile(1) != h.Max() {
				t.Errorf("%d recorded, at most %s", h.Count(), h.Max())
			}
		})
	}
}

func TestAnEmptyHistogramSaysZero(t *testing.T) {
	var h Histogram
	if h.Quantile(0.99) != 0 || h.Max() != 0 || h.Count() != 0 {
		t.Error(h)
	}
}

func TestBadJSONIsRefused(t *testing.T) {
	for _, text := range []string{`{"counts":{"x":1}}`, `{"counts":{"-1":1}}`, `{"counts":{"999999999":1}}`, `[]`} {
		var h Histogram
		if err := json.Unmarshal([]byte(text), &h); err == nil {
			t.Errorf("%s was taken", text)
		}
	}
}
