package service_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/testenv"
)

// Dead letters end to end: thousands of events that cannot be applied, in all four
// classes, planted in ImageKit, in the database and in the worker itself; replayed
// over a kill, exported, and replayed elsewhere. The oracle stays truth_test.go.

// ailingEnv gives up soon, and asks patiently: on a loaded machine a look-up that ran
// out of time would die in the class imagekit, whatever was planted.
func ailingEnv() map[string]string {
	return map[string]string{"TRUEUP_RETRY_MAX_AGE": "300ms", "TRUEUP_NOT_FOUND_GRACE": "200ms", "TRUEUP_API_PATIENCE": "60s", "TRUEUP_API_TIMEOUT": "60s"}
}

// ailing are files that fail in four ways, by who must act.
type ailing map[string][]string

// ail makes n files of each class, plants their faults and reports all of them: the
// first of each class's files by ann, the rest by bob. It returns when every report is
// a dead letter.
func (in *installation) ail(n int) ailing {
	in.t.Helper()
	in.webhooks(false)
	in.settings(map[string]any{"rateLimit": map[string]any{"perSecond": 5000, "burst": 5000}})
	in.sound()
	files := ailing{}
	for _, class := range []string{"caller", "imagekit", "database", "trueup"} {
		in.control("POST", "files/generate", map[string]any{"count": n, "folder": "/" + class, "spread": "20m"})
	}
	for id, r := range in.library() {
		class, _, _ := strings.Cut(strings.TrimPrefix(r.Path, "/"), "/")
		if class != "sound" {
			files[class] = append(files[class], id)
		}
	}
	in.plant(files)
	for class, ids := range files {
		slices.Sort(ids)
		in.reportAll(ids, class == "trueup")
	}
	return files
}

// sound are some healthy files with their rows: what shows that ImageKit as a whole is
// up. Enough of them for a search, which brings the new limit along.
func (in *installation) sound() {
	in.t.Helper()
	in.control("POST", "files/generate", map[string]any{"count": soundFiles, "folder": "/sound", "spread": "20m"})
	var ids []string
	for id := range in.library() {
		ids = append(ids, id)
	}
	in.reportAll(ids, false)
	in.converges(time.Minute)
}

// soundFiles is how many healthy files there are beside the ailing ones.
const soundFiles = 20

func (in *installation) plant(files ailing) {
	in.t.Helper()
	var faults []map[string]any
	for class, status := range map[string]int{"imagekit": 503, "caller": 400} {
		for _, id := range files[class] {
			faults = append(faults, map[string]any{"path": "/v1/files*", "fileId": id, "status": status, "body": map[string]any{"message": "planted " + class}})
		}
	}
	in.control("POST", "faults", faults)
	in.exec(`CREATE TABLE public.planted (file_id text PRIMARY KEY)`)
	in.exec(`INSERT INTO public.planted SELECT unnest($1::text[])`, files["database"])
	in.exec(`CREATE FUNCTION public.planted() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
		IF EXISTS (SELECT FROM public.planted p WHERE p.file_id = NEW.file_id) THEN RAISE check_violation USING MESSAGE = 'planted'; END IF;
		RETURN NEW; END $$`)
	in.exec(`CREATE TRIGGER planted BEFORE INSERT ON public.imagekit_files FOR EACH ROW EXECUTE FUNCTION public.planted()`)
}

// heal takes away what ImageKit and the database refused. What was planted in an
// event's own body stays: no replay can cure it.
func (in *installation) heal() {
	in.t.Helper()
	in.control("DELETE", "faults", nil)
	in.exec(`DELETE FROM public.planted`)
}

func (in *installation) exec(sql string, args ...any) {
	in.t.Helper()
	if _, err := in.db.Exec(in.t.Context(), sql, args...); err != nil {
		in.t.Fatalf("%s: %v", sql, err)
	}
}

// reportAll reports the files in arrays of a hundred.
func (in *installation) reportAll(ids []string, planted bool) {
	in.t.Helper()
	for i, part := range slices.Collect(slices.Chunk(ids, 100)) {
		reports := make([]map[string]string, len(part))
		for j, id := range part {
			reports[j] = map[string]string{"fileId": id}
			if planted {
				reports[j]["plant"] = "panic"
			}
		}
		user := "bob"
		if i == 0 {
			user = "ann"
		}
		in.call(user, "POST", "/save-metadata", reports).want(in.t, http.StatusAccepted)
	}
}

