package service_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/testenv"
)

// What the tests of reconciliation share: runs as the command line shows them.

// reconciled is a run, read as somebody's script would read it.
type reconciled struct {
	ID, State, Phase, Error, Fuse    string
	Listed, Calls, Rows, Same, Moved int64
	Candidates, Unsettled, Unowned   int64
	Whole                            bool
	Found                            map[string]map[string]int64
	Notes                            []string
	Account                          struct{ Confirmed bool }
	StartedAt, FinishedAt            time.Time
}

// of is how many findings of a kind have a status; any status when it is empty.
func (r reconciled) of(kind, status string) (n int64) {
	for s, count := range r.Found[kind] {
		if status == "" || s == status {
			n += count
		}
	}
	return n
}

// reconcile runs `trueup reconcile args… --json` to its end.
func (in *installation) reconcile(args ...string) (r reconciled, code int) {
	in.t.Helper()
	stdout, stderr, code := once(in.t, in.env, append(append([]string{"reconcile"}, args...), "--json")...)
	if err := json.Unmarshal([]byte(stdout), &r); err != nil && code != 1 && code != 2 {
		in.t.Fatalf("reconcile %v: exit %d, %v\n%s%s", args, code, err, stdout, stderr)
	}
	if code != 0 {
		in.t.Logf("reconcile %v: exit %d: %s", args, code, last(stderr, 600))
	}
	return r, code
}

// wantRun is reconcile that has to end with this code and state.
func (in *installation) wantRun(code int, state string, args ...string) reconciled {
	in.t.Helper()
	r, got := in.reconcile(args...)
	if got != code || r.State != state {
		in.t.Fatalf("reconcile %v: exit %d, state %q; want %d, %q: %+v", args, got, r.State, code, state, r)
	}
	return r
}

// finding is what a run says of one file.
type finding struct {
	FileID, Kind, Status, Reason string
	Columns                      []struct{ Column string }
	Evidence                     []string
}

// findings are all of a run's, by fileId.
func (in *installation) findings(runID string) map[string]finding {
	in.t.Helper()
	all := map[string]finding{}
	for after := ""; ; {
		a := in.ops("GET", "/api/runs/"+runID+"/findings?limit=200&after="+after, nil).want(in.t, http.StatusOK)
		var page struct {
			Items []finding
			Next  string
		}
		if err := json.Unmarshal(a.body, &page); err != nil {
			in.t.Fatal(err)
		}
		for _, f := range page.Items {
			all[f.FileID] = f
		}
		if after = page.Next; after == "" {
			return all
		}
	}
}

// showRun is what the API says of a run now.
func (in *installation) showRun(id string) (r reconciled) {
	in.t.Helper()
	a := in.ops("GET", "/api/runs/"+id, nil).want(in.t, http.StatusOK)
	if err := json.Unmarshal(a.body, &r); err != nil {
		in.t.Fatal(err)
	}
	return r
}

// awaitRun waits until a run has come to an end.
func (in *installation) awaitRun(id string, within time.Duration) (r reconciled) {
	in.t.Helper()
	testenv.Eventually(in.t, within, func() error {
		a := in.ops("GET", "/api/runs/"+id, nil)
		if a.status != http.StatusOK {
			return fmt.Errorf("GET /api/runs: %d %s", a.status, a.body)
		}
		if err := json.Unmarshal(a.body, &r); err != nil {
			return err
		}
		if r.State == "running" || r.State == "applying" {
			return fmt.Errorf("still %s: %s", r.State, a.body)
		}
		return nil
	})
	return r
}

// library of n files that no webhook and no client tells of.
func (in *installation) untold(n int) {
	in.t.Helper()
	in.settings(map[string]any{"rateLimit": unlimited(), "writeRateLimit": unlimited(), "webhooks": map[string]any{"enabled": false}})
	in.control("POST", "files/generate", map[string]any{"count": n, "folder": "/untold"})
}

