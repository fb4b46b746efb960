package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/trueup/trueup/internal/operator"
	"github.com/trueup/trueup/internal/run"
)

func reconcileCommand(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "reconcile",
		Short: "Compare the whole library with the whole table, and repair what differs",
		Long: `Compare every file that ImageKit lists with every row, and repair what differs: missing
rows, rows that drifted, and rows whose file is gone. plan finds and changes nothing;
apply repairs what a plan found, asking again about each doubtful line; run does both.

A listing never removes a row: what it does not show is looked up by id first, and too
many of those latch the fuse. Then everything else is repaired, the command exits 3, and
"reconcile show RUN" prints what to type to release it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	for _, sub := range []func(*program) *cobra.Command{
		reconcilePlanCommand, reconcileApplyCommand, reconcileRunCommand, reconcileListCommand, reconcileShowCommand, reconcileCancelCommand,
	} {
		cmd.AddCommand(sub(p))
	}
	return cmd
}

// runFlags are those of a verb that starts something.
type runFlags struct {
	note   string
	noWait bool
}

func (f *runFlags) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.note, "note", "", "why, for the audit")
	cmd.Flags().BoolVar(&f.noWait, "no-wait", false, "only start it; the server goes on by itself")
}

func reconcilePlanCommand(p *program) *cobra.Command {
	var f runFlags
	var exitCode bool
	cmd := &cobra.Command{
		Use: "plan", Short: "Find what differs and change nothing; the result is kept for apply", Args: cobra.NoArgs,
		Long: `Find what differs and change nothing; the result is kept for apply. Closing this terminal
does not stop it. Exit codes: 0 done, 5 something has to be repaired (with --exit-code),
4 the listing was not whole, 1 failed or cancelled.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.startRun(cmd.Context(), run.Plan, &f, exitCode)
		},
	}
	f.flags(cmd)
	cmd.Flags().BoolVar(&exitCode, "exit-code", false, "exit 5 if anything has to be repaired")
	return cmd
}

func reconcileRunCommand(p *program) *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use: "run", Short: "Find what differs and repair it, within the brakes", Args: cobra.NoArgs,
		Long: `Find what differs and repair it, within the brakes. Closing this terminal does not stop
it. Exit codes: 0 complete, 3 the fuse kept rows from being deleted, 4 partial, 1 failed
or cancelled.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.startRun(cmd.Context(), run.Full, &f, false)
		},
	}
	f.flags(cmd)
	return cmd
}

func (p *program) startRun(ctx context.Context, kind run.Kind, f *runFlags, exitCode bool) error {
	client, err := p.operatorClient()
	if err != nil {
		return err
	}
	began, err := client.StartRun(ctx, kind, f.note)
	if err != nil {
		return err
	}
	return p.followRun(ctx, client, began, f.noWait, exitCode)
}

// applyFlags are how far an operator goes.
type applyFlags struct {
	runFlags
	expect      int64
	account     bool
	yes         bool
	expectGiven bool
}

func reconcileApplyCommand(p *program) *cobra.Command {
	var f applyFlags
	cmd := &cobra.Command{
		Use: "apply RUN", Short: "Repair what a plan, or a run that was stopped, has found", Args: cobra.ExactArgs(1),
		Long: `Repair what a plan, or a run that was stopped by a brake, has found. Doubtful lines are
asked about again, all of them where the plan is older than an hour; rows that changed
since are left alone. --expect-deletions N releases the fuse for the candidates of this
run, and N must be their number, as "reconcile show RUN" prints it: fewer may be deleted,
never more. --accept-account says that ImageKit's account is ours although no known file
was found in it: then everything of the run is done, within the fuse.

Without --yes it says what it would do, and asks. Closing this terminal does not stop it.
Exit codes: 0 complete, 3 the fuse kept rows from being deleted, 4 partial, 1 failed or
cancelled. What is not complete can be applied again.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			f.expectGiven = cmd.Flags().Changed("expect-deletions")
			if f.expect < 0 {
				return usagef("--expect-deletions is a number, and none is below 0")
			}
			client, err := p.operatorClient()
			if err != nil {
				return err
			}
			return p.applyRun(cmd.Context(), client, args[0], &f)
		},
	}
	f.flags(cmd)
	cmd.Flags().Int64Var(&f.expect, "expect-deletions", 0, "release the fuse for the run's candidates for deletion; must be their number")
	cmd.Flags().BoolVar(&f.account, "accept-account", false, "the account is ours, whatever the known files answered")
	cmd.Flags().BoolVar(&f.yes, "yes", false, "do not ask")
	return cmd
}

