package store

import (
	"slices"
	"time"

	"github.com/trueup/trueup/internal/file"
)

// Ownership says whether a report alone may own a file.
type Ownership string

const (
	// ByClaim lets the earliest verified report own a fresh file without a ticket.
	ByClaim Ownership = "claim"
	// BySigned lets only tickets and operators own.
	BySigned Ownership = "signed"
)

// Flags that evidence leaves on a file; each is noted and counted once per file.
const (
	flagTicketConflict = "ticket_conflict"
	flagTicketReused   = "ticket_reused"
	flagProofMissing   = "proof_missing"
	flagClaimRefused   = "claim_refused"
)

// claimSkew is how far before a file's creation a report of it may seem to have been
// accepted: clocks differ.
const claimSkew = 5 * time.Minute

// owning is a file's owner and what that rests on.
type owning struct {
	file.Owner
	// At and Event are of the winning claim.
	At    time.Time
	Event string
	// Open: the first claim was settled while the file was in its first version.
	Open   bool
	Ticket string
	Flags  []string
}

// claim is one client report as evidence.
type claim struct {
	User  string
	At    time.Time
	Event string
}

func (c claim) before(d claim) bool {
	if !c.At.Equal(d.At) {
		return c.At.Before(d.At)
	}
	return c.Event < d.Event
}

// evidence is all that one call says about a file's owner.
type evidence struct {
	Mode   Ownership
	Window time.Duration
	// ByID: the observation was a look-up; only that can tell that a ticket vanished.
	ByID         bool
	Proof        file.Proof
	Reused       bool // another file rests on the same ticket
	FirstVersion bool
	CreatedAt    time.Time
	Claims       []claim
}

// decideOwner applies evidence: the ticket first, then the claims, earliest first. It
// is pure, and the order of the claims does not matter.
func decideOwner(k owning, e evidence) owning {
	k.Flags = slices.Clone(k.Flags)
	k = decideTicket(k, e)
	if e.Mode == ByClaim && k.claimable(e.Proof) {
		for _, c := range e.Claims {
			k = decideClaim(k, c, e)
		}
	}
	for _, c := range e.Claims {
		if c.User != k.User {
			k.flag(flagClaimRefused)
		}
	}
	return k
}

func (k *owning) flag(f string) {
	if !slices.Contains(k.Flags, f) {
		k.Flags = append(k.Flags, f)
		slices.Sort(k.Flags)
	}
}

// decideTicket lets a ticket own what nobody owns; everything later is only flagged.
func decideTicket(k owning, e evidence) owning {
	switch p := e.Proof; {
	case p.Conflict:
		k.flag(flagTicketConflict)
	case p.User != "" && k.Kind == file.Unowned && !slices.Contains(k.Flags, flagTicketConflict):
		k.Owner, k.Ticket = file.Owner{User: p.User, Kind: file.Proven}, p.Ticket
		if e.Reused {
			k.flag(flagTicketReused)
		}
	case p.User != "" && p.User != k.User:
		k.flag(flagTicketConflict)
	case p.User == "" && e.ByID && k.Kind == file.Proven && k.Ticket != "":
		k.flag(flagProofMissing)
	}
	return k
}

// claimable: no ticket is or was there, and nothing stronger than a claim owns it.
func (k *owning) claimable(p file.Proof) bool {
	return p.User == "" && !p.Conflict && k.Ticket == "" && !slices.Contains(k.Flags, flagTicketConflict) &&
		(k.Kind == file.Unowned || k.Kind == file.Claimed)
}

// decideClaim lets an earlier claim displace a later one.
func decideClaim(k owning, c claim, e evidence) owning {
	age := micros(c.At).Sub(micros(e.CreatedAt))
	if !e.FirstVersion && !k.Open || age < -claimSkew || age > e.Window {
		return k
	}
	k.Open = true
	if k.Kind == file.Claimed && !c.before(claim{At: k.At, Event: k.Event}) {
		return k
	}
	k.Owner, k.At, k.Event = file.Owner{User: c.User, Kind: file.Claimed}, c.At, c.Event
	return k
}
