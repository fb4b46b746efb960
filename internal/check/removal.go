package check

import (
	"slices"
	"time"
)

// Why a tombstone stands, as file_state says.
const (
	whyConfirmed = "confirmed"
	whyAnnounced = "announced"
)

// canaryAge is how old the proof may be that the key still sees our library.
const canaryAge = time.Minute

// removals judges each tombstone once, when it is first seen: I7.
func (w *Watch) removals(l *looking, now *step) {
	l.now = I7
	for id, s := range now.states {
		if s.GoneAt == nil || w.gone[id].Equal(*s.GoneAt) {
			continue
		}
		w.gone[id] = *s.GoneAt
		l.count("tombstones", 1)
		w.removal(l, now, id, s)
	}
}

func (w *Watch) removal(l *looking, now *step, id string, s *State) {
	at := *s.GoneAt
	accepted := l.accountAccepted(id)
	var last *Request
	switch s.GoneWhy {
	case whyAnnounced:
		last = l.announcedAbsence(id, at)
		if last == nil {
			l.wrong(id, "tombstone of %s: it is said to be announced, and no 404 by id follows a signed file.deleted", moment(&at))
			return
		}
	case whyConfirmed:
		var first *Request
		first, last = l.confirmedAbsence(id, at, nil)
		if first == nil {
			l.wrong(id, "tombstone of %s: no two 404s by id at least %s apart come before it", moment(&at), l.settings.AbsentConfirm)
			return
		}
	default:
		l.wrong(id, "tombstone of %s: %q is no reason to remove a row", moment(&at), s.GoneWhy)
		return
	}
	if !accepted && !l.canary(id, last, at) {
		l.wrong(id, "tombstone of %s: nothing proved within %s of its last 404 that the key still sees the library", moment(&at), canaryAge)
	}
	if l.held(id, last.At, at) {
		w.removedAlive(l, now, id, s, last, accepted)
	}
}

// removedAlive: ImageKit holds the file. Only a lie about this file, long enough, may
// have removed it; one about all files only where there was no other row to ask about.
func (w *Watch) removedAlive(l *looking, now *step, id string, s *State, last *Request, accepted bool) {
	l.count("removed though held", 1)
	at := *s.GoneAt
	if l.deletedByHand(id, w.stood[id], at) {
		return // a person had removed the row
	}
	if accepted && l.deniedAll(last.At) {
		return // an operator has said that this is the account
	}
	if denied, lied := l.denied(id, last.At, w.strangers(l) || !w.others(l, now, id, at)); lied {
		if s.GoneWhy == whyAnnounced {
			return
		}
		if first, _ := l.confirmedAbsence(id, at, &denied); first != nil {
			return
		}
	}
	l.wrong(id, "tombstone of %s (%s): ImageKit holds the file, and did not deny it for %s on end", moment(&at), s.GoneWhy, l.settings.AbsentConfirm)
}

// denied is the span around t in which ImageKit denied the file as far as anybody could
// know: one lie, or several, such as a file that is not visible yet and then another
// account's key, where nobody was answered 200 between them. Lies about all files count
// where nothing else could have vouched.
func (l *looking) denied(id string, t time.Time, all bool) (span Lie, lied bool) {
	span = Lie{FileID: id, From: t, To: t}
	unseen := func(from, to time.Time) bool {
		return !slices.ContainsFunc(l.present[id], func(r *Request) bool { return !r.At.Before(from) && !r.At.After(to) })
	}
	for grew := true; grew; {
		grew = false
		for _, lie := range l.Lies {
			applies := lie.FileID == id || lie.FileID == "" && all
			if !applies || !unseen(span.To.Add(l.settings.Skew), lie.From) || !unseen(lie.To, span.From.Add(-l.settings.Skew)) {
				continue
			}
			lied = lied || within(t, lie.From, lie.To, l.settings.Skew)
			if lie.From.Before(span.From) {
				span.From, grew = lie.From, true
			}
			if lie.To.After(span.To) {
				span.To, grew = lie.To, true
			}
		}
	}
	return span, lied
}

// deniedAll reports whether t is in a lie about all files.
func (l *looking) deniedAll(t time.Time) bool {
	return slices.ContainsFunc(l.Lies, func(lie Lie) bool { return lie.FileID == "" && within(t, lie.From, lie.To, l.settings.Skew) })
}

