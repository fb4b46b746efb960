package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/trueup/trueup/internal/queue"
)

// idleFor is how long a service is left alone before it is judged, and while its
// processor time is counted.
const idleFor = 10 * time.Second

// idle measures serve as a process of its own: its start, and what it costs while
// nobody uses it. The ceilings are the same binary doing next to nothing: saying its
// version, and holding an idle embedded queue.
func (s *stage) idle(ctx context.Context) error {
	library, err := s.account(ctx)
	if err != nil {
		return err
	}
	defer func() { s.check(library.close()) }()
	database, err := s.database(ctx)
	if err != nil {
		return err
	}
	dir, err := s.folder("serve")
	if err != nil {
		return err
	}
	p, cold, err := s.serve(ctx, database, library, dir)
	if err != nil {
		return err
	}
	if err := p.stop(); err != nil {
		return err
	}
	got, err := s.rounds(ctx,
		contender{"serve, warm start, s", func(ctx context.Context, _ int) (sample, error) {
			p, took, err := s.serve(ctx, database, library, dir)
			if err != nil {
				return sample{}, err
			}
			return sample{value: took.Seconds()}, p.stop()
		}},
		contender{"version, s", func(ctx context.Context, _ int) (sample, error) {
			began := time.Now()
			p, err := s.start(ctx, nil, s.Self, "version")
			if err != nil {
				return sample{}, err
			}
			err = p.end()
			return sample{value: time.Since(began).Seconds()}, err
		}})
	if err != nil {
		return err
	}
	s.add(compared("serve, warm start to ready", "s", got.values(0), got.values(1), valueAtMost(1)))
	s.add(alone("serve, cold start to ready", "s", []float64{cold.Seconds()}, target{}))
	if err := s.atRest(ctx, database, library, dir); err != nil {
		return err
	}
	info, err := os.Stat(s.Self)
	if err != nil {
		return err
	}
	s.add(alone("binary", "MB", []float64{megabytes(info.Size())}, target{}))
	return nil
}

// served is a serve that runs as a process.
type served struct {
	*process
	public, ops string
}

// stop ends it as an operator would.
func (p *served) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return p.end()
}

