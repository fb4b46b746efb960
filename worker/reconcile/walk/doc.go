// Package walk reads ImageKit's listing from its beginning to a proven end, in windows of
// creation time, whatever the listing does meanwhile: it grows and shrinks, a page comes
// cut, twice, out of order or as the answer to another question.
//
// It is apart from the run because it is a protocol and nothing else: it knows one call,
// keeps no clock and writes nothing. Its one invariant: it says that a listing is whole
// only when the end was proven and nothing on the way makes that doubtful. It never names
// a file that was not shown to it.
//
// A query is a place: from (a second; files with createdAt at or after it) and skip.
//
//	            ┌────────── shows later seconds: from = the last one − 1 s, skip = 0
//	(from,skip) ┼────────── full, and all of it within two seconds: skip on, 50 shown again
//	            ├────────── shows nothing new: skip past it; nothing there either: the end
//	            └────────── shows none of what it must show again: ask again, then step back
//
// Every query but the first overlaps what is known, so that a jump is noticed: by a second
// where the window moves, by 50 files where it skips. A page proves no end by being short.
// Where skipping shows files twice, others may have been pushed out of sight: then the
// window is read again, until it shows as many files as it counts.
//
// What it cannot prove: that ImageKit lists everything it holds. A file that no page ever
// shows is not missed here; that is why a listing never removes a row.
package walk
