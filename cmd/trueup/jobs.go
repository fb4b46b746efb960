package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/operator"
)

func deadJobsCommand(p *program) *cobra.Command {
	var note string
	var wait bool
	cmd := &cobra.Command{
		Use: "jobs", Short: "List replays, discards and rechecks; jobs show ID, jobs cancel ID", Args: cobra.NoArgs,
		RunE: verb(p, func(ctx context.Context, c *operator.Client, _ []string) (operator.Page[event.Job], error) {
			return c.Jobs(ctx, "", 100)
		}, p.jobs),
	}
	show := &cobra.Command{
		Use: "show ID", Short: "Show how far a job has come and what became of its items", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := p.operatorClient()
			if err != nil {
				return err
			}
			job, err := client.Job(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if wait {
				return p.follow(cmd.Context(), client, job, true)
			}
			return p.result(job, func() error { return p.job(job) })
		},
	}
	show.Flags().BoolVar(&wait, "wait", false, "wait for the outcome of each item; exit 4 if some were parked again")
	cancel := &cobra.Command{
		Use: "cancel ID", Short: "End a job where it stands; what it has sent goes its way", Args: cobra.ExactArgs(1),
		RunE: verb(p, func(ctx context.Context, c *operator.Client, args []string) (event.Job, error) {
			return c.CancelJob(ctx, args[0], note)
		}, p.job),
	}
	cancel.Flags().StringVar(&note, "note", "", "why, for the audit")
	cmd.AddCommand(show, cancel)
	return cmd
}

func (p *program) jobs(page operator.Page[event.Job]) error {
	if len(page.Items) == 0 {
		p.line("0 jobs")
		return nil
	}
	tw := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(tw, "ID\tBEGUN\tVERB\tSTATE\tTOTAL\tDONE\tSKIPPED\tBY")
	for _, j := range page.Items {
		_, _ = fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%d\t%d\t%d\t%s\n", j.ID, stamp(j.CreatedAt), j.Verb, j.State, j.Total, j.Done, j.Skipped, j.Who)
	}
	return tw.Flush()
}

func (p *program) job(j event.Job) error {
	lines := [][2]string{
		{"job", j.ID}, {"verb", string(j.Verb)}, {"state", string(j.State)}, {"by", j.Who}, {"note", j.Note},
		{"progress", progressOf(j)}, {"waits", j.Waiting}, {"error", j.Error}, {"outcomes", someCounts(j.Outcomes)}, {"reasons", someCounts(j.Reasons)},
	}
	return p.table(slices.DeleteFunc(lines, func(l [2]string) bool { return l[1] == "" }))
}

func someCounts(counts map[string]int64) string {
	if s := countsLine(counts); s != "none" {
		return s
	}
	return ""
}

// progressOf says how far the job itself has come.
func progressOf(j event.Job) string {
	word := map[event.JobVerb]string{event.JobReplay: "sent", event.JobRecheck: "sent", event.JobDiscard: "discarded"}[j.Verb]
	s := fmt.Sprintf("%d of %d %s", j.Done, j.Total, word)
	if j.Skipped > 0 {
		s += fmt.Sprintf(", %d left to somebody else", j.Skipped)
	}
	return s
}

// confirm asks before something is changed.
func (p *program) confirm(yes bool, question string, args ...any) error {
	if yes {
		return nil
	}
	_, _ = fmt.Fprintf(p.stderr, question+" [y/N] ", args...)
	answer, err := bufio.NewReader(p.stdin).ReadString('\n')
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	case "":
		if err != nil {
			return usagef("nobody answers: say --yes where no one can be asked; nothing was done")
		}
	}
	return errors.New("nothing was done")
}

// follow shows the job's progress until it has done its part, and with wait until
// everything it has sent is settled.
func (p *program) follow(ctx context.Context, client *operator.Client, job event.Job, wait bool) error {
	job, err := watch(ctx, p.newProgress("job "+job.ID), job,
		func(ctx context.Context) (event.Job, error) { return client.Job(ctx, job.ID) },
		func(j event.Job) (point, bool) {
			return jobPoint(j, wait), j.State != event.JobRunning && (!wait || unsettled(j) == 0)
		})
	if errors.Is(err, errLeft) {
		return fmt.Errorf("job %s goes on without this command: trueup dead jobs show %s --wait", job.ID, job.ID)
	}
	if err != nil {
		return err
	}
	return p.concluded(job, wait)
}

