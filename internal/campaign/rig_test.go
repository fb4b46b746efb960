package campaign

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/trueup/trueup/internal/check"
	"github.com/trueup/trueup/internal/check/collect"
	"github.com/trueup/trueup/internal/testenv"
)

// Options say what an installation consists of.
type Options struct {
	Ingests int // zero: 2
	Workers int // zero: 2; one is active, the others stand by
	Nodes   int // nats-servers: 1 or 3; zero: 1
	// PgBouncer puts a pooler in transaction mode before PostgreSQL.
	PgBouncer bool
	// Links puts Toxiproxy between all parts. Without it they are connected directly.
	Links bool
	// Env goes into the environment of every trueup process.
	Env map[string]string
	// Tags of the build; planted: a worker that misbehaves on request.
	Tags []string
	// Settings of the emulator, on top of the rig's own.
	Settings map[string]any
}

// rig is one installation of trueup with its roles apart, each part a process of its
// own, and everything that a campaign does to it and learns from it. What it learns
// comes from the outside: answers, the emulator, SQL, the stream.
type rig struct {
	t    testing.TB
	dir  string
	opts Options
	env  map[string]string // what all trueup processes share
	keys keys

	units    map[string]unit // nats1…, postgres, pgbouncer, emulator, ingest1…, worker1…
	order    []string        // of starting
	links    map[string]*link
	pg       *database
	direct   string   // the library's own address, around every link
	nodes    []string // host:port of each nats-server, around every link
	public   []string // of each ingest
	ops      []string // operator API of each worker
	poolPort int      // of PgBouncer

	db      *pgxpool.Pool // as the superuser, around every link
	clients []*client     // one a way to an ingest
	hooks   *relay        // webhooks pass here on their way

	mu    sync.Mutex // guards the log of what was done and answered
	acks  []check.Ack
	hands []check.Hand
	lies  []check.Lie
	cells map[string]int64

	seen  *collect.ImageKit // what ImageKit has logged so far
	watch *check.Watch
}

// keys are the secrets of the installation, good for nothing else.
type keys struct {
	public, private, webhook, jwt, issuer, audience, ops, seal string
}

