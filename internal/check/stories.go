package check

import (
	"bytes"
	"encoding/json"
	"net/url"
	"slices"
)

// Who must act on a dead letter.
var classes = []string{"caller", "imagekit", "database", "trueup"}

// lookAtLetters is I9: a dead letter holds what was received, byte for byte, why it
// stopped, who must act, and every try.
func lookAtLetters(l *looking) {
	bodies := l.bodies()
	for i := range l.DeadLetters {
		d := &l.DeadLetters[i]
		l.count("letters", 1)
		switch {
		case d.Reason == "":
			l.wrong(d.ID, "the dead letter of %s says no reason", d.FileID)
		case !slices.Contains(classes, d.Class):
			l.wrong(d.ID, "the dead letter of %s says that %q must act", d.FileID, d.Class)
		case d.EventID == "" || d.CreatedAt.IsZero() || d.AcceptedAt.IsZero():
			l.wrong(d.ID, "the dead letter of %s does not say which event it was, or when", d.FileID)
		}
		// A brake is no failed try: these may have none.
		if len(d.Attempts) == 0 && d.Reason != "fuse_latched" && d.Reason != "no_canary" {
			l.wrong(d.ID, "the dead letter of %s (%s) holds no attempt", d.FileID, d.Reason)
		}
		for _, a := range d.Attempts {
			if a.At.IsZero() || a.Reason == "" || a.Version == "" || !slices.Contains(classes, a.Class) {
				l.wrong(d.ID, "an attempt of the dead letter of %s is not whole: %+v", d.FileID, a)
			}
		}
		if !json.Valid(d.History) || entries(d.History) < 0 {
			l.wrong(d.ID, "the history of the dead letter of %s does not read", d.FileID)
		}
		l.body(d, bodies)
	}
}

// sent is what senders sent, by how a dead letter may be recognised.
type sent struct {
	byEvent   map[string][]byte
	byWebhook map[string][][]byte
	byFile    map[string][][]byte // reports that nobody was told the event of
}

func (l *looking) bodies() *sent {
	s := &sent{map[string][]byte{}, map[string][][]byte{}, map[string][][]byte{}}
	for i := range l.Acks {
		k := &l.Acks[i]
		switch id := eventOf(k.ReportID); {
		case !k.Genuine:
		case k.Door == Webhook:
			s.byWebhook[k.WebhookID] = append(s.byWebhook[k.WebhookID], k.Body)
		case id != "":
			s.byEvent[id] = k.Body
		default:
			s.byFile[k.FileID] = append(s.byFile[k.FileID], k.Body)
		}
	}
	return s
}

func (l *looking) body(d *DeadLetter, s *sent) {
	var candidates [][]byte
	switch d.Origin {
	case "client":
		if b, is := s.byEvent[d.EventID]; is {
			candidates = [][]byte{b}
		} else {
			candidates = s.byFile[d.FileID]
		}
	case "webhook":
		candidates = s.byWebhook[d.WebhookID]
	default:
		return // trueup's own question: there is no body
	}
	l.count("bodies", 1)
	if !slices.ContainsFunc(candidates, func(b []byte) bool { return sameBody(b, d) }) {
		l.wrong(d.ID, "the body of the dead letter of %s is none of the %d that were sent: %s", d.FileID, len(candidates), clip(string(d.Body)))
	}
}

// sameBody compares byte for byte; where a secret was masked there are as many '*'.
func sameBody(sent []byte, d *DeadLetter) bool {
	if len(sent) != len(d.Body) {
		return false
	}
	want := bytes.Clone(sent)
	for _, m := range d.Masked {
		if m.From < 0 || m.To > len(want) || m.From > m.To {
			return false
		}
		copy(want[m.From:m.To], bytes.Repeat([]byte("*"), m.To-m.From))
	}
	return bytes.Equal(want, d.Body)
}

// entries of a history; -1 when it is no array.
func entries(history json.RawMessage) int {
	if len(history) == 0 {
		return 0
	}
	var all []json.RawMessage
	if json.Unmarshal(history, &all) != nil {
		return -1
	}
	return len(all)
}

