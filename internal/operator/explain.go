package operator

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
)

// Explain tells a passport in sentences, in the order in which things happened. The
// last one is the conclusion: why the row is as it is, why there is none, or why the
// claim that was settled last was refused.
func Explain(p Passport) []string {
	var told []sentence
	for _, l := range p.Lines {
		told = append(told, sentence{l.At, tellLine(l)})
	}
	for _, d := range p.DeadLetters {
		told = append(told, tellTries(d)...)
		told = append(told, sentence{d.CreatedAt, tellDeadLetter(d)})
	}
	told = append(told, tellActs(p)...)
	told = append(told, tellFindings(p)...)
	slices.SortStableFunc(told, func(a, b sentence) int { return a.at.Compare(b.at) })

	var out []string
	if p.Cut {
		out = append(out, "Older lines exist and are not shown.")
	}
	for _, s := range told {
		out = append(out, when(s.at)+": "+s.text)
	}
	for _, r := range p.Retries {
		out = append(out, tellRetry(r))
	}
	if f := tellFlags(p.State); f != "" {
		out = append(out, f)
	}
	return append(out, conclude(p))
}

type sentence struct {
	at   time.Time
	text string
}

func when(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000Z") }

func moment(t *time.Time) string {
	if t == nil {
		return "an unknown time"
	}
	return when(*t)
}

func tellLine(l Line) string {
	s := subject(l)
	if l.Source == "trueup" && l.Kind == "security" {
		return s + "."
	}
	if d := detailOf(l); l.Verdict != "" && !d.listed() {
		s += ", " + verdicts.of(l.Verdict)
		if l.Status != 0 {
			s += fmt.Sprintf(" (ImageKit answered %d", l.Status)
			if l.RequestID != "" {
				s += ", request " + l.RequestID
			}
			s += ")"
		}
	}
	if l.Outcome != "" {
		s += "; " + outcomes.of(l.Outcome)
	}
	if l.Reason != "" {
		s += ": " + reasons.of(l.Reason)
	}
	if l.End != "" {
		s += "; the event ended " + l.End
	}
	if note := detailOf(l).Note; note != "" {
		s += " (" + strings.TrimRight(note, ".") + ")"
	}
	return s + "."
}

// detail is what of a line's detail can be told.
type detail struct {
	Who  string `json:"who"`
	Note string `json:"note"`

	DeadLetter string `json:"deadLetter"`

	Run    string   `json:"run"`
	Events []string `json:"events"`
	How    string   `json:"how"`
}

// listed reports whether a hit without an event was all there was: no look-up.
func (d detail) listed() bool { return d.How == string(file.Hit) && len(d.Events) == 0 }

func detailOf(l Line) detail {
	var d detail
	// A detail of another shape, of a newer version, is shown with --json and not told.
	_ = json.Unmarshal(l.Detail, &d)
	return d
}

// subject says who said what.
func subject(l Line) string {
	origin := ""
	if l.Origin != "" && l.Origin != l.Source {
		origin = " of a " + l.Origin + " event"
	}
	switch event.Source(l.Source) {
	case event.Client:
		return fmt.Sprintf("%s reported the file (event %s)", quoted(l.User), l.ID)
	case event.Webhook:
		return fmt.Sprintf("ImageKit's webhook %s came (event %s)", l.Kind, l.ID)
	case event.Replay:
		return fmt.Sprintf("a replay%s came, kind %s (event %s)", origin, l.Kind, l.ID)
	case event.Reconcile:
		return fmt.Sprintf("reconciliation%s asked for a look, kind %s (event %s)", ofRun(detailOf(l)), l.Kind, l.ID)
	}
	return ownDoing(l)
}

// ownDoing is for lines that stand for no event.
func ownDoing(l Line) string {
	switch l.Source + " " + l.Kind {
	case "trueup write":
		return ownLook(detailOf(l))
	case "trueup security":
		return "security note: " + flags.of(l.Reason)
	case "operator discard":
		return fmt.Sprintf("operator %s discarded dead letter %s", cmp.Or(detailOf(l).Who, "somebody"), detailOf(l).DeadLetter)
	case "operator assign":
		return fmt.Sprintf("operator %s assigned the file to %s", cmp.Or(detailOf(l).Who, "somebody"), quoted(l.User))
	}
	s := l.Source + " " + l.Kind
	if l.User != "" {
		s += " for " + quoted(l.User)
	}
	return s
}

// ownLook is for a write that no event ended with.
func ownLook(d detail) string {
	switch {
	case len(d.Events) > 0:
		return "trueup looked at the file for events that go on waiting"
	case d.Run != "":
		return "reconciliation" + ofRun(d) + " saw the file in ImageKit's listing"
	}
	return "polling saw the file among those that changed lately"
}

// ofRun names the run, where there is one.
func ofRun(d detail) string {
	if d.Run == "" {
		return ""
	}
	return " run " + d.Run
}

func tellDeadLetter(d DeadLetter) string {
	s := fmt.Sprintf("event %s was parked as dead letter %s after %s, %s must act: %s",
		d.EventID, d.ID, counted(triesBefore(d), "counted attempt"), actors.of(d.Class), reasons.of(d.Reason))
	if d.Note != "" {
		s += " (" + d.Note + ")"
	}
	return s + "; it is " + d.State + " now."
}

func tellRetry(r Retry) string {
	s := fmt.Sprintf("Event %s (%s %s) waits for another look at %s, after %s",
		r.EventID, r.Source, r.Kind, when(r.DueAt), counted(r.Tries, "look"))
	if r.Reason != "" {
		s += ": " + reasons.of(r.Reason)
	}
	return s + "."
}

func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func tellFlags(s *State) string {
	if s == nil || len(s.Flags) == 0 {
		return ""
	}
	words := make([]string, len(s.Flags))
	for i, f := range s.Flags {
		words[i] = flags.of(f)
	}
	return "Flagged: " + strings.Join(words, "; ") + "."
}

// conclude is the last sentence.
func conclude(p Passport) string {
	if l := lastSettled(p); l != nil && l.Reason == string(file.ReasonClaimRefused) && p.Row != nil {
		return fmt.Sprintf("The claim of %s was refused: the row %s.", quoted(l.User), ownership(p))
	}
	switch {
	case p.Row != nil:
		return concludeRow(p)
	case p.State != nil && p.State.GoneAt != nil:
		return fmt.Sprintf("There is no row, because the file is gone from ImageKit since %s: %s.", moment(p.State.GoneAt), reasons.of(p.State.GoneWhy))
	case p.State != nil:
		return "There is no row although the file was present when last seen: somebody removed the row by SQL, and the next look puts it back."
	}
	return concludeUnseen(p)
}

// lastSettled is the newest line of an event that came to an end.
func lastSettled(p Passport) *Line {
	for i := len(p.Lines) - 1; i >= 0; i-- {
		if p.Lines[i].End != "" {
			return &p.Lines[i]
		}
	}
	return nil
}

func concludeRow(p Passport) string {
	s := "The row stands as ImageKit showed the file"
	if p.Row.Synced != nil {
		s += " at " + when(*p.Row.Synced)
	}
	if p.State == nil {
		return s + ", or as an application inserted it: trueup has not looked at it yet, and the next look adopts it."
	}
	s += ", and " + ownership(p)
	if p.State.SuspectAt != nil {
		s += fmt.Sprintf("; but a look at %s found nothing, and a second one that finds nothing either may remove the row", when(*p.State.SuspectAt))
	}
	return s + doubted(p) + "."
}

// ownership says whose the row is and by which evidence.
func ownership(p Passport) string {
	s := p.State
	if s == nil {
		return "is not known to trueup yet"
	}
	owner := "belongs to " + quoted(s.Owner)
	switch file.OwnerKind(s.OwnerKind) {
	case file.Proven:
		owner += ", by the ticket sealed into the upload"
	case file.Claimed:
		owner += fmt.Sprintf(", whose report was the earliest (accepted %s, event %s)", moment(s.OwnerAt), s.OwnerEvent)
	case file.Adopted:
		owner += ", who was in the row when trueup first saw it"
	case file.Assigned:
		owner += ", by an operator's act"
	default:
		owner = "belongs to nobody: no ticket proves an owner and no claim was allowed"
	}
	if p.Row != nil && p.Row.User != s.Owner {
		owner += fmt.Sprintf(" (the row says %s, which the next look puts right)", quoted(p.Row.User))
	}
	return owner
}

// concludeUnseen is for a file that no look-up ever found.
func concludeUnseen(p Passport) string {
	dead := slices.IndexFunc(p.DeadLetters, func(d DeadLetter) bool { return d.State == "dead" })
	last := lastSettled(p)
	switch {
	case len(p.Retries) > 0:
		next := slices.MinFunc(p.Retries, func(a, b Retry) int { return a.DueAt.Compare(b.DueAt) })
		return fmt.Sprintf("There is no row yet: event %s waits until %s (%s).", next.EventID, when(next.DueAt), reasons.of(cmp.Or(next.Reason, "look_again")))
	case dead >= 0:
		d := p.DeadLetters[dead]
		return fmt.Sprintf("There is no row, because event %s could not be settled and is dead letter %s: %s.", d.EventID, d.ID, reasons.of(d.Reason))
	case last != nil && last.End == string(event.Rejected):
		return fmt.Sprintf("There is no row, because event %s was rejected: %s.", last.ID, reasons.of(last.Reason))
	case last != nil:
		return fmt.Sprintf("There is no row: event %s ended %s (%s), and ImageKit never showed the file.", last.ID, last.End, reasons.of(last.Reason))
	case len(p.Findings) > 0:
		return concludeFound(lastFinding(p))
	}
	return "There is no row: trueup has never settled anything about this file. An event that was accepted a moment ago may still be in the queue (see status)."
}

func quoted(user string) string {
	if user == "" {
		return "nobody"
	}
	return fmt.Sprintf("%q", user)
}
