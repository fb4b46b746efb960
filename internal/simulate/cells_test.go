package simulate_test

import (
	"slices"
	"testing"

	"github.com/trueup/trueup/internal/simulate"
)

func TestPlans(t *testing.T) {
	t.Run("TheSameSeedIsTheSamePlan", func(t *testing.T) {
		for seed := uint64(1); seed <= 100; seed++ {
			one, two := simulate.NewPlan(seed), simulate.NewPlan(seed)
			if one.String() != two.String() {
				t.Errorf("seed %d", seed)
			}
		}
	})
	t.Run("EveryFaultIsACell", func(t *testing.T) {
		cells, drawn := simulate.Cells(), map[string]bool{}
		for seed := uint64(1); seed <= 3000; seed++ {
			for _, f := range simulate.NewPlan(seed).Faults {
				drawn[f.Cell] = true
			}
		}
		for cell := range drawn {
			if !slices.Contains(cells, cell) {
				t.Errorf("%s is drawn and no cell", cell)
			}
		}
		if len(drawn) < 100 {
			t.Errorf("only %d cells are ever drawn", len(drawn))
		}
	})
	t.Run("ActsAreInOrderAndWithinTheFirstPhase", func(t *testing.T) {
		for seed := uint64(1); seed <= 200; seed++ {
			p := simulate.NewPlan(seed)
			if len(p.Acts) < 10 || len(p.Acts) > 60 {
				t.Errorf("seed %d has %d acts", seed, len(p.Acts))
			}
			for i, a := range p.Acts {
				if a.At < 0 || a.At > p.Shape.Safety || (i > 0 && a.At < p.Acts[i-1].At) {
					t.Errorf("seed %d: %s at %s", seed, a.Kind, a.At)
				}
			}
		}
	})
}

func TestReachedKnowsItsCells(t *testing.T) {
	r := simulate.NewReached()
	r.Hit("upload/v1")
	if got := r.Counts()["upload/v1"]; got != 1 {
		t.Errorf("counted %d", got)
	}
	if slices.Contains(r.Empty(), "upload/v1") || len(r.Empty()) != len(simulate.Cells())-1 {
		t.Errorf("%d of %d cells are empty after one hit", len(r.Empty()), len(simulate.Cells()))
	}
	defer func() {
		if recover() == nil {
			t.Error("a cell that is none was counted")
		}
	}()
	r.Hit("no/such/cell")
}