// start brings up an installation and returns when all of it works. It ends with the
// test.
func start(t testing.TB, o Options) *rig {
	t.Helper()
	o.Ingests, o.Workers, o.Nodes = max(o.Ingests, 1+b2i(o.Ingests == 0)), max(o.Workers, 1+b2i(o.Workers == 0)), max(o.Nodes, 1)
	// The folder comes first: it is removed when all processes that work in it have ended.
	r := &rig{t: t, dir: testenv.Dir(t), opts: o, units: map[string]unit{}, links: map[string]*link{}, cells: map[string]int64{}}
	t.Cleanup(r.close)
	if err := r.begin(); err != nil {
		t.Fatalf("campaign: start the installation: %v\n%s", err, r.lastWords())
	}
	return r
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (r *rig) begin() error {
	r.keys = keys{public: "public_campaign", private: "private_campaign0123456789abcdef", webhook: "whsec_Y2FtcGFpZ24tY2FtcGFpZ24tY2FtcGFpZ24=",
		jwt: strings.Repeat("campaign-secret-", 3), issuer: "campaign", audience: "trueup", ops: "campaign-operator-token",
		seal: strings.Repeat("campaign-seal-", 3)}
	for _, step := range []func() error{r.addNATS, r.addPostgres, r.addEmulator, r.describe, r.migrate, r.addPgBouncer, r.addRoles} {
		if err := step(); err != nil {
			return err
		}
	}
	return r.awaitReady(2 * time.Minute)
}

// describe writes down the environment that all roles share.
func (r *rig) describe() error {
	imagekit, err := r.way("worker-imagekit", strings.TrimPrefix(r.direct, "http://"))
	if err != nil {
		return err
	}
	r.env = map[string]string{
		"TRUEUP_STREAM_PREFIX": streamPrefix, "TRUEUP_LOG_FORMAT": "json",
		"IMAGEKIT_PUBLIC_KEY": r.keys.public, "IMAGEKIT_PRIVATE_KEY": r.keys.private, "IMAGEKIT_WEBHOOK_SECRET": r.keys.webhook,
		"IMAGE_KIT_BASE_URL": "http://" + imagekit, "IMAGEKIT_URL_ENDPOINT": r.direct + "/demo_id",
		"TRUEUP_JWT_SECRET": r.keys.jwt, "TRUEUP_JWT_ISSUER": r.keys.issuer, "TRUEUP_JWT_AUDIENCE": r.keys.audience,
		"TRUEUP_KEYS": r.keys.seal, "TRUEUP_ACCOUNT": "demo_id", "TRUEUP_OPS_TOKEN": r.keys.ops, "TRUEUP_RATE_PER_USER": "0", "TRUEUP_BAD_SIGNATURES_PER_MINUTE": "0",
		// Days in seconds.
		"TRUEUP_NOT_FOUND_GRACE": "3s", "TRUEUP_ABSENT_CONFIRM": "1s", "TRUEUP_RECONCILE_EVERY": "6s", "TRUEUP_POLL_EVERY": "2s",
		"TRUEUP_API_TIMEOUT": "1s", "TRUEUP_API_PATIENCE": "1500ms", "TRUEUP_DRAIN": "5s",
	}
	maps.Copy(r.env, r.opts.Env)
	return nil
}

// folder is a new one of the installation's. PostgreSQL's user has to come through.
func (r *rig) folder(name string) (string, error) {
	dir := filepath.Join(r.dir, name)
	return dir, errors.Join(os.Mkdir(dir, 0o755), os.Chmod(dir, 0o755))
}

// way is the address by which a part reaches target: through a link where there are
// links, else target itself.
func (r *rig) way(name, target string) (addr string, err error) {
	if !r.opts.Links {
		return target, nil
	}
	port, err := freePort()
	if err != nil {
		return "", err
	}
	l, err := newLink(name, port, target)
	if err != nil {
		return "", err
	}
	r.links[name] = l
	return l.addr, nil
}

// add puts a unit under the rig's care and starts it.
func (r *rig) add(name string, u unit) error {
	r.units[name] = u
	r.order = append(r.order, name)
	if err := u.start(); err != nil {
		return err
	}
	return nil
}

// trueup adds a process of the real binary.
func (r *rig) trueup(name, role string, env map[string]string, probe func(context.Context) error) error {
	p := &program{name: name, path: testenv.Trueup(r.t, r.opts.Tags...), args: []string{role}, probe: probe}
	all := maps.Clone(r.env)
	maps.Copy(all, env)
	p.env = environment(all)
	return r.add(name, p)
}

func environment(vars map[string]string) []string {
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "TMPDIR=" + os.TempDir()}
	for _, k := range slices.Sorted(maps.Keys(vars)) {
		env = append(env, k+"="+vars[k])
	}
	return env
}

// answers probes an address for 200.
func answers(u string) func(context.Context) error {
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
		if err != nil {
			return err
		}
		resp, err := probes.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("GET %s: %s", u, resp.Status)
		}
		return nil
	}
}

// probes keeps no connection: the other end is killed at any moment.
var probes = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}

// awaitReady waits until every part does its work.
func (r *rig) awaitReady(within time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	for _, name := range r.order {
		if err := until(ctx, func() error { return r.units[name].ready(ctx) }); err != nil {
			return fmt.Errorf("%s is not ready: %w", name, err)
		}
	}
	return nil
}

// until asks again and again, until ctx is done.
func until(ctx context.Context, cond func() error) error {
	var why error
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 250*time.Millisecond) {
		err := cond()
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || why == nil { // that the time is over is no reason
			why = err
		}
		again := time.NewTimer(wait)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return why
		}
	}
}

