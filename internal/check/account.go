package check

import "slices"

// Where an event is. Each event is in exactly one place.
const (
	isDone       = "done"
	isSuperseded = "superseded"
	isRejected   = "rejected"
	isDiscarded  = "discarded"
	isExpired    = "expired"
	isPending    = "pending"
	isDead       = "dead"
)

// fate is all that the evidence knows of one event.
type fate struct {
	file, source, user, webhook string
	place                       string
	line                        *Line  // of the ledger
	retry                       *Retry // waiting in the database
	queued                      bool   // in the stream
	replays                     string // the dead letter it replays
}

// account is every event by id, from everywhere.
type account struct {
	fates   map[string]*fate
	letters map[string]*DeadLetter // by id
	dead    map[string]*DeadLetter // by event
	// discarded are the letters of which the ledger says so.
	discarded map[string]bool
	// gone is how much of the ledger and of the dead letters retention has deleted.
	goneLines, goneLetters int64
	imported               bool
	garbled                []string
}

// isEvent: these are the sources whose ledger lines are ends of events; all others tell of
// operators, of security and of writes.
func isEvent(n *Line) bool {
	return n.EndKind != "" && slices.Contains([]string{"client", "webhook", "replay", "reconcile"}, n.Source)
}

func (l *looking) account() *account {
	a := &account{fates: make(map[string]*fate, len(l.Ledger)), letters: map[string]*DeadLetter{}, dead: map[string]*DeadLetter{}, discarded: map[string]bool{}}
	for i := range l.DeadLetters {
		d := &l.DeadLetters[i]
		a.letters[d.ID], a.dead[d.EventID] = d, d
	}
	for i := range l.Ledger {
		n := &l.Ledger[i]
		if n.Kind == "discard" {
			a.discarded[n.DeadLetter] = true
		}
		if isEvent(n) {
			a.fates[n.ID] = &fate{file: n.FileID, source: n.Source, user: n.User, webhook: n.WebhookID, line: n, replays: n.DeadLetter}
		}
	}
	for i := range l.Retries {
		r := &l.Retries[i]
		f := a.fate(r.EventID)
		f.file, f.source, f.user, f.webhook, f.retry, f.replays = r.FileID, r.Source, r.User, r.WebhookID, r, r.DeadLetter
	}
	for i := range l.Stream {
		_, events, err := decode(l.Stream[i].Data)
		if err != nil {
			a.garbled = append(a.garbled, err.Error())
		}
		for _, e := range events {
			f := a.fate(e.ID)
			f.file, f.source, f.user, f.webhook, f.queued, f.replays = e.FileID, e.Source, e.User, e.WebhookID, true, e.DeadLetter
		}
	}
	for _, x := range l.Expired {
		switch {
		case x.Place == "ledger" && x.State != "":
			a.goneLines += x.Count
		case x.Place == "dead_letters":
			a.goneLetters += x.Count
		}
	}
	a.imported = slices.ContainsFunc(l.Audit, func(act Act) bool { return act.Verb == "import" })
	for _, f := range a.fates {
		f.place = a.placeOf(f)
	}
	return a
}

func (a *account) fate(id string) *fate {
	f := a.fates[id]
	if f == nil {
		f = &fate{}
		a.fates[id] = f
	}
	return f
}

// placeOf: the ledger's word is final; a dead event is where its letter is. An envelope
// that is settled and not yet acked is still in the stream, and over.
func (a *account) placeOf(f *fate) string {
	switch {
	case f.line == nil:
		return isPending
	case f.line.EndKind != isDead:
		return f.line.EndKind
	}
	if d := a.dead[f.line.ID]; d != nil && d.State == "discarded" {
		return isDiscarded
	}
	return isDead
}

// lookAtAccount is I1: every event is in one place, the sums agree, and nothing that
// was acknowledged is missing.
func lookAtAccount(l *looking) {
	a := l.account()
	counts := map[string]int64{isDone: 0, isSuperseded: 0, isRejected: 0, isDiscarded: 0, isExpired: a.goneLines, isPending: 0, isDead: 0}
	for id, f := range a.fates {
		if f.line != nil && f.retry != nil {
			l.wrong(id, "it ended %q (%s) and waits to be tried again (%s)", f.line.EndKind, f.line.Reason, f.retry.Reason)
		}
		if _, is := counts[f.place]; !is {
			l.wrong(id, "%q is no end of an event", f.place)
		}
		counts[f.place]++
	}
	l.letters(a)
	stored := int64(len(a.fates)) + a.goneLines
	if n := sum(counts); n != stored {
		l.wrong("", "%d events are stored, and %d are accounted for: %v", stored, n, counts)
	}
	for place, n := range counts {
		l.verdict.Counts["I1."+place] = n
	}
	l.verdict.Counts["I1.stored"] = stored
	l.acknowledged(a)
	l.tapped(a)
	l.count("messages that do not read", len(a.garbled))
	l.unique()
}

