// Package queue carries events from the moment they are accepted to the moment
// they are settled. It is the only package that knows a stream, a subject or a
// header of NATS.
//
// It works in two ways with the same code: embedded, where the nats-server is part
// of this process, listens nowhere and keeps its store in one directory; and
// external, where URL names a server or a cluster that others run too. Only the
// connection, the replicas and what can be said about durability differ.
//
// Concurrent calls of Publish are packed into one envelope, because one envelope
// is one fsync: see packer; package envelope has the bytes. Everything else is about not lying: Publish answers
// nil only after the server confirmed the envelope, and where the server is ours
// that confirmation is an fsync, read back at start.
//
// The one invariant: an event for which Publish returned nil is delivered by Next
// until somebody acks it. The converse does not hold: an event for which Publish
// returned an error may be stored all the same, and any event may be delivered
// more than once, late, and out of order.
package queue
