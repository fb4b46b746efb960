// Package localpg runs a real PostgreSQL server as a child process, for `trueup
// dev` and for tests: it finds the server's programs (Find), fetches them where
// there are none (Fetch), makes a data directory and runs the server on loopback
// as an unprivileged user, even when started by root (Start).
//
// It stands apart because none of it concerns files or events: it ends at a URL,
// and whoever gets that URL cannot tell it from a database somebody else runs.
//
// Its one invariant: a data directory that exists is never deleted, re-made or
// opened by a server of another major version. Every kill, of the server or of
// this process, is answered by PostgreSQL's own recovery, and stopping never uses
// SIGKILL.
package localpg
