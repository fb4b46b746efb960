// Package operator is what an operator can ask of and do to a running trueup: each
// verb once, as an HTTP endpoint and as a method of the Client that the commands
// use.
//
// It is apart from the public listener because it has other callers, other keys and
// another port; ingest never imports it. It declares the answers it gives and the few
// methods it needs (Service); internal/service makes them from the store, the queue
// and the worker.
//
// Its invariant: health, readiness and metrics never ask the database, so that a
// sleeping one stays asleep; everything under /api/ needs a token and every change
// leaves the name of its token behind.
package operator
