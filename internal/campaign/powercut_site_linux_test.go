package campaign

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/trueup/trueup/internal/localpg"
	"github.com/trueup/trueup/internal/testenv"
)

// layout says what of trueup and its stores runs, and on which disks.
type layout struct {
	// nodes is the number of nats-servers; 0: the queue is embedded in `trueup serve`.
	// Three have a disk each; everything else shares one.
	nodes int
	// forgetful is a queue whose servers do not fsync.
	forgetful bool
	database  care
}

// care is what PostgreSQL does before it says that something is committed.
type care string

const (
	durable  care = "durable"
	careless care = "careless" // synchronous_commit=off is the server's default; trueup must not mind
	reckless care = "reckless" // fsync=off; nobody can help that
)

func (l layout) String() string {
	name := map[int]string{0: "embedded", 1: "one-node", 3: "three-nodes"}[l.nodes]
	if l.forgetful {
		name += "-forgetful"
	}
	return name + "/" + string(l.database)
}

func (l layout) disks() int {
	if l.nodes == 3 {
		return 4
	}
	return 1
}

// site is everything that one power cut takes: the disks, and all that runs on them.
// The library, the senders and we ourselves are elsewhere.
type site struct {
	layout  layout
	dir     string
	library *library
	mould   *mould

	disks []*disk
	ports []int
	parts []*program
}

// mould is what the disks of a layout hold before anything happened: an empty
// database with its schema, an empty stream, all of it stopped in order.
type mould struct {
	images   []string
	password string
}

// cast makes the mould of all layouts with so many nodes.
func cast(t testing.TB, dir string, lib *library, nodes int) (m *mould, err error) {
	s := &site{layout: layout{nodes: nodes, database: durable}, dir: filepath.Join(dir, "mould-"+strconv.Itoa(nodes)), library: lib, mould: &mould{}}
	if err := errors.Join(os.MkdirAll(s.dir, 0o755), s.choosePorts()); err != nil {
		return nil, err
	}
	for i := range s.layout.disks() {
		d := s.disk(i)
		if err := errors.Join(formatDisk(t.Context(), d.image), d.attach()); err != nil {
			return nil, err
		}
		s.disks = append(s.disks, d)
	}
	defer func() { err = errors.Join(err, s.off()) }()
	if err := s.makeDatabase(t.Context()); err != nil {
		return nil, err
	}
	s.parts = append(s.stores(t), s.parts...)
	if err := s.on(t.Context()); err != nil {
		return nil, err
	}
	if err := s.migrate(t); err != nil {
		return nil, err
	}
	for _, p := range s.parts {
		p.stop(30 * time.Second)
	}
	for i := range s.disks {
		s.mould.images = append(s.mould.images, s.disk(i).image)
	}
	return s.mould, nil
}

// disk is the i-th of the site's.
func (s *site) disk(i int) *disk {
	return &disk{image: filepath.Join(s.dir, fmt.Sprintf("disk%d.img", i)), mount: filepath.Join(s.dir, fmt.Sprintf("disk%d", i))}
}

// makeDatabase runs initdb.
func (s *site) makeDatabase(ctx context.Context) error {
	programs, err := obtainPostgres()
	if err != nil {
		return err
	}
	server, err := localpg.Start(ctx, localpg.Config{Dir: s.databaseDir(), Programs: programs, KeepDown: true})
	if err != nil {
		return err
	}
	u, err := url.Parse(server.URL(localpg.Superuser))
	if err != nil {
		return errors.Join(err, server.Stop())
	}
	s.mould.password, _ = u.User.Password()
	return server.Stop()
}

// migrate makes the schema and, outside, the streams with the real command.
func (s *site) migrate(t testing.TB) error {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, testenv.Trueup(t), "migrate", "up")
	env := map[string]string{"DATABASE_URL": s.databaseURL(), "TRUEUP_STREAM_PREFIX": streamPrefix, "TRUEUP_QUEUE_MAX_BYTES": queueBytes}
	if s.layout.nodes > 0 {
		env["NATS_URL"] = s.natsURL()
	}
	cmd.Env = environment(env)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("migrate up: %w\n%s", err, out)
	}
	if s.layout.nodes > 0 {
		return (&rig{nodes: s.nats()}).shortenWaits(ctx)
	}
	return nil
}

// raise makes a site from the mould of its layout and switches it on.
func raise(t testing.TB, dir string, lib *library, l layout, m *mould) (*site, error) {
	s := &site{layout: l, dir: dir, library: lib, mould: m}
	if err := errors.Join(os.MkdirAll(s.dir, 0o755), s.choosePorts()); err != nil {
		return nil, err
	}
	for i, image := range m.images {
		d := s.disk(i)
		if err := errors.Join(copySparse(image, d.image), d.attach()); err != nil {
			return s, err
		}
		s.disks = append(s.disks, d)
	}
	s.parts = append(s.stores(t), s.roles(t)...)
	return s, s.on(t.Context())
}

