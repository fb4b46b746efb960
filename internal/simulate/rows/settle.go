package rows

import (
	"context"
	"slices"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/rule"
	"github.com/trueup/trueup/internal/run"
)

// settling is one settling transaction: what was read, and what was decided of it.
type settling struct {
	*Door
	call  *rule.Call
	facts *rule.Facts
	files []*rule.FilePlan
	ends  []rule.Ended
}

// Settle brings every pending event to its end, as the store's Settle does.
func (d *Door) Settle(ctx context.Context, turn int64, pending []event.Pending, seen []file.Observation,
	end func(event.Pending, file.Result) event.End,
) (event.Settled, error) {
	var out event.Settled
	err := d.do(ctx, "Settle", about(pending, seen), func() error {
		s, err := d.settle("settle", turn, rule.NewCall(pending, seen, end))
		if err == nil {
			out = s.write()
		}
		return err
	})
	if err != nil {
		return event.Settled{}, err
	}
	return out, nil
}

func about(pending []event.Pending, seen []file.Observation) string {
	switch {
	case len(pending) > 0:
		return pending[0].ID
	case len(seen) > 0:
		return seen[0].FileID
	}
	return ""
}

// noTurn is the turn of what is not kept anyway.
const noTurn int64 = -1

// settle reads and decides. It writes nothing.
func (d *Door) settle(op string, turn int64, c *rule.Call) (*settling, error) {
	if turn != noTurn {
		if err := d.db.guard(turn); err != nil {
			return nil, err
		}
	}
	if c.Run != nil {
		if _, err := d.db.openRun(c.Run.ID); err != nil {
			return nil, err
		}
	}
	if err := refusedCall(op, c); err != nil {
		return nil, err
	}
	s := &settling{Door: d, call: c, facts: d.db.gather(c)}
	settings := rule.Settings{AbsentConfirm: d.cfg.AbsentConfirm, ClaimWindow: d.cfg.ClaimWindow, Ownership: d.cfg.Ownership}
	var err error
	s.files, err = rule.PlanBraked(c, settings, s.facts, func(atMost int64) (int64, error) { return min(atMost, int64(len(d.db.rows))), nil })
	if err == nil {
		s.ends = rule.Ends(c, s.files, s.facts)
	}
	return s, err
}

func refusedCall(op string, c *rule.Call) error {
	for _, id := range c.IDs {
		if err := refused(op, c.Seen[id].Snapshot); err != nil {
			return err
		}
	}
	return nil
}

// gather reads everything that the rules ask for.
func (db *Database) gather(c *rule.Call) *rule.Facts {
	f := rule.NewFacts()
	db.gatherEvents(c, f)
	absent := false
	for _, id := range c.IDs {
		o := c.Seen[id]
		f.Standings[id] = db.standing(id, o.Snapshot)
		absent = absent || !o.Present()
		if t := o.Proof.Ticket; o.Present() && t != "" {
			if on := db.restingOn(t); len(on) > 0 {
				f.Rests[t] = [2]string{on[0], on[len(on)-1]}
			}
		}
	}
	if absent {
		db.gatherAbsence(c, f)
	}
	return f
}

func (db *Database) gatherEvents(c *rule.Call, f *rule.Facts) {
	retried := map[string]bool{}
	for _, p := range c.Pending {
		retried[p.ID] = p.Retried
		if l := db.letters[p.DeadLetter]; p.DeadLetter != "" && l != nil {
			f.Originals[l.ID] = l.EventID
		}
		if line := db.asked[p.ID]; p.Source == event.Reconcile && line != nil {
			f.Lines[p.ID] = db.lineOf(line)
		}
	}
	for id, was := range retried {
		over, waits := db.eventIs(id)
		// One that comes from retries must still be there; one from an envelope not yet.
		f.Over[id] = over || waits != was
	}
}

