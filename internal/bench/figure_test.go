package bench

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
)

func TestAFigureIsTheMedianOfItsPairs(t *testing.T) {
	// The machine slowed down half way: the medians of either side tell little, each
	// pair still does.
	f := compared("x", "requests/s", []float64{70, 72, 35, 36, 33}, []float64{100, 100, 50, 50, 50}, ratioAtLeast(0.65))
	if *f.Ratio != 0.7 || *f.Value != 36 || *f.Ceiling != 50 || !*f.Met || *f.Spread != [2]float64{0.66, 0.72} {
		t.Errorf("%+v", f)
	}
}

func TestTargets(t *testing.T) {
	for name, c := range map[string]struct {
		target target
		value  float64
		met    bool
		text   string
	}{
		"AtLeastReached": {valueAtLeast(1500), 1500, true, "value >= 1,500"},
		"AtLeastMissed":  {valueAtLeast(1500), 1499, false, "value >= 1,500"},
		"AtMostReached":  {valueAtMost(0.05), 0.05, true, "value <= 0.05"},
		"AtMostMissed":   {valueAtMost(0.0011), 0.0012, false, "value <= 0.0011"},
	} {
		t.Run(name, func(t *testing.T) {
			f := alone("x", "", []float64{c.value}, c.target)
			if *f.Met != c.met || f.Target != c.text {
				t.Errorf("%v %q", *f.Met, f.Target)
			}
		})
	}
}

func TestWhatIsNotKnownIsNull(t *testing.T) {
	for name, f := range map[string]Figure{
		"NoValue":      {Name: "x", Unit: "ms"},
		"ZeroCeiling":  compared("x", "ms", []float64{1}, []float64{0}, ratioAtLeast(1)),
		"NotANumber":   alone("x", "ms", []float64{math.NaN()}, valueAtMost(1)),
		"NoTarget":     alone("x", "ms", []float64{1}, target{}),
		"NoneMeasured": {Name: "y"},
	} {
		t.Run(name, func(t *testing.T) {
			raw, err := json.Marshal(f)
			if err != nil {
				t.Fatal(err)
			}
			var back map[string]any
			if err := json.Unmarshal(raw, &back); err != nil || len(back) != 8 {
				t.Errorf("%v %s", err, raw)
			}
			if name != "ZeroCeiling" && back["met"] != nil {
				t.Errorf("judged: %s", raw)
			}
		})
	}
}

func TestNumbers(t *testing.T) {
	for want, v := range map[string]float64{
		"0": 0, "0.65": 0.65, "5": 5, "12.3": 12.34, "123": 123.4, "1,500": 1500, "1,234,568": 1234567.8, "0.0011": 0.0011, "-1,000": -1000, "0.02": 0.02, "1.01": 1.009,
	} {
		if got := number(v); got != want {
			t.Errorf("%v is %q, want %q", v, got, want)
		}
	}
}

func TestTheTableIsAligned(t *testing.T) {
	r := Report{
		Figures: []Figure{
			compared("webhook", "requests/s", []float64{20000}, []float64{30000}, ratioAtLeast(0.65)),
			alone("memory", "MB", []float64{70}, valueAtMost(60)),
		},
		NotRun: []NotRun{{Name: "guide", Why: "there is no node"}},
	}
	var b strings.Builder
	if err := r.Print(&b); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(b.String(), "\n")
	if !strings.Contains(lines[1], "yes") || !strings.Contains(lines[2], "NO") || !strings.Contains(b.String(), "guide: not run: there is no node") {
		t.Error(b.String())
	}
	if strings.Index(lines[0], "CEILING")+len("CEILING") != strings.Index(lines[1], "30,000")+len("30,000") {
		t.Error(b.String())
	}
	if r.Unmet() != 1 || r.Failed() != nil {
		t.Error(r.Unmet(), r.Failed())
	}
}
