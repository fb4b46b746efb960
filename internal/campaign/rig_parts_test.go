package campaign

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/trueup/trueup/internal/localpg"
	"github.com/trueup/trueup/internal/testenv"
)

const streamPrefix = "campaign"

// An external queue leaves these two to its operator; ours are short, so that a killed
// worker is missed for seconds. A worker extends what it holds every 7 s.
const (
	ackWait = 9 * time.Second
	turnTTL = 3 * time.Second
)

// addNATS starts the servers. In a cluster each pair of members has two links, one for
// each who calls; members tell each other of no other address.
func (r *rig) addNATS() error {
	members := make([]int, r.opts.Nodes)
	for i := range members {
		var err error
		if members[i], err = freePort(); err != nil {
			return err
		}
	}
	for i := range members {
		if err := r.addNode(i, members); err != nil {
			return err
		}
	}
	return nil
}

func (r *rig) addNode(i int, members []int) error {
	name := fmt.Sprintf("nats%d", i+1)
	dir, err1 := r.folder(name)
	port, err2 := freePort()
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	args := []string{"-name", name, "-store", filepath.Join(dir, "store"), "-port", strconv.Itoa(port)}
	if len(members) > 1 {
		var others []string
		for j, member := range members {
			if j == i {
				continue
			}
			addr, err := r.way(fmt.Sprintf("%s-nats%d", name, j+1), loopback(member))
			if err != nil {
				return err
			}
			others = append(others, addr)
		}
		args = append(args, "-cluster-port", strconv.Itoa(members[i]), "-members", strings.Join(others, ","))
		if r.opts.Links {
			args = append(args, "-advertise", loopback(1)) // where nobody is
		}
	}
	u := "nats://" + loopback(port)
	r.nodes = append(r.nodes, loopback(port))
	return r.add(name, &program{name: name, path: testenv.NATSProgram(r.t), args: args, env: environment(nil), stdin: true,
		probe: func(ctx context.Context) error { return jetStreamAnswers(ctx, u) }})
}

// jetStreamAnswers asks what, in a cluster, needs an elected leader, and where the
// stream exists, its leader.
func jetStreamAnswers(ctx context.Context, u string) error {
	c, err := nats.Connect(u, nats.Timeout(2*time.Second))
	if err != nil {
		return err
	}
	defer c.Close()
	js, err := jetstream.New(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if _, err = js.AccountInfo(ctx); err != nil {
		return err
	}
	_, err = js.Stream(ctx, strings.ToUpper(streamPrefix)+"_EVENTS")
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil // before migrate
	}
	return err
}

// natsURL is the way from a part to all servers.
func (r *rig) natsURL(from string) (string, error) {
	var urls []string
	for i, node := range r.nodes {
		addr, err := r.way(fmt.Sprintf("%s-nats%d", from, i+1), node)
		if err != nil {
			return "", err
		}
		urls = append(urls, "nats://"+addr)
	}
	return strings.Join(urls, ","), nil
}

// NATSURL names all servers, around every link.
func (r *rig) NATSURL() string { return "nats://" + strings.Join(r.nodes, ",nats://") }

// jetStream is a connection around every link, and its end.
func (r *rig) jetStream() (js jetstream.JetStream, end func(), err error) {
	nc, err := nats.Connect(r.NATSURL(), nats.Timeout(time.Second))
	if err != nil {
		return nil, nil, err
	}
	if js, err = jetstream.New(nc); err != nil {
		nc.Close()
		return nil, nil, err
	}
	return js, nc.Close, nil
}

func (r *rig) addPostgres() error {
	programs, err1 := obtainPostgres()
	dir, err2 := r.folder("postgres")
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	r.pg = &database{moved: func(port int) { r.pgMoved(port) }, cfg: localpg.Config{
		Dir: dir, Programs: programs, KeepDown: true,
		Parameters: map[string]string{"max_connections": "100", "shared_buffers": "32MB"},
	}}
	return r.add("postgres", r.pg)
}

