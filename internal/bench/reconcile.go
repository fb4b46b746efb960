package bench

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/trueup/trueup/internal/operator"
	"github.com/trueup/trueup/internal/run"
)

// reconcileFiles is the library that runs compare; the short form's is just large
// enough that a run's few fixed calls do not decide.
const (
	reconcileFiles = 1_000_000
	reconcileShort = 100_000
)

// runWithin bounds one run.
const runWithin = 30 * time.Minute

// reconcile measures runs that find nothing to repair over a large library: how often
// ImageKit is asked, how long our own part takes, what it writes and what it holds.
func (s *stage) reconcile(ctx context.Context) error {
	// A plan asks for the same pages as a run and writes less.
	n, kind := reconcileShort, run.Plan
	if !s.Short {
		n, kind = cmp.Or(s.Files, reconcileFiles), run.Full
	}
	c, err := s.reconciling(ctx, n)
	if err != nil {
		return err
	}
	defer c.close()
	first, err := c.run(ctx, kind)
	if err != nil {
		return fmt.Errorf("the first run: %w", err)
	}
	s.say("  first run, %s rows missing: %d calls, %.1f s", thousands(int64(n)), first.calls, first.whole.Seconds())
	s.add(alone("ImageKit calls per verified file, reconciliation", "calls", []float64{float64(first.calls) / float64(n)}, valueAtMost(0.0011)))
	if s.Short {
		return nil
	}
	s.add(alone(fmt.Sprintf("first run, %s rows missing", thousands(int64(n))), "s", []float64{first.whole.Seconds()}, target{}))
	return c.unchanged(ctx)
}

// comparison is a serve with a large library, and a table to be made equal to it.
type comparison struct {
	*stage
	n        int
	folder   string
	library  *account
	database string
	serve    *served
	client   *operator.Client
}

func (s *stage) reconciling(ctx context.Context, n int) (*comparison, error) {
	library, err := s.account(ctx)
	if err != nil {
		return nil, err
	}
	c := &comparison{stage: s, n: n, library: library}
	if c.folder, err = library.fill(ctx, n); err != nil {
		return nil, err
	}
	if c.database, err = s.database(ctx); err != nil {
		return nil, err
	}
	dir, err := s.folder("serve")
	if err != nil {
		return nil, err
	}
	if c.serve, _, err = s.serve(ctx, c.database, library, dir); err != nil {
		return nil, err
	}
	c.client, err = operator.NewClient(operator.ClientConfig{URL: "http://" + c.serve.ops, Token: benchOperator})
	return c, err
}

func (c *comparison) close() {
	c.check(c.serve.stop())
	c.check(c.library.close())
}

// unchanged measures runs that have nothing to do, against a client that reads the same
// pages and throws them away.
func (c *comparison) unchanged(ctx context.Context) error {
	if err := execute(ctx, c.database, "VACUUM ANALYZE"); err != nil {
		return err
	}
	var after, wal, heap []float64
	got, err := c.rounds(ctx,
		contender{"run that finds nothing, s", func(ctx context.Context, round int) (sample, error) {
			if err := c.settleDown(ctx); err != nil {
				return sample{}, err
			}
			r, err := c.run(ctx, run.Full)
			if err == nil && r.Same != int64(c.n) {
				err = fmt.Errorf("%d of %d files were the same", r.Same, c.n)
			}
			if err == nil && round > 0 {
				after, wal, heap = append(after, r.afterListing.Seconds()), append(wal, float64(r.wal)/float64(c.n)), append(heap, r.heap)
			}
			return sample{value: r.whole.Seconds()}, err
		}},
		contender{"bare listing, s", func(ctx context.Context, _ int) (sample, error) {
			began := time.Now()
			err := c.library.readAll(ctx, c.folder, c.n)
			return sample{value: time.Since(began).Seconds()}, err
		}})
	if err != nil {
		return err
	}
	size, within, written := thousands(int64(c.n)), target{}, target{}
	if c.n >= reconcileFiles { // the contract's are for so many; the run's own row is written anyway
		within, written = valueAtMost(6), valueAtMost(1)
	}
	s := c.stage
	s.add(compared("reconcile "+size+" files, whole run, against a bare listing", "s", got.values(0), got.values(1), target{}))
	s.add(alone("reconcile "+size+" files, after the listing: sort, merge, judge", "s", after, within))
	s.add(alone("reconcile "+size+" files, WAL per file when nothing differs", "bytes", wal, written))
	s.add(alone("reconcile "+size+" files, most heap in use", "MB", heap, valueAtMost(64)))
	s.note("reconcile: the time without ImageKit's is the time after the last page; pages are decoded and hashed while the next one comes, and the bare listing decodes none")
	return nil
}

