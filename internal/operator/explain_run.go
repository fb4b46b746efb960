package operator

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/trueup/trueup/internal/run"
)

// tellFindings tells what reconciliation saw of the file and what became of it. That a
// row belongs to nobody is said by every run: it is told once.
func tellFindings(p Passport) []sentence {
	var out []sentence
	nobodys, last := 0, -1
	for i, f := range p.Findings {
		if f.Kind == run.Unowned && f.Status == run.Skipped {
			nobodys, last = nobodys+1, i
		}
	}
	for i, f := range p.Findings {
		if f.Kind != run.Unowned || f.Status != run.Skipped {
			out = append(out, sentence{f.FoundAt, tellFinding(f, 0)})
		} else if i == last {
			out = append(out, sentence{f.FoundAt, tellFinding(f, nobodys-1)})
		}
	}
	return out
}

// tellFinding tells one for which so many earlier ones of the same sort stand back.
func tellFinding(f FileFinding, before int) string {
	s := "reconciliation run " + f.Run
	if before > 0 {
		s += ", like " + plural(int64(before), "run", "runs") + " before it,"
	}
	s += " found that " + findingKinds.of(string(f.Kind))
	if len(f.Columns) > 0 {
		s += " (" + TellDifferences(f.Columns) + ")"
	}
	for _, e := range f.Evidence {
		s += "; " + strings.TrimRight(e, ".")
	}
	return s + tellFindingEnd(f.Finding) + "."
}

// tellFindingEnd is what became of it, and when.
func tellFindingEnd(f run.Finding) string {
	switch f.Status {
	case run.Found:
		if f.Event != "" {
			return "; event " + f.Event + " asks about the file by id"
		}
		return "; nothing was done about it so far"
	case run.Repaired:
		s := "; repaired at " + when(f.ChangedAt)
		if f.Event != "" {
			s += " by event " + f.Event
		}
		return s
	}
	s := "; it was " + string(f.Status) + " at " + when(f.ChangedAt)
	if f.Reason != "" {
		s += ": " + reasons.of(f.Reason)
	}
	return s
}

// TellDifferences says how a row and ImageKit disagree.
func TellDifferences(columns []run.Difference) string {
	said := make([]string, len(columns))
	for i, d := range columns {
		said[i] = fmt.Sprintf("the row's %s said %s while ImageKit said %s", d.Column, valueOr(d.Row), valueOr(d.ImageKit))
	}
	return strings.Join(said, ", ")
}

// valueOr is a column's value; nothing is what an empty column says.
func valueOr(v *string) string {
	if v == nil {
		return "nothing"
	}
	return fmt.Sprintf("%q", *v)
}

var findingKinds = words{
	string(run.Missing):  "ImageKit has the file and there was no row of it",
	string(run.Drifted):  "the row differed from the file",
	string(run.Orphaned): "there was a row, and no such file in ImageKit's whole listing",
	string(run.Unowned):  "the row belonged to nobody",
	string(run.Adopted):  "there was a row that trueup had not looked at before",
}

// doubted is the end of a sentence on a row that the last run did not find in ImageKit's
// listing and that stands all the same.
func doubted(p Passport) string {
	if len(p.Findings) == 0 {
		return ""
	}
	last := lastFinding(p)
	open := last.Status == run.Found || last.Status == run.Refused
	if last.Kind != run.Orphaned || !open || p.Row.Synced != nil && p.Row.Synced.After(last.ChangedAt) {
		return ""
	}
	s := fmt.Sprintf("; but run %s did not see the file in ImageKit's listing", last.Run)
	if last.Status == run.Refused {
		return s + ", and the row was kept: " + reasons.of(last.Reason)
	}
	if last.Event == "" {
		return s + ", and nothing was done about it so far"
	}
	return s + ", and a look-up by id has yet to tell whether it is gone"
}

// lastFinding is what the youngest run said.
func lastFinding(p Passport) FileFinding {
	return slices.MaxFunc(p.Findings, func(a, b FileFinding) int { return a.FoundAt.Compare(b.FoundAt) })
}

