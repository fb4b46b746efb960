package check

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// claimSkew is how far before a file's creation a report may have been accepted.
const claimSkew = 5 * time.Minute

// claiming is one client's report on a file.
type claiming struct {
	user, event string
	at          time.Time
	verified    bool
}

// title is everything that speaks for somebody as a file's owner.
type title struct {
	assigned string   // by the last act of an operator
	byHand   []string // users that people's own SQL wrote
	// tickets are the users whose ticket the file carried at any time; sole is the one that
	// every state of it carried, alone.
	tickets []string
	sole    string
	claims  []claiming // those in the window, earliest first
	rewrote bool       // the file was overwritten: a first claim may have come too late
	dark    bool       // some state of the file is not known
	odd     bool       // some state of it carries two users' tickets, or one that does not open
}

// lookAtOwners is I11. At any time an owner needs a title of his own, and nobody may own
// what a ticket, an operator or a person gave to somebody else. At Settled the owner of
// a file of which nothing but claims speaks is the earliest one.
func lookAtOwners(l *looking) {
	claims, assigned := l.claims(), l.assigned()
	states := newStep(&l.Dump).states
	for i := range l.Rows {
		r := &l.Rows[i]
		t := l.title(r.FileID, claims[r.FileID], assigned[r.FileID])
		l.count("rows", 1)
		s := states[r.FileID]
		if s == nil {
			continue // nobody has looked at it yet
		}
		if l.phase == Settled && s.Owner != r.UserID {
			l.wrong(r.FileID, "its row says that it belongs to %q, file_state says %q (%s)", r.UserID, s.Owner, s.OwnerKind)
		}
		l.entitled(r.FileID, s, &t)
		if l.phase == Settled {
			l.rightful(r.FileID, s, &t)
		}
	}
}

// claims are the reports by file. Verified are those whose end tells that the file was
// seen; others may have been seen on the way to another end.
func (l *looking) claims() map[string][]claiming {
	original := map[string]string{}
	for i := range l.DeadLetters {
		original[l.DeadLetters[i].ID] = l.DeadLetters[i].EventID
	}
	out := map[string][]claiming{}
	for i := range l.Ledger {
		if n := &l.Ledger[i]; isEvent(n) && n.Origin == "client" && n.User != "" && n.AcceptedAt != nil {
			verified := n.Verdict == "present" || n.Verdict == "refused"
			out[n.FileID] = append(out[n.FileID], claiming{n.User, cmp.Or(original[n.DeadLetter], n.ID), n.AcceptedAt.UTC(), verified})
		}
	}
	for i := range l.Retries {
		if r := &l.Retries[i]; r.Origin == "client" && r.User != "" {
			out[r.FileID] = append(out[r.FileID], claiming{r.User, cmp.Or(original[r.DeadLetter], r.EventID), r.AcceptedAt.UTC(), false})
		}
	}
	return out
}

// assigned is by file whom operators gave it to last.
func (l *looking) assigned() map[string]string {
	acts := slices.Clone(l.Audit)
	slices.SortFunc(acts, func(a, b Act) int { return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.ID, b.ID)) })
	out := map[string]string{}
	for _, a := range acts {
		if a.Verb == "assign" {
			out[a.File] = a.User
		}
	}
	return out
}

// title gathers what speaks for whom. A user that a person inserts is adopted; one that
// a person updates is drift, unless the row was a person's own.
func (l *looking) title(id string, claims []claiming, assigned string) title {
	t := title{assigned: assigned}
	hands := slices.Concat(l.hands[id], l.hands[""])
	slices.SortStableFunc(hands, func(a, b Hand) int { return a.At.Compare(b.At) })
	inserted := false
	for _, h := range hands {
		inserted = inserted || h.Kind == HandInsert
		if h.User != "" && inserted {
			t.byHand = append(t.byHand, h.User)
		}
	}
	created := l.tickets(id, &t)
	if l.settings.Signed || created.IsZero() {
		return t
	}
	for _, c := range claims {
		if age := c.at.Sub(created); age >= -claimSkew && age <= l.settings.ClaimWindow {
			t.claims = append(t.claims, c)
		}
	}
	slices.SortFunc(t.claims, func(a, b claiming) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.event, b.event)) })
	return t
}

