package check

import (
	"slices"
	"strings"
	"time"
)

// lookAtAnswers is I12: whatever happens, a sender is told 2xx, 4xx or 503, or gets no
// answer; nothing else exists.
func lookAtAnswers(l *looking) {
	for i := range l.Acks {
		k := &l.Acks[i]
		l.count("answers", 1)
		switch {
		case k.Status == 0, k.Status == 503, k.Status/100 == 4:
		case k.Door == Report && k.Status == 202, k.Door == Webhook && k.Status == 200:
		default:
			l.wrong(k.FileID, "a %s sent at %s was answered %d", k.Door, moment(&k.SentAt), k.Status)
		}
	}
}

// lookAtRate is I13: from a 429's answer until its reset the process that was told does not
// ask that endpoint. Processes whose Who is the same count as one.
func lookAtRate(l *looking) {
	type told struct {
		at, until time.Time
		id        string
	}
	type asker struct{ who, endpoint string }
	blocked := map[asker]told{}
	all := make([]*Request, 0, len(l.Requests))
	for i := range l.Requests {
		if r := &l.Requests[i]; r.Who == "" || strings.HasPrefix(r.Who, "trueup") {
			all = append(all, r)
		}
	}
	slices.SortStableFunc(all, func(a, b *Request) int { return a.At.Compare(b.At) })
	// A 429 binds those who come after its answer, so answers take their turn among the
	// requests.
	answers := slices.Clone(all)
	slices.SortStableFunc(answers, func(a, b *Request) int { return a.At.Add(a.Took).Compare(b.At.Add(b.Took)) })
	next := 0
	for _, r := range all {
		for ; next < len(answers) && answers[next].At.Add(answers[next].Took).Before(r.At); next++ {
			a := answers[next]
			if a.Status != 429 || a.Cut || a.Reset <= 0 {
				continue
			}
			l.count("resets", 1)
			wait := a.Reset
			if m := l.settings.MaxWait; m > 0 {
				wait = min(wait, m)
			}
			at := a.At.Add(a.Took)
			if until := at.Add(wait); until.After(blocked[asker{a.Who, a.Endpoint}].until) {
				blocked[asker{a.Who, a.Endpoint}] = told{at, until, a.RequestID}
			}
		}
		b, is := blocked[asker{r.Who, r.Endpoint}]
		heard := b.at.Add(l.settings.Flight)
		if is && r.At.After(heard) && r.At.Add(l.settings.Skew).Before(b.until) && !l.startedBetween(b.at, r.At) {
			l.wrong(r.RequestID, "%s asked at %s; request %s was told at %s to wait until %s", r.Endpoint, moment(&r.At), b.id, moment(&b.at), moment(&b.until))
		}
		l.count("requests", 1)
	}
}

func (l *looking) startedBetween(from, to time.Time) bool {
	return slices.ContainsFunc(l.Starts, func(t time.Time) bool { return !t.Before(from) && !t.After(to) })
}

// lookAtForged is I14: what was not signed has no effect. A file that only such senders
// named is nowhere: no row, no memory, no line, no message, no look-up.
func lookAtForged(l *looking) {
	forged, honest := map[string]bool{}, map[string]bool{}
	for i := range l.Acks {
		k := &l.Acks[i]
		switch {
		case k.Genuine:
			honest[k.FileID] = true
			continue
		case k.Status/100 == 2:
			l.wrong(k.FileID, "a forged %s was answered %d", k.Door, k.Status)
		}
		forged[k.FileID] = true
	}
	for id := range forged {
		if id == "" || honest[id] || l.ever(id) || len(l.hands[id]) > 0 {
			delete(forged, id)
		}
	}
	l.count("files named by forgers only", len(forged))
	seen := func(id, where string) {
		if forged[id] {
			l.wrong(id, "only forged input named it, and it is in %s", where)
		}
	}
	for i := range l.Rows {
		seen(l.Rows[i].FileID, "the table")
	}
	for i := range l.States {
		seen(l.States[i].FileID, "file_state")
	}
	for i := range l.Ledger {
		seen(l.Ledger[i].FileID, "the ledger")
	}
	for i := range l.Retries {
		seen(l.Retries[i].FileID, "the retries")
	}
	for i := range l.DeadLetters {
		seen(l.DeadLetters[i].FileID, "the dead letters")
	}
	for i := range l.Stream {
		_, events, _ := decode(l.Stream[i].Data)
		for _, e := range events {
			seen(e.FileID, "the stream")
		}
	}
	l.forgedRequests(forged)
}

func (l *looking) forgedRequests(forged map[string]bool) {
	if len(forged) == 0 {
		return
	}
	for i := range l.Requests {
		r := &l.Requests[i]
		words := strings.FieldsFunc(r.Path+" "+unescaped(r.Query), func(c rune) bool { return strings.ContainsRune(`/?&=" ,[]()+`, c) })
		for _, word := range words {
			if forged[word] {
				l.wrong(word, "only forged input named it, and ImageKit was asked about it at %s", moment(&r.At))
			}
		}
	}
}

// lookAtPoison is I15: poison ends as dead letters, nothing else does, and healthy
// events come to their end whatever becomes of it.
func lookAtPoison(l *looking) {
	if l.settings.Poison == nil {
		return
	}
	poison, dead, hit := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, id := range l.settings.Poison {
		poison[id] = true
	}
	var last time.Time
	for i := range l.DeadLetters {
		d := &l.DeadLetters[i]
		if dead[d.FileID] = true; !poison[d.FileID] {
			l.wrong(d.FileID, "it is healthy, and event %s of it is a dead letter (%s)", d.EventID, d.Reason)
		} else if d.CreatedAt.After(last) {
			last = d.CreatedAt
		}
	}
	for i := range l.Acks {
		if k := &l.Acks[i]; k.Genuine && k.Status/100 == 2 && poison[k.FileID] {
			hit[k.FileID] = true
		}
	}
	for id := range hit {
		if !dead[id] {
			l.wrong(id, "it is poison, an event of it was acknowledged, and it has no dead letter")
		}
	}
	l.count("poison", len(hit))
	if delay := l.settings.PoisonDelay; delay > 0 {
		l.delayed(poison, last, delay)
	}
}

// delayed: until the last poison was parked, each healthy event that ended at its first
// look ended soon after it was accepted.
func (l *looking) delayed(poison map[string]bool, last time.Time, delay time.Duration) {
	for i := range l.Ledger {
		n := &l.Ledger[i]
		if !isEvent(n) || poison[n.FileID] || n.Tries > 0 || n.AcceptedAt == nil || n.AcceptedAt.After(last) || n.Source == "replay" {
			continue
		}
		l.count("healthy beside poison", 1)
		if took := n.At.Sub(*n.AcceptedAt); took > delay {
			l.wrong(n.ID, "%s of %s is healthy and took %s beside poison; %s are allowed", n.Source, n.FileID, took, delay)
		}
	}
}