// concludeFound is for a file of which nothing but a finding is known.
func concludeFound(f FileFinding) string {
	s := fmt.Sprintf("There is no row: run %s found that %s", f.Run, findingKinds.of(string(f.Kind)))
	switch f.Status {
	case run.Found:
		if f.Event != "" {
			return s + ", and event " + f.Event + " has yet to tell more."
		}
		return s + ", and nothing was done about it so far."
	case run.Skipped, run.Refused:
		return s + "; it was " + string(f.Status) + ": " + reasons.of(f.Reason) + "."
	}
	return s + "."
}

// TellRun says in sentences what a run examined, found, repaired and refused, why, and
// what to type next: nothing stands behind a command, so that it can be copied. It says
// what was examined even where nothing changed.
func TellRun(r run.Run) []string {
	out := append([]string{tellState(r), tellExamined(r)}, tellFound(r)...)
	out = append(out, tellBrakes(r)...)
	if r.Unsettled > 0 {
		out = append(out, fmt.Sprintf("%s not settled yet. See later: trueup reconcile show %s", plural(r.Unsettled, "of its events is", "of its events are"), r.ID))
	}
	for _, n := range r.Notes {
		out = append(out, "Note: "+sentenceOf(n))
	}
	out = append(out, tellWhyNot(r), tellApply(r))
	return slices.DeleteFunc(out, func(s string) bool { return s == "" })
}

// tellWhyNot says where the reasons stand of what was not repaired; the fuse has given its
// own.
func tellWhyNot(r run.Run) string {
	var skipped, refused int64
	for kind, by := range r.Found {
		if kind != run.Unowned {
			skipped += by[run.Skipped]
		}
		if kind != run.Orphaned {
			refused += by[run.Refused]
		}
	}
	switch {
	case refused > 0:
		return "To see why each was refused: trueup reconcile show " + r.ID + " --status refused"
	case skipped > 0:
		return "To see why each was skipped: trueup reconcile show " + r.ID + " --status skipped"
	}
	return ""
}

// tellApply is what to type to carry out a plan. What the fuse keeps has its own sentence.
func tellApply(r run.Run) string {
	if r.Kind != run.Plan || r.State != run.Planned {
		return ""
	}
	orphaned := r.Found[run.Orphaned][run.Found]
	rest := Drift(r) + r.Found[run.Adopted][run.Found] + r.Found[run.Unowned][run.Found] - orphaned
	switch {
	case rest > 0 && r.Fuse != "":
		return "To repair everything else: trueup reconcile apply " + r.ID
	case rest > 0 || orphaned > 0 && r.Fuse == "":
		return "To repair this: trueup reconcile apply " + r.ID
	}
	return ""
}

func tellState(r run.Run) string {
	id := "Run " + r.ID
	switch r.State {
	case run.Planned:
		return id + " is a plan: nothing was changed."
	case run.Complete:
		return id + " is complete."
	case run.Cancelled:
		return id + " was cancelled; what it had repaired by then stays."
	case run.Partial, run.Failed:
		return fmt.Sprintf("%s %s: %s", id, map[run.State]string{run.Partial: "is partial", run.Failed: "failed"}[r.State],
			sentenceOf(cmp.Or(r.Error, r.Fuse, "it does not say why")))
	}
	s := fmt.Sprintf("%s is under way (%s)", id, cmp.Or(string(r.Phase), string(r.State)))
	if r.Waiting != "" {
		return s + " and waits: " + sentenceOf(r.Waiting)
	}
	return s + "."
}

func tellExamined(r run.Run) string {
	s := fmt.Sprintf("Examined: %s of ImageKit in %s, and %s", plural(r.Listed, "file", "files"), plural(r.Calls, "list call", "list calls"), plural(r.Rows, "row", "rows"))
	if r.Rows > 0 {
		s += fmt.Sprintf("; %d agreed", r.Same)
	}
	if r.Moved > 0 {
		s += fmt.Sprintf("; %s created or changed during the run and left to the next", plural(r.Moved, "was", "were"))
	}
	return s + "."
}

