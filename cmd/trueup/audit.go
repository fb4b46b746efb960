package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/trueup/trueup/internal/config"
	"github.com/trueup/trueup/internal/run"
	"github.com/trueup/trueup/internal/service"
	"github.com/trueup/trueup/worker/reconcile"
)

func auditCommand(p *program) *cobra.Command {
	var exitCode bool
	var sample int
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Compare an existing table with ImageKit, reading both and changing nothing",
		Long: `Compare an existing imagekit_files with ImageKit's library. It needs DATABASE_URL (a
pooled address is fine) and IMAGEKIT_PRIVATE_KEY, and neither a migration nor NATS nor a
running trueup. Every transaction is read-only, and ImageKit is only asked.

Exit codes: 0 done, 1 failed or not this table's account, 4 ImageKit's listing could not
be read to its end, 5 something is wrong (with --exit-code).`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if sample < 1 {
				return usagef("--sample is at least 1")
			}
			return p.audit(cmd.Context(), sample, exitCode)
		},
	}
	cmd.Flags().BoolVar(&exitCode, "exit-code", false, "exit 5 if anything is wrong")
	cmd.Flags().IntVar(&sample, "sample", 200, "look up by id at most this many of the rows that ImageKit's listing does not show")
	return cmd
}

func (p *program) audit(ctx context.Context, sample int, exitCode bool) error {
	c, err := p.load(config.Audit)
	if err != nil {
		return err
	}
	show := p.newProgress("audit")
	found, err := service.Audit(ctx, c, thisBuild().Version, sample, func(a reconcile.AuditProgress) { show.at(auditPoint(a)) })
	show.end()
	if err != nil {
		return fmt.Errorf("audit of %v: %w", c.Database.URL, err)
	}
	if err := p.result(found, func() error { return p.auditPlain(found) }); err != nil {
		return err
	}
	switch {
	case !found.Whole:
		return coded{errors.New("ImageKit's listing could not be read to its end: what is wrong may be more"), exitPartial}
	case exitCode && !found.Clean():
		return coded{errors.New("table and library differ"), exitDiffers}
	}
	return nil
}

// auditPoint says how far it is. How many files there are nobody says before the end.
func auditPoint(a reconcile.AuditProgress) point {
	at := point{phase: a.Phase, waiting: a.Waiting, what: fmt.Sprintf("%d files listed", a.Files)}
	switch a.Phase {
	case "compare":
		at.what += fmt.Sprintf(", %d rows compared", a.Rows)
	case "look up":
		at.done, at.total = a.Asked, a.Sampled
		at.what += fmt.Sprintf(", %d rows compared, %d of %d looked up by id", a.Rows, a.Asked, a.Sampled)
	}
	return at
}

// auditPlain ends with three sentences and what to do next.
func (p *program) auditPlain(a service.Audited) error {
	if err := p.table(auditLines(a)); err != nil {
		return err
	}
	for _, e := range auditExamples(a) {
		p.line("  %s", e)
	}
	p.line("")
	p.line("%s", auditDeleted(a))
	p.line("%s", auditNoRow(a))
	p.line("%s", auditDiffer(a))
	p.line("Next: %s", auditNext(a))
	return nil
}

func auditLines(a service.Audited) (out [][2]string) {
	put := func(name, format string, args ...any) {
		out = append(out, [2]string{name, fmt.Sprintf(format, args...)})
	}
	put("rows", "%d in public.imagekit_files", a.Rows)
	put("files", "%d in ImageKit, %s of its listing in %.1f s", a.Files, plural(a.Calls, "call", "calls"), a.Seconds)
	put("compared", "%s", strings.Join(a.Compared, ", "))
	put("the same", "%s", plural(a.Same, "row", "rows"))
	for _, c := range a.Columns {
		put("differs", "%s", auditColumn(c))
	}
	for _, l := range []struct {
		n    int64
		name string
		what string
	}{
		{a.Doubled, "doubled", "more under a file_id that another row has"},
		{a.Nameless, "no file_id", "without any"},
		{a.Invalid, "bad file_id", "with one that no file can have"},
		{a.Unowned, "unowned", "with an empty user_id"},
	} {
		if l.n > 0 {
			put(l.name, "%s %s", plural(l.n, "row", "rows"), l.what)
		}
	}
	if a.Unreadable > 0 {
		put("unreadable", "%s listed in a form that cannot be believed", plural(a.Unreadable, "file", "files"))
	}
	if a.There > 0 {
		put("not listed", "%s whose file is there all the same", plural(a.There, "row", "rows"))
	}
	if !a.Whole {
		put("incomplete", "%s", a.Broken)
	}
	for _, n := range a.Notes {
		put("note", "%s", n)
	}
	return out
}