// dead counts the dead letters by class, by the CLI.
func (in *installation) dead(args ...string) (total int, classes map[string]int) {
	in.t.Helper()
	var n struct {
		Total   int
		Classes map[string]int
	}
	out := must(in.t, in.env, append([]string{"dead", "count", "--json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &n); err != nil {
		in.t.Fatalf("dead count --json: %v: %s", err, out)
	}
	return n.Total, n.Classes
}

func (in *installation) awaitDead(want int) {
	in.t.Helper()
	testenv.Eventually(in.t, 4*time.Minute, func() error {
		if n := in.count("SELECT count(*) FROM trueup.dead_letters WHERE state = 'dead'"); n != want {
			return fmt.Errorf("%d dead letters, want %d", n, want)
		}
		return nil
	})
}

// TestI10ReplayCuresExactlyTheCurable: ten thousand dead letters in four classes; one
// replay, over a kill -9 halfway, makes rows of exactly those that can be cured; a
// second one changes no row and says why.
func TestI10ReplayCuresExactlyTheCurable(t *testing.T) {
	t.Parallel()
	const each = 2500
	in := startDevPlanted(t, ailingEnv())
	files := in.ail(each)
	in.awaitDead(4 * each)
	total, classes := in.dead()
	if total != 4*each || !maps.Equal(classes, map[string]int{"caller": each, "imagekit": each, "database": each, "trueup": each}) {
		t.Errorf("dead count says %d %v, want %d of each class", total, classes, each)
	}
	if s := in.stats(); s.Faults < 2*each {
		t.Errorf("only %d planted faults fired", s.Faults)
	}
	if n := len(in.rows()); n != soundFiles {
		t.Errorf("%d rows, want the sound ones alone", n)
	}

	in.heal()
	job := in.startReplay()
	testenv.Eventually(t, 2*time.Minute, func() error {
		if n := in.count("SELECT count(*) FROM trueup.dead_letters WHERE state = 'resolved'"); n < each/2 {
			return fmt.Errorf("%d resolved so far", n)
		}
		return nil
	})
	in.kill9Dev()
	in.connectAgain()
	in.jobDone(job)
	in.awaitDead(each)
	in.settles(2 * time.Minute)
	in.curedAll(files)

	before := in.rows()
	out, _, code := once(t, in.env, "dead", "replay", "--all", "--yes", "--wait", "--json")
	if code != 4 {
		t.Errorf("a replay that cures nothing exits %d, want 4: %s", code, last(out, 500))
	}
	if !strings.Contains(out, "panic") {
		t.Errorf("it does not say why: %s", last(out, 500))
	}
	in.unchanged(before)
	in.identity()
	if n := in.count(`SELECT count(*) FROM trueup.dead_letters WHERE class = 'trueup' AND jsonb_array_length(history) >= 2`); n != each {
		t.Errorf("%d letters have the history of both replays, want %d", n, each)
	}
}

// startReplay begins a replay of everything without waiting for it, and names its job.
func (in *installation) startReplay() (job string) {
	in.t.Helper()
	out := must(in.t, in.env, "dead", "replay", "--all", "--yes", "--json")
	var j struct{ ID string }
	if err := json.Unmarshal([]byte(out), &j); err != nil || j.ID == "" {
		in.t.Fatalf("dead replay --json names no job: %v: %s", err, out)
	}
	return j.ID
}

func (in *installation) jobDone(id string) {
	in.t.Helper()
	testenv.Eventually(in.t, 4*time.Minute, func() error {
		a := in.ops("GET", "/api/jobs/"+id, nil)
		if a.status != http.StatusOK || a.text(in.t, "state") != "done" {
			return fmt.Errorf("job: %d %s", a.status, a.body)
		}
		return nil
	})
}

// connectAgain opens the database anew after a kill -9 took it along.
func (in *installation) connectAgain() {
	in.t.Helper()
	in.db.Reset()
}

// curedAll: the three curable classes have their rows, each under its reporter; the
// planted panics have none.
func (in *installation) curedAll(files ailing) {
	in.t.Helper()
	rows := in.rows()
	for class, ids := range files {
		for i, id := range ids {
			r, ok := rows[id]
			user := "bob"
			if i < 100 {
				user = "ann"
			}
			switch {
			case class == "trueup" && ok:
				in.t.Errorf("a planted panic has a row: %s", id)
			case class != "trueup" && (!ok || r.User != user):
				in.t.Errorf("%s file %s: row %v of %q, want %s's", class, id, ok, r.User, user)
			}
		}
	}
	if want := 3*len(files["caller"]) + soundFiles; len(rows) != want {
		in.t.Errorf("%d rows, want %d", len(rows), want)
	}
	truth := in.library()
	for _, id := range files["trueup"] {
		delete(truth, id)
	}
	if err := differ(truth, rows); err != nil {
		in.t.Error(err)
	}
}

// unchanged fails when a row was rewritten, added or removed since.
func (in *installation) unchanged(before map[string]row) {
	in.t.Helper()
	after, rewritten := in.rows(), 0
	for id, r := range before {
		if after[id].XMin != r.XMin {
			rewritten++
		}
	}
	if rewritten > 0 || len(after) != len(before) {
		in.t.Errorf("%d rows rewritten; %d rows, were %d", rewritten, len(after), len(before))
	}
}

// TestExportIsReplayedElsewhere: what died in one installation is exported and
// replayed into an empty one on the same library: the same rows under the same owners.
// A tampered or cut file imports nothing and names the line.
func TestExportIsReplayedElsewhere(t *testing.T) {
	t.Parallel()
	const each = 120
	in := startDevPlanted(t, ailingEnv())
	files := in.ail(each)
	in.awaitDead(4 * each)
	in.heal()

	dir := testenv.Dir(t)
	export := filepath.Join(dir, "dead.ndjson")
	if err := os.WriteFile(export, []byte(must(t, in.env, "dead", "export")), 0o600); err != nil {
		t.Fatal(err)
	}
	other := in.empty()
	other.refusesTampered(export, dir)
	out, stderr, code := once(t, other.env, "dead", "replay", "--from", export, "--yes", "--wait", "--json")
	if code != 4 { // the planted panics die again
		t.Fatalf("dead replay --from: exit %d\n%s%s", code, out, stderr)
	}
	other.settles(2 * time.Minute)
	rows := other.rows()
	for class, ids := range files {
		for i, id := range ids {
			r, ok := rows[id]
			user := "bob"
			if i < 100 {
				user = "ann"
			}
			if class != "trueup" && (!ok || r.User != user) {
				t.Errorf("%s file %s: row %v of %q, want %s's", class, id, ok, r.User, user)
			}
		}
	}
	if len(rows) != 3*each {
		t.Errorf("%d rows, want %d", len(rows), 3*each)
	}
}

// empty is a second installation, with a database and a queue of its own, on the same
// library and with the same keys.
func (in *installation) empty() *installation {
	in.t.Helper()
	public, ops := fmt.Sprintf("127.0.0.1:%d", testenv.Freeport(in.t)), fmt.Sprintf("127.0.0.1:%d", testenv.Freeport(in.t))
	env := maps.Clone(in.env)
	maps.Copy(env, map[string]string{"DATABASE_URL": testenv.Postgres(in.t), "TRUEUP_DATA_DIR": testenv.Dir(in.t), "TRUEUP_ADDR": public, "TRUEUP_OPS_ADDR": ops,
		"TRUEUP_URL": "http://" + public, "TRUEUP_OPS_URL": "http://" + ops, "TRUEUP_POLL_EVERY": "0", "TRUEUP_RECONCILE_EVERY": "0"})
	delete(env, "TRUEUP_EMULATOR_ADDR")
	must(in.t, env, "migrate", "up")
	other := &installation{t: in.t, env: env}
	other.dev = startTagged(in.t, env, []string{"planted"}, "serve")
	other.answers(env["TRUEUP_URL"] + "/readyz")
	other.connect()
	return other
}

// refusesTampered imports the file with one byte changed, one line missing, and its
// end cut off.
func (in *installation) refusesTampered(export, dir string) {
	in.t.Helper()
	raw, err := os.ReadFile(export)
	if err != nil {
		in.t.Fatal(err)
	}
	lines := strings.SplitAfter(strings.TrimSuffix(string(raw), "\n"), "\n")
	changed := slices.Clone(lines)
	changed[7] = strings.Replace(changed[7], `"class":"`, `"class": "`, 1)
	if changed[7] == lines[7] {
		in.t.Fatalf("line 8 has no class: %s", lines[7])
	}
	for name, c := range map[string]struct {
		lines []string
		names string
	}{
		"changed": {changed, "line 8"},
		"missing": {slices.Delete(slices.Clone(lines), 7, 8), "line 8"},
		"cut":     {lines[:len(lines)/2], "line"},
	} {
		path := filepath.Join(dir, name+".ndjson")
		if err := os.WriteFile(path, []byte(strings.Join(c.lines, "")), 0o600); err != nil {
			in.t.Fatal(err)
		}
		stdout, stderr, code := once(in.t, in.env, "dead", "replay", "--from", path, "--yes")
		if code != 1 || !strings.Contains(stdout+stderr, c.names) {
			in.t.Errorf("a file with a line %s: exit %d, want 1 and the line named: %s%s", name, code, stdout, stderr)
		}
	}
	if n := in.count("SELECT count(*) FROM trueup.dead_letters"); n != 0 {
		in.t.Errorf("%d letters were imported from bad files", n)
	}
}