// pgMoved leads whoever calls PostgreSQL to its new port.
func (r *rig) pgMoved(port int) {
	for name, l := range r.links {
		if strings.HasSuffix(name, "-postgres") {
			if err := l.retarget(loopback(port)); err != nil {
				r.t.Error(err)
			}
		}
	}
}

func (r *rig) addEmulator() error {
	dir, err1 := r.folder("emulator")
	port, err2 := freePort()
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	r.direct = "http://" + loopback(port)
	p := &program{name: "emulator", path: testenv.Trueup(r.t, r.opts.Tags...), args: []string{"emulator"}, probe: answers(r.direct + "/_emulator/settings")}
	p.env = environment(map[string]string{"TRUEUP_EMULATOR_ADDR": loopback(port), "TRUEUP_DATA_DIR": dir,
		"IMAGEKIT_PUBLIC_KEY": r.keys.public, "IMAGEKIT_PRIVATE_KEY": r.keys.private, "IMAGEKIT_WEBHOOK_SECRET": r.keys.webhook})
	return r.add("emulator", p)
}

// migrate makes schema and streams with the real command.
func (r *rig) migrate() error {
	if err := r.awaitReady(time.Minute); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, testenv.Trueup(r.t, r.opts.Tags...), "migrate", "up")
	cmd.Env = environment(map[string]string{"DATABASE_URL": r.pg.url(), "NATS_URL": r.NATSURL(), "TRUEUP_STREAM_PREFIX": streamPrefix})
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("migrate up: %w\n%s", err, out)
	}
	var err error
	if r.db, err = pgxpool.New(ctx, r.pg.url()); err != nil {
		return err
	}
	return r.shortenWaits(ctx)
}

// shortenWaits sets what an operator may set on an external queue.
func (r *rig) shortenWaits(ctx context.Context) error {
	js, end, err := r.jetStream()
	if err != nil {
		return err
	}
	defer end()
	stream, err := js.Stream(ctx, strings.ToUpper(streamPrefix)+"_EVENTS")
	if err != nil {
		return err
	}
	consumer, err := stream.Consumer(ctx, "worker")
	if err != nil {
		return err
	}
	cfg := consumer.CachedInfo().Config
	cfg.AckWait = ackWait
	if _, err := stream.UpdateConsumer(ctx, cfg); err != nil {
		return err
	}
	turn, err := js.Stream(ctx, "KV_"+streamPrefix+"_turn")
	if err != nil {
		return err
	}
	bucket := turn.CachedInfo().Config
	bucket.MaxAge = turnTTL
	bucket.Duplicates = min(bucket.Duplicates, turnTTL)
	_, err = js.UpdateStream(ctx, bucket)
	return err
}

// addPgBouncer puts the pooler in front, in transaction mode as Neon's pooled address.
func (r *rig) addPgBouncer() error {
	if err := r.addLogins(); err != nil {
		return err
	}
	if !r.opts.PgBouncer {
		return nil
	}
	pooler, err := exec.LookPath("pgbouncer")
	if err != nil {
		pooler = "/usr/sbin/pgbouncer" // not on everybody's PATH
	}
	u, err := url.Parse(r.pg.url())
	if err != nil {
		return err
	}
	target, err := r.way("pgbouncer-postgres", u.Host)
	if err != nil {
		return err
	}
	if r.poolPort, err = freePort(); err != nil {
		return err
	}
	dir, err := r.folder("pgbouncer")
	if err != nil {
		return err
	}
	var users []string
	for _, role := range []string{"ingest", "worker"} {
		users = append(users, fmt.Sprintf("%q %q", login(role), loginPassword))
	}
	sort.Strings(users)
	ini := pgbouncerIni(dir, target, r.poolPort)
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "users.txt"), []byte(strings.Join(users, "\n")+"\n"), 0o644),
		os.WriteFile(filepath.Join(dir, "pgbouncer.ini"), []byte(ini), 0o644)); err != nil {
		return err
	}
	as, err := unprivileged(dir)
	if err != nil {
		return err
	}
	return r.add("pgbouncer", &program{name: "pgbouncer", path: pooler, args: []string{filepath.Join(dir, "pgbouncer.ini")}, env: environment(nil), as: as,
		probe: func(ctx context.Context) error {
			c, err := pgx.Connect(ctx, r.databaseURL("worker", loopback(r.poolPort)))
			if err != nil {
				return err
			}
			return c.Close(ctx)
		}})
}

