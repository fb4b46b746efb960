package service_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/testenv"
)

// apart is what stands around the roles when they run apart.
type apart struct {
	*installation
	nats     *testenv.NATS
	emulator *process
	common   map[string]string // the environment that all roles share
}

// startApart runs two ingests and two workers as processes of their own, with a
// separate nats-server, PgBouncer in transaction mode before PostgreSQL, and the
// emulator: each role logs in to the database as the role made for it.
func startApart(t testing.TB, more map[string]string) *apart {
	t.Helper()
	a := &apart{installation: &installation{t: t}, nats: testenv.NATSServer(t, testenv.NATSOptions{})}
	direct := testenv.Postgres(t)
	a.common = map[string]string{
		"NATS_URL": a.nats.URL(), "TRUEUP_STREAM_PREFIX": "apart",
		"IMAGEKIT_PUBLIC_KEY": "public_apart", "IMAGEKIT_PRIVATE_KEY": "private_apart0123456789abcdef", "IMAGEKIT_WEBHOOK_SECRET": "whsec_YXBhcnQtYXBhcnQtYXBhcnQ=",
		"TRUEUP_JWT_SECRET": strings.Repeat("apart-secret-", 4), "TRUEUP_JWT_ISSUER": "apart", "TRUEUP_JWT_AUDIENCE": "trueup",
		"TRUEUP_OPS_TOKEN": "apart-operator-token", "TRUEUP_NOT_FOUND_GRACE": "3s", "TRUEUP_ABSENT_CONFIRM": "1s", "TRUEUP_RATE_PER_USER": "0", "TRUEUP_BAD_SIGNATURES_PER_MINUTE": "0",
		"TRUEUP_POLL_EVERY": "0", "TRUEUP_RECONCILE_EVERY": "0",
	}
	maps.Copy(a.common, more)
	ports := make([]int, 7)
	for i := range ports {
		ports[i] = testenv.Freeport(t)
	}
	at := func(i int) string { return fmt.Sprintf("127.0.0.1:%d", ports[i]) }
	imagekit := "http://" + at(0)
	a.common["IMAGE_KIT_BASE_URL"], a.common["IMAGEKIT_URL_ENDPOINT"] = imagekit, imagekit+"/demo_id"

	must(t, a.with(map[string]string{"DATABASE_URL": direct}), "migrate", "up")
	pooled := a.rolesBehindPgBouncer(direct)
	a.emulator = start(t, a.with(map[string]string{"TRUEUP_EMULATOR_ADDR": at(0), "TRUEUP_DATA_DIR": testenv.Dir(t)}), "emulator")
	for i := range 2 {
		a.ingests = append(a.ingests, start(t, a.with(map[string]string{"TRUEUP_ADDR": at(1 + i), "TRUEUP_OPS_ADDR": at(3 + i), "DATABASE_URL": pooled["ingest"]}), "ingest"))
		a.workers = append(a.workers, start(t, a.with(map[string]string{"TRUEUP_OPS_ADDR": at(5 + i), "TRUEUP_DATA_DIR": testenv.Dir(t), "DATABASE_URL": pooled["worker"]}), "worker"))
		a.public = append(a.public, "http://"+at(1+i))
	}
	a.env = a.with(map[string]string{"TRUEUP_URL": a.public[0], "TRUEUP_OPS_URL": "http://" + at(5), "DATABASE_URL": direct})
	a.ready()
	a.connect()
	a.settings(map[string]any{"webhooks": map[string]any{"enabled": true, "url": a.public[1] + "/webhooks/imagekit"}})
	return a
}

func (a *apart) with(more map[string]string) map[string]string {
	env := maps.Clone(a.common)
	maps.Copy(env, more)
	return env
}

// rolesBehindPgBouncer makes a login for each of trueup's group roles and returns
// their URLs through the pooler.
func (a *apart) rolesBehindPgBouncer(direct string) map[string]string {
	a.t.Helper()
	c, err := pgx.Connect(context.Background(), direct)
	if err != nil {
		a.t.Fatal(err)
	}
	defer func() { _ = c.Close(context.Background()) }()
	users, urls := map[string]string{}, map[string]string{}
	suffix := strings.ToLower(fmt.Sprintf("%d", time.Now().UnixNano()))
	for _, role := range []string{"ingest", "worker"} {
		login := "apart_" + role + "_" + suffix
		if _, err := c.Exec(context.Background(), fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD 'apart' IN ROLE trueup_%s", login, role)); err != nil {
			a.t.Fatal(err)
		}
		a.t.Cleanup(func() { a.dropRole(direct, login) })
		users[login] = "apart"
		urls[role] = login
	}
	pooled := testenv.PgBouncer(a.t, direct, testenv.PgBouncerOptions{Users: users})
	cfg, err := pgx.ParseConfig(pooled)
	if err != nil {
		a.t.Fatal(err)
	}
	for role, login := range urls {
		urls[role] = fmt.Sprintf("postgres://%s:apart@%s:%d/%s?sslmode=disable", login, cfg.Host, cfg.Port, cfg.Database)
	}
	return urls
}

func (a *apart) dropRole(direct, login string) {
	c, err := pgx.Connect(context.Background(), direct)
	if err != nil {
		return // the database is gone with its roles' rights; the server ends with the tests
	}
	defer func() { _ = c.Close(context.Background()) }()
	_, _ = c.Exec(context.Background(), "DROP ROLE "+login)
}

// ready waits until every process answers, and one worker is active.
func (a *apart) ready() {
	a.t.Helper()
	plain := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	for _, u := range append([]string{a.common["IMAGE_KIT_BASE_URL"] + "/_emulator/settings"}, a.public[0]+"/readyz", a.public[1]+"/readyz", a.env["TRUEUP_OPS_URL"]+"/readyz") {
		testenv.Eventually(a.t, time.Minute, func() error {
			resp, err := plain.Get(u)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				return fmt.Errorf("GET %s: %s", u, resp.Status)
			}
			return nil
		})
	}
}

// active is the worker that holds the turn now.
func (a *apart) active() *process {
	a.t.Helper()
	var holder *process
	testenv.Eventually(a.t, time.Minute, func() error {
		newest := -1
		for _, w := range a.workers {
			if at := strings.LastIndex(w.log.String(), "worker.turn_begun"); at >= 0 {
				if turn := turnAt(w.log.String()[at:]); turn > newest {
					newest, holder = turn, w
				}
			}
		}
		if holder == nil {
			return fmt.Errorf("no worker has begun a turn")
		}
		return nil
	})
	return holder
}

// turnAt reads the number after "turn": in a log line.
func turnAt(line string) (n int) {
	_, rest, _ := strings.Cut(line, `"turn":`)
	_, _ = fmt.Sscanf(rest, "%d", &n)
	return n
}

// TestApartJourney is the same journey with the roles apart.
func TestApartJourney(t *testing.T) {
	t.Parallel()
	journey(t, startApart(t, nil).installation)
}

// TestActiveWorkerIsKilled: kill -9 of the active worker delays and loses nothing;
// the standby takes the turn.
func TestActiveWorkerIsKilled(t *testing.T) {
	t.Parallel()
	a := startApart(t, nil)
	first := a.active()
	reports := map[string]string{}
	for n := range 40 {
		id := a.uploadV2("ann", map[string]any{}, n)
		reports[a.report("ann", id)] = id
		if n == 20 {
			first.kill9()
		}
	}
	for report := range reports {
		a.outcomeIs("ann", report, "verified")
	}
	if second := a.active(); second == first {
		t.Error("nobody else has taken the turn")
	}
	a.converges(time.Minute)
	a.identity()
}
