package bench

import (
	"context"
	"fmt"
	"os"
)

// drainFiles is the backlog of one slice.
const drainFiles = 20_000

// asIngestPacks is how many events an envelope holds when many requests come at once.
const asIngestPacks = 32

// drain measures a backlog's way to rows against the bare upsert of as many files.
func (s *stage) drain(ctx context.Context) error {
	library, err := s.account(ctx)
	if err != nil {
		return err
	}
	defer func() { s.check(library.close()) }()
	database, err := s.database(ctx)
	if err != nil {
		return err
	}
	bare, err := newUpsert(ctx, database)
	if err != nil {
		return err
	}
	defer bare.pool.Close()
	var ours, theirs used
	got, err := s.rounds(ctx,
		contender{"backlog to rows", func(ctx context.Context, round int) (sample, error) {
			files, err := library.generate(ctx, warmFiles+drainFiles)
			if err != nil {
				return sample{}, err
			}
			o, err := s.backlog(ctx, database, library, files, asIngestPacks, warmFiles)
			if round > 0 {
				ours = ours.plus(o.used)
			}
			return sample{value: drainFiles / o.took.Seconds()}, err
		}},
		contender{"bare batched upsert", func(ctx context.Context, round int) (sample, error) {
			if err := s.settleDown(ctx); err != nil {
				return sample{}, err
			}
			before := s.processorTimes(library)
			rate, err := bare.rate(ctx, drainFiles, s.Seed<<16+uint64(round))
			if round > 0 {
				theirs = theirs.plus(s.processorTimes(library).less(before))
			}
			return sample{value: rate}, err
		}})
	if err != nil {
		return err
	}
	s.add(compared("events drained to rows, against the bare batched upsert", "files/s", got.values(0), got.values(1), ratioAtLeast(0.6)))
	n := s.Pairs * drainFiles
	s.note("the first %d files of each backlog are not counted: the budget of calls begins at 20 a second and doubles each second where ImageKit names no limit", warmFiles)
	s.note("processor time per file drained: %s; of the bare upsert: %s", ours.each(n+s.Pairs*warmFiles), theirs.each(n))
	s.note("the bare upsert writes row, state and ledger line, %d files a transaction over %d connections; ImageKit's stand-in runs on the same processors", upsertBatch, upsertWriters)
	return nil
}

// used is the processor time, in seconds, of the parts of a figure. Unlike the clock's
// it hardly depends on what else the machine does.
type used struct{ trueup, library, postgres float64 }

// processorTimes are those so far; zero where they cannot be read. PostgreSQL's are
// complete when its connections are either all closed or all still there.
func (s *stage) processorTimes(library *account) (u used) {
	u.trueup, _ = cpuSeconds(os.Getpid())
	if library.part != nil {
		u.library, _ = cpuSeconds(library.part.cmd.Process.Pid)
	}
	u.postgres, _ = cpuSecondsOfFamily(s.pg.PID())
	return u
}

func (u used) less(o used) used {
	return used{u.trueup - o.trueup, u.library - o.library, u.postgres - o.postgres}
}

func (u used) plus(o used) used {
	return used{u.trueup + o.trueup, u.library + o.library, u.postgres + o.postgres}
}

// each is the same per file, in words.
func (u used) each(files int) string {
	if u == (used{}) {
		return "not known here"
	}
	per := func(seconds float64) string { return number(1e6*seconds/float64(files)) + " µs" }
	return fmt.Sprintf("this process %s, ImageKit's stand-in %s, PostgreSQL %s", per(u.trueup), per(u.library), per(u.postgres))
}