func (p *program) applyRun(ctx context.Context, client *operator.Client, id string, f *applyFlags) error {
	r, err := client.Run(ctx, id)
	if err != nil {
		return err
	}
	a := run.Apply{Note: f.note, AcceptAccount: f.account}
	if f.expectGiven {
		a.ExpectDeletions = &f.expect
	}
	if err := p.confirm(f.yes, "%s", applyQuestion(r, a)); err != nil {
		return err
	}
	applied, err := client.ApplyRun(ctx, id, a)
	if err != nil {
		return err
	}
	return p.followRun(ctx, client, applied, f.noWait, false)
}

// applyQuestion says what applying would do.
func applyQuestion(r run.Run, a run.Apply) string {
	lines := int64(0)
	for _, kind := range []run.FindingKind{run.Missing, run.Drifted, run.Adopted, run.Unowned} {
		lines += r.Found[kind][run.Found]
	}
	s := fmt.Sprintf("Repair %d findings of run %s", lines, r.ID)
	switch open := r.Found[run.Orphaned][run.Found] + r.Found[run.Orphaned][run.Refused]; {
	case !r.Account.Confirmed && a.AcceptAccount:
		s = "Take this ImageKit account for ours, and do all of run " + r.ID + ": rows whose files it does not have become candidates for deletion"
	case open == 0:
	case a.ExpectDeletions != nil:
		s += fmt.Sprintf(", release the fuse, and delete the rows of those of its %d candidates that a look-up by id does not find either", r.Candidates)
	case r.Fuse != "":
		s += fmt.Sprintf(" (its %d candidates for deletion stay, and the fuse is latched: only --expect-deletions %d lets them go)", r.Candidates, r.Candidates)
	default:
		s += fmt.Sprintf(", and delete the rows of those of its %d candidates that a look-up by id does not find either", r.Candidates)
	}
	return s + "?"
}

func reconcileCancelCommand(p *program) *cobra.Command {
	var note string
	cmd := &cobra.Command{
		Use: "cancel RUN", Short: "End a run where it stands; what it has repaired stays", Args: cobra.ExactArgs(1),
		RunE: verb(p, func(ctx context.Context, c *operator.Client, args []string) (run.Run, error) {
			return c.CancelRun(ctx, args[0], note)
		}, func(r run.Run) error {
			p.lines(operator.TellRun(r))
			if r.State != run.Cancelled {
				p.remark("It had ended before: nothing was cancelled.")
			}
			return nil
		}),
	}
	cmd.Flags().StringVar(&note, "note", "", "why, for the audit")
	return cmd
}

// lines writes sentences of the result.
func (p *program) lines(sentences []string) {
	for _, s := range sentences {
		p.line("%s", s)
	}
}

// followRun shows the run's progress until it has ended.
func (p *program) followRun(ctx context.Context, client *operator.Client, r run.Run, noWait, exitCode bool) error {
	if noWait {
		return p.result(r, func() error {
			p.line("Run %s goes on: trueup reconcile show %s", r.ID, r.ID)
			return nil
		})
	}
	pace := &pace{expected: p.expected(ctx, client, r), now: time.Now}
	r, err := watch(ctx, p.newProgress("run "+r.ID), r,
		func(ctx context.Context) (run.Run, error) { return client.Run(ctx, r.ID) },
		func(r run.Run) (point, bool) { return pace.point(r), !r.State.Open() })
	if errors.Is(err, errLeft) {
		return fmt.Errorf("the run goes on: trueup reconcile show %s", r.ID)
	}
	if err != nil {
		return err
	}
	return p.runEnded(ctx, client, r, exitCode)
}

// expected is how many files the last whole listing had; zero where none is known.
func (p *program) expected(ctx context.Context, client *operator.Client, r run.Run) int64 {
	page, err := client.Runs(ctx, "", 100)
	if err != nil {
		return 0 // the bar goes without
	}
	for _, before := range page.Items {
		if before.ID != r.ID && before.Whole && (before.State == run.Complete || before.State == run.Planned) {
			return before.Listed
		}
	}
	return 0
}

// runEnded is the result and the exit code.
func (p *program) runEnded(ctx context.Context, client *operator.Client, r run.Run, exitCode bool) error {
	err := p.result(r, func() error {
		p.lines(operator.TellRun(r))
		if r.Fuse == "" && p.heldBack(ctx, client, r) {
			p.lines(tellHeldBack(r))
		}
		return nil
	})
	if err != nil {
		return err
	}
	switch r.State {
	case run.Failed:
		return fmt.Errorf("the run failed: %s", cmp.Or(r.Error, r.Fuse, "it does not say why"))
	case run.Cancelled:
		return errors.New("the run was cancelled")
	case run.Partial:
		if p.stoppedByFuse(ctx, client, r) {
			return coded{fmt.Errorf("the fuse is latched, and rows that ImageKit does not list stay; to look at them: trueup reconcile show %s --kind orphaned", r.ID), exitFuse}
		}
		return coded{fmt.Errorf("the run is partial: %s", cmp.Or(r.Error, "it does not say why")), exitPartial}
	}
	if n := toRepair(r); exitCode && n > 0 {
		return coded{fmt.Errorf("%d findings have to be repaired", n), exitDiffers}
	}
	return nil
}

