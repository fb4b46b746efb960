package service_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/trueup/trueup/internal/testenv"
)

// phases of a run, in their order.
func phases() []string { return []string{"account", "list", "compare", "brake", "repair", "settle"} }

// damaged are files by the class in which a run has to find them.
type damaged map[string]string

// damage deletes, corrupts and makes up rows by SQL alone, and deletes and overwrites
// files upstream, with webhooks off: fewer orphans than the fuse minds.
func (in *installation) damage(missing int) damaged {
	in.t.Helper()
	ids, d := slices.Sorted(mapKeys(in.rows())), damaged{}
	take := func(n int, class string) (taken []string) {
		taken, ids = ids[:n], ids[n:]
		for _, id := range taken {
			d[id] = class
		}
		return taken
	}
	in.exec(`DELETE FROM public.imagekit_files WHERE file_id = ANY($1)`, take(missing, "missing"))
	for i, id := range take(160, "drifted") {
		in.exec(`UPDATE public.imagekit_files SET `+corruptions()[i%len(corruptions())]+` WHERE file_id = $1`, id)
	}
	for _, id := range take(5, "orphaned") {
		in.delete(id)
	}
	for _, id := range take(5, "drifted") {
		in.patch(id, map[string]any{"tags": []string{"overwritten"}})
	}
	for i := range 5 {
		id := fmt.Sprintf("b0905%019d", i)
		in.exec(`INSERT INTO public.imagekit_files (file_id, file_url, user_id) VALUES ($1, 'https://evil.example/b', 'eve')`, id)
		d[id] = "orphaned"
	}
	in.older()
	return d
}

// older waits until every transaction of before has come to its end: a row that
// file_state does not know is only judged by runs that began after that, and other tests
// write to the same server.
func (in *installation) older() {
	in.t.Helper()
	before := in.count(`SELECT pg_current_xact_id()::text::bigint`)
	testenv.Eventually(in.t, time.Minute, func() error {
		if oldest := in.count(`SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint`); oldest <= before {
			return fmt.Errorf("transaction %d is under way, want none up to %d", oldest, before)
		}
		return nil
	})
}

// foundAll fails unless the run has found exactly these files, each in its class, and
// repaired them.
func (in *installation) foundAll(r reconciled, want damaged) {
	in.t.Helper()
	found := in.findings(r.ID)
	var wrong []string
	for id, class := range want {
		if f := found[id]; f.Kind != class || f.Status != "repaired" {
			wrong = append(wrong, fmt.Sprintf("%s: %+v, want %s repaired", id, f, class))
		}
	}
	for id, f := range found {
		if want[id] == "" && f.Reason != "nobody" {
			wrong = append(wrong, fmt.Sprintf("%s was not damaged: %+v", id, f))
		}
	}
	if len(wrong) > 0 {
		slices.Sort(wrong)
		in.t.Errorf("run %s: %d findings are wrong of %d: %s", r.ID, len(wrong), len(want), strings.Join(wrong[:min(5, len(wrong))], "; "))
	}
	in.settles(time.Minute)
	if err := in.differs(); err != nil {
		in.t.Error(err)
	}
	// One finding, one event, whoever published it how often.
	for _, q := range []struct{ what, sql string }{
		{"files were asked about under several event ids", `SELECT count(*) FROM (SELECT FROM trueup.ledger WHERE source = 'reconcile' AND kind = 'recheck' AND at >= (SELECT started_at FROM trueup.runs WHERE id = $1)
			GROUP BY file_id HAVING count(*) > 1) x`},
		{"events of the run have no end in the ledger", `SELECT count(*) FROM trueup.findings f WHERE run_id = $1 AND event_id IS NOT NULL AND NOT EXISTS (SELECT FROM trueup.ledger l WHERE l.id = f.event_id)`},
		{"events since the run began are no finding's", `SELECT count(*) FROM trueup.ledger l WHERE source = 'reconcile' AND kind = 'recheck' AND at >= (SELECT started_at FROM trueup.runs WHERE id = $1)
			AND NOT EXISTS (SELECT FROM trueup.findings f WHERE f.event_id = l.id)`},
	} {
		if n := in.count(q.sql, r.ID); n != 0 {
			in.t.Errorf("%d %s", n, q.what)
		}
	}
}

// listing is the list calls of runs in the emulator's log, in their order.
func (in *installation) listing() (queries []string) {
	in.t.Helper()
	var log struct {
		Items []struct{ Endpoint, Query string }
	}
	if err := json.Unmarshal(in.control("GET", "requests", nil).body, &log); err != nil {
		in.t.Fatal(err)
	}
	for _, r := range log.Items {
		if r.Endpoint == "list" && strings.Contains(r.Query, "sort=ASC_CREATED") {
			queries = append(queries, r.Query)
		}
	}
	return queries
}