// jobPoint is how far a job has come.
func jobPoint(j event.Job, wait bool) point {
	done, what := j.Done+j.Skipped, progressOf(j)
	if wait {
		done -= unsettled(j)
		what += fmt.Sprintf(", %d of them not settled yet", unsettled(j))
	}
	return point{done: done, total: j.Total, what: what, waiting: j.Waiting}
}

// unsettled is how many of the job's events have not come to an end.
func unsettled(j event.Job) int64 {
	return j.Outcomes[string(event.LetterReplaying)] + j.Outcomes["pending"] + j.Outcomes[string(event.Retry)]
}

// concluded is the result and the exit code.
func (p *program) concluded(j event.Job, wait bool) error {
	err := p.result(j, func() error {
		p.line("%s %s: %s.", j.Verb, j.State, progressOf(j))
		if s := someCounts(j.Outcomes); s != "" {
			p.line("Outcomes: %s.", s)
		}
		if s := someCounts(j.Reasons); s != "" {
			p.line("Reasons of those that were not cured: %s.", s)
		}
		if !wait && unsettled(j) > 0 {
			p.line("To see what becomes of them: trueup dead jobs show %s --wait", j.ID)
		}
		return nil
	})
	if err != nil {
		return err
	}
	parked := j.Outcomes[string(event.LetterDead)]
	switch {
	case j.State == event.JobFailed:
		return errors.New(j.Error)
	case j.State == event.JobCancelled:
		return coded{fmt.Errorf("the job was cancelled after %d of %d", j.Done, j.Total), exitPartial}
	case wait && parked > 0:
		return coded{fmt.Errorf("%d of %d were parked again", parked, j.Total), exitPartial}
	}
	return nil
}

func recheckCommand(p *program) *cobra.Command {
	var from, note string
	var wait bool
	cmd := &cobra.Command{
		Use:   "recheck FILE_ID… | --from FILE",
		Short: "Look files up again now",
		Long:  `Look these files up again by id, whatever was said of them, and make their rows agree.`,
		RunE: func(cmd *cobra.Command, ids []string) error {
			ids, err := p.fileIDs(ids, from)
			if err != nil {
				return err
			}
			client, err := p.operatorClient()
			if err != nil {
				return err
			}
			job, err := client.Recheck(cmd.Context(), ids, note)
			if err != nil {
				return err
			}
			return p.follow(cmd.Context(), client, job, wait)
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "read fileIds from this file, one a line; - reads standard input")
	cmd.Flags().StringVar(&note, "note", "", "why, for the audit")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait for the outcome of each; exit 4 if some were parked")
	return cmd
}

// fileIDs are those of the arguments or of the file, which must all be possible.
func (p *program) fileIDs(ids []string, from string) ([]string, error) {
	if (from == "") == (len(ids) == 0) {
		return nil, usagef("name fileIds, or a file of them with --from")
	}
	if from != "" {
		in, err := p.open(from)
		if err != nil {
			return nil, err
		}
		defer in.Close()
		lines := bufio.NewScanner(in)
		for lines.Scan() {
			if id := strings.TrimSpace(lines.Text()); id != "" {
				ids = append(ids, id)
			}
		}
		if err := lines.Err(); err != nil {
			return nil, fmt.Errorf("read %s: %w", from, err)
		}
	}
	for i, id := range ids {
		if !file.ValidID(id) {
			return nil, usagef("%q (number %d) is no fileId: it has 1 to 64 of the characters A-Z a-z 0-9 _ and -", id, i+1)
		}
	}
	return ids, nil
}

func assignCommand(p *program) *cobra.Command {
	var note string
	cmd := &cobra.Command{
		Use: "assign FILE_ID USER --note TEXT", Short: "Give a file to a user, whoever owned it; audited",
		Args: func(cmd *cobra.Command, args []string) error {
			if err := cobra.ExactArgs(2)(cmd, args); err != nil {
				return err
			}
			if !file.ValidID(args[0]) {
				return usagef("%q is no fileId: it has 1 to 64 of the characters A-Z a-z 0-9 _ and -", args[0])
			}
			if args[1] == "" {
				return usagef("a user is not empty: nobody could be signed in as it")
			}
			return nil
		},
		PreRunE: func(*cobra.Command, []string) error {
			if note == "" {
				return usagef("say why with --note: it is kept with the act")
			}
			return nil
		},
		RunE: verb(p, func(ctx context.Context, c *operator.Client, args []string) (operator.Assigned, error) {
			return c.Assign(ctx, args[0], args[1], note)
		}, func(a operator.Assigned) error {
			p.line("%s belongs to %q now.", a.FileID, a.User)
			return nil
		}),
	}
	cmd.Flags().StringVar(&note, "note", "", "why, for the audit (required)")
	return cmd
}
