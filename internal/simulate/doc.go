// Package simulate runs whole installations of trueup in virtual time: the real
// service on simulated doors, one schedule of acts and faults from one seed.
//
// It stands apart because it is a world, not a part: everything that trueup cannot
// decide by itself (what people upload, what gets lost on the way, when a process dies)
// is decided here, and nothing else is. Its one invariant: it replaces doors, clock and
// randomness, and never a step. What runs is service.New, as in production; a test
// reads the imports of this tree to keep it so.
//
// The way of one run:
//
//	plan.go      a seed becomes a Plan: shape, acts, faults, each with its time
//	world.go     the outside: database, stream, library, network, and their faults
//	process.go   one incarnation of a role on doors of its own; it can be killed
//	hook.go      where a call of a door waits, fails, or is the last one of its process
//	acts_*.go    what clients, ImageKit, people and operators do
//	phases.go    safety under faults, heal, bounded liveness; and the checks between
//	cells.go     which combinations of part and fault were reached
//
// A run is to be repeated exactly by its seed. Each call of a door takes a time drawn by
// hashing what the call is about, to the nanosecond, so that hardly ever two goroutines
// wake at the same instant; what chance remains is measured by TestReplays.
package simulate