// eventIs says whether an event is over, and whether it waits.
func (db *Database) eventIs(id string) (over, waits bool) {
	return db.ledger[id] != nil || db.letterOf[id] != "", db.retries[id] != nil
}

// lineOf is a finding as the rules see it. Only one that is open, of a run that nobody has
// cancelled, is exempt from anything, and of the fuse only an orphan.
func (db *Database) lineOf(f *finding) rule.FindingLine {
	r := db.runs[f.runID]
	exempt := f.Status == run.Found && r.State != run.Cancelled
	return rule.FindingLine{RunID: f.runID, FileID: f.FileID, Kind: f.Kind,
		Expected: exempt && f.Kind == run.Orphaned && r.ExpectedDeletions != nil, Accepted: exempt && r.AccountAcceptedBy != ""}
}

// restingOn are the files whose owner rests on a ticket.
func (db *Database) restingOn(ticket string) (out []string) {
	for _, id := range sorted(db.states) {
		if db.states[id].owner.Ticket == ticket {
			out = append(out, id)
		}
	}
	return out
}

func (db *Database) gatherAbsence(c *rule.Call, f *rule.Facts) {
	f.Latched, f.Doubted, f.Candidates = !db.fuse.latchedAt.IsZero(), db.fuse.accountDoubt != "", db.candidates()
	f.Released = db.fuse.releasedAt
	for _, id := range c.IDs {
		f.Named[id] = !c.Seen[id].Present() && db.named(id)
	}
	for _, id := range db.sound() {
		f.Sound[id] = true
	}
	announced := db.announced()
	for _, p := range c.Pending {
		announced[p.FileID] = announced[p.FileID] || p.Kind == event.KindDeleted && p.Signed()
	}
	for _, id := range sorted(db.rows) {
		if !announced[id] && len(f.Others) < 2 {
			f.Others = append(f.Others, id)
		}
	}
}

// named says whether a file is among the number that a release of the fuse named.
func (db *Database) named(id string) bool {
	for runID, found := range db.findings {
		r, l := db.runs[runID], found[id]
		if l == nil || l.Kind != run.Orphaned || r.ExpectedDeletions == nil || r.State == run.Cancelled {
			continue
		}
		if l.Status == run.Found || l.Status == run.Refused && l.Reason == string(file.ReasonFuseLatched) {
			return true
		}
	}
	return false
}

// write does what was decided.
func (s *settling) write() event.Settled {
	out := event.Settled{Ends: make(map[string]event.End, len(s.ends)), Already: len(s.call.Pending) - len(s.ends), Security: map[string]int{}}
	counted := int64(0)
	// The lines that are new first: in this order the store draws its fences.
	for _, known := range []bool{false, true} {
		for _, f := range s.files {
			if f.Was.Known == known {
				s.db.writeFile(f)
			}
		}
	}
	for _, f := range s.files {
		if f.Counts {
			counted++
		}
		for _, flag := range f.Flags {
			out.Security[flag]++
		}
	}
	s.countFuse(counted)
	s.db.tell(rule.Lines(s.call, s.files, s.ends, s.facts, s.secrets))
	for i := range s.ends {
		e := s.ends[i]
		out.Ends[e.ID] = e.End
		s.end(&e)
	}
	s.closeFindings()
	for _, p := range s.call.Pending {
		delete(s.db.marks, p.ID)
	}
	if s.cleanNow() {
		s.clean()
	}
	out.NextDue = s.db.nextDue()
	return out
}

// writeFile is one file's line in file_state, and its row.
func (db *Database) writeFile(f *rule.FilePlan) {
	id := f.Obs.FileID
	if f.Writes() {
		s := db.states[id]
		if s == nil {
			s = &state{firstSeen: now()}
			db.states[id] = s
		}
		db.writeState(s, f)
	}
	r := db.rows[id]
	switch {
	case f.Do.Remove:
		delete(db.rows, id)
	case f.Do.Content:
		if r == nil {
			db.nextRow++
			r = &Row{ID: db.nextRow, FileID: id}
			db.rows[id] = r
		}
		r.fill(f.Obs.Snapshot)
		r.UserID, r.SyncedAt, r.xmin = f.Owner.User, orNull(now()), db.writes
	case f.Do.User:
		r.UserID, r.xmin = f.Owner.User, db.writes
	}
}

