package service_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/testenv"
)

// versions is by table how many rows there are and which transactions wrote them.
func (in *installation) versions() map[string]string {
	in.t.Helper()
	tables, err := in.db.Query(in.t.Context(), `SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname IN ('public', 'trueup')`)
	if err != nil {
		in.t.Fatal(err)
	}
	names, err := pgx.CollectRows(tables, pgx.RowTo[string])
	if err != nil {
		in.t.Fatal(err)
	}
	out := map[string]string{}
	for _, name := range names {
		var v string
		err := in.db.QueryRow(in.t.Context(), `SELECT format('%s rows, xmin %s', count(*), coalesce(string_agg(xmin::text, ' ' ORDER BY ctid), '')) FROM `+name).Scan(&v)
		if err != nil {
			in.t.Fatal(err)
		}
		out[name] = v
	}
	return out
}

// wrote is which tables were written to since.
func (in *installation) wrote(since map[string]string) (names []string) {
	in.t.Helper()
	for name, v := range in.versions() {
		if since[name] != v {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// disorder is what a plan will find: rows deleted and changed by a person, files deleted
// and changed upstream, and files that nobody told of.
type disorder struct{ erased, corrupted, gone, overwritten, untold []string }

// disorders changes so many of each.
func (in *installation) disorders(n int) (d disorder) {
	in.t.Helper()
	ids := slices.Sorted(mapKeys(in.rows()))
	take := func(n int) (taken []string) { taken, ids = ids[:n], ids[n:]; return taken }
	d = disorder{erased: take(n), corrupted: take(n), gone: take(6), overwritten: take(n)}
	in.exec(`DELETE FROM public.imagekit_files WHERE file_id = ANY($1)`, d.erased)
	in.exec(`UPDATE public.imagekit_files SET file_url = 'https://evil.example/x', user_id = 'eve' WHERE file_id = ANY($1)`, d.corrupted)
	for _, id := range d.gone {
		in.delete(id)
	}
	for _, id := range d.overwritten {
		in.patch(id, map[string]any{"tags": []string{"overwritten"}})
	}
	for i := range n {
		d.untold = append(d.untold, in.uploadServer(nil, i))
	}
	return d
}

// moved changes one in five of what the plan has found, so that its lines are old: rows
// that were written since are not the plan's to judge.
func (in *installation) moved(d disorder) (moved []string) {
	in.t.Helper()
	for _, ids := range [][]string{d.erased, d.corrupted, d.overwritten, d.untold} {
		moved = append(moved, ids[:len(ids)/5]...)
	}
	for _, id := range d.corrupted[:len(d.corrupted)/5] { // and changed upstream, too
		in.patch(id, map[string]any{"tags": []string{"after the plan"}})
	}
	must(in.t, in.env, append([]string{"recheck", "--wait"}, moved...)...)
	return moved
}

// TestReconcilePlan: a plan changes nothing; applied, it repairs what it found, skips
// what has moved since, and can be applied once.
func TestReconcilePlan(t *testing.T) {
	t.Parallel()
	in := startDev(t, nil)
	in.untold(400)
	in.wantRun(0, "complete", "run")
	in.wantRun(0, "planned", "plan", "--exit-code")
	d := in.disorders(20)

	before := in.versions()
	plan := in.wantRun(5, "planned", "plan", "--exit-code", "--note", "what is it like?")
	if got := strings.Join(in.wrote(before), ", "); got != "trueup.audit, trueup.findings, trueup.runs" {
		t.Errorf("a plan wrote to %s; its run, its findings and the operator's act are all it may", got)
	}
	if plan.of("missing", "found") != 40 || plan.of("drifted", "found") != 40 || plan.of("orphaned", "found") != 6 || plan.Fuse != "" {
		t.Errorf("the plan says %+v", plan)
	}
	listed, shown := must(t, in.env, "reconcile", "list"), must(t, in.env, "reconcile", "show", plan.ID, "--all")
	if !strings.Contains(listed, plan.ID) || !strings.Contains(shown, d.erased[0]) || !strings.Contains(shown, "To repair this: trueup reconcile apply "+plan.ID) {
		t.Errorf("list and show say:\n%s\n%s", listed, shown)
	}

	moved := in.moved(d)
	in.exec(`UPDATE public.imagekit_files SET width = 9999 WHERE file_id = $1`, d.corrupted[10]) // by hand: not newer than the plan
	rows := in.rows()
	calls := in.stats().Requests["list"]
	r := in.wantRun(0, "complete", "apply", plan.ID, "--yes")
	if n := in.stats().Requests["list"] - calls; n > 3 {
		t.Errorf("%d list calls, though the listing is there and young", n)
	}
	in.judgedBy(r, d, moved)
	after := in.rows()
	for _, id := range moved {
		if after[id].XMin != rows[id].XMin {
			t.Errorf("%s was written since the plan, and the plan touched it", id)
		}
	}
	in.settles(time.Minute)
	if err := in.differs(); err != nil {
		t.Error(err)
	}

	stdout, stderr, code := once(t, in.env, "reconcile", "apply", plan.ID, "--yes")
	if code != 1 || !strings.Contains(stderr, "run "+plan.ID+" is complete") || !strings.Contains(stderr, "trueup reconcile plan") {
		t.Errorf("a second time: exit %d\n%s%s", code, stdout, stderr)
	}
	in.ops("POST", "/api/runs/"+plan.ID+"/apply", map[string]any{}).want(t, http.StatusConflict)
}

// judgedBy: what had moved was skipped, everything else repaired.
func (in *installation) judgedBy(r reconciled, d disorder, moved []string) {
	in.t.Helper()
	found := in.findings(r.ID)
	for kind, ids := range map[string][]string{"missing": slices.Concat(d.erased, d.untold), "drifted": slices.Concat(d.corrupted, d.overwritten), "orphaned": d.gone} {
		for _, id := range ids {
			status, reason := "repaired", ""
			if slices.Contains(moved, id) {
				status, reason = "skipped", "changed_since"
			}
			if f := found[id]; f.Kind != kind || f.Status != status || reason != "" && f.Reason != reason {
				in.t.Errorf("%s: %+v, want %s %s %s", id, f, kind, status, reason)
			}
		}
	}
}

// TestReconcilePlanWithoutItsListing: a plan whose spool is gone asks again for its
// files, fifty at a time, and repairs them by what it is told now.
func TestReconcilePlanWithoutItsListing(t *testing.T) {
	t.Parallel()
	in := startDev(t, nil)
	in.untold(300)
	in.wantRun(0, "complete", "run")
	d := in.disorders(60)
	plan := in.wantRun(0, "planned", "plan")
	moved := in.moved(d)
	spools := filepath.Join(in.env["TRUEUP_DATA_DIR"], "reconcile")
	if _, err := os.Stat(filepath.Join(spools, plan.ID)); err != nil {
		t.Fatal("the plan keeps no listing: this proves nothing: ", err)
	}
	if err := os.RemoveAll(spools); err != nil {
		t.Fatal(err)
	}
	for _, id := range d.untold[30:40] { // a listing would not know
		in.patch(id, map[string]any{"tags": []string{"after the plan"}})
	}
	before := in.stats()
	r := in.wantRun(0, "complete", "apply", plan.ID, "--yes")
	after := in.stats()
	in.judgedBy(r, d, moved)
	searches, details := after.Requests["list"]-before.Requests["list"], after.Requests["details"]-before.Requests["details"]
	if want := 240 / 50; searches < want || searches > want+3 { // those of the canaries are look-ups by id
		t.Errorf("%d searches for 240 files, want about %d", searches, want)
	}
	if details > 3*len(d.gone)+5 {
		t.Errorf("%d look-ups for %d orphans", details, len(d.gone))
	}
	if !slices.ContainsFunc(r.Notes, func(n string) bool { return strings.Contains(n, "asked for again") }) {
		t.Errorf("no note says that the listing was gone: %v", r.Notes)
	}
	in.settles(time.Minute)
	if err := in.differs(); err != nil {
		t.Error(err)
	}
}

// TestReconcileAcceptsAnAccount: another library behind the same key. Nothing is judged
// and nothing removed, by runs or by events, until an operator says that it is ours; then
// the fuse stops its deletions, and lets exactly those go that are expected.
func TestReconcileAcceptsAnAccount(t *testing.T) {
	t.Parallel()
	in := startDev(t, nil)
	in.untold(120)
	in.wantRun(0, "complete", "run")
	old := slices.Sorted(mapKeys(in.rows()))
	in.anotherLibrary(30)

	must(t, in.env, append([]string{"recheck"}, old[:10]...)...)
	in.lookedAt(old[:10])
	in.wantRows(120, "after look-ups in another library")

	r := in.wantRun(1, "failed", "run")
	if r.Account.Confirmed || len(r.Found) != 0 || r.Listed != 0 {
		t.Errorf("the run says %+v", r)
	}
	ops := in.env["TRUEUP_OPS_URL"]
	if doubted, latched := in.metric(ops, "trueup_reconcile_account_doubted"), in.metric(ops, "trueup_reconcile_fuse_latched"); doubted != 1 || latched != 0 {
		t.Errorf("doubted %v, latched %v; want 1, 0", doubted, latched)
	}
	for _, args := range [][]string{{"status"}, {"reconcile", "show", r.ID}} {
		if said := must(t, in.env, args...); !strings.Contains(said, "trueup reconcile apply "+r.ID+" --accept-account") {
			t.Errorf("%v does not say what to type:\n%s", args, said)
		}
	}
	if _, code := in.reconcile("apply", r.ID, "--yes"); code != 1 {
		t.Errorf("applied without accepting the account: exit %d, want 1", code)
	}
	if _, code := in.reconcile("apply", r.ID, "--yes", "--accept-account", "--expect-deletions", "120"); code != 1 {
		t.Errorf("deletions expected before they were counted: exit %d, want 1", code)
	}

	r = in.wantRun(3, "partial", "apply", r.ID, "--yes", "--accept-account")
	if r.Candidates != 120 || r.of("orphaned", "refused") != 120 || r.of("missing", "repaired") != 30 {
		t.Errorf("the run says %+v", r)
	}
	in.wantRows(150, "with the account accepted and the fuse latched")
	if doubted, latched := in.metric(ops, "trueup_reconcile_account_doubted"), in.metric(ops, "trueup_reconcile_fuse_latched"); doubted != 0 || latched != 1 {
		t.Errorf("doubted %v, latched %v; want 0, 1", doubted, latched)
	}
	if drift := in.metric(ops, "trueup_reconcile_drift"); drift != 150 {
		t.Errorf("drift %v, want 150", drift)
	}
	if strings.Contains(must(t, in.env, "status"), "NOT RECOGNISED") {
		t.Error("status still doubts the account")
	}

	// Three more rows whose files are not there, which the run knows nothing of; and the
	// new library goes too, so that no known file answers.
	var others []string
	for i := range 3 {
		others = append(others, fmt.Sprintf("00000000000000000000000%d", i))
	}
	in.exec(`INSERT INTO public.imagekit_files (file_id, file_url, user_id) SELECT id, 'https://evil.example/b', 'eve' FROM unnest($1::text[]) AS i(id)`, others)
	in.anotherLibrary(1)
	r = in.wantRun(0, "complete", "apply", r.ID, "--yes", "--expect-deletions", "120")
	if r.of("orphaned", "repaired") != 120 {
		t.Errorf("the run says %+v", r)
	}
	if latched, age := in.metric(ops, "trueup_reconcile_fuse_latched"), time.Since(time.Unix(int64(in.metric(ops, "trueup_reconcile_last_complete_timestamp_seconds")), 0)); latched != 0 || age > time.Hour {
		t.Errorf("latched %v, the last complete run %s ago", latched, age)
	}
	must(t, in.env, append([]string{"recheck"}, others...)...)
	in.lookedAt(others)
	rows := in.rows()
	for _, id := range old {
		if _, there := rows[id]; there {
			t.Fatalf("%s, whose deletion was expected, is still there", id)
		}
	}
	for _, id := range others {
		if _, there := rows[id]; !there {
			t.Errorf("%s is gone, and nobody expected it", id)
		}
	}
	in.wantRows(33, "after the expected deletions")
}

// anotherLibrary puts so many other files behind the same key; the emulator makes ids of
// creation times, and these differ.
func (in *installation) anotherLibrary(n int) {
	in.t.Helper()
	in.control("POST", "reset", nil)
	in.settings(map[string]any{"rateLimit": unlimited(), "writeRateLimit": unlimited(), "webhooks": map[string]any{"enabled": false}})
	in.control("POST", "files/generate", map[string]any{"count": n, "folder": "/another", "spread": fmt.Sprintf("%dh", n)})
}

// lookedAt waits until each file was nominated by a 404 and then refused by one more, for
// want of a file that proves the account.
func (in *installation) lookedAt(ids []string) {
	in.t.Helper()
	testenv.Eventually(in.t, time.Minute, func() error {
		waiting := in.count(`SELECT count(DISTINCT file_id) FROM trueup.retries WHERE reason = 'no_canary' AND file_id = ANY($1)`, ids)
		if waiting < len(ids) {
			return fmt.Errorf("%d of %d files were refused for want of a known one", waiting, len(ids))
		}
		return nil
	})
}
