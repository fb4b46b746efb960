// Package conform says, as tests, what a door of the service promises. The real door and
// the simulated one run the same suite, so that what a simulation shows of the service
// holds for the service.
//
// It stands apart from both because a test that belongs to one of them would know too
// much. Its one invariant: it knows a door by its methods only, never waits a fixed time,
// and expects nothing to be quick.
package conform
