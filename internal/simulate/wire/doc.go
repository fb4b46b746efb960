// Package wire is a network without sockets: what a simulated process listens on and is
// asked through. Its connections are pipes in memory, so that net/http's own server and
// client, deadlines included, work inside a synctest bubble. Direct leaves even these out
// and hands a request to a handler, which costs a sixth.
//
// It stands apart because nothing in it knows what is said over it. Its one invariant: a
// handler and its client see what they would see of each other over TCP, the
// moment at which a connection is about to be used and one that is cut in the middle
// of an answer included.
package wire
