package bench

import (
	"fmt"
	"math"
	"slices"
	"strconv"
)

// Figure is one line of the result. What is not known, or does not apply, is null.
type Figure struct {
	Name string `json:"name"`
	// Value and Ceiling are medians over the pairs. The ceiling is what the same
	// machine did in the same minutes without what trueup adds.
	Value   *float64 `json:"value"`
	Unit    string   `json:"unit"`
	Ceiling *float64 `json:"ceiling"`
	// Ratio is the median of the pairs' own ratios, value by ceiling.
	Ratio  *float64 `json:"ratio"`
	Target string   `json:"target"`
	Met    *bool    `json:"met"`
	// Spread is the least and the most over the pairs: of the ratio where the target is
	// one of the ratio, else of the value.
	Spread *[2]float64 `json:"spread"`
}

// NotRun is a measure that gave no figure, and why.
type NotRun struct {
	Name string `json:"name"`
	Why  string `json:"why"`
	// Failed: it should have run; not: something that it needs is not here.
	Failed bool `json:"failed"`
}

// target is what a figure must reach; the zero one is reached by nothing and asked of
// nobody.
type target struct {
	of     string // "ratio" or "value"
	atMost bool
	bound  float64
}

func ratioAtLeast(bound float64) target { return target{of: "ratio", bound: bound} }
func ratioAtMost(bound float64) target  { return target{of: "ratio", bound: bound, atMost: true} }
func valueAtLeast(bound float64) target { return target{of: "value", bound: bound} }
func valueAtMost(bound float64) target  { return target{of: "value", bound: bound, atMost: true} }

func (t target) String() string {
	if t.of == "" {
		return ""
	}
	sign := ">="
	if t.atMost {
		sign = "<="
	}
	return t.of + " " + sign + " " + number(t.bound)
}

func (t target) met(value float64) bool {
	if t.atMost {
		return value <= t.bound
	}
	return value >= t.bound
}

// compared is a figure of pairs: values[i] was measured beside ceilings[i].
func compared(name, unit string, values, ceilings []float64, t target) Figure {
	ratios := make([]float64, len(values))
	for i := range values {
		ratios[i] = values[i] / ceilings[i]
	}
	f := Figure{Name: name, Unit: unit, Target: t.String()}
	f.Value, f.Ceiling, f.Ratio = known(median(values)), known(median(ceilings)), known(median(ratios))
	judged := values
	if t.of == "ratio" || t.of == "" {
		judged = ratios
	}
	f.judge(judged, t)
	return f
}

// alone is a figure without a ceiling: a count, a size, or a fact about the machine.
func alone(name, unit string, values []float64, t target) Figure {
	f := Figure{Name: name, Unit: unit, Target: t.String(), Value: known(median(values))}
	f.judge(values, t)
	return f
}

func (f *Figure) judge(judged []float64, t target) {
	if low, high := known(slices.Min(judged)), known(slices.Max(judged)); low != nil && high != nil {
		f.Spread = &[2]float64{*low, *high}
	}
	if m := median(judged); t.of != "" && !math.IsNaN(m) {
		met := t.met(m)
		f.Met = &met
	}
}

// known is v for JSON, which knows neither infinities nor NaN.
func known(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return &v
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	m := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[m]
	}
	return (sorted[m-1] + sorted[m]) / 2
}

// number is v as people read it: three figures, thousands apart.
func number(v float64) string {
	switch a := math.Abs(v); {
	case a == 0 || a >= 1000 || a == math.Trunc(a) && a < 1000:
		return thousands(int64(math.Round(v)))
	case a >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case a >= 0.1:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'g', 2, 64)
}

func thousands(n int64) string {
	if -1000 < n && n < 1000 {
		return strconv.FormatInt(n, 10)
	}
	return fmt.Sprintf("%s,%03d", thousands(n/1000), max(n%1000, -(n%1000)))
}
