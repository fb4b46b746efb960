package bench

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/trueup/trueup/internal/run"
)

// The smallest step of each growth; the others are ten and a hundred times as large, as
// far as Largest allows.
const (
	backlogStep = 10_000
	tableStep   = 50_000
	tableProbe  = 10_000 // files drained onto each table
	libraryStep = 10_000
)

// series is one line of the plot: what one unit costs at each size.
type series struct {
	name   string
	points []point
}

type point struct {
	size int
	cost float64 // µs per file
}

// growth measures what a file costs as the backlog, the table and the library grow. Flat
// lines mean that nothing in the path looks at all there is.
func (s *stage) growth(ctx context.Context) error {
	var all []series
	for _, grow := range []func(context.Context) ([]series, error){s.growingBacklog, s.growingTable, s.growingLibrary} {
		lines, err := grow(ctx)
		if err != nil {
			return err
		}
		all = append(all, lines...)
	}
	if s.Plot == "" {
		return nil
	}
	if err := os.WriteFile(s.Plot, plot("Cost of one file as things grow", "files", "µs per file", all), 0o644); err != nil {
		return err
	}
	s.note("the growth is drawn in %s", s.Plot)
	return nil
}

func (s *stage) steps(smallest int) []int {
	var out []int
	for times := 1; times <= min(s.Largest, 100); times *= 10 {
		out = append(out, smallest*times)
	}
	return out
}

// growingBacklog drains backlogs of each size, each onto an empty table.
func (s *stage) growingBacklog(ctx context.Context) ([]series, error) {
	ours, bare := series{name: "backlog of so many, drained"}, series{name: "as many, bare upsert"}
	for _, n := range s.steps(backlogStep) {
		database, err := s.database(ctx)
		if err != nil {
			return nil, err
		}
		cost, floor, err := s.costs(ctx, database, n)
		if err != nil {
			return nil, err
		}
		s.add(compared(fmt.Sprintf("growth, backlog of %s, per file", thousands(int64(n))), "µs", []float64{cost}, []float64{floor}, target{}))
		ours.points, bare.points = append(ours.points, point{n, cost}), append(bare.points, point{n, floor})
	}
	return s.grown([]series{ours, bare}), nil
}

// growingTable drains the same backlog onto tables of each size.
func (s *stage) growingTable(ctx context.Context) ([]series, error) {
	ours, bare := series{name: "10,000 onto a table of so many"}, series{name: "as many, bare upsert onto it"}
	for _, n := range s.steps(tableStep) {
		database, err := s.database(ctx)
		if err != nil {
			return nil, err
		}
		s.say("  filling a table with %s rows", thousands(int64(n)))
		if err := fillTable(ctx, database, n); err != nil {
			return nil, err
		}
		cost, floor, err := s.costs(ctx, database, tableProbe)
		if err != nil {
			return nil, err
		}
		s.add(compared(fmt.Sprintf("growth, table of %s, per file", thousands(int64(n))), "µs", []float64{cost}, []float64{floor}, target{}))
		ours.points, bare.points = append(ours.points, point{n, cost}), append(bare.points, point{n, floor})
	}
	return s.grown([]series{ours, bare}), nil
}

// growingLibrary reconciles libraries of each size with tables that agree with them.
func (s *stage) growingLibrary(ctx context.Context) ([]series, error) {
	ours, bare := series{name: "library of so many, compared by a run"}, series{name: "as many, listed and thrown away"}
	for _, n := range s.steps(libraryStep) {
		cost, floor, err := s.costOfRun(ctx, n)
		if err != nil {
			return nil, err
		}
		s.add(compared(fmt.Sprintf("growth, library of %s, per file", thousands(int64(n))), "µs", []float64{cost}, []float64{floor}, target{}))
		ours.points, bare.points = append(ours.points, point{n, cost}), append(bare.points, point{n, floor})
	}
	return s.grown([]series{ours, bare}), nil
}

