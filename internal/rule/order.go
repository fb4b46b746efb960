package rule

import (
	"time"

	"github.com/trueup/trueup/internal/file"
)

// Standing is what the database holds about one file, read in one snapshot, with the
// hash of what is proposed for it beside.
type Standing struct {
	FileID string
	// Known: file_state has a line. Without one everything down to Ticket is zero.
	Known        bool
	Seen         int64
	High         time.Time // zero is -infinity
	Rewritten    bool      // a version after the first was seen
	Hash         *int64
	Gone         bool
	Suspect      bool
	SuspectFence int64 // of the nomination; zero while there is only doubt
	SuspectAt    time.Time
	CountedAt    time.Time
	Owner        Owning
	// Live: a row stands in imagekit_files, whatever file_state says.
	Live     bool
	LiveUser string
	LiveHash int64
	// Proposed is the hash of the observation's snapshot.
	Proposed int64
	// Now is the database's clock.
	Now time.Time
}

// same reports whether the row's content is the proposed one.
func (s *Standing) same() bool { return s.Live && s.LiveHash == s.Proposed }

// ours reports whether the proposed content is what we wrote last.
func (s *Standing) ours() bool { return s.Hash != nil && *s.Hash == s.Proposed }

// drifted reports whether somebody else changed the row's user_id.
func (s *Standing) drifted() bool { return s.Known && s.Live && s.LiveUser != s.Owner.User }

// World is what an absence is judged by besides the file itself.
type World struct {
	// AbsentConfirm is how long after its nomination a file may be removed.
	AbsentConfirm time.Duration
	// Announced: a signed file.deleted of this file is among the call's events.
	Announced bool
	// Canary: the key still sees our library, by rule 3.
	Canary bool
	// Latched: the fuse lets no unsigned deletion through.
	Latched bool
}

// Change is what the order rule lets one observation do to one file.
type Change struct {
	Outcome file.Outcome
	Reason  file.Reason
	Wait    time.Duration
	// Content: write the row as observed.
	Content bool
	// User: write the row's user_id only.
	User bool
	// Adopt: write a line in file_state for a row it did not know.
	Adopt bool
	// Clear ends a suspicion, Nominate begins one that a later 404 may confirm, Remove
	// writes the tombstone.
	Clear, Nominate, Remove bool
	// Doubt begins a suspicion that confirms nothing: nothing vouched for the library when
	// it denied the file. Until something does, the file itself vouches for no other.
	Doubt bool
}

// Moves reports whether the change is one that raises `seen`.
func (c Change) Moves() bool {
	return c.Content || c.User || c.Adopt || c.Clear || c.Nominate || c.Doubt || c.Remove
}

// RegressedWait is how long after content went back it is asked once more.
const RegressedWait = 5 * time.Second

// Order is the order rule: what the observation may do to what stands there. It is
// pure; the caller applies it under the file's lock.
func Order(o *file.Observation, s *Standing, w World) Change {
	if o.Present() {
		return orderPresent(o, s)
	}
	return orderAbsent(o, s, w)
}

// decisive: the look-up began after all that the row knows (rule 1).
func decisive(o *file.Observation, s *Standing) bool {
	return o.How == file.LookUp && o.Fence.Number > s.Seen
}

func orderPresent(o *file.Observation, s *Standing) Change {
	switch {
	case !s.Known && !s.Live:
		return Change{Outcome: file.Applied, Reason: file.ReasonAdded, Content: true}
	case !s.Known:
		return Change{Outcome: file.Applied, Reason: file.ReasonAdopted, Adopt: true, Content: !s.same()}
	case s.same() && !s.drifted() && !s.Suspect && !s.Gone:
		return Change{Outcome: file.Unchanged, Reason: file.ReasonSame}
	case decisive(o, s):
		return orderAlone(o, s)
	default:
		return orderBeside(o, s)
	}
}