func (db *Database) writeState(s *state, f *rule.FilePlan) {
	var fence int64
	if f.Do.Moves() {
		fence = db.draw()
	}
	s.xmin, s.seen = db.writes, max(s.seen, fence)
	s.owner = f.Owner
	s.owner.Flags, s.owner.At = slices.Clone(f.Owner.Flags), micros(f.Owner.At)
	if f.Obs.Present() && (f.Do.Content || f.Do.Adopt) {
		if at := micros(f.Obs.Snapshot.UpdatedAt); at.After(s.high) {
			s.high = at
		}
		hash := f.Was.Proposed
		s.hash, s.goneAt, s.goneWhy = &hash, time.Time{}, ""
	}
	s.rewritten = s.rewritten || f.Rewrites()
	if f.Do.Remove {
		s.hash, s.goneAt, s.goneWhy = nil, now(), string(f.Do.Reason)
	}
	switch {
	case f.Do.Nominate:
		s.suspectFence, s.suspectAt = s.seen, now()
	case f.Do.Doubt:
		s.suspectFence, s.suspectAt = 0, now()
	case f.Do.Clear || f.Do.Remove:
		s.suspectFence, s.suspectAt = 0, time.Time{}
	}
	if f.Counts {
		s.countedAt = now()
	}
}

func (s *settling) countFuse(n int64) {
	if n == 0 {
		return
	}
	at := now()
	s.db.hours[at.Truncate(hour)] += n
	for h := range s.db.hours {
		if h.Before(at.Add(-3 * day)) {
			delete(s.db.hours, h)
		}
	}
	if s.facts.Latched && s.db.fuse.latchedAt.IsZero() {
		s.db.fuse.latchedAt, s.db.fuse.why = at, rule.LatchedBy(s.facts.Candidates+n)
	}
}

// end sets one event aside, or forgets that it waited, and tells whoever sent it.
func (s *settling) end(e *rule.Ended) {
	db := s.db
	switch {
	case e.End.Kind == event.Retry:
		db.wait(e)
	case e.Retried:
		delete(db.retries, e.ID)
	}
	s.park(*e)
	if e.Source == event.Replay && e.End.Kind != event.Retry {
		for _, items := range db.items {
			for _, i := range items {
				if i.eventID == e.ID {
					i.end, i.reason, i.endedAt = e.End.Kind, e.End.Reason, now()
				}
			}
		}
	}
	if l, ok := s.facts.Lines[e.ID]; ok {
		s.tellFinding(db.asked[e.ID], l, e)
	}
}

// wait keeps an event for its next look.
func (db *Database) wait(e *rule.Ended) {
	r := db.retries[e.ID]
	if r == nil {
		r = &retry{Pending: e.Pending}
		whole(&r.Event)
		r.Retried = true
		db.retries[e.ID] = r
	}
	r.Attempts, r.Tries, r.Waited = e.History(), e.Tries+1, (e.Waited + e.End.After).Truncate(millisecond)
	r.dueAt, r.reason = now().Add(e.End.After.Truncate(microsecond)), e.End.Reason
}

// whole is an event as a table gives it back.
func whole(e *event.Event) {
	e.AcceptedAt, e.UpdatedAt = micros(e.AcceptedAt), micros(e.UpdatedAt)
	if e.Headers == nil {
		e.Headers = map[string]string{}
	}
	if e.Body == nil {
		e.Body = []byte{}
	}
}