// costOfRun is the microseconds that a file costs in a run that finds nothing to repair
// among n, and in a bare listing.
func (s *stage) costOfRun(ctx context.Context, n int) (ours, bare float64, err error) {
	c, err := s.reconciling(ctx, n)
	if err != nil {
		return 0, 0, err
	}
	defer c.close()
	if _, err := c.run(ctx, run.Full); err != nil {
		return 0, 0, fmt.Errorf("the run that fills the table: %w", err)
	}
	if err := execute(ctx, c.database, "VACUUM ANALYZE"); err != nil {
		return 0, 0, err
	}
	if err := s.settleDown(ctx); err != nil {
		return 0, 0, err
	}
	r, err := c.run(ctx, run.Full)
	if err != nil {
		return 0, 0, err
	}
	if r.Same != int64(n) {
		return 0, 0, fmt.Errorf("%d of %d files were the same", r.Same, n)
	}
	began := time.Now()
	if err := c.library.readAll(ctx, c.folder, n); err != nil {
		return 0, 0, err
	}
	bare = time.Since(began).Seconds() * 1e6 / float64(n)
	// By its own times: a small run is over between two looks at it.
	ours = r.FinishedAt.Sub(r.StartedAt).Seconds() * 1e6 / float64(n)
	s.say("  %s: %s µs per file, bare listing %s", thousands(int64(n)), number(ours), number(bare))
	return ours, bare, nil
}

// grown adds how the largest compares with the smallest.
func (s *stage) grown(lines []series) []series {
	p := lines[0].points
	if first, last := p[0], p[len(p)-1]; first != last {
		s.add(compared(fmt.Sprintf("growth, %s: the largest against the smallest", lines[0].name), "µs", []float64{last.cost}, []float64{first.cost}, target{}))
	}
	return lines
}

// costs are the microseconds that a file costs, drained from a backlog of n and in a
// bare upsert of n.
func (s *stage) costs(ctx context.Context, database string, n int) (ours, bare float64, err error) {
	library, err := s.account(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer func() { s.check(library.close()) }()
	files, err := library.generate(ctx, warmFiles+n)
	if err != nil {
		return 0, 0, err
	}
	u, err := newUpsert(ctx, database)
	if err != nil {
		return 0, 0, err
	}
	defer u.pool.Close()
	if err := s.settleDown(ctx); err != nil {
		return 0, 0, err
	}
	s.names++
	rate, err := u.rate(ctx, n, s.Seed<<16+uint64(s.names))
	if err != nil {
		return 0, 0, err
	}
	o, err := s.backlog(ctx, database, library, files, asIngestPacks, warmFiles)
	if err != nil {
		return 0, 0, err
	}
	ours, bare = o.took.Seconds()*1e6/float64(n), 1e6/rate
	s.say("  %s: %s µs per file, bare %s", thousands(int64(n)), number(ours), number(bare))
	return ours, bare, nil
}

// fillTable makes a table that has grown: rows, states and ledger lines. Their ids are of
// now, as the lines are: clean-up looks for old lines by their ids.
func fillTable(ctx context.Context, database string, n int) error {
	const ofTime = 10 // characters of a ULID
	const id = `substr(md5('table' || i), 1, 24)`
	source := fmt.Sprintf(` FROM generate_series(1, %d) i`, n)
	return execute(ctx, database,
		`INSERT INTO trueup.file_state (file_id, seen, high, hash) SELECT `+id+`, 1, now(), 1`+source,
		`INSERT INTO public.imagekit_files (file_id, file_url, user_id, upload_timestamp, file_name, file_path, file_type, mime, size_bytes, remote_updated_at, synced_at)
			SELECT `+id+`, 'https://ik.imagekit.io/demo_id/old/' || i || '.png', '', now(), i || '.png', '/old/' || i || '.png', 'image', 'image/png', i, now(), now()`+source,
		`INSERT INTO trueup.ledger (id, file_id, source, origin, kind, verdict, outcome, end_kind)
			SELECT '`+ulid.Make().String()[:ofTime]+`'||upper(substr(md5('line' || i), 1, 16)), `+id+`, 'webhook', 'webhook', 'file.created', 'present', 'applied', 'done'`+source,
		`ANALYZE trueup.file_state`, `ANALYZE public.imagekit_files`, `ANALYZE trueup.ledger`)
}