func auditColumn(c reconcile.AuditColumn) string {
	s := fmt.Sprintf("%s in %s", c.Column, plural(c.Rows, "row", "rows"))
	if c.Empty > 0 {
		s += fmt.Sprintf(", %d of them empty here", c.Empty)
	}
	switch {
	case c.Form == 0:
	case c.Column == "file_url":
		s += fmt.Sprintf(", %d of them only by a query behind it", c.Form)
	default:
		s += ": the application's own clock, not ImageKit's createdAt"
	}
	return s
}

// auditExamples are the first few of each kind.
func auditExamples(a service.Audited) (out []string) {
	for _, l := range []struct {
		name string
		ids  []string
	}{{"deleted", a.Of.Deleted}, {"without a row", a.Of.NoRow}, {"doubled", a.Of.Doubled}, {"bad file_id", a.Of.Invalid}} {
		if len(l.ids) > 0 {
			out = append(out, fmt.Sprintf("%s, for example: %s", l.name, strings.Join(l.ids, " ")))
		}
	}
	for _, e := range a.Of.Differ {
		parts := make([]string, len(e.Columns))
		for i, d := range e.Columns {
			parts[i] = auditDifference(d)
		}
		out = append(out, e.FileID+" differs: "+strings.Join(parts, "; "))
	}
	return out
}

func auditDifference(d run.Difference) string {
	return fmt.Sprintf("%s is %s, ImageKit says %s", d.Column, orNull(d.Row), orNull(d.ImageKit))
}

func orNull(v *string) string {
	if v == nil {
		return "NULL"
	}
	return fmt.Sprintf("%q", *v)
}

func plural(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// atLeast begins a figure that an incomplete listing may have kept small.
func atLeast(a service.Audited, n int64, one, many string) string {
	s := plural(n, one, many)
	if n == 0 {
		s = "No " + one
	}
	if !a.Whole && n > 0 {
		s = "At least " + s
	}
	return s
}

func auditDeleted(a service.Audited) string {
	s := atLeast(a, a.Deleted, "row points at a file that is deleted in ImageKit", "rows point at files that are deleted in ImageKit")
	if a.Sampled {
		s += fmt.Sprintf(" (%d were looked up by id: %d are gone, %d are there)", a.Asked, a.Gone, a.There)
	}
	return s + "."
}

func auditNoRow(a service.Audited) string {
	return atLeast(a, a.NoRow, "file in ImageKit has no row", "files in ImageKit have no row") + "."
}

func auditDiffer(a service.Audited) string {
	s := atLeast(a, a.Differ, "row says something else than ImageKit", "rows say something else than ImageKit")
	if names := wrongColumns(a.Columns); len(names) > 0 {
		s += " (" + strings.Join(names, ", ") + ")"
	}
	if a.FormOnly > 0 {
		s += fmt.Sprintf("; %s only in how an application writes it itself (its own clock, a query behind the address)", plural(a.FormOnly, "row differs", "rows differ"))
	}
	return s + "."
}

func wrongColumns(columns []reconcile.AuditColumn) (names []string) {
	for _, c := range columns {
		if n := c.Rows - c.Form; n > 0 {
			names = append(names, fmt.Sprintf("%s %d", c.Column, n))
		}
	}
	return names
}

func auditNext(a service.Audited) string {
	refused := slices.ContainsFunc(a.Notes, func(n string) bool { return strings.HasPrefix(n, "trueup could not keep") })
	switch {
	case !a.Whole:
		return "run trueup audit again when ImageKit answers in full."
	case refused:
		return "change the table as the note above says; then trueup migrate up --print shows what trueup would add to it."
	case a.Clean() && a.FormOnly == 0:
		return "nothing has to be repaired; trueup migrate up and trueup serve keep it so."
	}
	return "trueup migrate up, then trueup serve; trueup reconcile plan shows each line before anything is repaired, and trueup reconcile run repairs it."
}