// others reports whether another row stood that could have been asked about: in the
// last dump, of a file that ImageKit holds, not removed since, and not announced deleted.
func (w *Watch) others(l *looking, now *step, id string, at time.Time) bool {
	if w.last == nil {
		return false
	}
	for other := range w.last.rows {
		s := now.states[other]
		gone := s != nil && s.GoneAt != nil && !s.GoneAt.After(at)
		told := slices.ContainsFunc(l.announced[other], func(t time.Time) bool { return !t.After(at) })
		if other != id && l.held(other, at, at) && !gone && !told && !l.deletedByHand(other, w.last.at, at) {
			return true
		}
	}
	return false
}

// strangers reports whether a row stands whose file ImageKit never held and yet answered
// for: another account's, taken in while there was nothing to know this one by, or because an
// operator accepted that account. It vouches for that account, for as long as it stands.
func (w *Watch) strangers(l *looking) bool {
	if w.last == nil {
		return false
	}
	for id := range w.last.rows {
		if l.files[id] == nil && l.Truth[id] == nil && len(l.present[id]) > 0 {
			return true
		}
	}
	return false
}

func within(t, from, to time.Time, slack time.Duration) bool {
	return !t.Before(from.Add(-slack)) && !t.After(to.Add(slack))
}

// announcedAbsence is a 404 that follows a signed file.deleted and comes before at.
func (l *looking) announcedAbsence(id string, at time.Time) *Request {
	var first time.Time
	for _, t := range l.announced[id] {
		if first.IsZero() || t.Before(first) {
			first = t
		}
	}
	if first.IsZero() {
		return nil
	}
	for _, r := range slices.Backward(l.absent[id]) {
		if !r.At.After(at.Add(l.settings.Skew)) && !r.At.Before(first.Add(-l.settings.Skew)) {
			return r
		}
	}
	return nil
}

// confirmedAbsence is a pair of 404s before at, as far apart as ABSENT_CONFIRM demands;
// in during a lie, both are inside it. The pair with the youngest second one is returned.
func (l *looking) confirmedAbsence(id string, at time.Time, in *Lie) (first, last *Request) {
	all := l.absent[id]
	counts := func(r *Request) bool {
		return !r.At.After(at.Add(l.settings.Skew)) && (in == nil || within(r.At, in.From, in.To, l.settings.Skew))
	}
	for i, b := range slices.Backward(all) {
		if !counts(b) {
			continue
		}
		for _, a := range all[:i] {
			if counts(a) && b.At.Sub(a.At)+l.settings.Skew >= l.settings.AbsentConfirm {
				return a, b
			}
		}
	}
	return nil, nil
}

// canary reports whether the key was seen to see the library around the last 404: by
// another file that answered by id, or by the listing of one.
func (l *looking) canary(id string, last *Request, at time.Time) bool {
	from, to := last.At.Add(-canaryAge-last.Took-l.settings.Skew), at.Add(l.settings.Skew)
	own := "/v1/files/" + id + "/details"
	return slices.ContainsFunc(l.seenAny, func(r *Request) bool { return r.Path != own && !r.At.Before(from) && !r.At.After(to) })
}

// accountAccepted: an operator has vouched for the account, for this file's absence.
func (l *looking) accountAccepted(id string) bool {
	for i := range l.Runs {
		r := &l.Runs[i]
		if r.AccountAcceptedBy != "" && l.hasFinding(r.ID, id) {
			return true
		}
	}
	return false
}

func (l *looking) hasFinding(run, id string) bool {
	return slices.ContainsFunc(l.Findings, func(f Finding) bool { return f.RunID == run && f.FileID == id })
}

// lookAtRemovals: with the fault gone, a file that ImageKit holds has no tombstone.
func lookAtRemovals(l *looking) {
	if l.phase != Settled {
		return
	}
	for i := range l.States {
		if s := &l.States[i]; s.GoneAt != nil && l.Truth[s.FileID] != nil {
			l.wrong(s.FileID, "it has a tombstone of %s, and ImageKit holds it", moment(s.GoneAt))
		}
	}
}
