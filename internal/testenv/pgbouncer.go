package testenv

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// PgBouncerOptions are what a test may want otherwise.
type PgBouncerOptions struct {
	// PoolSize is the number of server connections per database and user. Zero: 4;
	// it must stay below the number of clients, or a pooler's faults never show.
	PoolSize int
	// Users are further roles that may log in, with their passwords. The role of the
	// URL always may.
	Users map[string]string
}

// PgBouncer puts a PgBouncer in transaction mode, a stand-in for Neon's pooled
// endpoint, before the server of postgresURL and returns the URL through it.
func PgBouncer(t testing.TB, postgresURL string, o PgBouncerOptions) string {
	t.Helper()
	direct, err := url.Parse(postgresURL)
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	if o.PoolSize == 0 {
		o.PoolSize = 4
	}
	dir, port := Dir(t), Freeport(t)
	writeFile(t, filepath.Join(dir, "users.txt"), userList(direct, o.Users))
	writeFile(t, filepath.Join(dir, "pgbouncer.ini"), pgbouncerIni(dir, direct, port, o.PoolSize))
	cmd := exec.CommandContext(context.Background(), pgbouncer(t), filepath.Join(dir, "pgbouncer.ini"))
	cmd.Dir = dir
	if err := unprivileged(cmd, dir); err != nil {
		t.Fatalf("testenv: run PgBouncer: %v", err)
	}
	c := spawn(t, cmd, filepath.Join(dir, "output.log"))
	t.Cleanup(func() { c.stop(syscall.SIGTERM) })
	pooled := *direct
	pooled.Host = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	c.up(t, func() error { return login(pooled.String()) })
	return pooled.String()
}

func pgbouncer(t testing.TB) string {
	t.Helper()
	if found, err := exec.LookPath("pgbouncer"); err == nil {
		return found
	}
	if _, err := os.Stat("/usr/sbin/pgbouncer"); err == nil { // not on everybody's PATH
		return "/usr/sbin/pgbouncer"
	}
	t.Fatal("testenv: PgBouncer is not installed: sudo apt-get install pgbouncer (macOS: brew install pgbouncer)")
	return ""
}

func userList(direct *url.URL, more map[string]string) string {
	password, _ := direct.User.Password()
	lines := []string{fmt.Sprintf("%q %q", direct.User.Username(), password)}
	for name, word := range more {
		lines = append(lines, fmt.Sprintf("%q %q", name, word))
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n") + "\n"
}

func pgbouncerIni(dir string, direct *url.URL, port, pool int) string {
	return fmt.Sprintf(`[databases]
* = host=%s port=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = trust
auth_file = %s/users.txt
pool_mode = transaction
default_pool_size = %d
max_client_conn = 200
server_reset_query =
query_wait_timeout = 120
logfile = %s/pgbouncer.log
pidfile = %s/pgbouncer.pid
`, direct.Hostname(), direct.Port(), port, dir, pool, dir, dir)
}

func login(url string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c, err := pgconn.Connect(ctx, url)
	if err != nil {
		return err
	}
	return c.Close(ctx)
}

func writeFile(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatalf("testenv: %v", err)
	}
}
