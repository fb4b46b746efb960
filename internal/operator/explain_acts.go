package operator

import (
	"fmt"
	"slices"
	"strings"

	"github.com/trueup/trueup/internal/event"
)

// triesTold is how many attempts at one event are told at each end; those between are
// counted.
const triesTold = 3

// tellTries tells the attempts of a dead letter, which no ledger line tells.
func tellTries(d DeadLetter) []sentence {
	var out []sentence
	left := len(d.Tries) - 2*triesTold
	for i, a := range d.Tries {
		if left > 1 && i >= triesTold && i < len(d.Tries)-triesTold {
			if i == triesTold {
				out = append(out, sentence{a.At, fmt.Sprintf("%d more attempts for it failed.", left)})
			}
			continue
		}
		out = append(out, sentence{a.At, tellTry(d.ID, a)})
	}
	return out
}

// triesBefore is how many attempts there had been when it was parked first.
func triesBefore(d DeadLetter) int {
	n := 0
	for _, a := range d.Tries {
		if !a.At.After(d.CreatedAt) {
			n++
		}
	}
	if len(d.Tries) == 0 {
		return d.Attempts
	}
	return n
}

func tellTry(letter string, a event.Attempt) string {
	s := fmt.Sprintf("an attempt for what became dead letter %s failed: %s", letter, faults.of(a.Reason))
	if a.Status != 0 {
		s += fmt.Sprintf(" (ImageKit answered %d", a.Status)
		if a.RequestID != "" {
			s += ", request " + a.RequestID
		}
		s += ")"
	}
	return s + "."
}

// tellActs tells what operators did, but for what the ledger tells already.
func tellActs(p Passport) []sentence {
	var out []sentence
	for _, j := range p.Jobs {
		if slices.ContainsFunc(p.Lines, func(l Line) bool { return l.ID == j.Event }) {
			j.End = toldElsewhere
		}
		out = append(out, sentence{j.At, tellJob(j)})
	}
	for _, a := range p.Acts {
		part := func(j FileJob) bool { return j.JobID == a.JobID }
		if a.Verb == "assign" || a.JobID != "" && slices.ContainsFunc(p.Jobs, part) {
			continue
		}
		out = append(out, sentence{a.At, tellAct(a)})
	}
	return out
}

// toldElsewhere stands for an end that the event's own line tells.
const toldElsewhere = "-"

func tellJob(j FileJob) string {
	s := fmt.Sprintf("operator %s asked for another look, by event %s", j.Who, j.Event)
	if j.Verb == string(event.JobReplay) {
		s = fmt.Sprintf("operator %s replayed dead letter %s as event %s", j.Who, j.Letter, j.Event)
	}
	s += " (job " + j.JobID
	if j.Note != "" {
		s += ": " + strings.TrimRight(j.Note, ".")
	}
	s += ")"
	switch {
	case j.End == toldElsewhere:
	case j.End == string(event.Dead):
		s += "; it was parked again: " + reasons.of(j.Reason)
	case j.End != "":
		s += "; it ended " + j.End
		if j.Reason != "" {
			s += ": " + reasons.of(j.Reason)
		}
	case j.PublishedAt == nil:
		s += "; it is not in the queue yet"
	default:
		s += "; it is under way"
	}
	return s + "."
}

func tellAct(a FileAct) string {
	s := fmt.Sprintf("operator %s asked for %s", a.Who, a.Verb)
	if a.JobID != "" {
		s += " (job " + a.JobID + ")"
	}
	if a.Note != "" {
		s += ": " + strings.TrimRight(a.Note, ".")
	}
	return s + "."
}
