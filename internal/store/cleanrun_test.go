package store_test

import (
	"fmt"
	"testing"

	"github.com/trueup/trueup/internal/run"
)

// oldRun is a run of 2023 with some findings, as it would stand there today.
func (r *rig) oldRun(n int, state run.State, days, findings int) string {
	r.Helper()
	id := fmt.Sprintf("01HAAAAAAAAAAAAAAAAAAAA%03d", n)
	r.exec(`INSERT INTO trueup.runs (id, kind, state, finished_at) VALUES ($1, 'run', $2, CASE WHEN $2 <> 'running' THEN clock_timestamp() - $3 * interval '1 day' END)`,
		id, string(state), days)
	r.exec(`INSERT INTO trueup.findings (run_id, file_id, kind, status) SELECT $1, 'f' || i, CASE WHEN i % 2 = 0 THEN 'missing' ELSE 'drifted' END, 'repaired'
		FROM generate_series(1, $2) i`, id, findings)
	return id
}

const keptFindings = `SELECT coalesce(string_agg(right(run_id, 3) || ':' || n, ' ' ORDER BY run_id), '') FROM (SELECT run_id, count(*) AS n FROM trueup.findings GROUP BY run_id) c`

func TestFindingsOfOldRunsGo(t *testing.T) {
	t.Run("OfAllButTheYoungestAndWithTheirCountsKept", func(t *testing.T) {
		r := newRig(t)
		for i := 1; i <= 32; i++ {
			r.oldRun(i, run.Complete, 1, 2)
		}
		r.exec(`UPDATE trueup.runs SET state = 'applying' WHERE id LIKE '%001'`)
		r.reopen()
		r.settle(nil)
		r.want("while the oldest is under way", `SELECT count(*) FROM trueup.findings`, 64)
		r.exec(`UPDATE trueup.runs SET state = 'partial' WHERE id LIKE '%001'`)
		r.reopen()
		r.settle(nil)
		r.want("one run's at a time", `SELECT count(*) FROM trueup.findings`, 62)
		for range 2 {
			r.reopen()
			r.settle(nil)
		}
		r.want("findings", `SELECT string_agg(DISTINCT right(run_id, 3), ' ') FROM trueup.findings WHERE run_id < '01HAAAAAAAAAAAAAAAAAAAA005'`, "003 004")
		r.want("runs", `SELECT count(*) FROM trueup.runs`, 32)
		got := r.run("01HAAAAAAAAAAAAAAAAAAAA001")
		if got.Found[run.Missing][run.Repaired] != 1 || got.Found[run.Drifted][run.Repaired] != 1 || got.Unsettled != 0 {
			t.Errorf("counts %+v", got.Found)
		}
		_, err := r.st.ApplyRun(r.ctx, got.ID, run.Apply{Who: "op"})
		wantErr(t, err, run.ErrEnded)
	})

	t.Run("PastTheLedgersRetentionWithTheRun", func(t *testing.T) {
		r := newRig(t)
		r.oldRun(1, run.Complete, 366, 600)
		r.oldRun(2, run.Planned, 366, 0)
		r.oldRun(3, run.Complete, 364, 1)
		r.oldRun(4, run.Running, 0, 1)
		r.reopen()
		r.settle(nil)
		r.want("a slice of the first", keptFindings, "001:100 003:1 004:1")
		for range 2 {
			r.reopen()
			r.settle(nil)
		}
		r.want("findings", keptFindings, "003:1 004:1")
		r.want("runs", `SELECT string_agg(right(id, 3), ' ' ORDER BY id) FROM trueup.runs`, "003 004")
	})

	t.Run("WhenARunEnds", func(t *testing.T) {
		r := newRig(t)
		for i := range 31 {
			r.oldRun(i, run.Complete, 1, 900)
		}
		it := r.begin(run.Full)
		r.save(it, finding("f1", run.Missing))
		r.finish(it, run.Complete)
		r.want("findings", `SELECT count(*) FROM trueup.findings`, 30*900+1)
		r.want("those of the run itself", `SELECT count(*) FROM trueup.findings WHERE run_id = $1`, 1, it.ID)
	})

	t.Run("ButAFailingSliceKeepsNoRunFromEnding", func(t *testing.T) {
		r := newRig(t)
		r.oldRun(1, run.Complete, 366, 1)
		r.exec(`CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE SQLSTATE 'XX000'; END $$`)
		r.exec(`CREATE TRIGGER refuse BEFORE DELETE ON trueup.findings FOR EACH ROW EXECUTE FUNCTION public.refuse()`)
		if got := r.finish(r.begin(run.Full), run.Complete); got.State != run.Complete {
			t.Errorf("run %+v", got)
		}
		r.want("findings", keptFindings, "001:1")
	})
}