// repeats is how many calls asked for a page that was asked for before.
func repeats(queries []string) int {
	distinct := map[string]bool{}
	for _, q := range queries {
		distinct[q] = true
	}
	return len(queries) - len(distinct)
}

// gates hold a run at the end of each phase until they are opened: PostgreSQL keeps the
// change to the next phase waiting for a lock that the test has.
type gates struct {
	in   *installation
	conn *pgxpool.Conn
}

// The locks of the gates follow this number: gate + 1 before account, and so on.
const gate = 471100

// confirming is the place of one more gate: events are published, and the rows do not
// know it yet.
const confirming = 7

func (in *installation) closeGates() *gates {
	in.t.Helper()
	in.exec(`CREATE FUNCTION public.gate() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF NEW.state <> OLD.state THEN
			PERFORM pg_advisory_xact_lock_shared(` + fmt.Sprint(gate+len(phases())+1) + `);
		ELSIF NEW.phase <> OLD.phase THEN
			PERFORM pg_advisory_xact_lock_shared(` + fmt.Sprint(gate) + ` + array_position('{` + strings.Join(phases(), ",") + `}', NEW.phase));
		END IF;
		RETURN NEW; END $$`)
	in.exec(`CREATE TRIGGER gate BEFORE UPDATE ON trueup.runs FOR EACH ROW EXECUTE FUNCTION public.gate()`)
	in.exec(`CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.05); RETURN NULL; END $$`)
	in.exec(`CREATE TRIGGER slow AFTER INSERT OR UPDATE ON trueup.findings FOR EACH STATEMENT EXECUTE FUNCTION public.slow()`)
	in.exec(`CREATE FUNCTION public.gate_confirm() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock_shared(` + fmt.Sprint(gate+confirming+1) + `); RETURN NEW; END $$`)
	in.exec(`CREATE TRIGGER gate BEFORE UPDATE ON trueup.findings FOR EACH ROW WHEN (OLD.published_at IS NULL AND NEW.published_at IS NOT NULL) EXECUTE FUNCTION public.gate_confirm()`)
	conn, err := in.db.Acquire(context.Background())
	if err != nil {
		in.t.Fatal(err)
	}
	g := &gates{in, conn}
	in.t.Cleanup(func() { _ = conn.Conn().Close(context.Background()); conn.Release() })
	g.sql(`SELECT pg_advisory_lock($1 + n) FROM generate_series(1, $2) n`, gate, confirming+1)
	return g
}

func (g *gates) sql(sql string, args ...any) {
	g.in.t.Helper()
	if _, err := g.conn.Exec(context.Background(), sql, args...); err != nil {
		g.in.t.Fatal(err)
	}
}

// open lets the run enter the phase with this place in their order.
func (g *gates) open(place int) {
	g.in.t.Helper()
	g.sql(`SELECT pg_advisory_unlock($1::bigint)`, gate+place+1)
}

