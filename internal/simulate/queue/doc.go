// Package queue is internal/queue in memory: what a simulated service publishes to and
// reads from. It promises what that does, and takes the same liberties: an event
// whose Publish failed may be stored all the same, what was delivered and not acked comes
// again, late and in another order, and a turn that was not renewed goes to another while
// its former holder may still be at work.
//
// A Stream is the server: it outlives every process. A Door is one process's queue; it
// ends by Close, as by a stop, or by Kill. Envelopes are kept as the bytes that
// internal/queue writes, and read from them again.
//
// It stands apart because the server's part is played here in virtual time: it never asks
// the machine for anything. Its one invariant is the real one's: an event for
// which Publish returned nil is delivered until somebody acks it.
//
//	stream.go   the server: what it holds, hands out and takes back; its dump
//	door.go     one process's queue, and its end
//	publish.go  packing calls into envelopes
//	next.go     fetching ahead, deliveries
//	turn.go     the one turn
//	notice.go   lossy notices
package queue
