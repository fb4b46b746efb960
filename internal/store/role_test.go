package store_test

import (
	"context"
	"net/url"
	"strings"
	"testing"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/run"
	"github.com/trueup/trueup/internal/store"
	"github.com/trueup/trueup/internal/testenv"
	"github.com/trueup/trueup/migrations"
)

func (r *rig) forPlan() *store.Store {
	r.Helper()
	plan, note, err := r.st.ForPlan(r.ctx)
	if err != nil || note != "" {
		r.Fatalf("for a plan: %q, %v", note, err)
	}
	if plan == r.st {
		r.Fatal("no store of its own")
	}
	return plan
}

// What a plan may not do, PostgreSQL itself refuses; what belongs to its run it may. Both
// directly and over one single server connection of a transaction pooler, where a role
// that outlived its transaction would hit whoever comes next.
func TestAPlanChangesNothingButItsRun(t *testing.T) {
	for _, pooled := range []bool{false, true} {
		t.Run(map[bool]string{false: "Direct", true: "ThroughAPooler"}[pooled], func(t *testing.T) {
			direct := testenv.Postgres(t)
			if err := migrations.Up(t.Context(), direct, migrations.Options{}); err != nil {
				t.Fatal(err)
			}
			u := direct
			if pooled {
				u = testenv.PgBouncer(t, direct, testenv.PgBouncerOptions{PoolSize: 1})
			}
			r := rigOn(t, u, direct, func(c *store.Config) { c.MaxConns = 1 })
			r.settle([]event.Pending{webhook("f1")}, r.look("f1", snap("f1", 0)))
			before := r.xmins()
			plan, it := r.forPlan(), r.begin(run.Plan)
			for what, sql := range map[string]string{
				"add a row":        `INSERT INTO public.imagekit_files (file_id, file_url, user_id) VALUES ('x', 'x', '') RETURNING ''`,
				"change a row":     `UPDATE public.imagekit_files SET user_id = 'eve' RETURNING ''`,
				"delete a row":     `DELETE FROM public.imagekit_files RETURNING ''`,
				"write a state":    `INSERT INTO trueup.file_state (file_id, seen) VALUES ('x', 1) RETURNING ''`,
				"write the ledger": `INSERT INTO trueup.ledger (id, file_id, source, origin, kind) VALUES ('x', 'x', '', '', '') RETURNING ''`,
				"release the fuse": `UPDATE trueup.fuse SET latched_at = NULL RETURNING ''`,
				"write the audit":  `INSERT INTO trueup.audit (id, who, verb) VALUES ('x', '', '') RETURNING ''`,
				"take the turn":    `UPDATE trueup.leases SET turn = turn + 1 RETURNING ''`,
				"move the poll":    `UPDATE trueup.poll SET position = now() RETURNING ''`,
				"park a retry":     `DELETE FROM trueup.retries RETURNING ''`,
				"draw a fence":     `SELECT nextval('trueup.fence')::text`,
			} {
				for in, id := range map[string]string{"a read": "", "its run": it.ID} {
					if _, err := plan.Query(r.ctx, r.turn, id, sql); err == nil || !strings.Contains(err.Error(), "42501") {
						t.Errorf("%s in %s: %v", what, in, err)
					}
					who, err := r.st.Query(r.ctx, r.turn, id, `SELECT current_user::text`)
					if err != nil || who == "trueup_plan" {
						t.Fatalf("the role leaked after %s in %s: %s, %v", what, in, who, err)
					}
				}
			}
			if _, err := plan.Settle(r.ctx, r.turn, []event.Pending{webhook("f2")}, nil, settleTable); err == nil {
				t.Error("a plan settled an event")
			}
			if _, _, err := plan.Fence(r.ctx, []string{"f1"}); err != nil {
				t.Errorf("draw a fence: %v", err)
			}
			it.Listed, it.Candidates = 7, 1
			r.must(plan.SaveRun(r.ctx, r.turn, it))
			r.must(plan.SaveFindings(r.ctx, r.turn, it.ID, []run.Finding{finding("f1", run.Orphaned)}))
			open, err := plan.OpenFindings(r.ctx, it.ID, []run.FindingKind{run.Orphaned}, "", 5)
			if err != nil || len(open) != 1 {
				t.Errorf("open findings %+v, %v", open, err)
			}
			it.State = run.Planned
			r.must(plan.FinishRun(r.ctx, r.turn, it))
			if r.xmins() != before {
				t.Error("rows were touched")
			}
			if got := r.run(it.ID); got.State != run.Planned || got.Listed != 7 || got.Found[run.Orphaned][run.Found] != 1 {
				t.Errorf("run %+v", got)
			}
			if err := plan.LatchFuse(r.ctx, r.turn, r.begin(run.Plan).ID, "x"); err == nil {
				t.Error("a plan latched the fuse")
			}
		})
	}
}

func TestAPlanWithoutItsRole(t *testing.T) {
	const password = "test-only"
	for _, c := range []struct{ name, setup, want string }{
		{"NoMember", ``, "permission denied to set role"},
		{"NoRights", `GRANT trueup_plan TO %role; REVOKE UPDATE ON trueup.runs FROM trueup_plan`, "lacks its rights"},
		{"NoSchema", `GRANT trueup_plan TO %role; REVOKE USAGE ON SCHEMA trueup FROM trueup_plan`, "permission denied for schema trueup"},
		{"RowSecurity", `GRANT trueup_plan TO %role; ALTER TABLE public.imagekit_files ENABLE ROW LEVEL SECURITY`, "row security"},
	} {
		t.Run(c.name, func(t *testing.T) {
			admin := newRig(t)
			role := strings.ToLower("test_plan_" + c.name + "_" + webhook("").ID)
			admin.exec(`CREATE ROLE ` + role + ` LOGIN PASSWORD '` + password + `'`)
			t.Cleanup(func() {
				if _, err := admin.sql.Exec(context.Background(), `DROP OWNED BY `+role+`; DROP ROLE `+role); err != nil {
					t.Error(err)
				}
			})
			// The rights of a worker, but not its membership in trueup_plan.
			admin.exec(strings.ReplaceAll(`GRANT USAGE ON SCHEMA trueup TO %role; GRANT ALL ON ALL TABLES IN SCHEMA trueup TO %role;
				GRANT ALL ON public.imagekit_files TO %role; `+c.setup, "%role", role))
			u, err := url.Parse(admin.url)
			if err != nil {
				t.Fatal(err)
			}
			u.User = url.UserPassword(role, password)
			r := rigOn(t, u.String(), admin.url)
			plan, note, err := r.st.ForPlan(r.ctx)
			if err != nil || plan != r.st || !strings.Contains(note, c.want) || !strings.HasSuffix(note, "the plan is made with the worker's own rights") {
				t.Errorf("plan is the store itself: %t; note %q, %v", plan == r.st, note, err)
			}
		})
	}
	t.Run("NoDatabase", func(t *testing.T) {
		r := newRig(t)
		u, _ := url.Parse(r.url)
		link := testenv.Cut(t, u.Host)
		cut := rigOn(t, link.URL(r.url), r.url)
		link.Cut()
		_, _, err := cut.st.ForPlan(r.ctx)
		wantErr(t, err, event.ErrOutage)
	})
}