// letters: who died has a letter, and a letter tells of somebody who died.
func (l *looking) letters(a *account) {
	orphans := int64(0)
	for id, f := range a.fates {
		if f.line == nil || f.line.EndKind != isDead || a.dead[id] != nil {
			continue
		}
		if f.replays != "" && a.letters[f.replays] != nil {
			continue // a replay that died lengthened the letter it replays
		}
		if orphans++; orphans > a.goneLetters {
			l.wrong(id, "it ended dead (%s), and there is no dead letter of it", f.line.Reason)
		}
	}
	for _, d := range a.letters {
		f := a.fates[d.EventID]
		if !a.imported && (f == nil || f.line == nil || f.line.EndKind != isDead) {
			l.wrong(d.EventID, "dead letter %s is of it, and the ledger does not say that it died", d.ID)
		}
		l.replayed(a, d)
	}
}

// replayed: a letter is resolved or dead again by what became of the event that replayed
// it, and replaying only while that is under way.
func (l *looking) replayed(a *account, d *DeadLetter) {
	var over bool
	var end string
	if f := a.fates[d.ReplayEvent]; f != nil && f.line != nil {
		over, end = true, f.line.EndKind
	}
	switch {
	case d.State == "resolved" && a.goneLines == 0 && (!over || end == isDead):
		l.wrong(d.ID, "the dead letter is resolved, and its replay %s ended %q", d.ReplayEvent, end)
	case d.State == "replaying" && over:
		l.wrong(d.ID, "the dead letter is replaying, and its replay %s ended %q", d.ReplayEvent, end)
	case d.State == "discarded" && a.goneLines == 0 && !a.discarded[d.ID]:
		l.wrong(d.ID, "the dead letter is discarded, and no line of the ledger says by whom")
	}
}

// acknowledged ⊆ stored: a report by its event, webhooks by how often each was accepted.
func (l *looking) acknowledged(a *account) {
	type webhook struct{ id, file string }
	accepted, found := map[webhook]int{}, map[webhook]int{}
	missing, acked := int64(0), 0
	lost := func(subject, format string, args ...any) {
		if missing++; missing > a.goneLines {
			l.wrong(subject, format, args...)
		}
	}
	for i := range l.Acks {
		k := &l.Acks[i]
		if k.Status/100 != 2 || !k.Genuine || !believable.MatchString(k.FileID) {
			continue
		}
		acked++
		if k.Door == Webhook {
			accepted[webhook{k.WebhookID, k.FileID}]++
			continue
		}
		id := eventOf(k.ReportID)
		switch f := a.fates[id]; {
		case id == "":
			l.wrong(k.FileID, "a report was answered %d with the id %q, which names no event", k.Status, k.ReportID)
		case f == nil:
			lost(id, "a report of %s by %s was acknowledged at %s and is nowhere", k.FileID, k.User, moment(&k.AnsweredAt))
		case f.file != k.FileID || f.user != k.User:
			l.wrong(id, "the report of %s by %s is stored as one of %s by %s", k.FileID, k.User, f.file, f.user)
		}
	}
	for _, f := range a.fates {
		if f.source == "webhook" {
			found[webhook{f.webhook, f.file}]++
		}
	}
	for w, n := range accepted {
		for range n - found[w] {
			lost(w.file, "webhook %s was acknowledged %d times and is stored %d times", w.id, n, found[w])
		}
	}
	l.count("acknowledged", acked)
}

// tapped: the queue's own list of what it ever held is what the dumps tell of.
func (l *looking) tapped(a *account) {
	if l.Stored == nil {
		return
	}
	ever := make(map[string]bool, len(l.Stored))
	missing := int64(0)
	for _, id := range l.Stored {
		if ever[id] = true; a.fates[id] == nil {
			if missing++; missing > a.goneLines {
				l.wrong(id, "the queue held it, and it is nowhere")
			}
		}
	}
	for id, f := range a.fates {
		// Bytes that are no envelope become an event of trueup's own.
		foreign := f.line != nil && f.line.Kind == "undecodable"
		if !ever[id] && !foreign {
			l.wrong(id, "it is told of, and the queue never held it")
		}
	}
	l.count("held by the queue", len(ever))
}

// unique: no two lines, retries or letters are about one event.
func (l *looking) unique() {
	twice := func(what string, n int, id func(int) string) {
		seen := make(map[string]bool, n)
		for i := range n {
			if seen[id(i)] {
				l.wrong(id(i), "it has two %s", what)
			}
			seen[id(i)] = true
		}
	}
	twice("lines in the ledger", len(l.Ledger), func(i int) string { return l.Ledger[i].ID })
	twice("retries", len(l.Retries), func(i int) string { return l.Retries[i].EventID })
	twice("dead letters", len(l.DeadLetters), func(i int) string { return l.DeadLetters[i].EventID })
}
