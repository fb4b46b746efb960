// Package service is the only place that joins the steps (ingest, worker) to the
// doors (queue, imagekit, store): it opens the doors that a role needs, hands each
// step the few methods it asked for, and runs everything until it is told to stop.
//
// It is apart so that commands, tests, simulation and benchmarks run the same
// joints: they may bring other doors, another clock, other randomness, and nothing
// else. Its invariant: it decides nothing about events or files; whatever it does
// not find in the Config or behind the Doors it does not do.
//
//	doors.go     which doors a role needs, and opening the real ones
//	service.go   New, Listen, Run: the parts of one process and their life
//	receive.go   step 1, ingest, on the queue
//	decide.go    step 3, worker and verify, on queue, ImageKit and rows
//	operate.go   the operator API's Service over all of them
//	jobs.go      the verbs on dead letters, and the runner of jobs beside the worker
//	notices.go   lossy notices between processes: settled reports, pause and resume
package service