// tickets reads every state the file was in, and says when it was created.
func (l *looking) tickets(id string, t *title) (created time.Time) {
	var states []*projection
	if s := l.files[id]; s != nil {
		if s.changes[0].Kind != Uploaded {
			t.dark = true
		}
		for i, p := range s.versions {
			switch {
			case p != nil:
				states = append(states, p)
			case s.changes[i].Kind != Deleted:
				t.dark = true
			}
			t.rewrote = t.rewrote || s.changes[i].Kind == Overwritten || p != nil && !p.first
		}
	}
	if raw := l.Truth[id]; raw != nil {
		if p := l.projected(id, raw); p != nil {
			states = append(states, p)
			t.rewrote = t.rewrote || !p.first
		}
	}
	alone := !t.dark
	for i, p := range states {
		if p.row.UploadTimestamp != nil {
			created = *p.row.UploadTimestamp
		}
		for _, u := range p.users {
			if !slices.Contains(t.tickets, u) {
				t.tickets = append(t.tickets, u)
			}
		}
		t.odd = t.odd || len(p.users) > 1 || p.ticketed && len(p.users) == 0
		alone = alone && len(p.users) == 1 && (i == 0 || p.users[0] == states[0].users[0])
	}
	if alone && len(states) > 0 {
		t.sole = states[0].users[0]
	}
	return created
}

// entitled: whoever owns the file has a title to it, and nobody has a better one.
func (l *looking) entitled(id string, s *State, t *title) {
	owner := s.Owner
	claimed := slices.ContainsFunc(t.claims, func(c claiming) bool { return c.user == owner })
	switch {
	case owner == "":
		return
	case owner == t.assigned || slices.Contains(t.byHand, owner):
		return
	case t.assigned != "":
		l.wrong(id, "it belongs to %q (%s), and an operator assigned it to %q", owner, s.OwnerKind, t.assigned)
	case slices.Contains(t.tickets, owner):
		return
	case t.sole != "" && len(t.byHand) == 0:
		l.wrong(id, "it belongs to %q (%s), and it always carried the ticket of %q", owner, s.OwnerKind, t.sole)
	case t.dark:
	case l.settings.Signed:
		l.wrong(id, "it belongs to %q (%s), who has no ticket in it", owner, s.OwnerKind)
	case !claimed:
		l.wrong(id, "it belongs to %q (%s), and no ticket, operator or report within the window gives it to them", owner, s.OwnerKind)
	}
}

// rightful: the owner is the one whose title is best.
func (l *looking) rightful(id string, s *State, t *title) {
	switch {
	case t.assigned != "":
		if s.Owner != t.assigned {
			l.wrong(id, "it belongs to %q (%s), and an operator assigned it to %q", s.Owner, s.OwnerKind, t.assigned)
		}
	case len(t.byHand) > 0 || t.dark || t.odd:
		// Which came first is not known.
	case t.sole != "":
		if s.Owner != t.sole {
			l.wrong(id, "it belongs to %q (%s), and it always carried the ticket of %q", s.Owner, s.OwnerKind, t.sole)
		}
	case len(t.tickets) > 0:
		// Carried for a part of the file's life: a claim may have come before.
	default:
		l.earliest(id, s, t)
	}
}

// earliest: of a file that nothing but reports speaks for, the earliest verified one
// owns. An overwritten file may stay unowned, and so may one whose reports may not all
// have been verified go to one of those.
func (l *looking) earliest(id string, s *State, t *title) {
	l.count("claimable", 1)
	first := ""
	for _, c := range t.claims {
		if c.verified {
			first = c.user
			break
		}
		if c.user == s.Owner {
			return
		}
	}
	if s.Owner == first || s.Owner == "" && t.rewrote {
		return
	}
	l.wrong(id, "it belongs to %q (%s), and rightfully to %q, the earliest of %s", s.Owner, s.OwnerKind, first, told(t.claims))
}

func told(claims []claiming) string {
	var out []string
	for _, c := range claims {
		out = append(out, fmt.Sprintf("%s at %s (verified: %v)", c.user, moment(&c.at), c.verified))
	}
	return fmt.Sprintf("%d reports: %s", len(out), strings.Join(out, ", "))
}
