// Package rows is a database in memory with trueup's own door to it: a service.Rows for
// simulated processes.
//
// It stands apart from the store because it has no SQL, and beside it because the two must
// not be told apart: both decide by package rule, and both pass conform.Rows. Its one
// invariant: a call is one serial transaction; it happens whole or not at all, and what it
// did outlives the process that asked for it.
//
//	database.go  what the database holds
//	door.go      one process's way to it, and where a call can go wrong
//	content.go   a row's columns as PostgreSQL writes, compares and hashes them
//	settle.go    the settling transaction: read, decide by package rule, write
//	turn.go      turns, fences, trials, due retries
//	compare.go   what a run compares
//	run.go  finding.go  apply.go  brake.go
//	letter.go  job.go  replay.go  import.go
//	tell.go  operate.go  preview.go  clean.go
//	person.go    what somebody with SQL does
//	dump.go      everything, as plain data for the checker
package rows