// many is a number of files that CI can bear, or the one that the environment names.
func many(t testing.TB, name string, ci int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return ci
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// TestReconcileFillsAnEmptyTable: webhooks off, an empty table; one run makes it equal to
// the library within a bound of list calls, a second one changes nothing and says what
// it examined. TRUEUP_TEST_FILES says how many files; CI takes fewer.
func TestReconcileFillsAnEmptyTable(t *testing.T) {
	t.Parallel()
	n := many(t, "TRUEUP_TEST_FILES", 5_000)
	in := startDev(t, nil)
	in.untold(n)
	before := in.stats()
	r := in.wantRun(0, "complete", "run")
	after := in.stats()
	lists, details := after.Requests["list"]-before.Requests["list"], after.Requests["details"]-before.Requests["details"]
	t.Logf("%d files: %d list calls, %d look-ups, %s", n, lists, details, r.FinishedAt.Sub(r.StartedAt))
	if most := n*11/10_000 + 4; lists > most { // of 100,000 files at most 110 calls, and a search that the worker tries at start
		t.Errorf("%d list calls, want at most %d", lists, most)
	}
	if details > 5 {
		t.Errorf("%d look-ups, though no row was an orphan", details)
	}
	if r.Listed != int64(n) || r.of("missing", "repaired") != int64(n) || !r.Whole {
		t.Errorf("the run says %+v", r)
	}
	if err := in.differs(); err != nil {
		t.Fatal(err)
	}
	rows, states := in.rows(), in.count(`SELECT coalesce(sum(xmin::text::bigint), 0) FROM trueup.file_state`)
	again := in.wantRun(0, "complete", "run")
	if again.Same != int64(n) || again.Listed != int64(n) || again.Rows != int64(n) {
		t.Errorf("the second run says %+v", again)
	}
	in.unchanged(rows)
	if now := in.count(`SELECT coalesce(sum(xmin::text::bigint), 0) FROM trueup.file_state`); now != states {
		t.Error("the second run wrote to file_state")
	}
}

// corruptions is what a person may do to each column.
func corruptions() []string {
	return []string{`file_url = 'https://evil.example/x'`, `upload_timestamp = now()`, `file_name = NULL`, `file_path = '/elsewhere'`, `file_type = 'non-image'`,
		`mime = ''`, `size_bytes = -1`, `width = 9999`, `height = NULL`, `thumbnail_url = 'x'`, `tags = '{a,b}'`, `custom_metadata = '{"n": 2}'`, `version_id = 'v'`,
		`is_private = true`, `remote_updated_at = now()`, `user_id = 'eve'`}
}

// TestReconcileFindsWhatNobodyTold: by SQL alone rows deleted, corrupted (each column in
// turn) and made up; upstream files deleted and overwritten; meanwhile others uploaded.
// All are found in their right classes and repaired, those uploaded meanwhile are left
// alone, and `why` tells of each.
func TestReconcileFindsWhatNobodyTold(t *testing.T) {
	t.Parallel()
	scale := many(t, "TRUEUP_TEST_SCALE", 1) // 10: the thousand of the issue
	in := startDev(t, nil)
	in.untold(3000 * scale)
	in.wantRun(0, "complete", "run")
	ids := slices.Sorted(mapKeys(in.rows()))
	take := func(n int) (taken []string) { taken, ids = ids[:n*scale], ids[n*scale:]; return taken }

	erased, corrupted, gone, overwritten := take(100), take(112), take(5), take(5)
	in.exec(`DELETE FROM public.imagekit_files WHERE file_id = ANY($1)`, erased)
	for i, id := range corrupted {
		in.exec(`UPDATE public.imagekit_files SET `+corruptions()[i%len(corruptions())]+` WHERE file_id = $1`, id)
	}
	var bogus []string
	for i := range 5 * scale {
		id := fmt.Sprintf("b0905%019d", i)
		bogus = append(bogus, id)
		in.exec(`INSERT INTO public.imagekit_files (file_id, file_url, user_id) VALUES ($1, 'https://evil.example/b', 'eve')`, id)
	}
	for _, id := range gone {
		in.delete(id)
	}
	for _, id := range overwritten {
		in.patch(id, map[string]any{"tags": []string{"overwritten"}})
	}
	in.older()
	in.webhooks(true)
	fault := in.plantFault(map[string]any{"method": "GET", "path": "/v1/files", "latency": "5s", "times": 0})
	id := in.ops("POST", "/api/runs", map[string]any{"kind": "run"}).want(t, http.StatusOK).text(t, "id")
	testenv.Eventually(t, time.Minute, func() error {
		if in.showRun(id).Listed == 0 {
			return errors.New("nothing listed yet")
		}
		return nil
	})
	var uploaded []string
	for i := range 10 * scale {
		uploaded = append(uploaded, in.uploadServer(nil, i))
	}
	for _, id := range uploaded {
		in.awaitRow(id)
	}
	young := in.rows()
	if in.showRun(id).Phase != "list" {
		t.Fatal("the files were uploaded too late to tell anything")
	}
	if in.fired()[fault] == 0 {
		t.Fatal("the listing was not slowed")
	}
	in.healFaults()
	r := in.awaitRun(id, 3*time.Minute)
	if r.State != "complete" {
		t.Fatalf("the run ended %+v", r)
	}
	found := in.findings(id)
	classes := map[string][]string{"missing": erased, "drifted": slices.Concat(corrupted, overwritten), "orphaned": slices.Concat(bogus, gone)}
	for kind, files := range classes {
		if r.of(kind, "repaired") != int64(len(files)) || r.of(kind, "") != int64(len(files)) {
			t.Errorf("%s: %v, want %d repaired", kind, r.Found[kind], len(files))
		}
		for _, id := range files {
			if f := found[id]; f.Kind != kind || f.Status != "repaired" {
				t.Errorf("%s: %+v, want %s repaired", id, f, kind)
			}
		}
	}
	for i, id := range corrupted {
		column, _, _ := strings.Cut(corruptions()[i%len(corruptions())], " ")
		if f := found[id]; len(f.Columns) != 1 || f.Columns[0].Column != column {
			t.Errorf("%s was corrupted in %s, found: %+v", id, column, f.Columns)
		}
	}
	rows := in.rows()
	for _, id := range uploaded {
		if f, ok := found[id]; ok {
			t.Errorf("%s, uploaded during the run, was judged: %+v", id, f)
		}
		if rows[id].XMin != young[id].XMin {
			t.Errorf("%s, uploaded during the run, was touched", id)
		}
	}
	in.settles(time.Minute)
	if err := in.differs(); err != nil {
		t.Error(err)
	}
	for _, ids := range classes {
		for _, id := range []string{ids[0], ids[len(ids)-1]} {
			if story := strings.Join(in.story(id), "\n"); !strings.Contains(story, r.ID) {
				t.Errorf("why %s does not name the run:\n%s", id, story)
			}
		}
	}
	if n := in.count(`SELECT count(*) FROM public.imagekit_files WHERE user_id = 'eve'`); n != 0 {
		t.Errorf("%d rows are eve's", n)
	}
}

// TestReconcileFuse: more candidates than the fuse bears: exit 3, no deletion, everything
// else repaired, released only with the number that show prints.
func TestReconcileFuse(t *testing.T) {
	t.Parallel()
	in := startDev(t, nil)
	in.untold(2000)
	in.wantRun(0, "complete", "run")
	ids := slices.Sorted(mapKeys(in.rows()))
	for _, id := range ids[:40] {
		in.delete(id)
	}
	in.exec(`DELETE FROM public.imagekit_files WHERE file_id = ANY($1)`, ids[100:130])

	plan := in.wantRun(0, "planned", "plan")
	if plan.Candidates != 40 || plan.Fuse == "" || in.status().Fuse.Latched {
		t.Errorf("the plan says %+v", plan)
	}
	if _, code := in.reconcile("plan", "--exit-code"); code != 5 {
		t.Errorf("plan --exit-code: %d, want 5", code)
	}
	r := in.wantRun(3, "partial", "run")
	if r.Candidates != 40 || r.of("orphaned", "refused") != 40 || r.of("missing", "repaired") != 30 {
		t.Errorf("the run says %+v", r)
	}
	in.wantRows(2000, "with the fuse latched")
	if !in.status().Fuse.Latched {
		t.Error("status does not show the fuse")
	}
	// A latched fuse holds for everybody: an operator's recheck removes nothing either.
	must(t, in.env, "recheck", ids[0])
	in.wantRun(3, "partial", "run")
	in.wantRows(2000, "with the fuse latched before")

	shown := must(t, in.env, "reconcile", "show", r.ID)
	if !strings.Contains(shown, "--expect-deletions 40") {
		t.Errorf("show does not say how to release:\n%s", shown)
	}
	if _, code := in.reconcile("apply", r.ID, "--yes", "--expect-deletions", "39"); code != 1 {
		t.Errorf("the wrong number: exit %d, want 1", code)
	}
	in.wantRows(2000, "after the wrong number")
	in.wantRun(0, "complete", "apply", r.ID, "--yes", "--expect-deletions", "40")
	in.wantRows(1960, "after the release")
	if in.status().Fuse.Latched {
		t.Error("the fuse is still latched")
	}
	in.settles(2 * time.Minute)
	if err := in.differs(); err != nil {
		t.Error(err)
	}
	in.wantRun(0, "complete", "run")
}

// wantRows fails unless the table has n rows.
func (in *installation) wantRows(n int, when string) {
	in.t.Helper()
	if got := in.count(`SELECT count(*) FROM public.imagekit_files`); got != n {
		in.t.Errorf("%s: %d rows, want %d", when, got, n)
	}
}

// TestReconcileKnowsItsAccount: a key of another account is recognised before anything is
// judged, and its 404s remove nothing, also when a thousand webhooks come in meanwhile.
func TestReconcileKnowsItsAccount(t *testing.T) {
	t.Parallel()
	in := startServe(t, nil)
	in.untold(1000)
	in.wantRun(0, "complete", "run")
	before := in.rows()

	other := fmt.Sprintf("127.0.0.1:%d", testenv.Freeport(t))
	own := in.env["IMAGE_KIT_BASE_URL"]
	env := map[string]string{}
	for k, v := range in.env {
		env[k] = v
	}
	env["TRUEUP_EMULATOR_ADDR"], env["TRUEUP_DATA_DIR"], env["IMAGE_KIT_BASE_URL"] = other, testenv.Dir(t), "http://"+other
	start(t, env, "emulator")
	in.answers("http://" + other + "/_emulator/settings")
	in.env["IMAGE_KIT_BASE_URL"] = "http://" + other
	in.control("POST", "files/generate", map[string]any{"count": 300, "folder": "/others", "spread": "700h"})
	in.settings(map[string]any{"rateLimit": unlimited()})
	in.dev.stop()
	in.dev.set("IMAGE_KIT_BASE_URL", "http://"+other)
	in.dev.restart()
	in.answers(in.env["TRUEUP_URL"] + "/readyz")

	ids := slices.Sorted(mapKeys(before))
	for i, id := range ids {
		kind := "file.updated"
		if i%2 == 0 {
			kind = "file.deleted"
		}
		in.webhook(kind, `{"fileId":"`+id+`"}`).want(t, http.StatusOK)
	}
	r, code := in.reconcile("run")
	if code != 1 || r.State != "failed" || r.Account.Confirmed || len(r.Found) != 0 {
		t.Errorf("exit %d, %+v", code, r)
	}
	if s := must(t, in.env, "status"); !strings.Contains(s, "account") {
		t.Errorf("status does not speak of the account:\n%s", s)
	}
	// Each webhook's look-up has been made, and nothing came of any.
	testenv.Eventually(t, 2*time.Minute, func() error {
		if s := in.status(); s.Queue.Waiting+s.Queue.Unacked > 0 {
			return errors.New("webhooks are still on the queue")
		}
		return nil
	})
	in.unchanged(before)

	in.dev.stop()
	in.env["IMAGE_KIT_BASE_URL"] = own
	in.dev.set("IMAGE_KIT_BASE_URL", own)
	in.dev.restart()
	in.answers(in.env["TRUEUP_URL"] + "/readyz")
	in.wantRun(0, "complete", "run")
	if err := in.differs(); err != nil {
		t.Error(err)
	}
	in.unchanged(before)
}

// TestPollNeedsNoWebhook: none is delivered; changes upstream are rows within two polls,
// deletions by the next run.
func TestPollNeedsNoWebhook(t *testing.T) {
	t.Parallel()
	in := startServe(t, map[string]string{"TRUEUP_POLL_EVERY": "1s"})
	in.untold(1000)
	in.wantRun(0, "complete", "run")
	polled := func(n int) {
		t.Helper()
		before := in.stats().Requests["list"]
		testenv.Eventually(t, time.Minute, func() error {
			if now := in.stats().Requests["list"]; now < before+n {
				return fmt.Errorf("%d polls, want %d", now-before, n)
			}
			return nil
		})
	}
	polled(2)
	ids := slices.Sorted(mapKeys(in.rows()))
	for _, id := range ids[:400] {
		in.patch(id, map[string]any{"tags": []string{"changed"}})
	}
	for i := range 100 {
		in.uploadServer(nil, i)
	}
	for _, id := range ids[900:905] {
		in.delete(id)
	}
	polled(3) // one may have been under way when the last change was made
	testenv.Eventually(t, 30*time.Second, func() error {
		library, rows := in.library(), in.rows()
		for _, id := range ids[900:905] {
			delete(rows, id)
		}
		return differ(library, rows)
	})
	in.wantRows(1100, "before the run")
	r := in.wantRun(0, "complete", "run")
	if r.of("orphaned", "repaired") != 5 || r.of("missing", "")+r.of("drifted", "") != 0 {
		t.Errorf("polling left something to the run: %+v", r)
	}
	if err := in.differs(); err != nil {
		t.Error(err)
	}
}

// mapKeys yields the keys of rows.
func mapKeys(m map[string]row) func(func(string) bool) {
	return func(yield func(string) bool) {
		for id := range m {
			if !yield(id) {
				return
			}
		}
	}
}

// unlimited is no rate limit of the emulator.
func unlimited() map[string]any { return map[string]any{"perSecond": 0, "burst": 0} }
