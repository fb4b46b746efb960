package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/trueup/trueup/internal/operator"
	"github.com/trueup/trueup/internal/run"
)

func reconcileListCommand(p *program) *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use: "list", Short: "List reconciliation runs, youngest first", Args: cobra.NoArgs,
		RunE: verb(p, func(ctx context.Context, c *operator.Client, _ []string) (operator.Page[run.Run], error) {
			return c.Runs(ctx, "", limit)
		}, p.runs),
	}
	cmd.Flags().IntVar(&limit, "limit", 100, "list at most so many")
	return cmd
}

func (p *program) runs(page operator.Page[run.Run]) error {
	if len(page.Items) == 0 {
		p.line("0 runs")
		return nil
	}
	tw := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(tw, "ID\tBEGUN\tKIND\tSTATE\tFILES\tMISSING\tDRIFTED\tORPHANED\tADOPTED\tREPAIRED\tREFUSED\tBY")
	for _, r := range page.Items {
		_, _ = fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%s\n", r.ID, stamp(r.StartedAt), r.Kind, r.State, r.Listed,
			sumOf(r, run.Missing, ""), sumOf(r, run.Drifted, ""), sumOf(r, run.Orphaned, ""), sumOf(r, run.Adopted, ""), sumOf(r, "", run.Repaired), sumOf(r, "", run.Refused), r.StartedBy)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	if page.Next != "" {
		p.remark("There are more: --limit lists more of them.")
	}
	return nil
}

// sumOf counts a run's findings of a kind with a status; empty means any.
func sumOf(r run.Run, kind run.FindingKind, status run.Status) (n int64) {
	for k, by := range r.Found {
		for s, of := range by {
			if (kind == "" || k == kind) && (status == "" || s == status) {
				n += of
			}
		}
	}
	return n
}

// shownRun is what show tells of a run.
type shownRun struct {
	Run run.Run `json:"run"`
	// Release is what to type to release the fuse for its candidates.
	Release  string        `json:"release,omitempty"`
	Findings []run.Finding `json:"findings"`
	More     bool          `json:"more,omitempty"` // findings that are not shown
}

func reconcileShowCommand(p *program) *cobra.Command {
	var kind, status string
	var limit int
	var all bool
	cmd := &cobra.Command{
		Use: "show RUN", Short: "Show what a run examined, found and repaired, and how to release the fuse", Args: cobra.ExactArgs(1),
		Long: `Show what a run examined, found and repaired, and how to release the fuse. Its findings:

  missing    ImageKit has the file, and there was no row of it
  drifted    the row said something else than ImageKit: column: row → ImageKit
  orphaned   there was a row, and no such file in the whole listing: a candidate for deletion
  adopted    a row that trueup had not looked at before, such as an application's own
  unowned    a row that belongs to nobody

and what became of each: found (nothing yet, or a look-up by id is under way), repaired
(row and file agree; of an orphaned one no row is left), skipped (nothing had to be done,
or not by this run), refused (a brake, or ImageKit, kept it from being repaired).`,
		RunE: func(cmd *cobra.Command, args []string) error {
			f := run.FindingFilter{Kind: run.FindingKind(kind), Status: run.Status(status)}
			switch {
			case all:
				limit = 0
			case limit < 1:
				return usagef("--limit is a number from 1; --all shows all findings")
			}
			client, err := p.operatorClient()
			if err != nil {
				return err
			}
			out, err := p.showRun(cmd.Context(), client, args[0], f, limit)
			if err != nil {
				return err
			}
			return p.result(out, func() error { return p.shownRun(out) })
		},
	}
	cmd.Flags().StringVar(&kind, "kind", "", "only findings of this kind: missing, drifted, orphaned, adopted, unowned")
	cmd.Flags().StringVar(&status, "status", "", "only findings with this status: found, repaired, skipped, refused")
	cmd.Flags().IntVar(&limit, "limit", 20, "show at most so many findings")
	cmd.Flags().BoolVar(&all, "all", false, "show all findings")
	return cmd
}

// showRun asks for the run and its findings; a limit of 0 means all of them.
func (p *program) showRun(ctx context.Context, client *operator.Client, id string, f run.FindingFilter, limit int) (out shownRun, err error) {
	if out.Run, err = client.Run(ctx, id); err != nil {
		return out, err
	}
	if p.heldBack(ctx, client, out.Run) {
		out.Release = operator.Release(out.Run)
	}
	kinds := []run.FindingKind{f.Kind}
	if f.Kind == "" && limit > 0 {
		// What differs comes first; rows of nobody are many, and no news.
		kinds = []run.FindingKind{run.Missing, run.Drifted, run.Orphaned, run.Adopted}
	}
	out.Findings = []run.Finding{}
	for _, f.Kind = range kinds {
		if len(kinds) > 1 && f.Status == "" && sumOf(out.Run, f.Kind, "") == 0 {
			continue // a mistyped word is for the server to refuse
		}
		if err = out.add(ctx, client, f, limit); err != nil {
			return out, err
		}
	}
	return out, nil
}