const (
	portDatabase = iota
	portPublic
	portOps
	portIngestOps
	portNATS  // and the two that follow
	_         //
	_         //
	portRoute // and the two that follow
	_         //
	_         //
	portsNeeded
)

func (s *site) choosePorts() error {
	for range portsNeeded {
		port, err := freePort()
		if err != nil {
			return err
		}
		s.ports = append(s.ports, port)
	}
	return nil
}

func (s *site) at(which int) string { return loopback(s.ports[which]) }

func (s *site) databaseURL() string {
	return fmt.Sprintf("postgres://%s:%s@%s/%s?sslmode=disable", localpg.Superuser, s.mould.password, s.at(portDatabase), localpg.Superuser)
}

func (s *site) nats() (addrs []string) {
	for i := range s.layout.nodes {
		addrs = append(addrs, s.at(portNATS+i))
	}
	return addrs
}

func (s *site) natsURL() string { return "nats://" + strings.Join(s.nats(), ",nats://") }

// databaseDir is on the last disk, which three nodes leave to everything else.
func (s *site) databaseDir() string { return filepath.Join(s.disks[len(s.disks)-1].mount, "postgres") }

func (s *site) dataDir(role string) string {
	return filepath.Join(s.disks[len(s.disks)-1].mount, role)
}

// stores are PostgreSQL and the nats-servers.
func (s *site) stores(t testing.TB) []*program {
	parts := []*program{s.postgres(t)}
	var members []string
	for i := range s.layout.nodes {
		members = append(members, s.at(portRoute+i))
	}
	for i := range s.layout.nodes {
		args := []string{"-name", "n" + strconv.Itoa(i+1), "-store", filepath.Join(s.disks[i].mount, "nats"), "-port", strconv.Itoa(s.ports[portNATS+i]),
			fmt.Sprintf("-sync=%t", !s.layout.forgetful)}
		if len(members) > 1 {
			args = append(args, "-cluster-port", strconv.Itoa(s.ports[portRoute+i]), "-members", strings.Join(members, ","))
		}
		u := "nats://" + s.at(portNATS+i)
		parts = append(parts, &program{name: "nats" + strconv.Itoa(i+1), path: testenv.NATSProgram(t), args: args, env: environment(nil), stdin: true,
			probe: func(ctx context.Context) error { return jetStreamAnswers(ctx, u) }})
	}
	return parts
}

// postgres is the server itself rather than localpg's, so that it can be cut off while
// it is still coming up.
func (s *site) postgres(t testing.TB) *program {
	programs, err := obtainPostgres()
	if err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(s.databaseDir(), "data")
	var st syscall.Stat_t
	if err := syscall.Stat(data, &st); err != nil {
		t.Fatal(err)
	}
	args := []string{"-D", data, "-p", strconv.Itoa(s.ports[portDatabase])}
	for _, c := range []string{"listen_addresses=127.0.0.1", "unix_socket_directories=", "logging_collector=off", "log_destination=stderr",
		"shared_buffers=32MB", "max_connections=60", "fsync=on"} {
		args = append(args, "-c", c)
	}
	switch s.layout.database {
	case careless:
		args = append(args, "-c", "synchronous_commit=off", "-c", "wal_writer_delay=10s")
	case reckless:
		args = append(args, "-c", "fsync=off")
	}
	env := map[string]string{}
	if programs.Lib != "" {
		env["LD_LIBRARY_PATH"] = programs.Lib
	}
	return &program{name: "postgres", path: filepath.Join(programs.Bin, "postgres"), args: args, env: environment(env),
		as: &syscall.Credential{Uid: st.Uid, Gid: st.Gid},
		probe: func(ctx context.Context) error {
			c, err := pgconn.Connect(ctx, s.databaseURL())
			if err != nil {
				return err
			}
			return c.Close(ctx)
		}}
}

// roles are trueup: all in one where the queue is embedded, else apart.
func (s *site) roles(t testing.TB) []*program {
	env := maps.Clone(s.library.env())
	maps.Copy(env, map[string]string{
		"DATABASE_URL": s.databaseURL(), "TRUEUP_STREAM_PREFIX": streamPrefix, "TRUEUP_LOG_FORMAT": "json", "TRUEUP_QUEUE_MAX_BYTES": queueBytes,
		"TRUEUP_ADDR": s.at(portPublic), "TRUEUP_OPS_ADDR": s.at(portOps), "TRUEUP_DATA_DIR": s.dataDir("trueup"),
		"TRUEUP_RATE_PER_USER": "0", "TRUEUP_BAD_SIGNATURES_PER_MINUTE": "0",
		"TRUEUP_NOT_FOUND_GRACE": notFoundGrace.String(), "TRUEUP_ABSENT_CONFIRM": absentConfirm.String(),
		// What a lost event leaves undone must not be made good by others.
		"TRUEUP_POLL_EVERY": "0", "TRUEUP_RECONCILE_EVERY": "0",
	})
	role := func(name string, port int, ready string, more map[string]string) *program {
		all := maps.Clone(env)
		maps.Copy(all, more)
		return &program{name: name, path: testenv.Trueup(t), args: []string{name}, env: environment(all), probe: answers("http://" + s.at(port) + ready)}
	}
	if s.layout.nodes == 0 {
		return []*program{role("serve", portPublic, "/readyz", nil)}
	}
	queue := map[string]string{"NATS_URL": s.natsURL()}
	worker := maps.Clone(queue)
	queue["TRUEUP_OPS_ADDR"] = s.at(portIngestOps)
	return []*program{role("ingest", portPublic, "/readyz", queue), role("worker", portOps, "/readyz", worker)}
}

