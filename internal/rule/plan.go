package rule

import (
	"slices"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
)

// FilePlan is what one call does to one file.
type FilePlan struct {
	Obs   *file.Observation
	Was   *Standing
	Do    Change
	Owner Owning
	// Flags are new on this file.
	Flags []string
	// Counts: its nomination is new to the fuse.
	Counts bool
	// Moved: it is newer than the run that repairs, and nothing is judged.
	Moved  bool
	Events []event.Pending
}

// owns reports whether the owner's line in file_state changes.
func (f *FilePlan) owns() bool {
	a, b := f.Owner, f.Was.Owner
	return a.Owner != b.Owner || !a.At.Equal(b.At) || a.Event != b.Event || a.Open != b.Open || a.Ticket != b.Ticket || len(f.Flags) > 0
}

// Writes reports whether anything but the ledger is written for this file.
func (f *FilePlan) Writes() bool { return f.Do.Moves() || f.Was.Known && f.owns() }

// Fresh reports a file of which nothing stood in the database: there is no line to lock.
// Inserting it is what finds out whether somebody was quicker.
func (f *FilePlan) Fresh() bool { return !f.Was.Known && !f.Was.Live }

func (f *FilePlan) live() bool { return (f.Was.Live || f.Do.Content) && !f.Do.Remove }

// Plan decides every file of a call from what was read.
func Plan(c *Call, s Settings, facts *Facts) []*FilePlan {
	byFile := map[string][]event.Pending{}
	announced := map[string]bool{}
	for _, p := range facts.active(c) {
		if p.Poison {
			continue
		}
		byFile[p.FileID] = append(byFile[p.FileID], p)
		announced[p.FileID] = announced[p.FileID] || p.Kind == event.KindDeleted && p.Signed()
	}
	rested := map[string]string{} // tickets that this very call gives a file
	out := make([]*FilePlan, 0, len(c.IDs))
	for _, id := range c.IDs {
		f := &FilePlan{Obs: c.Seen[id], Was: facts.Standings[id], Events: byFile[id]}
		if out = append(out, f); c.Run.moved(f.Was) {
			f.Moved, f.Owner = true, f.Was.Owner
			continue
		}
		expected, accepted := facts.vouched(id, f.Events)
		f.Was = facts.standing(f.Obs, expected)
		w := World{AbsentConfirm: s.AbsentConfirm, Announced: announced[id], Latched: facts.Latched}
		w.Canary = !f.Obs.Present() && (accepted || !facts.Doubted && facts.canary(f.Obs, announced))
		f.Do = Order(f.Obs, f.Was, w)
		f.Counts = f.Do.Nominate && !expected && f.Was.Now.Sub(f.Was.CountedAt) > FuseWindow
		f.decideOwner(s, facts, rested)
	}
	return out
}

// decideOwner applies the call's evidence, whatever became of the content.
func (f *FilePlan) decideOwner(s Settings, facts *Facts, rested map[string]string) {
	k := f.Was.Owner
	if !f.Was.Known && f.Was.Live && f.Was.LiveUser != "" {
		k.Owner = file.Owner{User: f.Was.LiveUser, Kind: file.Adopted}
	}
	f.Owner = k
	if !f.Obs.Present() || f.Obs.How == file.Hit && f.Do.Outcome == file.LookAgain {
		return
	}
	p := f.Obs.Proof
	e := Evidence{
		Mode: s.Ownership, Window: s.ClaimWindow, ByID: f.Obs.How == file.LookUp, Proof: p,
		Reused:       p.Ticket != "" && (facts.restsElsewhere(p.Ticket, f.Obs.FileID) || rested[p.Ticket] != "" && rested[p.Ticket] != f.Obs.FileID),
		FirstVersion: f.Obs.Snapshot.FirstVersion && !f.Was.Rewritten, CreatedAt: f.Obs.Snapshot.CreatedAt,
	}
	for i := range f.Events {
		if ev := &f.Events[i].Event; claims(ev) && answers(f.Obs, f.Do, ev) {
			e.Claims = append(e.Claims, Claim{User: ev.User, At: Micros(ev.AcceptedAt), Event: facts.original(ev)})
		}
	}
	slices.SortFunc(e.Claims, func(a, b Claim) int {
		if a.before(b) {
			return -1
		}
		return 1
	})
	f.Owner = DecideOwner(k, e)
	if f.Owner.Ticket != "" {
		rested[f.Owner.Ticket] = f.Obs.FileID
	}
	for _, flag := range f.Owner.Flags {
		if !slices.Contains(k.Flags, flag) {
			f.Flags = append(f.Flags, flag)
		}
	}
	f.followOwner(k)
}

