// Package bench measures trueup on the machine it stands on: it starts everything that
// a figure needs (PostgreSQL, queue, ImageKit's stand-in, the Neon guide's own server),
// in folders that are removed afterwards, and prints the figures of the contract.
//
// It is apart because it judges the other packages and must not be used by them; what
// it measures it gets from service, as commands and tests do. Its one invariant: a
// rate or a time is printed only with its ceiling measured beside it in the same run,
// turn by turn, so that a figure says something about trueup and not about the machine
// or the hour. What could not be measured is named, never estimated.
//
//	bench.go      Config, Run, the measures by name
//	figure.go     values, ceilings, targets; median and spread
//	rounds.go     turn by turn: A B A B, each pair a ratio
//	stage.go      what is started: folders, PostgreSQL, accounts, services
//	account.go    ImageKit's stand-in, its library and its books
//	part.go       the parts that run as processes of their own
//	machine.go    where the figures come from, and its disk
//	ingest.go     webhook → fsync → 200 against a bare handler, one message per request
//	guide.go      reports against the server that the Neon guide has people write
//	drain.go      a backlog (backlog.go) to rows against a bare batched upsert (upsert.go)
//	verify.go     ImageKit calls per file, and the rate under ImageKit's limit
//	latency.go    webhook → row visible on an idle service
//	reconcile.go  a run over a large library
//	idle.go       start, memory, processor and queries of a service nobody uses
//	growth.go     cost per unit at 1×, 10× and 100×; plot.go draws it
//	overload.go   five times what fits, and after
//	histogram/    durations counted
//	load/         what the second process does
package bench
