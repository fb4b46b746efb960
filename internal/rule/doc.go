// Package rule decides: what an observation may do to a row (the order rule), whose a
// file is, what the fuse bears, how each event of a settlement ends, and what becomes of
// a run's findings.
//
// It is apart so that the store and the simulated rows decide by the same code: a
// simulation that runs these rules has run the real ones. Its one invariant: everything
// here is pure. The same facts give the same decisions; it reads no clock, draws no
// numbers and does no I/O.
package rule
