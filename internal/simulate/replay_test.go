package simulate_test

import (
	"testing"

	"github.com/trueup/trueup/internal/simulate"
)

// TestReplays runs seeds twice: whoever finds a failure must be able to have it again. All
// of them have to end alike; how many of them are the same call by call is said, and has
// to be most.
func TestReplays(t *testing.T) {
	const seeds = 20
	reached, exact := simulate.NewReached(), 0
	for seed := uint64(1); seed <= seeds; seed++ {
		one := simulated(t, simulate.NewPlan(seed), reached)
		two := simulated(t, simulate.NewPlan(seed), reached)
		switch {
		case one.Digest == two.Digest && one.Lines == two.Lines:
			exact++
		default:
			t.Logf("seed %d: %d lines, then %d", seed, one.Lines, two.Lines)
		}
		if one.Failed() != two.Failed() {
			t.Errorf("seed %d fails once and not again", seed)
		}
	}
	t.Logf("%d of %d seeds were repeated call by call", exact, seeds)
	if exact < seeds*9/10 {
		t.Errorf("only %d of %d seeds were repeated call by call", exact, seeds)
	}
}
