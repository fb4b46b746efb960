package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/operator"
)

func deadCommand(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dead",
		Short: "See, replay, discard and move dead letters: events that could not be settled",
		Long: `A dead letter is an event set aside, with its body, every attempt and the reason. Its
class says who must act: caller, imagekit, database or trueup.

Replaying sends it through again as new work with its old time and user. The letter
stays until the replay is settled, so it can be repeated at any time: what is cured
becomes a row, what is not is parked again with a longer history.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	for _, sub := range []func(*program) *cobra.Command{
		deadListCommand, deadShowCommand, deadCountCommand, deadReplayCommand, deadDiscardCommand, deadExportCommand, deadJobsCommand,
	} {
		cmd.AddCommand(sub(p))
	}
	return cmd
}

// choice is which dead letters a command is about.
type choice struct {
	reason, class, source, file, since, until, state string

	all bool
	now func() time.Time
}

func (c *choice) flags(cmd *cobra.Command) {
	c.now = time.Now
	f := cmd.Flags()
	f.StringVar(&c.reason, "reason", "", "only with this reason")
	f.StringVar(&c.class, "class", "", "only those on which this one must act: caller, imagekit, database, trueup")
	f.StringVar(&c.source, "source", "", "only from this source: client, webhook, reconcile")
	f.StringVar(&c.file, "file", "", "only of this fileId")
	f.StringVar(&c.since, "since", "", "only parked since then: 2026-01-31T12:00:00Z, 2026-01-31, or 90m ago")
	f.StringVar(&c.until, "until", "", "only parked before then")
	f.StringVar(&c.state, "state", "", "only in this state: dead (the usual), replaying, resolved, discarded; list, count and export also take any")
}

// filter is the choice with ids; the zero filter is everything.
func (c *choice) filter(ids []string) (event.Filter, error) {
	f := event.Filter{IDs: ids, Reason: c.reason, Class: event.Class(c.class), Source: event.Source(c.source), FileID: c.file, State: event.LetterState(c.state)}
	for name, into := range map[string]*time.Time{c.since: &f.Since, c.until: &f.Until} {
		if name == "" {
			continue
		}
		at, err := moment(name, c.now())
		if err != nil {
			return f, err
		}
		*into = at
	}
	return f, nil
}

// bulk is the filter of a verb that changes what it matches: it must be said.
func (c *choice) bulk(cmd *cobra.Command, ids []string) (event.Filter, error) {
	f, err := c.filter(ids)
	switch {
	case err != nil:
		return f, err
	case f.Empty() && !c.all:
		return f, usagef("say which dead letters: ids, a filter (%s), or --all", "--reason --class --source --file --since --until")
	case c.all && !f.Empty():
		return f, usagef("--all and a filter contradict each other: choose one")
	}
	return f, nil
}

// moment is a point in time, or how long ago.
func moment(text string, now time.Time) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if at, err := time.Parse(layout, text); err == nil {
			return at, nil
		}
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	return time.Time{}, usagef("%q is no time such as 2026-01-31T12:00:00Z or 2026-01-31, nor a span such as 90m", text)
}

func deadListCommand(p *program) *cobra.Command {
	var c choice
	var limit int
	cmd := &cobra.Command{
		Use: "list", Short: "List dead letters, oldest first", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := c.filter(nil)
			if err != nil {
				return err
			}
			client, err := p.operatorClient()
			if err != nil {
				return err
			}
			return p.deadList(cmd.Context(), client, f, limit)
		},
	}
	c.flags(cmd)
	cmd.Flags().IntVar(&limit, "limit", 100, "list at most so many; 0 lists all")
	return cmd
}

func (p *program) deadList(ctx context.Context, client *operator.Client, f event.Filter, limit int) error {
	out := operator.Page[event.DeadLetter]{Items: []event.DeadLetter{}}
	for {
		want := 1000
		if limit > 0 {
			want = min(want, limit-len(out.Items))
		}
		page, err := client.DeadLetters(ctx, f, out.Next, want)
		if err != nil {
			return err
		}
		out.Items, out.Next = append(out.Items, page.Items...), page.Next
		if out.Next == "" || limit > 0 && len(out.Items) >= limit {
			break
		}
	}
	return p.result(out, func() error {
		if len(out.Items) == 0 {
			p.line("0 match")
			return nil
		}
		if err := p.letters(out.Items); err != nil {
			return err
		}
		if out.Next != "" {
			p.remark("There are more: --limit 0 lists all of them.")
		}
		return nil
	})
}

func (p *program) letters(items []event.DeadLetter) error {
	tw := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(tw, "ID\tPARKED\tCLASS\tREASON\tSTATE\tSOURCE\tFILE")
	for _, d := range items {
		_, _ = fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s %s\t%s\n", d.ID, stamp(d.CreatedAt), d.Class, d.Reason, d.State, d.Origin, d.Kind, d.FileID)
	}
	return tw.Flush()
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

func deadShowCommand(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show one dead letter: body, headers, every attempt and replay", Args: cobra.ExactArgs(1),
		RunE: verb(p, func(ctx context.Context, c *operator.Client, args []string) (event.DeadLetter, error) {
			return c.DeadLetter(ctx, args[0])
		}, p.letter),
	}
}

func (p *program) letter(d event.DeadLetter) error {
	lines := [][2]string{
		{"dead letter", d.ID}, {"state", string(d.State)}, {"must act", string(d.Class)}, {"reason", d.Reason}, {"note", d.Note},
		{"file", d.FileID}, {"event", fmt.Sprintf("%s, %s %s", d.EventID, d.Origin, d.Kind)}, {"user", d.User}, {"accepted", stamp(d.AcceptedAt)},
		{"parked", stamp(d.CreatedAt)}, {"changed", stamp(d.ChangedAt)}, {"webhook", d.WebhookID}, {"last replay", d.ReplayEvent},
	}
	for _, name := range slices.Sorted(maps.Keys(d.Headers)) {
		lines = append(lines, [2]string{"header " + name, d.Headers[name]})
	}
	for i, a := range d.Attempts {
		lines = append(lines, [2]string{fmt.Sprintf("attempt %d", i+1), attemptLine(a)})
	}
	if len(d.History) > 0 {
		lines = append(lines, [2]string{"replays", string(d.History)})
	}
	if len(d.Masked) > 0 {
		lines = append(lines, [2]string{"masked", fmt.Sprintf("%d part(s) of the body held a secret of ours and are replaced by *", len(d.Masked))})
	}
	lines = append(lines, [2]string{"body", printable(d.Body)})
	return p.table(slices.DeleteFunc(lines, func(l [2]string) bool { return l[1] == "" }))
}

func attemptLine(a event.Attempt) string {
	s := stamp(a.At) + " " + a.Reason
	if a.Status != 0 {
		s += fmt.Sprintf(", answered %d", a.Status)
	}
	if a.RequestID != "" {
		s += ", request " + a.RequestID
	}
	if a.Excerpt != "" {
		s += fmt.Sprintf(", %q", a.Excerpt)
	}
	return s + ", trueup " + a.Version
}

// printable is the body on one line; --json has it byte for byte.
func printable(body []byte) string {
	const most = 4000
	s := strings.ToValidUTF8(string(body[:min(len(body), most)]), "�")
	s = strings.NewReplacer("\n", " ", "\t", " ").Replace(visible(s))
	if len(body) > most {
		s += fmt.Sprintf(" … (%d bytes)", len(body))
	}
	return s
}

func deadCountCommand(p *program) *cobra.Command {
	var c choice
	cmd := &cobra.Command{
		Use: "count", Short: "Count dead letters by who must act and by reason", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := c.filter(nil)
			if err != nil {
				return err
			}
			client, err := p.operatorClient()
			if err != nil {
				return err
			}
			n, err := client.CountDead(cmd.Context(), f)
			if err != nil {
				return err
			}
			return p.result(n, func() error { return p.count(n) })
		},
	}
	c.flags(cmd)
	return cmd
}

func (p *program) count(n event.DeadCount) error {
	if n.Total == 0 {
		p.line("0 match")
		return nil
	}
	lines := [][2]string{{"total", fmt.Sprint(n.Total)}}
	for _, class := range slices.Sorted(maps.Keys(n.Classes)) {
		lines = append(lines, [2]string{"class " + string(class), fmt.Sprint(n.Classes[class])})
	}
	for _, reason := range slices.Sorted(maps.Keys(n.Reasons)) {
		lines = append(lines, [2]string{"reason " + reason, fmt.Sprint(n.Reasons[reason])})
	}
	return p.table(lines)
}

func deadExportCommand(p *program) *cobra.Command {
	var c choice
	var to string
	cmd := &cobra.Command{
		Use:   "export [ID…]",
		Short: "Write dead letters as NDJSON, for replay --from elsewhere",
		Long: `Write dead letters with everything they hold as NDJSON. "dead replay --from FILE" takes the
file on another installation and keeps time and user of each event. Lines are chained by
a hash: a file that was cut short or changed is refused there.`,
		RunE: func(cmd *cobra.Command, ids []string) error {
			f, err := c.filter(ids)
			if err != nil {
				return err
			}
			client, err := p.operatorClient()
			if err != nil {
				return err
			}
			return p.export(cmd.Context(), client, f, to)
		},
	}
	c.flags(cmd)
	cmd.Flags().StringVarP(&to, "output", "o", "", "write to this file; it appears only when it is whole")
	return cmd
}

// export writes to standard output, or to a file that appears when it is whole.
func (p *program) export(ctx context.Context, client *operator.Client, f event.Filter, to string) (err error) {
	out := p.stdout
	if to != "" {
		part, err := os.OpenFile(to+".part", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		defer func() { _ = os.Remove(part.Name()) }() // gone already when all went well
		defer part.Close()
		out = part
	}
	n, err := client.Export(ctx, f, out)
	if err != nil {
		return err
	}
	if part, ok := out.(*os.File); ok && to != "" {
		if err := errors.Join(part.Sync(), part.Close(), os.Rename(part.Name(), to)); err != nil {
			return err
		}
	}
	p.remark("%d exported", n)
	return nil
}

// open opens a file that a command reads; - is standard input.
func (p *program) open(name string) (io.ReadCloser, error) {
	if name == "-" {
		return io.NopCloser(p.stdin), nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, usagef("%w", err)
	}
	return f, nil
}