// toRepair is how many findings wait for somebody to apply them.
func toRepair(r run.Run) (n int64) {
	for _, by := range r.Found {
		n += by[run.Found]
	}
	return n
}

// stoppedByFuse reports whether it is the fuse that keeps a partial run from being
// complete: latched by it, or before.
func (p *program) stoppedByFuse(ctx context.Context, client *operator.Client, r run.Run) bool {
	if r.Fuse != "" && r.ExpectedDeletions == nil {
		return true
	}
	return r.Found[run.Orphaned][run.Refused] > 0 && latched(ctx, client)
}

// heldBack reports whether the fuse keeps, or would keep, candidates of the run.
func (p *program) heldBack(ctx context.Context, client *operator.Client, r run.Run) bool {
	switch {
	case r.Fuse != "" && r.ExpectedDeletions == nil || r.Found[run.Orphaned][run.Refused] > 0:
		return true
	case r.State != run.Planned:
		return false
	}
	return latched(ctx, client) // before it, by another run or by the worker
}

// latched asks whether the fuse is latched now.
func latched(ctx context.Context, client *operator.Client) bool {
	st, err := client.Status(ctx)
	return err == nil && st.Fuse != nil && st.Fuse.Latched
}

// tellHeldBack is for a run that has not latched the fuse itself.
func tellHeldBack(r run.Run) []string {
	return append([]string{"The fuse, latched before this run or by the worker, keeps its candidates from being deleted."}, operator.TellRelease(r)...)
}

// pace knows how fast the listing is read, and how much of it there may be.
type pace struct {
	expected int64
	now      func() time.Time
	from     time.Time // when the listing was first seen
	listed   int64     // and how much of it there was
	last     int64     // how much there was last
	rate     float64   // files a second when that was seen first: the count comes in steps
}

// point is how far a run has come.
func (c *pace) point(r run.Run) point {
	at := point{phase: string(cmp.Or(r.Phase, run.Phase(r.State))), waiting: r.Waiting}
	switch {
	case !r.State.Open():
		at.phase, at.what = string(r.State), string(r.State)
	case r.Phase == run.PhaseAccount || r.Phase == "":
		at.what, at.total = "is it still our account?", 1
	case r.Phase == run.PhaseList:
		at.what, at.done, at.total = c.listing(r), r.Listed, max(c.expected, 1)
		if c.expected == 0 {
			at.done = 0
			at.phase += fmt.Sprint(r.Listed / 10_000)
		}
	case r.Phase == run.PhaseCompare:
		at.what, at.total = fmt.Sprintf("%d files listed, comparing", r.Listed), 1
	case r.Phase == run.PhaseBrake:
		at.what, at.total = "asking the brakes", 1
	case r.Phase == run.PhaseRepair:
		at.done, at.total = repaired(r)
		at.what = fmt.Sprintf("repairing, %d of %d", at.done, at.total)
	case r.Phase == run.PhaseSettle:
		at.done, at.total = repaired(r)
		if at.what = fmt.Sprintf("%d look-ups by id not settled yet", r.Unsettled); r.Unsettled == 0 {
			at.what = "looking whether anything is left"
		}
	}
	if found := foundSoFar(r); found != "" && r.State.Open() {
		at.what += "; found so far: " + found
	}
	return at
}

// listing says how many files were read, how fast, and how long it may still take.
func (c *pace) listing(r run.Run) string {
	now := c.now()
	if c.from.IsZero() {
		c.from, c.listed, c.last = now, r.Listed, r.Listed
	}
	if r.Listed > c.last {
		c.last, c.rate = r.Listed, float64(r.Listed-c.listed)/max(now.Sub(c.from).Seconds(), 0.001)
	}
	s := fmt.Sprintf("%d files listed", r.Listed)
	if c.rate < 1 {
		return s
	}
	s += fmt.Sprintf(", %.0f/s", c.rate)
	if left := c.expected - r.Listed; left > 0 {
		s += fmt.Sprintf(", about %s left", span(time.Duration(float64(left)/c.rate*float64(time.Second)).Round(time.Second)))
	}
	return s
}

// repaired counts the findings that have their answer, and all that want one.
func repaired(r run.Run) (done, total int64) {
	for kind, by := range r.Found {
		if kind == run.Unowned {
			continue // most of them want none
		}
		for status, n := range by {
			total += n
			if status != run.Found {
				done += n
			}
		}
	}
	return done, total
}

func foundSoFar(r run.Run) string {
	var parts []string
	for _, kind := range operator.FindingKinds() {
		var n int64
		for _, of := range r.Found[kind] {
			n += of
		}
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", kind, n))
		}
	}
	return strings.Join(parts, ", ")
}
