// Package worker turns accepted events into settled ones: it takes envelopes from
// the queue and due retries from the rows, asks ImageKit about each file once per
// batch (package verify), and settles the whole batch in one transaction.
//
// It stands apart from the doors it uses (queue, ImageKit, Postgres): it declares
// the few methods it needs, and internal/service hands them in. An event's way is
// read in the order of the files:
//
//	worker.go   the turn: one active worker, several batches in flight
//	gather.go   envelopes become batches; inbox.go is where they wait for a slot
//	due.go      due retries become batches
//	batch.go    a batch: look up, settle, ack
//	settle.go   the one table: what becomes of an event
//	isolate.go  poison found in a batch: panics, rows the database refuses
//	trial.go    poison that ends the process: suspects and their marks
//	acquit.go   marks taken back from events over which no process ended
//	pause.go    outages and the operator's pause
//
// Its one invariant: an envelope is acked only after a committed transaction in
// which every event in it reached an end. Whatever else happens — a crash, a lost
// reply, an outage — the envelope comes again and settling it again is a no-op.
package worker