// lookAtStories is I16: for every row, tombstone, owner, flag and rejection something
// says why.
func lookAtStories(l *looking) {
	told := l.tales()
	var lines int64
	for _, x := range l.Expired {
		if x.Place == "ledger" {
			lines += x.Count
		}
	}
	untold := int64(0)
	why := func(id, format string, args ...any) {
		if untold++; untold > lines {
			l.wrong(id, format, args...)
		}
	}
	states := map[string]*State{}
	for i := range l.States {
		s := &l.States[i]
		states[s.FileID] = s
		t := told[s.FileID]
		if s.GoneAt != nil {
			l.count("tombstones", 1)
			if !t.tombstoned {
				why(s.FileID, "it has a tombstone (%s), and no line says that it was written", s.GoneWhy)
			}
		}
		for _, flag := range s.Flags {
			if !slices.Contains(t.reasons, flag) {
				why(s.FileID, "it is flagged %s, and no line says when", flag)
			}
		}
	}
	for i := range l.Rows {
		r := &l.Rows[i]
		l.count("rows", 1)
		switch t := told[r.FileID]; {
		case states[r.FileID] == nil && (l.phase == Safety || l.braked() && !l.untouched(r)):
			// A person's own, and nothing may be judged yet.
		case states[r.FileID] == nil:
			l.wrong(r.FileID, "it has a row that file_state does not know")
		case !t.anything:
			why(r.FileID, "it has a row, and nothing tells of it")
		}
	}
	l.linesSayWhy()
	l.runsSayWhy()
}

// tale is what lines, findings and operators say of one file.
type tale struct {
	anything, tombstoned bool
	reasons              []string
}

func (l *looking) tales() map[string]tale {
	out := map[string]tale{}
	for i := range l.Ledger {
		n := &l.Ledger[i]
		t := out[n.FileID]
		t.anything = t.anything || n.Reason != ""
		t.tombstoned = t.tombstoned || n.Outcome == "tombstoned" && n.Reason != ""
		if n.Kind == "security" {
			t.reasons = append(t.reasons, n.Reason)
		}
		out[n.FileID] = t
	}
	for i := range l.Findings {
		if f := &l.Findings[i]; f.Reason != "" {
			t := out[f.FileID]
			t.anything = true
			out[f.FileID] = t
		}
	}
	for i := range l.Audit {
		if a := &l.Audit[i]; a.File != "" {
			t := out[a.File]
			t.anything = true
			out[a.File] = t
		}
	}
	return out
}

func (l *looking) linesSayWhy() {
	for i := range l.Ledger {
		n := &l.Ledger[i]
		if isEvent(n) {
			l.count("ends", 1)
			if n.Reason == "" && n.EndKind != isDone && n.EndKind != isSuperseded {
				l.wrong(n.ID, "event %s of %s ended %s, and nothing says why", n.Source, n.FileID, n.EndKind)
			}
		}
	}
	for i := range l.Retries {
		if r := &l.Retries[i]; r.Reason == "" {
			l.wrong(r.EventID, "it waits to be tried again, and nothing says why")
		}
	}
	for i := range l.Audit {
		if a := &l.Audit[i]; a.Who == "" || a.Verb == "" || a.At.IsZero() {
			l.wrong(a.ID, "the audit does not say who did what, or when")
		}
	}
}

// runsSayWhy: success is never reported for a run that was cut short.
func (l *looking) runsSayWhy() {
	open := map[string]int{}
	for i := range l.Findings {
		f := &l.Findings[i]
		if f.Status == "found" && f.Kind != "unowned" {
			open[f.RunID]++
		}
		if (f.Status == "skipped" || f.Status == "refused") && f.Reason == "" {
			l.wrong(f.FileID, "finding %s of run %s was %s, and nothing says why", f.Kind, f.RunID, f.Status)
		}
	}
	for i := range l.Runs {
		r := &l.Runs[i]
		l.count("runs", 1)
		switch {
		case r.State == "complete" && (!r.Whole || open[r.ID] > 0):
			l.wrong(r.ID, "the run says complete; its listing is whole: %v, findings without an answer: %d", r.Whole, open[r.ID])
		case (r.State == "partial" || r.State == "failed") && r.Error == "" && r.Fuse == "":
			l.wrong(r.ID, "the run is %s, and nothing says why", r.State)
		}
	}
}

func unescaped(query string) string {
	if s, err := url.QueryUnescape(query); err == nil {
		return s
	}
	return query
}
