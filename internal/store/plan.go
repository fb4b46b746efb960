package store

import (
	"slices"
	"strings"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
)

// settlement is one call of Settle or Repair, as it came.
type settlement struct {
	turn int64
	// run is the one that repairs; nil for events and polls.
	run     *repairing
	pending []event.Pending
	// seen has one observation per file; ids are its keys, sorted.
	seen map[string]*file.Observation
	ids  []string
	end  func(event.Pending, file.Result) event.End
}

// newSettlement sorts what came: by file, and for a file seen twice the look-up, then
// the younger fence, speaks.
func newSettlement(turn int64, pending []event.Pending, seen []file.Observation, end func(event.Pending, file.Result) event.End) *settlement {
	c := &settlement{turn: turn, seen: map[string]*file.Observation{}, end: end}
	for i := range seen {
		o := &seen[i]
		if had := c.seen[o.FileID]; had == nil || weight(o) > weight(had) || weight(o) == weight(had) && o.Fence.Number > had.Fence.Number {
			c.seen[o.FileID] = o
		}
	}
	for id := range c.seen {
		c.ids = append(c.ids, id)
	}
	slices.Sort(c.ids)
	c.pending = slices.Clone(pending)
	slices.SortStableFunc(c.pending, func(a, b event.Pending) int {
		return strings.Compare(a.FileID+"\x00"+a.ID, b.FileID+"\x00"+b.ID)
	})
	return c
}

func weight(o *file.Observation) int {
	if o.How == file.LookUp {
		return 1
	}
	return 0
}

func (c *settlement) snapshots() []*file.Snapshot {
	out := make([]*file.Snapshot, len(c.ids))
	for i, id := range c.ids {
		out[i] = c.seen[id].Snapshot
	}
	return out
}

// filePlan is what one settlement does to one file.
type filePlan struct {
	obs   *file.Observation
	was   *standing
	do    change
	owner owning
	// flags are new on this file.
	flags  []string
	counts bool // its nomination is new to the fuse
	moved  bool // newer than the run that repairs: nothing is judged
	events []event.Pending
}

// owns reports whether the owner's line in file_state changes.
func (f *filePlan) owns() bool {
	a, b := f.owner, f.was.Owner
	return a.Owner != b.Owner || !a.At.Equal(b.At) || a.Event != b.Event || a.Open != b.Open || a.Ticket != b.Ticket || len(f.flags) > 0
}

// writes reports whether anything but the ledger is written for this file.
func (f *filePlan) writes() bool { return f.do.moves() || f.was.Known && f.owns() }

func (f *filePlan) live() bool { return (f.was.Live || f.do.Content) && !f.do.Remove }

// rules are the store's settings that a plan needs.
type rules struct {
	absentConfirm, claimWindow time.Duration
	ownership                  Ownership
}

// planFiles decides every file of a settlement from what was read. Pure.
func planFiles(c *settlement, r rules, g *gathered) []*filePlan {
	byFile := map[string][]event.Pending{}
	announced := map[string]bool{}
	for _, p := range g.active(c) {
		byFile[p.FileID] = append(byFile[p.FileID], p)
		announced[p.FileID] = announced[p.FileID] || p.Kind == event.KindDeleted && p.Signed()
	}
	rested := map[string]string{} // tickets that this very call gives a file
	out := make([]*filePlan, 0, len(c.ids))
	for _, id := range c.ids {
		f := &filePlan{obs: c.seen[id], was: g.standings[id], events: byFile[id]}
		if out = append(out, f); c.run.moved(f.was) {
			f.moved, f.owner = true, f.was.Owner
			continue
		}
		expected, accepted := g.vouched(id, f.events)
		w := world{AbsentConfirm: r.absentConfirm, Announced: announced[id], Latched: g.latched}
		w.Canary = !f.obs.Present() && (accepted || !g.doubted && g.canary(f.obs, announced))
		f.do = order(f.obs, f.was, w)
		f.counts = f.do.Nominate && !expected && f.was.Now.Sub(f.was.CountedAt) > fuseWindow
		f.decideOwner(r, g, rested)
	}
	return out
}

