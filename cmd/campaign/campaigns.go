package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
)

// campaign is one way of trying.
type campaign struct {
	name, says string
	pkg, test  string
	// args are arguments of this campaign only.
	args func(o options) []string
	// byLane: one process is one lane, with a share of the seeds; otherwise the test
	// itself runs several at once, as -lanes says.
	byLane bool
	// fuzz are the targets of a campaign of fuzzing.
	fuzz []target
}

type target struct{ pkg, name string }

var campaigns = []campaign{
	{name: "simulate", says: "-n simulated schedules in virtual time, each by its seed", pkg: "./internal/simulate", test: "TestCampaign", byLane: true},
	{name: "processes", says: "-n schedules of at least five faults against real processes", pkg: "./internal/campaign", test: "TestProcesses"},
	{name: "power", says: "-n power cuts under the stores (Linux, root, loop devices), with the control that must lose", pkg: "./internal/campaign", test: "TestPowerCut"},
	{name: "million", says: "-n events: duplicated, shuffled, poisoned, with failing answers and kills", pkg: "./internal/campaign", test: "TestMillion"},
	{name: "soak", says: "-duration of steady load with a fault every 30 s; what grows is found", pkg: "./internal/campaign", test: "TestSoak"},
	{name: "planted", says: "every planted bug must be noticed", pkg: "./internal/planted", test: "TestEveryBugIsCaught", args: func(options) []string { return []string{"-all"} }},
	{name: "fuzz", says: "-n executions of each parser that meets what strangers send", fuzz: []target{
		{"./ingest/signature", "FuzzVerify"}, {"./ingest/hint", "FuzzNotice"}, {"./internal/queue/envelope", "FuzzDecode"}, {"./internal/imagekit/answer", "FuzzDetails"},
		{"./ingest", "FuzzReports"}, {"./internal/imagekit", "FuzzMany"}, {"./internal/emulator", "FuzzParseQuery"}, {"./internal/ticket", "FuzzOpen"},
		{"./ingest/caller", "FuzzClaims"}, {"./ingest/grant", "FuzzV2"}, {"./internal/config", "FuzzLoad"},
	}},
}

func (c campaign) start(ctx context.Context, o options, out io.Writer) error {
	began := time.Now()
	var err error
	switch {
	case c.fuzz != nil:
		err = c.fuzzAll(ctx, o, out)
	case c.byLane:
		err = c.inLanes(ctx, o, out)
	default:
		err = c.whole(ctx, o, out)
	}
	if err != nil {
		return fmt.Errorf("%s FAILED after %s: %w", c.name, time.Since(began).Round(time.Second), err)
	}
	_, err = fmt.Fprintf(out, "%s passed in %s\n", c.name, time.Since(began).Round(time.Second))
	return err
}

// command is a go command, or a test binary, in the module's root, whose output is ours.
func command(ctx context.Context, out io.Writer, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	// A test that is told to stop clears up what it has started.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	return cmd
}

// common are the flags that every campaign's test knows.
func common(o options, record string) []string {
	args := []string{"-seed", strconv.FormatUint(o.seed, 10), "-record", record}
	if o.n > 0 {
		args = append(args, "-n", strconv.Itoa(o.n))
	}
	if o.duration > 0 {
		args = append(args, "-duration", o.duration.String())
	}
	return args
}

// whole runs the test once; it is its own matter how many rounds go on at once.
func (c campaign) whole(ctx context.Context, o options, out io.Writer) error {
	record, err := filepath.Abs(o.record)
	if err != nil {
		return err
	}
	before := lines(record)
	args := []string{"test", "-count=1", "-timeout=0", "-v", "-run", "^" + c.test + "$", c.pkg, "-args", "-record", record}
	if c.name != "planted" {
		args = append(args, common(o, record)...)
	}
	if c.name == "processes" {
		args = append(args, "-lanes", strconv.Itoa(o.lanes))
	}
	if c.args != nil {
		args = append(args, c.args(o)...)
	}
	if err := command(ctx, out, "go", append(args, o.extra...)...).Run(); err != nil {
		return err
	}
	if lines(record) == before {
		return errors.New("the test passed and recorded nothing: it did not run")
	}
	return nil
}

// inLanes runs one process per lane, each with its share of the seeds, and joins their
// records.
func (c campaign) inLanes(ctx context.Context, o options, out io.Writer) error {
	dir, err := os.MkdirTemp("", "campaign-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary := filepath.Join(dir, "lane.test")
	if err := command(ctx, out, "go", "test", "-c", "-o", binary, c.pkg).Run(); err != nil {
		return err
	}
	if o.n == 0 {
		o.n = 1000
	}
	records := make([]string, o.lanes)
	var failed error
	var g errgroup.Group
	for i, share := range shares(o, o.lanes) {
		records[i] = filepath.Join(dir, fmt.Sprintf("lane%d.jsonl", i))
		g.Go(func() error {
			args := append([]string{"-test.run", "^" + c.test + "$", "-test.v", "-test.timeout=0"}, common(share, records[i])...)
			cmd := command(ctx, out, binary, append(args, o.extra...)...)
			cmd.Dir = c.pkg
			// A schedule is short and leaves much behind: with the default a quarter of the
			// time went into collecting it.
			cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "GOGC=800")
			return cmd.Run()
		})
	}
	failed = g.Wait()
	joined, err := join(records)
	if err != nil {
		return errors.Join(failed, err)
	}
	joined.Seed = o.seed
	return errors.Join(failed, joined.append(o.record))
}

// shares parts n rounds from one seed on among lanes.
func shares(o options, lanes int) []options {
	out := make([]options, lanes)
	at := o.seed
	for i := range out {
		share := o
		share.seed, share.n = at, o.n/lanes
		if i < o.n%lanes {
			share.n++
		}
		at += uint64(share.n) //nolint:gosec // a share is never negative
		out[i] = share
	}
	return out
}
