// Command campaign tries to prove trueup wrong: simulated schedules, real processes that
// are killed, power cuts, planted bugs, fuzzing, a soak. Each campaign is a test of the
// tree; this command builds it, runs it with a seed and a size, and keeps the record, from
// which it also makes the table in the README.
//
//	go run ./cmd/campaign simulate -seed 1 -n 200000 -record campaigns.jsonl
//	go run ./cmd/campaign table -record campaigns.jsonl
//
// It is apart from the trueup binary because none of it belongs on an operator's machine.
// Its one invariant: it counts nothing itself. What it prints is what the tests have
// recorded, and a campaign that failed, or recorded nothing, is never shown as passed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "campaign:", err)
		if errors.Is(err, errUsage) {
			os.Exit(2)
		}
		os.Exit(1)
	}
}

var errUsage = errors.New("usage")

// options are what every campaign takes. A zero leaves the choice to the campaign.
type options struct {
	seed     uint64
	n        int
	duration time.Duration
	lanes    int
	record   string
	extra    []string // after "--": to the test itself
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 || strings.HasPrefix(args[0], "-") {
		usage(out)
		return fmt.Errorf("%w: name a campaign", errUsage)
	}
	name := args[0]
	var o options
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(out)
	flags.Uint64Var(&o.seed, "seed", 1, "the first seed; the following rounds count up from it")
	flags.IntVar(&o.n, "n", 0, "how many rounds, events or executions (0: the campaign's own choice)")
	flags.DurationVar(&o.duration, "duration", 0, "how long, for campaigns that are measured in time")
	flags.IntVar(&o.lanes, "lanes", 2, "how many rounds at once")
	flags.StringVar(&o.record, "record", "campaigns.jsonl", "`file` to append the record to")
	if err := flags.Parse(args[1:]); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	o.extra = flags.Args()
	if name == "table" {
		return table(o.record, out)
	}
	for _, c := range campaigns {
		if c.name == name {
			return c.start(ctx, o, out)
		}
	}
	usage(out)
	return fmt.Errorf("%w: there is no campaign %q", errUsage, name)
}

func usage(out io.Writer) {
	var text strings.Builder
	text.WriteString("usage: go run ./cmd/campaign NAME [-seed S] [-n N] [-duration D] [-lanes K] [-record FILE] [-- flags of the test]\n\n")
	for _, c := range campaigns {
		fmt.Fprintf(&text, "  %-10s  %s\n", c.name, c.says)
	}
	fmt.Fprintf(&text, "  %-10s  %s\n", "table", "print what -record holds as a table, the newest of each campaign")
	_, _ = io.WriteString(out, text.String())
}
