package store_test

import (
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/testenv"
	"github.com/trueup/trueup/migrations"
)

// noteCommits writes down with which synchronous_commit transactions commit that settle, begin
// a turn, or leave a mark.
const noteCommits = `
CREATE TABLE public.commits (what text, how text);
CREATE FUNCTION public.note_commit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
	INSERT INTO public.commits VALUES (TG_TABLE_NAME, current_setting('synchronous_commit')); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER note_commit AFTER INSERT ON trueup.ledger DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.note_commit();
CREATE CONSTRAINT TRIGGER note_commit AFTER UPDATE ON trueup.leases DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.note_commit();
CREATE CONSTRAINT TRIGGER note_commit AFTER INSERT ON trueup.trial_marks DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.note_commit();`

// TestCommitsAreFlushed: an envelope is acked after the commit, so the commit has to be
// on disk then, whatever the database's own default is; found by cutting the power.
func TestCommitsAreFlushed(t *testing.T) {
	for set, want := range map[string]string{"off": "on", "on": "on", "local": "local", "remote_apply": "remote_apply"} {
		t.Run(set, func(t *testing.T) {
			url := testenv.Postgres(t)
			if err := migrations.Up(t.Context(), url, migrations.Options{}); err != nil {
				t.Fatal(err)
			}
			first := &rig{TB: t, ctx: t.Context(), url: url}
			first.sql = first.connect()
			first.exec(noteCommits)
			first.exec(`DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = ` + set + `', current_database()); END $$`)
			r := rigOn(t, url, url) // begins a turn
			r.settle([]event.Pending{report("f1", "ann")}, r.look("f1", snap("f1", 0)))
			if err := r.st.Blame(r.ctx, r.turn, []string{"e1"}, "stack"); err != nil {
				t.Fatal(err)
			}
			rows, err := r.sql.Query(r.ctx, `SELECT DISTINCT what || ' ' || how FROM public.commits ORDER BY 1`)
			if err != nil {
				t.Fatal(err)
			}
			got, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, []string{"leases " + want, "ledger " + want, "trial_marks " + want}) {
				t.Errorf("commits %q, want all with %s", got, want)
			}
		})
	}
}