// ran is one run and what it cost.
type ran struct {
	run.Run
	whole, afterListing time.Duration
	calls, wal          int64
	heap                float64 // MB, the most that was seen
}

// run makes one run and follows it to its end.
func (c *comparison) run(ctx context.Context, kind run.Kind) (ran, error) {
	calls, err := c.library.calls(ctx)
	if err != nil {
		return ran{}, err
	}
	wal, err := c.walPosition(ctx)
	if err != nil {
		return ran{}, err
	}
	began := time.Now()
	started, err := c.client.StartRun(ctx, kind, "bench")
	if err != nil {
		return ran{}, err
	}
	out, err := c.follow(ctx, started.ID, began)
	if err != nil {
		return out, err
	}
	callsNow, errCalls := c.library.calls(ctx)
	walNow, errWAL := c.walPosition(ctx)
	out.calls, out.wal = callsNow-calls, walNow-wal
	if out.State != run.Complete && out.State != run.Planned {
		return out, fmt.Errorf("the run ended %s: %s %s", out.State, out.Error, out.Fuse)
	}
	return out, errors.Join(errCalls, errWAL)
}

// follow looks at the run ten times a second.
func (c *comparison) follow(ctx context.Context, id string, began time.Time) (out ran, err error) {
	listed := time.Time{}
	for time.Since(began) < runWithin {
		if out.Run, err = c.client.Run(ctx, id); err != nil {
			return out, err
		}
		now := time.Now()
		if listed.IsZero() && out.Phase != run.PhaseAccount && out.Phase != run.PhaseList && out.Phase != "" {
			listed = now
		}
		if !out.State.Open() {
			out.whole, out.afterListing = now.Sub(began), now.Sub(listed)
			return out, nil
		}
		if mb, err := c.heap(ctx); err == nil {
			out.heap = max(out.heap, mb)
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return out, err
		}
	}
	return out, fmt.Errorf("the run is %s %s after %s", out.State, out.Phase, runWithin)
}

func (c *comparison) walPosition(ctx context.Context) (n int64, err error) {
	return n, ask(ctx, c.database, `SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint`, &n)
}

// heap is what the process itself says of its heap, in MB.
func (c *comparison) heap(ctx context.Context) (float64, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.serve.ops+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	answer, err := c.library.client.Do(r)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), "go_memstats_heap_inuse_bytes "); ok {
			n, err := strconv.ParseFloat(value, 64)
			return n / (1 << 20), err
		}
	}
	return 0, errors.New("/metrics does not tell of the heap")
}

// readAll reads every page of a folder's listing, oldest first, as a run asks for them.
func (a *account) readAll(ctx context.Context, folder string, n int) error {
	from, seen := time.Time{}, 0
	for seen < n {
		page, last, err := a.page(ctx, createdFrom(from))
		if err != nil {
			return err
		}
		if page == 0 || !last.After(from) {
			return fmt.Errorf("the listing ends after %d of %d files", seen, n)
		}
		// The next window begins where this one ended, so a few files come twice.
		seen, from = seen+page, last.Truncate(time.Second)
		if page < 1000 {
			return nil
		}
	}
	return nil
}

// page asks for one page and returns how many files it has and when the last one was
// made, reading no more of it than that takes.
func (a *account) page(ctx context.Context, query string) (files int, last time.Time, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url+"/v1/files?limit=1000&sort=ASC_CREATED&searchQuery="+url.QueryEscape(query), nil)
	if err != nil {
		return 0, last, err
	}
	r.SetBasicAuth(benchPrivate, "")
	answer, err := a.client.Do(r)
	if err != nil {
		return 0, last, err
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, last, err
	}
	if answer.StatusCode != http.StatusOK {
		return 0, last, fmt.Errorf("list: %s: %.200s", answer.Status, raw)
	}
	text := string(raw)
	const name = `"createdAt":"`
	at := strings.LastIndex(text, name)
	if at < 0 {
		return 0, last, nil
	}
	value, _, _ := strings.Cut(text[at+len(name):], `"`)
	last, err = time.Parse(time.RFC3339Nano, value)
	return strings.Count(text, `"fileId":"`), last, err
}