// queueBytes fits a disk of ours: a server reserves it.
const queueBytes = "256MiB"

const (
	notFoundGrace = 2 * time.Second
	absentConfirm = time.Second
)

// power starts everything at once, as a machine room that has its power back does.
func (s *site) power() error {
	if s.layout.database == reckless {
		// It may stand there empty; the operator does what PostgreSQL's hint says.
		pidfile := filepath.Join(s.databaseDir(), "data", "postmaster.pid")
		if st, err := os.Stat(pidfile); err == nil && st.Size() == 0 {
			if err := os.Remove(pidfile); err != nil {
				return err
			}
		}
	}
	for _, p := range s.parts {
		if err := p.start(); err != nil {
			return err
		}
	}
	return nil
}

// on starts everything and waits until all of it works.
func (s *site) on(ctx context.Context) error {
	if err := s.power(); err != nil {
		return err
	}
	return s.ready(ctx)
}

// ready waits until everything works. A part that ends by itself is not started again.
func (s *site) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, p := range s.parts {
		err := until(ctx, func() error {
			if err := p.fell(); err != nil {
				cancel()
				return err
			}
			return p.ready(ctx)
		})
		if err != nil {
			return fmt.Errorf("%s is not ready: %w", p.name, err)
		}
	}
	return nil
}

// outage is what one power cut was like.
type outage struct {
	frozen  int           // processes
	freeze  time.Duration // until the last thread had stopped
	copying time.Duration
	tries   int // of the copy
}

// room is what one power line feeds: parts and the disks they are on.
type room struct {
	parts []*program
	disks []*disk
}

// all is the whole site.
func (s *site) all() room { return room{s.parts, s.disks} }

// node is one of three nats-servers, which has its disk to itself.
func (s *site) node(i int) room {
	return room{s.parts[1+i : 2+i], s.disks[i : i+1]} // the first part is PostgreSQL
}

// cut takes the power away. Whoever waits for an answer has it or never gets it: stopped
// is called when nothing runs any more. What comes back with power is what the disks
// hold at that moment.
func (r room) cut(stopped func()) (o outage, err error) {
	var roots []int
	for _, p := range r.parts {
		if pid := p.pid(); pid > 0 {
			roots = append(roots, pid)
		}
	}
	begun := time.Now()
	all, err := freezeFamilies(roots)
	o.frozen, o.freeze = len(all), time.Since(begun)
	if err != nil {
		return o, errors.Join(err, endAll(all))
	}
	stopped()
	begun = time.Now()
	o.tries, err = photograph(r.disks, ".after")
	o.copying = time.Since(begun)
	if err = errors.Join(err, r.kill(all, roots)); err != nil {
		return o, err
	}
	return o, r.swap()
}

// kill ends the frozen: the descendants first, which hold their parents' pipes.
func (r room) kill(all, roots []int) error {
	err := endAll(all[len(roots):])
	var wg sync.WaitGroup
	for _, p := range r.parts {
		wg.Go(func() { _ = p.kill9() })
	}
	wg.Wait()
	return errors.Join(err, endAll(all))
}

// swap puts the copies in the place of the disks.
func (r room) swap() error {
	for _, d := range r.disks {
		err := d.detach()
		err = errors.Join(err, os.Rename(d.image+".after", d.image))
		if err = errors.Join(err, d.attach()); err != nil {
			return err
		}
	}
	return nil
}

// off ends everything and gives the devices back.
func (s *site) off() error {
	var err error
	var wg sync.WaitGroup
	var all []int
	for _, p := range s.parts {
		if pid := p.pid(); pid > 0 {
			all = append(all, family(pid)...)
		}
		wg.Go(func() { _ = p.kill9() })
	}
	wg.Wait()
	err = endAll(all)
	for _, d := range s.disks {
		err = errors.Join(err, d.detach())
	}
	return err
}

// said is what each part said last.
func (s *site) said() string {
	var b strings.Builder
	for _, p := range s.parts {
		fmt.Fprintf(&b, "--- %s said last:\n%s\n", p.name, lastOf(p.said(), 3000))
	}
	return b.String()
}
