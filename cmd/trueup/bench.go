package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/trueup/trueup/internal/bench"
)

// benchPart is the hidden command that runs the bench's other processes.
const benchPart = "bench-part"

// benchFlags are what a run of the bench can be asked for.
type benchFlags struct {
	bench.Config
	strict bool
}

func benchCommand(p *program) *cobra.Command {
	var f benchFlags
	c := &cobra.Command{
		Use:       "bench " + strings.Join(bench.Names(), "|"),
		Short:     "Measure trueup on this machine, each figure beside its ceiling",
		ValidArgs: bench.Names(),
		Long: `Measure trueup on this machine. Everything a figure needs is started for it, in
temporary folders that are removed afterwards: PostgreSQL, the embedded queue, ImageKit's
stand-in, the server of the Neon guide (needs Node; without it that line says "not run").
Each figure stands beside its ceiling, measured turn by turn in the same run; the load comes
from a second process. Nothing of the environment's configuration is read.

growth and overload take long and are not part of all. Figures that miss their target are
shown as missed; the exit code is 1 only where something could not be measured, or with
--strict.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("say what to measure: one of %s", strings.Join(bench.Names(), ", "))
			}
			if err := bench.Check(args[0], f.Short); err != nil {
				return usagef("%w", err)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return p.bench(cmd.Context(), f, args[0]) },
	}
	c.Flags().IntVar(&f.Pairs, "pairs", 5, "how often each comparison is made")
	c.Flags().DurationVar(&f.Slice, "slice", 2*time.Second, "how long one side of a pair is measured")
	c.Flags().BoolVar(&f.Short, "short", false, "measure only what does not depend on the clock, on little data")
	c.Flags().Uint64Var(&f.Seed, "seed", 1, "of everything drawn")
	c.Flags().StringVar(&f.Dir, "data-dir", "", "where the temporary folders are made, and so the disk that is measured (default: the system's)")
	c.Flags().StringVar(&f.PostgresBin, "postgres-bin", "", "folder with PostgreSQL's server programs")
	c.Flags().BoolVar(&f.NoDownload, "no-download", false, "never fetch PostgreSQL or Node's packages")
	c.Flags().IntVar(&f.Files, "files", 1_000_000, "how many files reconcile compares")
	c.Flags().IntVar(&f.Largest, "largest", 100, "growth's largest step, as a multiple of its smallest")
	c.Flags().StringVar(&f.Plot, "plot", "", "file that growth draws its figures into, as SVG")
	c.Flags().StringVar(&f.Profiles, "profiles", "", "folder for profiles of each measure: processor, allocations, mutex, block")
	c.Flags().BoolVar(&f.strict, "strict", false, "exit 1 when a figure misses its target")
	return c
}

func (p *program) bench(ctx context.Context, f benchFlags, name string) error {
	if f.Pairs < 1 || f.Slice < 100*time.Millisecond || f.Largest < 1 || f.Files < 1000 {
		return usagef("--pairs and --largest are at least 1, --slice at least 100ms, --files at least 1000")
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program's own file: %w", err)
	}
	f.Self, f.PartCommand, f.Version, f.Progress = self, benchPart, thisBuild().Version, p.stderr
	report, err := bench.Run(ctx, f.Config, name)
	if report == nil {
		return err
	}
	if said := p.result(report, func() error { return report.Print(p.stdout) }); said != nil {
		return errors.Join(err, said)
	}
	if err := errors.Join(err, report.Failed()); err != nil {
		return err
	}
	if n := report.Unmet(); n > 0 && f.strict {
		return fmt.Errorf("%d of %d figures miss their target", n, len(report.Figures))
	}
	return nil
}

// benchPartCommand is for the bench alone.
func benchPartCommand(p *program) *cobra.Command {
	return &cobra.Command{
		Use: benchPart, Hidden: true, Args: cobra.ExactArgs(1), DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return bench.Part(cmd.Context(), args[0], p.stdin, p.stdout)
		},
	}
}
