// Package answer reads what ImageKit says about files. It is apart from the client because
// it needs nothing but the bytes, and takes whatever stands in them.
//
// Its one invariant: what it cannot fully believe it does not return. What it returns a
// database can hold, and one file is read the same way alone and in a listing.
package answer

// Reader knows how ownership tickets look, and how large a file's own part may be. It is
// safe for concurrent use.
type Reader struct {
	// TicketField is the custom metadata field that holds tickets; it is always left out
	// of a snapshot. Empty means that only tags can hold them.
	TicketField string
	// LooksLikeTicket reports whether a tag or value is shaped like a ticket. Required.
	LooksLikeTicket func(string) bool
	// MaxFile is how many bytes of a listing one file may take.
	MaxFile int64
}
