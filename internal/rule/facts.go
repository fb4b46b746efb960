package rule

import (
	"slices"
	"strings"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
)

// Call is one settlement, or one repair of a run or a poll, as it came: sorted, so that
// whoever carries it out takes its locks in one order.
type Call struct {
	// Run is the one that repairs; nil for events and polls.
	Run     *Repairing
	Pending []event.Pending
	// Seen has one observation per file; IDs are its keys, sorted.
	Seen map[string]*file.Observation
	IDs  []string
	// End is the settle table.
	End func(event.Pending, file.Result) event.End
}

// NewCall sorts what came: by file, and for a file seen twice the look-up, then the
// younger fence, speaks.
func NewCall(pending []event.Pending, seen []file.Observation, end func(event.Pending, file.Result) event.End) *Call {
	c := &Call{Seen: map[string]*file.Observation{}, End: end}
	for i := range seen {
		o := &seen[i]
		if had := c.Seen[o.FileID]; had == nil || weight(o) > weight(had) || weight(o) == weight(had) && o.Fence.Number > had.Fence.Number {
			c.Seen[o.FileID] = o
		}
	}
	for id := range c.Seen {
		c.IDs = append(c.IDs, id)
	}
	slices.Sort(c.IDs)
	c.Pending = slices.Clone(pending)
	slices.SortStableFunc(c.Pending, func(a, b event.Pending) int {
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

// Repairing is the run that a settlement without events belongs to.
type Repairing struct {
	ID    string
	Fence int64
}

// moved reports a file that is newer than the run: it is not judged by it.
func (r *Repairing) moved(s *Standing) bool { return r != nil && s.Seen > r.Fence }

// Facts is everything that is read before one call is decided.
type Facts struct {
	// Over are the events that have an end, or wait in retries already.
	Over      map[string]bool
	Standings map[string]*Standing
	// Sound are the canaries of this call that are good ones: live rows, neither suspect
	// nor announced deleted. Others are up to two live rows that are not announced
	// deleted, neither before nor by this call; suspect ones too.
	Sound  map[string]bool
	Others []string
	// Rests is the first and last file that rests on a ticket.
	Rests map[string][2]string
	// Originals are the event ids of the dead letters replayed in this call.
	Originals map[string]string
	// Lines are the findings behind the events that runs have sent, by event id.
	Lines map[string]FindingLine
	// Latched: the fuse is. Candidates are those of the last day.
	Latched    bool
	Candidates int64
	// Released is when an operator last released the fuse; zero when nobody has. Named are
	// files of this call that are among the number named then, or at an earlier release.
	Released time.Time
	Named    map[string]bool
	// Doubted: a run did not recognise ImageKit's account.
	Doubted bool
}

// NewFacts knows nothing yet.
func NewFacts() *Facts {
	return &Facts{Over: map[string]bool{}, Standings: map[string]*Standing{}, Sound: map[string]bool{},
		Rests: map[string][2]string{}, Originals: map[string]string{}, Lines: map[string]FindingLine{}, Named: map[string]bool{}}
}

// active are the events that still need an end, each once.
func (f *Facts) active(c *Call) []event.Pending {
	out := make([]event.Pending, 0, len(c.Pending))
	for i, p := range c.Pending {
		if !f.Over[p.ID] && (i == 0 || c.Pending[i-1].ID != p.ID) {
			out = append(out, p)
		}
	}
	return out
}

// canary is rule 3's proof that the key still sees our library.
func (f *Facts) canary(o *file.Observation, announced map[string]bool) bool {
	for _, id := range o.Canary.FileIDs {
		if id != o.FileID && f.Sound[id] && !announced[id] {
			return true
		}
	}
	// A key of another account makes every row suspect, one look after another. Its
	// listing must not stand in for them then, not even for those announced deleted.
	for _, id := range f.Others {
		if id != o.FileID {
			return false
		}
	}
	return o.Canary.EmptyLibrary
}

func (f *Facts) restsElsewhere(ticket, id string) bool {
	r, ok := f.Rests[ticket]
	return ok && (r[0] != id || r[1] != id)
}

// original is the event whose claim this is: for a replay that of its dead letter.
func (f *Facts) original(e *event.Event) string {
	if o := f.Originals[e.DeadLetter]; e.DeadLetter != "" && o != "" {
		return o
	}
	return e.ID
}

// standing is what an observation is judged by. A release of the fuse lets through the
// files that it named, and none beside them: whatever else was nominated or counted before
// it begins anew.
func (f *Facts) standing(o *file.Observation, expected bool) *Standing {
	s := f.Standings[o.FileID]
	if o.Present() || expected || f.Released.IsZero() {
		return s
	}
	anew := *s
	if s.Suspect && !s.SuspectAt.After(f.Released) {
		anew.Suspect, anew.SuspectFence, anew.SuspectAt = false, 0, time.Time{}
	}
	if !s.CountedAt.After(f.Released) {
		anew.CountedAt = time.Time{}
	}
	return &anew
}

// vouched says what operators have said of this file's absence: events are those of the
// file that need an end.
func (f *Facts) vouched(fileID string, events []event.Pending) (expected, accepted bool) {
	expected = f.Named[fileID]
	for _, p := range events {
		if l, ok := f.Lines[p.ID]; ok && l.FileID == fileID {
			expected, accepted = expected || l.Expected, accepted || l.Accepted
		}
	}
	return expected, accepted
}

// Settings are what the rules leave to configuration.
type Settings struct {
	AbsentConfirm, ClaimWindow time.Duration
	Ownership                  Ownership
}