// Kill9 kills a part: nats1…, postgres, pgbouncer, ingest1…, worker1….
func (r *rig) Kill9(name string) error { return r.unit(name, unit.kill9) }

// Freeze stops a part where it stands (SIGSTOP).
func (r *rig) Freeze(name string) error { return r.unit(name, unit.freeze) }

// Thaw lets it go on (SIGCONT).
func (r *rig) Thaw(name string) error { return r.unit(name, unit.thaw) }

// Restart starts a part that was killed; it does not wait until it works.
func (r *rig) Restart(name string) error { return r.unit(name, unit.start) }

func (r *rig) unit(name string, do func(unit) error) error {
	u, ok := r.units[name]
	if !ok {
		return fmt.Errorf("there is no part %q", name)
	}
	return do(u)
}

// Toxic puts a toxic on a link and returns what takes it away again. A link has one
// toxic at a time: the later one.
func (r *rig) Toxic(name string, x toxic) (undo func() error, err error) {
	l, ok := r.links[name]
	if !ok {
		return nil, fmt.Errorf("there is no link %q", name)
	}
	return l.add(x)
}

// Heal thaws, restarts and reconnects everything, and takes the emulator's faults
// away. It returns when all parts work.
func (r *rig) Heal(within time.Duration) error {
	var errs []error
	for _, name := range r.order {
		errs = append(errs, r.Thaw(name))
	}
	for _, name := range slices.Sorted(maps.Keys(r.links)) {
		errs = append(errs, r.links[name].heal())
	}
	for _, name := range r.order {
		errs = append(errs, r.Restart(name))
	}
	errs = append(errs, r.healFaults())
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return r.awaitReady(within)
}

// Fell says which of trueup's processes ended although nobody ended them. Others may: the
// PgBouncer 1.18 that distributions have ends with "bad client state" where a client
// leaves in the middle of a cancel request. For trueup that is one more fault.
func (r *rig) Fell() error {
	var errs []error
	for _, name := range r.order {
		err := r.units[name].fell()
		if ours := strings.HasPrefix(name, "ingest") || strings.HasPrefix(name, "worker") || name == "emulator"; ours {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// lastWords is what each part said last.
func (r *rig) lastWords() string {
	var b strings.Builder
	for _, name := range r.order {
		if said := r.units[name].said(); said != "" {
			fmt.Fprintf(&b, "--- %s said last:\n%s\n", name, lastOf(said, 3000))
		}
	}
	return b.String()
}

func (r *rig) close() {
	if r.t.Failed() {
		r.t.Logf("%s", r.lastWords())
	}
	if r.hooks != nil {
		r.hooks.close()
	}
	for _, c := range r.clients {
		c.close()
	}
	if r.db != nil {
		r.db.Close()
	}
	// Links first heal: a worker that cannot reach anything drains for long.
	for _, l := range r.links {
		_ = l.heal()
	}
	for _, name := range slices.Backward(r.order) {
		switch u := r.units[name].(type) {
		case *program:
			u.stop(5 * time.Second)
		case *database:
			if err := u.stop(); err != nil {
				r.t.Errorf("campaign: %v", err)
			}
		}
	}
	for _, l := range r.links {
		l.close()
	}
	r.t.Logf("processor time: %s", r.used())
}

// used is the processor time of each part, to see what a campaign pays for. PostgreSQL's
// is not known.
func (r *rig) used() string {
	var all []string
	for _, name := range r.order {
		if p, ok := r.units[name].(*program); ok {
			all = append(all, fmt.Sprintf("%s %s", name, p.used.Round(10*time.Millisecond)))
		}
	}
	return strings.Join(all, ", ")
}

// hit counts a cell of the fault matrix.
func (r *rig) hit(cell string) { r.hitN(cell, 1) }

func (r *rig) hitN(cell string, n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cells[cell] += n
}