// park makes a dead letter of what died, or tells one what became of its replay.
func (s *settling) park(e rule.Ended) {
	db := s.db
	if _, known := s.facts.Originals[e.DeadLetter]; e.DeadLetter != "" && known {
		s.replayed(db.letters[e.DeadLetter], &e)
		return
	}
	if e.End.Kind != event.Dead {
		return
	}
	spans := s.secrets.Hide(&e)
	whole(&e.Event)
	l := &letter{DeadLetter: event.DeadLetter{
		ID: db.newID(), EventID: e.ID, FileID: e.FileID, Source: e.Source, Origin: e.Origin, Kind: e.Kind, User: e.User,
		AcceptedAt: e.AcceptedAt, UpdatedAt: e.UpdatedAt, WebhookID: e.WebhookID, Class: e.End.Class, Reason: e.End.Reason, Note: e.End.Note,
		State: event.LetterDead, Headers: e.Headers, Body: slices.Clone(e.Body), Masked: spans, Attempts: e.History(), CreatedAt: now(), ChangedAt: now(),
	}}
	db.letters[l.ID], db.letterOf[l.EventID] = l, l.ID
}

func (s *settling) replayed(l *letter, e *rule.Ended) {
	if e.End.Kind == event.Retry {
		return
	}
	s.secrets.Hide(e)
	l.ReplayEvent, l.ChangedAt = e.ID, now()
	l.history = append(l.history, map[string]any{"event": e.ID, "end": e.End.Kind, "reason": e.End.Reason, "note": e.End.Note, "outcome": e.Result.Outcome, "at": now()})
	if l.State = event.LetterResolved; e.End.Kind == event.Dead {
		l.State, l.Class, l.Reason, l.Note = event.LetterDead, e.End.Class, e.End.Reason, e.End.Note
		l.Attempts = append(slices.Clone(l.Attempts), e.History()...)
	}
}

// tellFinding tells a finding what became of its event. One that an earlier look has
// repaired already stays repaired.
func (s *settling) tellFinding(f *finding, l rule.FindingLine, e *rule.Ended) {
	f.ChangedAt = now()
	if f.Status == run.Found {
		f.Status, f.Reason = rule.Becomes(l.Kind, e)
	}
	over := e.End.Kind != event.Retry
	if t := s.secrets.Text(e.Sentence()); t != "" && (over || len(f.Evidence) < rule.EvidenceKept) {
		f.Evidence = append(slices.Clone(f.Evidence), t)
	}
	if over {
		f.endedAt = now()
	}
}

// closeFindings answers the findings of the run that repairs.
func (s *settling) closeFindings() {
	if s.call.Run == nil {
		return
	}
	for _, p := range s.files {
		f := s.db.findings[s.call.Run.ID][p.Obs.FileID]
		if f != nil && f.open() && p.Repaired() != run.RepairAsk {
			f.Status, f.Reason = p.Closes(f.Kind)
			f.ChangedAt = now()
		}
	}
}

// Repair writes what hits may write, as the store's Repair does.
func (d *Door) Repair(ctx context.Context, turn int64, runID string, fence int64, hits []file.Observation) (map[string]run.Repair, error) {
	out := make(map[string]run.Repair, len(hits))
	err := d.do(ctx, "Repair", about(nil, hits), func() error {
		clear(out)
		var sound []file.Observation
		for _, o := range hits {
			if out[o.FileID] = run.RepairAsk; o.Present() && refused("repair", o.Snapshot) == nil {
				sound = append(sound, o)
			}
		}
		if len(hits) == 0 || len(sound) == 0 && !slices.ContainsFunc(hits, func(o file.Observation) bool { return o.Present() }) {
			return nil
		}
		c := rule.NewCall(nil, sound, nil)
		if runID != "" {
			c.Run = &rule.Repairing{ID: runID, Fence: fence}
		}
		s, err := d.settle("repair", turn, c)
		if err != nil {
			return err
		}
		s.write()
		for _, f := range s.files {
			out[f.Obs.FileID] = f.Repaired()
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
