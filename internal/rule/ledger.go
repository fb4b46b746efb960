package rule

import (
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
)

// Verdict words of the ledger.
const (
	VerdictPresent   = "present"
	VerdictAbsent    = "absent"
	VerdictRefused   = "refused"
	VerdictUndecided = "undecided"
)

// Line is one line of the ledger. ID is empty where it is no event's: whoever writes it
// draws one.
type Line struct {
	ID, FileID, Source, Origin, Kind, User string
	AcceptedAt                             time.Time
	Verdict, Outcome, Reason, End          string
	// Fence, Status and RequestID are of the observation; zero where there was none.
	Fence     int64
	Status    int
	RequestID string
	Detail    map[string]any
}

func (l *Line) observe(o *file.Observation) {
	if o == nil {
		l.Verdict = VerdictUndecided
		return
	}
	l.Verdict = VerdictAbsent
	if o.Present() {
		l.Verdict = VerdictPresent
	}
	l.Fence, l.Status, l.RequestID = o.Fence.Number, o.Status, o.RequestID
}

// Line tells how an event ended. A retry has no line: it has not ended.
func (e *Ended) Line() Line {
	l := Line{
		ID: e.ID, FileID: e.FileID, Source: string(e.Source), Origin: string(e.Origin), Kind: e.Kind, User: e.User,
		AcceptedAt: e.AcceptedAt, Outcome: string(e.Result.Outcome), Reason: e.End.Reason, End: string(e.End.Kind),
		Detail: map[string]any{},
	}
	l.observe(e.Obs)
	if e.End.Kind == event.Rejected && e.Result.Claim == file.ClaimRefused {
		l.Verdict = VerdictRefused
	}
	put := func(k string, v any, is bool) {
		if is {
			l.Detail[k] = v
		}
	}
	put("write", e.Result.Reason, e.Result.Reason != "" && string(e.Result.Reason) != e.End.Reason)
	put("claim", e.Result.Claim, e.Result.Claim != "")
	put("note", e.End.Note, e.End.Note != "")
	put("class", e.End.Class, e.End.Class != "")
	put("tries", e.Tries+1, e.Tries > 0)
	put("waitedMs", e.Waited.Milliseconds(), e.Waited > 0)
	put("deadLetter", e.DeadLetter, e.DeadLetter != "")
	put("webhookId", e.WebhookID, e.WebhookID != "")
	return l
}

// writeLine tells of a write that no ending event tells of: its event waits in retries,
// or there was none (a poll, a listing).
func (f *FilePlan) writeLine() Line {
	l := Line{FileID: f.Obs.FileID, Source: "trueup", Origin: "trueup", Kind: "write",
		Outcome: string(f.Do.Outcome), Reason: string(f.Do.Reason), Detail: map[string]any{"how": f.Obs.How}}
	l.observe(f.Obs)
	if ids := eventIDs(f.Events); len(ids) > 0 {
		l.Detail["events"] = ids
	}
	return l
}

// securityLine notes one new flag.
func (f *FilePlan) securityLine(flag string) Line {
	l := Line{FileID: f.Obs.FileID, Source: "trueup", Origin: "trueup", Kind: "security", Reason: flag,
		Detail: map[string]any{"events": eventIDs(f.Events)}}
	l.observe(f.Obs)
	return l
}

func eventIDs(events []event.Pending) []string {
	out := make([]string, len(events))
	for i, e := range events {
		out[i] = e.ID
	}
	return out
}

// Lines are what the ledger is told of a call; secrets are masked in what people wrote.
func Lines(c *Call, files []*FilePlan, ends []Ended, facts *Facts, secrets Secrets) []Line {
	var out []Line
	told := map[string]bool{}
	for _, e := range ends {
		if e.End.Kind != event.Retry {
			e.End.Note = secrets.Text(e.End.Note)
			out = append(out, ofRun(e.Line(), c, facts, e.Pending))
			told[e.FileID] = true
		}
	}
	for _, f := range files {
		if f.Writes() && !told[f.Obs.FileID] {
			out = append(out, ofRun(f.writeLine(), c, facts, f.Events...))
		}
		for _, flag := range f.Flags {
			out = append(out, ofRun(f.securityLine(flag), c, facts, f.Events...))
		}
	}
	return out
}

// ofRun names the run that repaired, or sent one of the events, so that the file's story
// can tell.
func ofRun(l Line, c *Call, facts *Facts, events ...event.Pending) Line {
	for _, p := range events {
		if of, ok := facts.Lines[p.ID]; ok {
			l.Detail["run"] = of.RunID
		}
	}
	if c.Run != nil {
		l.Detail["run"] = c.Run.ID
	}
	return l
}