// Rewrites reports whether it writes what a version after the first says.
// Such a file is never in its first version again: what shows it there is an answer out of
// a cache, or a version that somebody has put back, and must not open claims that were
// refused with a later one.
func (f *FilePlan) Rewrites() bool {
	return f.Obs.Present() && (f.Do.Content || f.Do.Adopt) && !f.Obs.Snapshot.FirstVersion && f.Obs.Snapshot.VersionID != nil
}

// followOwner lets the row's user_id follow the owner in the same transaction.
func (f *FilePlan) followOwner(before Owning) {
	if f.Do.Content || !f.Was.Live {
		return
	}
	unfollowed := f.Do.Adopt && f.Was.LiveUser != f.Owner.User
	if f.Owner.User == before.User && !unfollowed {
		return
	}
	f.Do.User = true
	if f.Do.Outcome == file.Unchanged {
		f.Do.Outcome, f.Do.Reason = file.Applied, file.ReasonOwner
	}
}

// claims reports whether the event is a client's claim on its file.
func claims(e *event.Event) bool { return e.Origin == event.Client && e.User != "" }

// answers is rule 6: a look-up answers every event, a hit only some.
func answers(o *file.Observation, do Change, e *event.Event) bool {
	if o.How == file.LookUp {
		return true
	}
	if e.Kind == event.KindDeleted || e.Kind == event.KindRecheck {
		return false
	}
	news := do.Outcome == file.Applied && (do.Reason == file.ReasonAdded || do.Reason == file.ReasonRaised)
	switch e.Source {
	case event.Client:
		return news
	case event.Webhook:
		return news || !e.UpdatedAt.IsZero() && !Micros(o.Snapshot.UpdatedAt).Before(Micros(e.UpdatedAt))
	default:
		return false
	}
}

// result is what one event is told.
func (f *FilePlan) result(e *event.Event) file.Result {
	r := file.Result{Outcome: f.Do.Outcome, Reason: f.Do.Reason, Wait: f.Do.Wait, Live: f.live()}
	if f.Do.Outcome == file.LookAgain && f.Obs.How == file.Hit {
		return r
	}
	if !answers(f.Obs, f.Do, e) {
		return file.Result{Outcome: file.LookAgain, Reason: file.ReasonNotNews, Live: r.Live}
	}
	if claims(e) && f.Obs.Present() {
		r.Claim = file.ClaimRefused
		if e.User == f.Owner.User {
			r.Claim = file.ClaimHeld
		}
	}
	return r
}

// Ended is one event with the end that the settle table gave it.
type Ended struct {
	event.Pending
	End    event.End
	Result file.Result
	Obs    *file.Observation
}

// Ends asks the settle table about every event that has no end yet.
func Ends(c *Call, files []*FilePlan, facts *Facts) []Ended {
	byID := make(map[string]*FilePlan, len(files))
	for _, f := range files {
		byID[f.Obs.FileID] = f
	}
	var out []Ended
	for _, p := range facts.active(c) {
		e := Ended{Pending: p}
		if f := byID[p.FileID]; f != nil && !p.Poison {
			e.Obs, e.Result = f.Obs, f.result(&p.Event)
		}
		e.End = c.End(p, e.Result)
		out = append(out, e)
	}
	return out
}

// History is every attempt, with the one that this end adds.
func (e *Ended) History() []event.Attempt {
	out := append([]event.Attempt{}, e.Attempts...)
	if e.End.Attempt != nil {
		out = append(out, *e.End.Attempt)
	}
	return out
}