// decideOwner applies the call's evidence, whatever became of the content.
func (f *filePlan) decideOwner(r rules, g *gathered, rested map[string]string) {
	k := f.was.Owner
	if !f.was.Known && f.was.Live && f.was.LiveUser != "" {
		k.Owner = file.Owner{User: f.was.LiveUser, Kind: file.Adopted}
	}
	f.owner = k
	if !f.obs.Present() || f.obs.How == file.Hit && f.do.Outcome == file.LookAgain {
		return
	}
	p := f.obs.Proof
	e := evidence{
		Mode: r.ownership, Window: r.claimWindow, ByID: f.obs.How == file.LookUp, Proof: p,
		Reused:       p.Ticket != "" && (g.restsElsewhere(p.Ticket, f.obs.FileID) || rested[p.Ticket] != "" && rested[p.Ticket] != f.obs.FileID),
		FirstVersion: f.obs.Snapshot.FirstVersion, CreatedAt: f.obs.Snapshot.CreatedAt,
	}
	for i := range f.events {
		if ev := &f.events[i].Event; claims(ev) && answers(f.obs, f.do, ev) {
			e.Claims = append(e.Claims, claim{User: ev.User, At: micros(ev.AcceptedAt), Event: g.original(ev)})
		}
	}
	slices.SortFunc(e.Claims, func(a, b claim) int {
		if a.before(b) {
			return -1
		}
		return 1
	})
	f.owner = decideOwner(k, e)
	if f.owner.Ticket != "" {
		rested[f.owner.Ticket] = f.obs.FileID
	}
	for _, flag := range f.owner.Flags {
		if !slices.Contains(k.Flags, flag) {
			f.flags = append(f.flags, flag)
		}
	}
	f.followOwner(k)
}

// followOwner lets the row's user_id follow the owner in the same transaction.
func (f *filePlan) followOwner(before owning) {
	if f.do.Content || !f.was.Live {
		return
	}
	unfollowed := f.do.Adopt && f.was.LiveUser != f.owner.User
	if f.owner.User == before.User && !unfollowed {
		return
	}
	f.do.User = true
	if f.do.Outcome == file.Unchanged {
		f.do.Outcome, f.do.Reason = file.Applied, file.ReasonOwner
	}
}

// claims reports whether the event is a client's claim on its file.
func claims(e *event.Event) bool { return e.Origin == event.Client && e.User != "" }

// answers is rule 6: a look-up answers every event, a hit only some.
func answers(o *file.Observation, do change, e *event.Event) bool {
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
		return news || !e.UpdatedAt.IsZero() && !micros(o.Snapshot.UpdatedAt).Before(micros(e.UpdatedAt))
	default:
		return false
	}
}

// result is what one event is told.
func (f *filePlan) result(e *event.Event) file.Result {
	r := file.Result{Outcome: f.do.Outcome, Reason: f.do.Reason, Wait: f.do.Wait, Live: f.live()}
	if f.do.Outcome == file.LookAgain && f.obs.How == file.Hit {
		return r
	}
	if !answers(f.obs, f.do, e) {
		return file.Result{Outcome: file.LookAgain, Reason: file.ReasonNotNews, Live: r.Live}
	}
	if claims(e) && f.obs.Present() {
		r.Claim = file.ClaimRefused
		if e.User == f.owner.User {
			r.Claim = file.ClaimHeld
		}
	}
	return r
}

// ended is one event with the end that the settle table gave it.
type ended struct {
	event.Pending
	end    event.End
	result file.Result
	obs    *file.Observation
}

// planEnds asks the settle table about every event that has no end yet.
func planEnds(c *settlement, files []*filePlan, g *gathered) []ended {
	byID := make(map[string]*filePlan, len(files))
	for _, f := range files {
		byID[f.obs.FileID] = f
	}
	var out []ended
	for _, p := range g.active(c) {
		e := ended{Pending: p}
		if f := byID[p.FileID]; f != nil {
			e.obs, e.result = f.obs, f.result(&p.Event)
		}
		e.end = c.end(p, e.result)
		out = append(out, e)
	}
	return out
}
