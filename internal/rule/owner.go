package rule

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
	FlagTicketConflict = "ticket_conflict"
	FlagTicketReused   = "ticket_reused"
	FlagProofMissing   = "proof_missing"
	FlagClaimRefused   = "claim_refused"
)

// ClaimSkew is how far before a file's creation a report of it may seem to have been
// accepted: clocks differ.
const ClaimSkew = 5 * time.Minute

// Owning is a file's owner and what that rests on.
type Owning struct {
	file.Owner
	// At and Event are of the winning claim.
	At    time.Time
	Event string
	// Open: the first claim was settled while the file was in its first version.
	Open   bool
	Ticket string
	Flags  []string
}

// Claim is one client report as evidence.
type Claim struct {
	User  string
	At    time.Time
	Event string
}

func (c Claim) before(d Claim) bool {
	if !c.At.Equal(d.At) {
		return c.At.Before(d.At)
	}
	return c.Event < d.Event
}

// Evidence is all that one call says about a file's owner.
type Evidence struct {
	Mode   Ownership
	Window time.Duration
	// ByID: the observation was a look-up; only that can tell that a ticket vanished.
	ByID         bool
	Proof        file.Proof
	Reused       bool // another file rests on the same ticket
	FirstVersion bool
	CreatedAt    time.Time
	Claims       []Claim
}

// DecideOwner applies evidence: the ticket first, then the claims, earliest first. It
// is pure, and the order of the claims does not matter.
func DecideOwner(k Owning, e Evidence) Owning {
	k.Flags = slices.Clone(k.Flags)
	k = decideTicket(k, e)
	if e.Mode == ByClaim && k.claimable(e.Proof) {
		for _, c := range e.Claims {
			k = decideClaim(k, c, e)
		}
	}
	for _, c := range e.Claims {
		if c.User != k.User {
			k.flag(FlagClaimRefused)
		}
	}
	return k
}

func (k *Owning) flag(f string) {
	if !slices.Contains(k.Flags, f) {
		k.Flags = append(k.Flags, f)
		slices.Sort(k.Flags)
	}
}

// decideTicket lets a ticket own what nobody owns; everything later is only flagged.
func decideTicket(k Owning, e Evidence) Owning {
	switch p := e.Proof; {
	case p.Conflict:
		k.flag(FlagTicketConflict)
	case p.User != "" && k.Kind == file.Unowned && !slices.Contains(k.Flags, FlagTicketConflict):
		k.Owner, k.Ticket = file.Owner{User: p.User, Kind: file.Proven}, p.Ticket
		if e.Reused {
			k.flag(FlagTicketReused)
		}
	case p.User != "" && p.User != k.User:
		k.flag(FlagTicketConflict)
	case p.User == "" && e.ByID && k.Kind == file.Proven && k.Ticket != "":
		k.flag(FlagProofMissing)
	}
	return k
}

// claimable: no ticket is or was there, and nothing stronger than a claim owns it.
func (k *Owning) claimable(p file.Proof) bool {
	return p.User == "" && !p.Conflict && k.Ticket == "" && !slices.Contains(k.Flags, FlagTicketConflict) &&
		(k.Kind == file.Unowned || k.Kind == file.Claimed)
}

// decideClaim lets an earlier claim displace a later one.
func decideClaim(k Owning, c Claim, e Evidence) Owning {
	age := Micros(c.At).Sub(Micros(e.CreatedAt))
	if !e.FirstVersion && !k.Open || age < -ClaimSkew || age > e.Window {
		return k
	}
	k.Open = true
	if k.Kind == file.Claimed && !c.before(Claim{At: k.At, Event: k.Event}) {
		return k
	}
	k.Owner, k.At, k.Event = file.Owner{User: c.User, Kind: file.Claimed}, c.At, c.Event
	return k
}