// hang up what a killed process has left waiting at a gate: PostgreSQL looks after its
// clients only when it has an answer for them.
func (g *gates) hangUp() {
	g.in.t.Helper()
	g.sql(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND wait_event = 'advisory'`)
}

// killed is a moment at which a run is killed: as soon as it has come that far in the
// phase, or as far as the phase goes.
type killed struct {
	phase int
	share float64
}

// moments are n of them, in their order: each phase gets one, then those that last get
// more.
func moments(random *rand.Rand, n int) (all []killed) {
	order := []int{1, 5, 4, 2, 3, 0}
	long := []int{1, 4, 5, 2}
	for i := range max(n, len(order)) {
		phase := long[i%len(long)]
		if i < len(order) {
			phase = order[i]
		}
		all = append(all, killed{phase, random.Float64()})
	}
	all[2].share = 1 // events are published, and not confirmed
	slices.SortFunc(all, func(a, b killed) int {
		if a.phase != b.phase {
			return a.phase - b.phase
		}
		return int(1000*a.share) - int(1000*b.share)
	})
	return all
}

// await waits until the run has come to this moment in the process's current life, and
// says how far it is.
func (g *gates) await(id string, m killed, carried, before int, full [6]int) (how string) {
	in := g.in
	in.t.Helper()
	testenv.Eventually(in.t, 2*time.Minute, func() error {
		if n := strings.Count(in.dev.log.String(), `"reconcile.carried","run":"`+id); n < carried {
			return fmt.Errorf("the run was carried %d times, want %d", n, carried)
		}
		var state, phase string
		var at [6]int
		var atGate int
		err := in.db.QueryRow(context.Background(), `SELECT state, phase, f.found, repaired + 50 * drawn + 50 * published, greatest(parked, ended) + ended, at_gate
			FROM trueup.runs, LATERAL (SELECT count(*) FILTER (WHERE reason <> 'nobody') found, count(*) FILTER (WHERE status = 'repaired' AND event_id IS NULL) repaired,
				count(event_id) drawn, count(published_at) published, count(ended_at) ended FROM trueup.findings WHERE run_id = id) f,
			(SELECT count(*) parked FROM trueup.retries) p, (SELECT count(*) at_gate FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory') g
			WHERE id = $1`, id).Scan(&state, &phase, &at[2], &at[4], &at[5], &atGate)
		if err != nil {
			in.t.Fatal(err)
		}
		at[1] = len(counted(in.listing()[before:]))
		how = fmt.Sprintf("%s at %d of %d, %d held", phase, at[m.phase], full[m.phase], atGate)
		switch {
		case phase != phases()[m.phase]:
			return fmt.Errorf("%s in %s, want %s", state, phase, phases()[m.phase])
		case atGate > 0, at[m.phase] >= int(m.share*float64(full[m.phase])):
			return nil
		}
		return errors.New("not that far: " + how)
	})
	return how
}

// TestReconcileOverKills: kill -9 at random moments of every phase of a run, each followed
// by a restart: all that was damaged is found and repaired once, and no page is listed
// again but those that were under way: one being asked for, one being written.
// TRUEUP_TEST_KILLS says how many moments, TRUEUP_TEST_SEED which.
func TestReconcileOverKills(t *testing.T) {
	t.Parallel()
	in := startServe(t, nil)
	in.untold(6000)
	in.wantRun(0, "complete", "run")
	want := in.damage(2200)
	seed := uint64(many(t, "TRUEUP_TEST_SEED", int(time.Now().UnixNano()%1e9)))
	t.Logf("TRUEUP_TEST_SEED=%d", seed)
	at := moments(rand.New(rand.NewPCG(seed, 1)), many(t, "TRUEUP_TEST_KILLS", 6))
	// How far each phase goes: pages; findings; findings repaired, and 100 for each of the
	// orphans whose event is published; those orphans parked for their second look, or ended.
	full := [6]int{1: 7, 2: len(want), 4: len(want) - 10 + 100*10, 5: 2 * 10}

	g := in.closeGates()
	in.plantFault(map[string]any{"method": "GET", "path": "/v1/files", "latency": "150ms", "times": 0})
	in.plantFault(map[string]any{"method": "GET", "path": "/v1/files/*/details", "latency": "100ms", "times": 0})
	before := len(in.listing())
	id := in.ops("POST", "/api/runs", map[string]any{"kind": "run"}).want(t, http.StatusOK).text(t, "id")
	opened, inList, confirmed := 0, 0, false
	for n, m := range at {
		for ; opened <= m.phase; opened++ {
			g.open(opened)
		}
		if m.phase == 5 && !confirmed {
			g.open(confirming)
			confirmed = true
		}
		how := g.await(id, m, n+1, before, full)
		in.dev.kill9()
		g.hangUp()
		t.Logf("kill %d: %s", n+1, how)
		if m.phase == 1 {
			inList++
		}
		in.dev.restart()
	}
	for ; opened <= len(phases()); opened++ {
		g.open(opened)
	}
	if !confirmed {
		g.open(confirming)
	}
	in.answers(in.env["TRUEUP_URL"] + "/readyz")
	r := in.awaitRun(id, 3*time.Minute)
	listed := in.listing()[before:]
	again := repeats(listed)
	t.Logf("%d kills, %d of them in the listing: %d list calls, %d of them again; %s; notes %q", len(at), inList, len(listed), again, r.FinishedAt.Sub(r.StartedAt), r.Notes)
	if r.State != "complete" || !r.Whole || r.Listed != 6000-5 {
		t.Errorf("the run ended %+v", r)
	}
	if again > 2*inList {
		t.Errorf("%d pages were listed again over %d kills in the listing: %q", again, inList, slices.Sorted(maps.Keys(counted(listed))))
	}
	in.foundAll(r, want)
	in.nothingParked()
}

// counted is how often each was asked for.
func counted(queries []string) map[string]int {
	n := map[string]int{}
	for _, q := range queries {
		n[q]++
	}
	return n
}
