//go:build unix

package simulate_test

import (
	"os"
	"slices"
	"syscall"
)

// laneEnv makes one process one lane. A schedule is repeated exactly only where goroutines
// run one after the other, each until it waits: so there is one processor, nothing is
// interrupted in the middle, and garbage is collected between schedules.
var laneEnv = []string{"GOMAXPROCS=1", "GODEBUG=asyncpreemptoff=1", "GOGC=off", "GOMEMLIMIT=1GiB"}

const inLane = "TRUEUP_SIMULATION_LANE=1"

// becomeLane starts this process anew with laneEnv, once. That it cannot is no failure:
// fewer schedules repeat exactly then.
func becomeLane() {
	env := os.Environ()
	if slices.Contains(env, inLane) {
		return
	}
	self, err := os.Executable()
	if err != nil {
		return
	}
	_ = syscall.Exec(self, os.Args, append(append(env, laneEnv...), inLane)) //nolint:gosec // it is this very program
}