// orderAlone is rule 1: the look-up decides, whatever it says.
func orderAlone(o *file.Observation, s *Standing) Change {
	at := Micros(o.Snapshot.UpdatedAt)
	c := Change{Outcome: file.Applied, Clear: s.Suspect, Content: true}
	switch {
	case s.Gone:
		c.Reason = file.ReasonRevived
	case s.same() && s.drifted():
		c.Reason, c.Content, c.User = file.ReasonRepaired, false, true
	case s.same():
		c.Reason, c.Content = file.ReasonCleared, false
	case s.ours():
		c.Reason = file.ReasonRepaired
	case at.Before(s.High):
		c.Reason, c.Wait = file.ReasonRegressed, RegressedWait
	case at.After(s.High):
		c.Reason = file.ReasonRaised
	default:
		c.Reason = file.ReasonRepaired
	}
	return c
}

// orderBeside is rule 2: a hit, or a look-up that overlaps what is known. It may raise
// a live row or put back what we wrote last; a 200 by id also ends a suspicion. A hit does
// not, so it puts nothing back that is suspect: the next 404 would take it away again,
// though ImageKit had shown the file in between. What is so is asked by id.
func orderBeside(o *file.Observation, s *Standing) Change {
	clearing := s.Suspect && o.How == file.LookUp
	doubtful := s.Suspect && o.How == file.Hit
	again := Change{Outcome: file.LookAgain, Reason: file.ReasonStaleHit, Clear: clearing}
	switch {
	case s.Gone:
		return again
	case s.Live && Micros(o.Snapshot.UpdatedAt).After(s.High):
		return Change{Outcome: file.Applied, Reason: file.ReasonRaised, Content: true, Clear: s.Suspect}
	case doubtful:
		return again
	case s.ours() && s.same() && s.drifted():
		return Change{Outcome: file.Applied, Reason: file.ReasonRepaired, User: true, Clear: clearing}
	case s.ours() && !s.same():
		return Change{Outcome: file.Applied, Reason: file.ReasonRepaired, Content: true, Clear: clearing}
	case clearing && s.same() && !s.drifted():
		return Change{Outcome: file.Applied, Reason: file.ReasonCleared, Clear: true}
	default:
		return again
	}
}

// orderAbsent is rule 3. A library that is not ours denies every file, so its 404 must not
// be the first of two, either: the other may be a short lie about this file alone.
func orderAbsent(o *file.Observation, s *Standing, w World) Change {
	suspect := s.Suspect && s.Now.Sub(s.SuspectAt) <= 10*w.AbsentConfirm+10*time.Minute
	noCanary := Change{Outcome: file.LookAgain, Reason: file.ReasonNoCanary}
	switch {
	case !s.Known && !s.Live && !w.Announced:
		return Change{Outcome: file.Unchanged, Reason: file.ReasonNotFound}
	case s.Gone && !s.Live:
		return Change{Outcome: file.Unchanged, Reason: file.ReasonGone}
	case (s.Known || s.Live) && !decisive(o, s):
		return Change{Outcome: file.LookAgain, Reason: file.ReasonStaleHit}
	case w.Announced && w.Canary:
		return Change{Outcome: file.Tombstoned, Reason: file.ReasonAnnounced, Remove: true}
	case w.Announced:
		return noCanary
	case suspect && s.SuspectFence > 0:
		return orderConfirm(o, s, w)
	case w.Canary:
		return Change{Outcome: file.LookAgain, Reason: file.ReasonNominated, Nominate: true, Adopt: !s.Known, Wait: w.AbsentConfirm}
	case suspect:
		return noCanary
	default:
		noCanary.Doubt, noCanary.Adopt = true, !s.Known
		return noCanary
	}
}

// orderConfirm judges a 404 on a file that an earlier one nominated.
func orderConfirm(o *file.Observation, s *Standing, w World) Change {
	due := s.SuspectAt.Add(w.AbsentConfirm)
	switch {
	case o.Fence.At.Before(due) || o.Fence.Number <= s.SuspectFence:
		return Change{Outcome: file.LookAgain, Reason: file.ReasonTooSoon, Wait: max(due.Sub(s.Now), 0)}
	case w.Latched:
		return Change{Outcome: file.LookAgain, Reason: file.ReasonFuseLatched}
	case !w.Canary:
		return Change{Outcome: file.LookAgain, Reason: file.ReasonNoCanary}
	default:
		return Change{Outcome: file.Tombstoned, Reason: file.ReasonConfirmed, Remove: true}
	}
}

// Micros cuts a time to what the database keeps, so that the two compare.
func Micros(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }
