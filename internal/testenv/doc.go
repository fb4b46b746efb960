// Package testenv gives the repository's tests the real things they run against:
// PostgreSQL servers and databases, PgBouncer, nats-server as a process of its
// own, connections that can be cut, and the built trueup binary.
//
// It stands apart so that every package's tests meet the same services, and that
// no production code can reach them: only _test.go files may import it.
//
// Its one invariant: nothing is skipped and nothing is left over. A service that
// cannot be had fails the test with what would help; everything started is
// stopped and removed by the test's cleanup or at the end of Main.
package testenv
