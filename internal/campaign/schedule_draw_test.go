package campaign

import (
	"reflect"
	"testing"
)

// TestSchedules: a seed is a schedule, of five faults at least, and 300 seeds in a row
// draw every cell of the matrix.
func TestSchedules(t *testing.T) {
	t.Parallel()
	drawn := map[string]int{}
	for seed := uint64(1000); seed < 1300; seed++ {
		s := drawSchedule(seed)
		if !reflect.DeepEqual(s, drawSchedule(seed)) {
			t.Fatalf("seed %d draws another schedule the second time", seed)
		}
		if len(s.Faults) < 5 {
			t.Errorf("seed %d has %d faults", seed, len(s.Faults))
		}
		for _, f := range s.Faults {
			drawn[f.Cell]++
			if f.Part == "" && f.toxicOf().Kind != "down" {
				t.Errorf("seed %d: %s befalls nobody", seed, f)
			}
		}
	}
	for _, cell := range faultCells(3) {
		if drawn[cell] == 0 {
			t.Errorf("nothing fell into %s", cell)
		}
	}
}
