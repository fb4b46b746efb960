package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/operator"
)

// bulkFlags are those of a verb that works on many letters.
type bulkFlags struct {
	choice
	yes, wait, dryRun bool
	note, from        string
}

func (b *bulkFlags) flags(cmd *cobra.Command, verb string) {
	b.choice.flags(cmd)
	f := cmd.Flags()
	f.BoolVar(&b.all, "all", false, verb+" all that are dead")
	f.BoolVar(&b.yes, "yes", false, "do not ask")
	f.StringVar(&b.note, "note", "", "why, for the audit")
}

func deadReplayCommand(p *program) *cobra.Command {
	var b bulkFlags
	cmd := &cobra.Command{
		Use:   "replay [ID…]",
		Short: "Send dead letters through again: by id, by filter, or --all",
		Long: `Send dead letters through again as new work that keeps their time and user. The server
does it, at the priority of replays and behind live events; closing this terminal does
not stop it. --wait stays until every one of them is settled and exits 4 if some were
parked again. --dry-run says what would happen to each now and changes nothing.
--from FILE takes an export of another installation first.`,
		RunE: func(cmd *cobra.Command, ids []string) error { return p.replay(cmd, &b, ids) },
	}
	b.flags(cmd, "replay")
	cmd.Flags().BoolVar(&b.wait, "wait", false, "wait for the outcome of each; exit 4 if some were parked again")
	cmd.Flags().BoolVar(&b.dryRun, "dry-run", false, "say what would happen to each, and do nothing")
	cmd.Flags().StringVar(&b.from, "from", "", "import this export first and replay what came with it; - reads standard input")
	return cmd
}

func (p *program) replay(cmd *cobra.Command, b *bulkFlags, ids []string) error {
	var f event.Filter
	var err error
	if b.from == "" {
		f, err = b.bulk(cmd, ids)
	} else if f, err = b.filter(ids); err == nil && (b.all || !f.Empty()) {
		err = usagef("--from replays what came with the file: no ids, no filter and no --all beside it")
	}
	if err == nil && b.from != "" && b.dryRun {
		err = usagef("--from imports, so it cannot be a --dry-run")
	}
	if err != nil {
		return err
	}
	client, err := p.operatorClient()
	if err != nil {
		return err
	}
	if b.from != "" {
		return p.replayFrom(cmd.Context(), client, b)
	}
	if b.dryRun {
		return p.dryRun(cmd.Context(), client, f)
	}
	return p.replayMatching(cmd.Context(), client, f, b)
}

// replayFrom asks before it imports: an import changes the database, too.
func (p *program) replayFrom(ctx context.Context, client *operator.Client, b *bulkFlags) error {
	in, err := p.open(b.from)
	if err != nil {
		return err
	}
	defer in.Close()
	if b.from != "-" || b.yes {
		if err := p.confirm(b.yes, "Import %s and replay what is dead of it?", b.from); err != nil {
			return err
		}
	} else {
		return usagef("--from - reads the export from standard input, where your answer cannot be: say --yes")
	}
	got, err := client.Import(ctx, in, b.note)
	if err != nil {
		return err
	}
	p.remark("%d in the file: %d imported, %d were here already", got.Total, got.Inserted, got.Known)
	if got.Total == 0 {
		return p.noneMatch(event.JobReplay)
	}
	b.yes = true
	return p.replayMatching(ctx, client, event.Filter{Import: got.Import}, b)
}

func (p *program) replayMatching(ctx context.Context, client *operator.Client, f event.Filter, b *bulkFlags) error {
	n, err := p.about(ctx, client, f)
	if err != nil {
		return err
	}
	under, err := p.underWay(ctx, client, f)
	if err != nil {
		return err
	}
	if n.Total+under == 0 {
		return p.noneMatch(event.JobReplay)
	}
	// What is under way may have been lost on the way; only the server can tell.
	if n.Total > 0 {
		if err := p.confirm(b.yes, "Replay %s?", tally(n)); err != nil {
			return err
		}
	}
	job, err := client.Replay(ctx, f, b.note)
	if err != nil {
		return err
	}
	return p.follow(ctx, client, job, b.wait)
}