func pgbouncerIni(dir, target string, port int) string {
	host, targetPort, _ := net.SplitHostPort(target)
	return fmt.Sprintf(`[databases]
* = host=%s port=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = trust
auth_file = %s/users.txt
pool_mode = transaction
default_pool_size = 6
max_client_conn = 200
server_reset_query =
query_wait_timeout = 120
server_login_retry = 1
logfile =
`, host, targetPort, port, dir)
}

// unprivileged is a user who may not do everything, given the folder; PgBouncer does
// not run as root.
func unprivileged(dir string) (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err1, err2, os.Chown(dir, int(uid), int(gid))); err != nil {
			return nil, err
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("there is neither a user postgres nor nobody")
}

const loginPassword = "campaign"

func login(role string) string { return "campaign_" + role }

// addLogins makes a login for each of trueup's group roles.
func (r *rig) addLogins() error {
	for _, role := range []string{"ingest", "worker"} {
		sql := fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s' IN ROLE trueup_%s", login(role), loginPassword, role)
		if _, err := r.db.Exec(context.Background(), sql); err != nil {
			return err
		}
	}
	return nil
}

// databaseURL is a role's way to the database at addr.
func (r *rig) databaseURL(role, addr string) string {
	u, _ := url.Parse(r.pg.url())
	return fmt.Sprintf("postgres://%s:%s@%s%s?sslmode=disable", login(role), loginPassword, addr, u.Path)
}

// rowsURL is a part's own way to the database.
func (r *rig) rowsURL(name, role string) (string, error) {
	target, what := loopback(r.poolPort), "pgbouncer"
	if !r.opts.PgBouncer {
		u, err := url.Parse(r.pg.url())
		if err != nil {
			return "", err
		}
		target, what = u.Host, "postgres"
	}
	addr, err := r.way(name+"-"+what, target)
	return r.databaseURL(role, addr), err
}

// addRoles starts ingests and workers, and the ways to them.
func (r *rig) addRoles() error {
	for i := range r.opts.Ingests {
		if err := r.addIngest(fmt.Sprintf("ingest%d", i+1)); err != nil {
			return err
		}
	}
	for i := range r.opts.Workers {
		if err := r.addWorker(fmt.Sprintf("worker%d", i+1)); err != nil {
			return err
		}
	}
	if err := r.addClients(); err != nil {
		return err
	}
	return r.addHooks()
}

func (r *rig) addIngest(name string) error {
	env, err := r.roleEnv(name, "ingest")
	if err != nil {
		return err
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	env["TRUEUP_ADDR"] = loopback(port)
	r.public = append(r.public, loopback(port))
	return r.trueup(name, "ingest", env, answers("http://"+loopback(port)+"/readyz"))
}

func (r *rig) addWorker(name string) error {
	env, err := r.roleEnv(name, "worker")
	if err != nil {
		return err
	}
	if env["TRUEUP_DATA_DIR"], err = r.folder(name); err != nil {
		return err
	}
	ops := "http://" + env["TRUEUP_OPS_ADDR"]
	r.ops = append(r.ops, ops)
	return r.trueup(name, "worker", env, answers(ops+"/readyz"))
}

func (r *rig) roleEnv(name, role string) (map[string]string, error) {
	queue, err1 := r.natsURL(name)
	rows, err2 := r.rowsURL(name, role)
	port, err3 := freePort()
	return map[string]string{"NATS_URL": queue, "DATABASE_URL": rows, "TRUEUP_OPS_ADDR": loopback(port)}, errors.Join(err1, err2, err3)
}
