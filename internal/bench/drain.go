package bench

import (
	"context"
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
	got, err := s.rounds(ctx,
		contender{"backlog to rows", func(ctx context.Context, _ int) (sample, error) {
			files, err := library.generate(ctx, drainFiles)
			if err != nil {
				return sample{}, err
			}
			o, err := s.backlog(ctx, database, library, files, asIngestPacks)
			return sample{value: drainFiles / o.took.Seconds()}, err
		}},
		contender{"bare batched upsert", func(ctx context.Context, round int) (sample, error) {
			if err := s.settleDown(ctx); err != nil {
				return sample{}, err
			}
			rate, err := bare.rate(ctx, drainFiles, s.Seed<<16+uint64(round))
			return sample{value: rate}, err
		}})
	if err != nil {
		return err
	}
	s.add(compared("events drained to rows, against the bare batched upsert", "files/s", got.values(0), got.values(1), ratioAtLeast(0.6)))
	s.note("the bare upsert writes row, state and ledger line, %d files a transaction over %d connections; ImageKit's stand-in runs on the same processors", upsertBatch, upsertWriters)
	return nil
}
