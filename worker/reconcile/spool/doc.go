// Package spool keeps the listing of one run on disk: page by page while it is read,
// then sorted by file id, so that a library of any size is compared in flat memory and a
// killed run lists nothing twice.
//
// It is apart from the run because nothing else has to know a byte of a file. Its one
// invariant: what it hands out is what was appended. Everything is checksummed and
// chained; whatever does not check is dropped and said, never guessed. It holds nothing
// but copies of ImageKit's answers: to lose it costs list calls and nothing else.
//
//	lock              held while a process has the spool open
//	00000001.pages    pages, one after another; the next file begins where one is full
//	sorted            one entry per file, in byte order, and where its snapshot stands
//	runs.tmp          what a sort works in
//
// A page is one record, and its checksums stand in the head of the next one too: a
// record of another spool, or of an older life of this one, does not fit.
//
//	head (36 bytes) · meta (number, fence, cursor …) · lines · blocks of bodies
//
// Lines hold what is compared and say where the body is; the sort reads nothing else.
// Bodies are snapshots in blocks of some 64 KiB, compressed each by itself.
package spool