// serve starts a serve and returns when it is ready.
func (s *stage) serve(ctx context.Context, database string, library *account, dir string) (*served, time.Duration, error) {
	env := s.environment(database, library.url, dir)
	for _, name := range []string{"TRUEUP_ADDR", "TRUEUP_OPS_ADDR"} {
		var err error
		if env[name], err = freeAddress(ctx); err != nil {
			return nil, 0, err
		}
	}
	began := time.Now()
	p, err := s.start(ctx, env, s.Self, "serve")
	if err != nil {
		return nil, 0, err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	for {
		if ready(ctx, client, env["TRUEUP_ADDR"]) {
			return &served{p, env["TRUEUP_ADDR"], env["TRUEUP_OPS_ADDR"]}, time.Since(began), nil
		}
		if time.Since(began) > time.Minute || ctx.Err() != nil {
			return nil, 0, errors.Join(errors.New("serve is not ready after a minute"), p.cmd.Process.Kill(), p.end())
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return nil, 0, errors.Join(err, p.cmd.Process.Kill(), p.end())
		}
	}
}

func ready(ctx context.Context, client *http.Client, address string) bool {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/readyz", nil)
	if err != nil {
		return false
	}
	answer, err := client.Do(r)
	if err != nil {
		return false
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, answer.Body)
	return answer.StatusCode == http.StatusOK
}

func freeAddress(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// atRest measures memory, processor and queries of a serve that nobody uses, beside an
// idle queue.
func (s *stage) atRest(ctx context.Context, database string, library *account, dir string) error {
	p, _, err := s.serve(ctx, database, library, dir)
	if err != nil {
		return err
	}
	defer func() { s.check(p.stop()) }()
	floor, err := s.start(ctx, nil, s.Self, s.PartCommand, partQueue)
	if err != nil {
		return err
	}
	defer func() { s.check(floor.end()) }()
	bare, err := s.folder("idle-queue")
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(floor.stdin, bare); err != nil {
		return err
	}
	if _, err := floor.stdout.ReadString('\n'); err != nil {
		return err
	}
	if err := s.vacuum(ctx, false); err != nil {
		return err
	}
	defer func() { s.check(s.vacuum(ctx, true)) }()
	if err := pause(ctx, idleFor); err != nil {
		return err
	}
	return s.restFigures(ctx, database, p.cmd.Process.Pid, floor.cmd.Process.Pid)
}

func (s *stage) restFigures(ctx context.Context, database string, serve, floor int) error {
	queriesBefore, err := s.queries(ctx, database)
	if err != nil {
		return err
	}
	var memory, floorMemory []float64
	before, err := cpuSeconds(serve)
	if err != nil {
		return absentf("what a process uses cannot be read here: %v", err)
	}
	began := time.Now()
	for range s.Pairs {
		if err := pause(ctx, idleFor/time.Duration(s.Pairs)); err != nil {
			return err
		}
		a, errA := residentMB(serve)
		b, errB := residentMB(floor)
		if err := errors.Join(errA, errB); err != nil {
			return err
		}
		memory, floorMemory = append(memory, a), append(floorMemory, b)
	}
	after, err := cpuSeconds(serve)
	if err != nil {
		return err
	}
	took := time.Since(began)
	queriesAfter, err := s.queries(ctx, database)
	if err != nil {
		return err
	}
	s.add(compared("serve, idle, resident memory", "MB", memory, floorMemory, valueAtMost(60)))
	s.add(alone("serve, idle, processor", "% of one", []float64{100 * (after - before) / took.Seconds()}, target{}))
	s.add(alone(fmt.Sprintf("queries that reached the idle database in %.0f s", took.Seconds()), "queries", []float64{float64(queriesAfter - queriesBefore)}, valueAtMost(0)))
	return nil
}

// vacuum switches the server's own housekeeping on or off: its transactions stand in
// the same books as those of clients.
func (s *stage) vacuum(ctx context.Context, on bool) error {
	return execute(ctx, s.pg.URL("postgres"), fmt.Sprintf("ALTER SYSTEM SET autovacuum = %t", on), "SELECT pg_reload_conf()")
}

// queries counts, by the server's own books, the sessions and transactions of the
// database. It is asked from another one, so the question is not among them.
func (s *stage) queries(ctx context.Context, database string) (n int64, err error) {
	name := database[strings.LastIndex(database, "/")+1:]
	name, _, _ = strings.Cut(name, "?")
	// Each backend tells its counts at the latest when a second has passed.
	if err := pause(ctx, 1100*time.Millisecond); err != nil {
		return 0, err
	}
	return n, ask(ctx, s.pg.URL("postgres"), `SELECT xact_commit + xact_rollback + sessions FROM pg_stat_database WHERE datname = '`+name+`'`, &n)
}

// serveQueue is the floor of an idle service: it reads a folder, holds an embedded
// queue there and does nothing.
func serveQueue(ctx context.Context, in io.Reader, out io.Writer) error {
	reader := bufio.NewReader(in)
	dir, err := reader.ReadString('\n')
	if err != nil {
		return err
	}
	q, err := queue.Open(ctx, queue.Config{Dir: strings.TrimSpace(dir)})
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(out, "open"); err != nil {
		return errors.Join(err, q.Close())
	}
	ctx, cancel := untilClosed(ctx, reader)
	defer cancel()
	<-ctx.Done()
	return q.Close()
}

func megabytes(n int64) float64 { return float64(n) / (1 << 20) }

func residentMB(pid int) (float64, error) {
	text := strings.TrimSuffix(field(fmt.Sprintf("/proc/%d/status", pid), "VmRSS"), " kB")
	kb, err := strconv.ParseInt(text, 10, 64)
	return megabytes(kb << 10), err
}

// cpuSeconds is the processor time a process has used, on systems with /proc and the
// usual hundred ticks a second.
func cpuSeconds(pid int) (float64, error) {
	f, err := statFields(pid)
	if err != nil {
		return 0, err
	}
	return ticks(f[11], f[12]), nil
}

// cpuSecondsOfFamily is that of a process, of its children, and of those of its
// children that have ended.
func cpuSecondsOfFamily(pid int) (float64, error) {
	f, err := statFields(pid)
	if err != nil {
		return 0, err
	}
	sum := ticks(f[11], f[12], f[13], f[14])
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		// One that has ended meanwhile is among its parent's.
		if f, err := statFields(child); err == nil && f[1] == strconv.Itoa(pid) {
			sum += ticks(f[11], f[12])
		}
	}
	return sum, nil
}

// statFields are the fields of /proc/<pid>/stat after the process's name, which may
// hold spaces.
func statFields(pid int) ([]string, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	_, rest, _ := strings.Cut(string(raw), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 15 {
		return nil, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	return fields, nil
}

func ticks(fields ...string) (seconds float64) {
	for _, f := range fields {
		n, _ := strconv.ParseFloat(f, 64) // the kernel writes numbers
		seconds += n / 100
	}
	return seconds
}