// about counts what a bulk verb would work on. Named letters that are not dead are told
// with their state.
func (p *program) about(ctx context.Context, client *operator.Client, f event.Filter) (event.DeadCount, error) {
	if len(f.IDs) == 0 {
		return client.CountDead(ctx, f)
	}
	n := event.DeadCount{Classes: map[event.Class]int64{}}
	for _, id := range f.IDs {
		d, err := client.DeadLetter(ctx, id)
		if err != nil {
			return n, err
		}
		switch d.State {
		case event.LetterDead:
		case event.LetterReplaying:
			p.remark("%s is replaying already, by event %s", d.ID, d.ReplayEvent)
			continue
		default:
			p.remark("%s is %s", d.ID, d.State)
		}
		n.Total++
		n.Classes[d.Class]++
	}
	return n, nil
}

// underWay counts what of f is replaying already. It is left alone, unless its event
// was lost.
func (p *program) underWay(ctx context.Context, client *operator.Client, f event.Filter) (int64, error) {
	if f.State != "" {
		return 0, nil
	}
	f.State = event.LetterReplaying
	n, err := client.CountDead(ctx, f)
	if err == nil && n.Total > 0 && len(f.IDs) == 0 {
		p.remark("%d more are replaying already", n.Total)
	}
	return n.Total, err
}

// noneMatch is no failure: there is nothing to do.
func (p *program) noneMatch(verb event.JobVerb) error {
	return p.result(struct {
		Verb  event.JobVerb `json:"verb"`
		Total int           `json:"total"`
	}{verb, 0}, func() error { p.line("0 match"); return nil })
}

// tally is a count in a sentence.
func tally(n event.DeadCount) string {
	s := fmt.Sprintf("%d dead letter", n.Total)
	if n.Total != 1 {
		s += "s"
	}
	classes := map[string]int64{}
	for class, of := range n.Classes {
		classes[string(class)] = of
	}
	return s + " (" + countsLine(classes) + ")"
}

// dryRun tells every letter's fate, a page at a time.
func (p *program) dryRun(ctx context.Context, client *operator.Client, f event.Filter) error {
	items := []operator.Previewed{}
	ends := map[string]int64{}
	for after := ""; ; {
		page, err := client.Preview(ctx, f, after)
		if err != nil {
			return err
		}
		for _, it := range page.Items {
			ends[it.End]++
			if !p.json {
				p.line("%s  %s: %s", it.ID, it.FileID, it.Says)
			}
		}
		if items = append(items, page.Items...); page.Next == "" {
			break
		}
		after = page.Next
	}
	if p.json {
		return p.result(operator.Page[operator.Previewed]{Items: items}, nil)
	}
	if len(items) == 0 {
		p.line("0 match")
		return nil
	}
	p.line("Nothing was changed. Of %d, these would end: %s.", len(items), countsLine(ends))
	return nil
}

func deadDiscardCommand(p *program) *cobra.Command {
	var b bulkFlags
	cmd := &cobra.Command{
		Use:   "discard [ID…]",
		Short: "Give dead letters up for good: by id, by filter, or --all",
		Long: `Mark dead letters as discarded. They are kept and counted until their retention ends, and
the ledger remembers who did it, but --all and filters never replay them again; naming
one by its id still does.`,
		RunE: func(cmd *cobra.Command, ids []string) error {
			f, err := b.bulk(cmd, ids)
			if err != nil {
				return err
			}
			client, err := p.operatorClient()
			if err != nil {
				return err
			}
			return p.discard(cmd.Context(), client, f, &b)
		},
	}
	b.flags(cmd, "discard")
	cmd.Flags().BoolVar(&b.dryRun, "dry-run", false, "list what would be discarded, and do nothing")
	return cmd
}

func (p *program) discard(ctx context.Context, client *operator.Client, f event.Filter, b *bulkFlags) error {
	if b.dryRun {
		return p.deadList(ctx, client, f, 0)
	}
	n, err := p.about(ctx, client, f)
	if err != nil {
		return err
	}
	if n.Total == 0 {
		return p.noneMatch(event.JobDiscard)
	}
	if err := p.confirm(b.yes, "Discard %s for good?", tally(n)); err != nil {
		return err
	}
	job, err := client.Discard(ctx, f, b.note)
	if err != nil {
		return err
	}
	return p.follow(ctx, client, job, false)
}