// add asks for findings up to the limit.
func (s *shownRun) add(ctx context.Context, client *operator.Client, f run.FindingFilter, limit int) error {
	for after := ""; ; {
		want := 1000
		if limit > 0 {
			if want = min(want, limit-len(s.Findings)); want == 0 {
				s.More = true
				return nil
			}
		}
		page, err := client.Findings(ctx, s.Run.ID, f, after, want)
		if err != nil {
			return err
		}
		s.Findings = append(s.Findings, page.Items...)
		if after = page.Next; after == "" {
			return nil
		}
	}
}

func (p *program) shownRun(s shownRun) error {
	r := s.Run
	lines := [][2]string{
		{"run", r.ID}, {"kind", string(r.Kind)}, {"state", string(r.State)}, {"phase", phaseOf(r)}, {"waits", r.Waiting}, {"by", r.StartedBy}, {"note", r.Note},
		{"began", stamp(r.StartedAt)}, {"ended", endOf(r)}, {"account", accountLine(r)},
	}
	if err := p.table(slices.DeleteFunc(lines, func(l [2]string) bool { return l[1] == "" })); err != nil {
		return err
	}
	if err := p.counts(r); err != nil {
		return err
	}
	p.line("")
	p.lines(operator.TellRun(r))
	if s.Release != "" && r.Fuse == "" {
		p.lines(tellHeldBack(r))
	}
	return p.findings(s)
}

// phaseOf is what the run does; one that has ended does nothing.
func phaseOf(r run.Run) string {
	if !r.State.Open() {
		return ""
	}
	return string(r.Phase)
}

func endOf(r run.Run) string {
	if r.FinishedAt.IsZero() {
		return ""
	}
	if r.Kind == run.Plan && r.State != run.Planned || r.AccountAcceptedBy != "" || r.ExpectedDeletions != nil {
		return stamp(r.FinishedAt) // it was applied, whenever that was
	}
	return fmt.Sprintf("%s, after %s", stamp(r.FinishedAt), span(r.FinishedAt.Sub(r.StartedAt)))
}

func accountLine(r run.Run) string {
	a := r.Account
	s := fmt.Sprintf("%d of %d known files answered", a.Answered, a.Asked)
	switch {
	case r.AccountAcceptedBy != "":
		return "accepted by " + r.AccountAcceptedBy + "; no known file was asked"
	case a.Confirmed && a.Asked == 0:
		return "there was no row to recognise it by"
	case a.Confirmed:
		return s
	case a.Asked > 0:
		return "NOT RECOGNISED: " + s
	}
	return ""
}

// counts is the table of findings, kind by status.
func (p *program) counts(r run.Run) error {
	if sumOf(r, "", "") == 0 {
		return nil
	}
	p.line("")
	tw := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	row := func(name string, kind run.FindingKind) {
		_, _ = fmt.Fprint(tw, name)
		for _, status := range operator.FindingStatuses() {
			_, _ = fmt.Fprintf(tw, "\t%d", sumOf(r, kind, status))
		}
		_, _ = fmt.Fprintf(tw, "\t%d\n", sumOf(r, kind, ""))
	}
	_, _ = fmt.Fprint(tw, "FINDINGS")
	for _, status := range operator.FindingStatuses() {
		_, _ = fmt.Fprint(tw, "\t"+strings.ToUpper(string(status)))
	}
	_, _ = fmt.Fprintln(tw, "\tALL")
	for _, kind := range operator.FindingKinds() {
		if sumOf(r, kind, "") > 0 {
			row(string(kind), kind)
		}
	}
	row("all", "")
	return tw.Flush()
}

// findings lists them, each with its differences below it.
func (p *program) findings(s shownRun) error {
	if len(s.Findings) == 0 {
		return nil
	}
	p.line("")
	wide := len("FILE")
	for _, f := range s.Findings {
		wide = max(wide, len(f.FileID))
	}
	p.line("%-*s  %-8s  %-8s  %s", wide, "FILE", "FINDING", "STATUS", "REASON")
	for _, f := range s.Findings {
		p.line("%-*s  %-8s  %-8s  %s", wide, f.FileID, f.Kind, f.Status, reasonLine(f))
		for _, d := range f.Columns {
			p.line("  %s: %s → %s", d.Column, shownValue(d.Row), shownValue(d.ImageKit))
		}
		for _, e := range f.Evidence {
			p.line("  %s", printable([]byte(e)))
		}
	}
	if s.More {
		p.remark("There are more: --all shows all of them, --kind and --status some.")
	}
	return nil
}

// reasonLine is why, and the event that asks about the file.
func reasonLine(f run.Finding) string {
	if f.Event == "" {
		return cmp.Or(f.Reason, "-")
	}
	return strings.TrimLeft(f.Reason+", event "+f.Event, ", ")
}

// shownValue is a column's value on one line, whoever wrote it.
func shownValue(v *string) string {
	if v == nil {
		return "NULL"
	}
	return fmt.Sprintf("%q", *v)
}