// tellFound counts by what became of the findings. Rows that agree and belong to nobody
// are told apart: nothing differs there.
func tellFound(r run.Run) []string {
	by := map[run.Status][]string{}
	for _, kind := range FindingKinds() {
		for status, n := range r.Found[kind] {
			if n > 0 && (kind != run.Unowned || status != run.Skipped) {
				said := fmt.Sprintf("%d %s", n, kind)
				if kind == run.Orphaned && status == run.Repaired {
					said += " (no row is left)"
				}
				by[status] = append(by[status], said)
			}
		}
	}
	out := []string{"Found: nothing that differs."}
	if len(by) > 0 || r.State.Open() || !r.Account.Confirmed {
		out = nil
	}
	for _, s := range []struct {
		status run.Status
		said   string
	}{{run.Found, "Found, and not repaired so far"}, {run.Repaired, "Repaired"}, {run.Skipped, "Skipped"}, {run.Refused, "Refused"}} {
		if len(by[s.status]) > 0 {
			out = append(out, s.said+": "+strings.Join(by[s.status], ", ")+".")
		}
	}
	if r.Unowned > 0 {
		out = append(out, plural(r.Unowned, "row agrees and belongs", "rows agree and belong")+" to nobody.")
	}
	return out
}

// tellBrakes says what stopped deletions, or the whole run, and what to type about it.
func tellBrakes(r run.Run) []string {
	var out []string
	if !r.Whole && r.Listed > 0 && !r.State.Open() {
		out = append(out, "The listing was not whole, so no row was judged by its absence from it.")
	}
	if !r.Account.Confirmed && !r.State.Open() && r.Account.Asked > 0 {
		out = append(out, fmt.Sprintf("Nothing was judged: %s.", tellAccount(r.Account)),
			"Look at IMAGEKIT_PRIVATE_KEY first: with the right key the next run goes on by itself.",
			fmt.Sprintf("If this account is ours all the same: trueup reconcile apply %s --accept-account", r.ID))
	}
	if r.ExpectedDeletions != nil {
		out = append(out, fmt.Sprintf("An operator has released the fuse for this run's %s.", plural(*r.ExpectedDeletions, "candidate", "candidates")))
	}
	if r.Fuse == "" || r.ExpectedDeletions != nil {
		return out
	}
	switch {
	case r.State == run.Planned:
		out = append(out, "Applying this would latch the fuse: "+sentenceOf(r.Fuse))
	case !strings.Contains(r.Error, r.Fuse): // else the first sentence has said it
		out = append(out, "The fuse is latched: "+sentenceOf(r.Fuse))
	}
	if what := Release(r); what == PlanCommand {
		out = append(out, "To see how to release it: "+what)
	} else if what != "" {
		out = append(out, TellRelease(r)...)
	}
	return out
}

// TellRelease says how to look at the candidates of a run, and how to let exactly these go.
// It is empty where the run has none to go by.
func TellRelease(r run.Run) []string {
	what := Release(r)
	if what == "" || what == PlanCommand {
		return nil
	}
	if r.Candidates == 0 {
		return []string{"To release the fuse, with no candidate for deletion: " + what}
	}
	return []string{
		fmt.Sprintf("To look at the %s: trueup reconcile show %s --kind orphaned --all", plural(r.Candidates, "candidate for deletion", "candidates for deletion"), r.ID),
		fmt.Sprintf("To release the fuse, and let exactly %s be deleted where a look-up by id confirms it: %s", map[bool]string{true: "this one", false: "these " + fmt.Sprint(r.Candidates)}[r.Candidates == 1], what),
	}
}

func tellAccount(a run.Account) string {
	return fmt.Sprintf("ImageKit's account was not recognised, %d of %s there and as old as we know them", a.Answered, plural(int64(a.Asked), "known file is", "known files are"))
}

func plural(n int64, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}

// sentenceOf ends a text with one full stop.
func sentenceOf(text string) string { return strings.TrimRight(text, ".") + "." }
