package store_test

import (
	"strings"
	"testing"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/run"
	"github.com/trueup/trueup/internal/store"
)

func number(n int64) *int64 { return &n }

func (r *rig) apply(id string, a run.Apply) run.Run {
	r.Helper()
	if a.Who == "" {
		a.Who = "op"
	}
	got, err := r.st.ApplyRun(r.ctx, id, a)
	r.must(err)
	return got
}

func (r *rig) status() store.Status {
	r.Helper()
	got, err := r.st.Status(r.ctx)
	r.must(err)
	return got
}

// compared is a run under way that has found something, of an account that is ours.
func (r *rig) compared(kind run.Kind, candidates int64) run.Run {
	r.Helper()
	it := r.begin(kind)
	it.Phase, it.Candidates, it.Account = run.PhaseRepair, candidates, run.Account{Key: "ab12", Asked: 1, Answered: 1, Confirmed: true}
	r.must(r.st.SaveRun(r.ctx, r.turn, it))
	return it
}

func TestARunLatchesTheFuse(t *testing.T) {
	r := newRig(t)
	r.settle([]event.Pending{webhook("f1"), webhook("f2")}, r.look("f1", snap("f1", 0)), r.look("f2", snap("f2", 0)))
	r.exec(`INSERT INTO trueup.fuse_hours VALUES (date_trunc('hour', now()), 3), (date_trunc('hour', now() - interval '26 hours'), 50)`)
	latched, today, live, err := r.st.Fuse(r.ctx)
	if err != nil || latched || today != 3 || live != 2 {
		t.Errorf("fuse %t, %d today, %d live, %v", latched, today, live, err)
	}
	it := r.compared(run.Full, 7)
	r.must(r.st.LatchFuse(r.ctx, r.turn, it.ID, "7 of 20 rows\x00"))
	first := r.status().Fuse
	r.must(r.st.LatchFuse(r.ctx, r.turn, it.ID, "again"))
	if latched, _, _, err = r.st.Fuse(r.ctx); err != nil || !latched {
		t.Errorf("fuse %t, %v", latched, err)
	}
	got := r.status()
	if got.Fuse != first || !got.Fuse.Latched || got.Fuse.At.IsZero() || got.Fuse.Why != "7 of 20 rows\uFFFD" || got.Fuse.Run != it.ID || got.Fuse.Candidates != 3 {
		t.Errorf("fuse %+v, then %+v", first, got.Fuse)
	}
	if got.Run == nil || got.Run.ID != it.ID || got.Run.State != run.Running {
		t.Errorf("last run %+v", got.Run)
	}
}

func TestTheAccountIsDoubtedAndTrustedAgain(t *testing.T) {
	r := newRig(t)
	last, doubt, err := r.st.Account(r.ctx)
	if err != nil || last != (run.Account{}) || doubt != "" {
		t.Errorf("at first %+v, %q, %v", last, doubt, err)
	}
	it := r.compared(run.Full, 0)
	r.must(r.st.DoubtAccount(r.ctx, r.turn, it.ID, ""))
	if last, _, err = r.st.Account(r.ctx); err != nil || last != it.Account {
		t.Errorf("confirmed %+v, %v", last, err)
	}
	r.finish(it, run.Complete)

	other := r.begin(run.Full)
	other.Account = run.Account{Key: "cd34", Asked: 5}
	r.must(r.st.SaveRun(r.ctx, r.turn, other))
	r.must(r.st.DoubtAccount(r.ctx, r.turn, other.ID, "none of five answered"))
	first := r.status().Account
	r.must(r.st.DoubtAccount(r.ctx, r.turn, other.ID, "none of four answered"))
	got := r.status().Account
	if got.Doubt != "none of four answered" || got.Since.IsZero() || !got.Since.Equal(first.Since) || got.Run != other.ID || got.Last != it.Account {
		t.Errorf("doubted %+v, then %+v", first, got)
	}
	// A doubt that ends without a confirmation leaves the last one as it was.
	r.must(r.st.DoubtAccount(r.ctx, r.turn, other.ID, ""))
	if got := r.status().Account; got != (store.AccountDoubt{Last: it.Account}) {
		t.Errorf("trusted again %+v", got)
	}
}

func TestApplyingARun(t *testing.T) {
	t.Run("ReleasesTheFuseForTheNumberExpected", func(t *testing.T) {
		r := newRig(t)
		it := r.compared(run.Full, 3)
		r.save(it, findings(run.Orphaned, "f1", "f2", "f3")...)
		r.save(it, run.Finding{FileID: "f4", Kind: run.Orphaned, Status: run.Skipped, Reason: run.ReasonMoved},
			run.Finding{FileID: "f5", Kind: run.Orphaned, Status: run.Refused, Reason: "gave_up"}, run.Finding{FileID: "f6", Kind: run.Missing, Status: run.Refused, Reason: run.ReasonFuse})
		r.must(r.st.LatchFuse(r.ctx, r.turn, it.ID, "too many"))
		_, err := r.st.CloseFindings(r.ctx, r.turn, it.ID, []run.FindingKind{run.Orphaned}, run.Refused, run.ReasonFuse)
		r.must(err)
		// One was on its way when the fuse was latched: it is asked about anew. One still is.
		r.exec(`UPDATE trueup.findings SET event_id = 'E2', published_at = now(), ended_at = now() WHERE file_id = 'f2'`)
		r.exec(`UPDATE trueup.findings SET event_id = 'E3', published_at = now() WHERE file_id = 'f3'`)
		r.exec(`INSERT INTO trueup.fuse_hours VALUES (date_trunc('hour', now()), 30)`)
		it.Fuse = "too many"
		r.finish(it, run.Partial)
		for _, n := range []int64{0, 2, 4} {
			_, err := r.st.ApplyRun(r.ctx, it.ID, run.Apply{Who: "op", Key: "k", ExpectDeletions: number(n)})
			wantErr(t, err, run.ErrOtherCount)
			if !strings.Contains(err.Error(), "3 candidates, not "+string(rune('0'+n))) {
				t.Errorf("it does not name both numbers: %v", err)
			}
		}
		if !r.status().Fuse.Latched {
			t.Fatal("a wrong number released it")
		}
		got := r.apply(it.ID, run.Apply{Key: "k", Note: "as told", ExpectDeletions: number(3)})
		if got.State != run.Applying || *got.ExpectedDeletions != 3 || got.Fuse != "" || !got.FinishedAt.IsZero() || got.Candidates != 3 {
			t.Errorf("applied %+v", got)
		}
		if f := r.status().Fuse; f != (store.Fuse{}) {
			t.Errorf("fuse %+v", f)
		}
		r.want("who", `SELECT released_by || (released_at IS NOT NULL) FROM trueup.fuse`, "optrue")
		r.want("findings", `SELECT string_agg(concat_ws(':', file_id, status, reason, event_id), ' ' ORDER BY file_id) FROM trueup.findings`,
			"f1:found: f2:found: f3:refused:fuse_latched:E3 f4:skipped:changed_since f5:refused:gave_up f6:refused:fuse_latched")
		r.want("audit", `SELECT concat_ws('|', who, note, filter->>'run', filter->>'expectDeletions', filter->>'acceptAccount') FROM trueup.audit WHERE verb = 'reconcile apply'`,
			"op|as told|"+it.ID+"|3|false")
	})
	t.Run("AndReopensMoreThanASliceAsTheyAreTaken", func(t *testing.T) {
		r := newRig(t)
		const n = 5_200
		it := r.compared(run.Full, n)
		r.exec(`INSERT INTO trueup.findings (run_id, file_id, kind, status, reason) SELECT $1, 'f' || i, 'orphaned', 'refused', 'fuse_latched' FROM generate_series(1, $2) i`, it.ID, n)
		r.must(r.st.LatchFuse(r.ctx, r.turn, it.ID, "too many"))
		if got := r.takeFindings(it, 500, run.Orphaned); len(got) != 0 {
			t.Fatalf("took %d past the fuse", len(got))
		}
		r.finish(it, run.Partial)
		it = r.apply(it.ID, run.Apply{ExpectDeletions: number(n)})
		if it.Found[run.Orphaned][run.Found] != 5_000 || it.Found[run.Orphaned][run.Refused] != 200 {
			t.Errorf("found %+v", it.Found)
		}
		taken := 0
		for events := r.takeFindings(it, 1000, run.Missing, run.Orphaned); len(events) > 0; events = r.takeFindings(it, 1000, run.Missing, run.Orphaned) {
			taken += len(events)
			r.confirmFindings(it, events)
			if taken == 5_000 {
				if got := r.takeFindings(it, 1000, run.Missing); len(got) != 0 {
					t.Errorf("reopened %d for missing ones", len(got))
				}
				r.exec(`UPDATE trueup.fuse SET latched_at = now()`)
				if got := r.takeFindings(it, 1000, run.Orphaned); len(got) != 0 {
					t.Errorf("reopened %d past the fuse", len(got))
				}
				r.exec(`UPDATE trueup.fuse SET latched_at = NULL`)
			}
		}
		if taken != n {
			t.Errorf("took %d", taken)
		}
		r.unsettled(it, n)
	})
	t.Run("WithTheSameKeyOnce", func(t *testing.T) {
		r := newRig(t)
		it := r.finish(r.compared(run.Plan, 3), run.Planned)
		r.apply(it.ID, run.Apply{Key: "k"})
		r.apply(it.ID, run.Apply{Key: "k"}) // while it is applied
		r.finish(it, run.Complete)
		if got := r.apply(it.ID, run.Apply{Key: "k"}); got.State != run.Complete {
			t.Errorf("applied once more: %+v", got)
		}
		_, err := r.st.ApplyRun(r.ctx, it.ID, run.Apply{Who: "op", Key: "k", ExpectDeletions: number(3)})
		wantErr(t, err, store.ErrKeyReused)
		_, err = r.st.ApplyRun(r.ctx, it.ID, run.Apply{Who: "op", Key: "k2"})
		wantErr(t, err, run.ErrEnded) // nothing is left of it
	})
	t.Run("AgainWhileSomethingIsLeft", func(t *testing.T) {
		r := newRig(t)
		it := r.finish(r.compared(run.Plan, 3), run.Planned)
		r.apply(it.ID, run.Apply{Key: "k"})
		r.finish(it, run.Partial)
		if got := r.apply(it.ID, run.Apply{Key: "k2"}); got.State != run.Applying {
			t.Errorf("applied on purpose: %+v", got)
		}
	})
	t.Run("NotWhileOneIsUnderWayNorAfterItsEnd", func(t *testing.T) {
		r := newRig(t)
		it := r.finish(r.compared(run.Plan, 0), run.Planned)
		busy := r.begin(run.Full)
		for _, id := range []string{it.ID, busy.ID} {
			_, err := r.st.ApplyRun(r.ctx, id, run.Apply{Who: "op", Key: "k"})
			wantErr(t, err, run.ErrUnderWay)
			if !strings.Contains(err.Error(), busy.ID) {
				t.Errorf("it does not name the other: %v", err)
			}
		}
		r.finish(busy, run.Complete)
		_, err := r.st.CancelRun(r.ctx, it.ID, store.Act{Who: "op"})
		r.must(err)
		_, err = r.st.ApplyRun(r.ctx, it.ID, run.Apply{Who: "op"})
		wantErr(t, err, run.ErrEnded)
		_, err = r.st.ApplyRun(r.ctx, "01NONE", run.Apply{Who: "op"})
		wantErr(t, err, event.ErrUnknown)
		r.want("nothing was noted", `SELECT count(*) FROM trueup.audit WHERE verb = 'reconcile apply'`, 0)
	})
	t.Run("OfAnotherAccountOnlyWhenThatIsAccepted", func(t *testing.T) {
		r := newRig(t)
		it := r.begin(run.Full)
		it.Account = run.Account{Key: "cd34", Asked: 5}
		r.must(r.st.SaveRun(r.ctx, r.turn, it))
		r.must(r.st.DoubtAccount(r.ctx, r.turn, it.ID, "none answered"))
		it.Error = "none answered"
		r.finish(it, run.Failed)
		_, err := r.st.ApplyRun(r.ctx, it.ID, run.Apply{Who: "op"})
		wantErr(t, err, run.ErrAccount)
		// Nothing was counted yet: a number now would allow whatever is found later.
		_, err = r.st.ApplyRun(r.ctx, it.ID, run.Apply{Who: "op", AcceptAccount: true, ExpectDeletions: number(0)})
		wantErr(t, err, run.ErrOtherCount)
		got := r.apply(it.ID, run.Apply{AcceptAccount: true})
		want := run.Account{Key: "cd34", Asked: 5, Confirmed: true}
		if got.State != run.Applying || got.AccountAcceptedBy != "op" || got.Account != want || got.Error != "" || got.ExpectedDeletions != nil {
			t.Errorf("applied %+v", got)
		}
		if a := r.status().Account; a != (store.AccountDoubt{Last: want}) {
			t.Errorf("account %+v", a)
		}
	})
	t.Run("MoreCandidatesThanExpectedEndWhatWasAllowed", func(t *testing.T) {
		r := newRig(t)
		it := r.finish(r.compared(run.Plan, 3), run.Planned)
		it = r.apply(it.ID, run.Apply{ExpectDeletions: number(3)})
		it.Candidates = 2
		r.must(r.st.SaveRun(r.ctx, r.turn, it))
		if got := r.run(it.ID); got.ExpectedDeletions == nil {
			t.Error("fewer ended it")
		}
		it.Candidates = 4
		r.must(r.st.SaveRun(r.ctx, r.turn, it))
		if got := r.run(it.ID); got.ExpectedDeletions != nil {
			t.Errorf("four are allowed by a three: %+v", got)
		}
	})
	t.Run("AtOnceWithTheStartOfAnother", func(t *testing.T) {
		r := newRig(t)
		for range 10 {
			it := r.finish(r.compared(run.Plan, 0), run.Planned)
			errs := make(chan error, 2)
			go func() {
				_, err := r.st.StartRun(r.ctx, run.Run{Kind: run.Full, StartedBy: "op"})
				errs <- err
			}()
			go func() {
				_, err := r.st.ApplyRun(r.ctx, it.ID, run.Apply{Who: "op"})
				errs <- err
			}()
			a, b := <-errs, <-errs
			if a == nil {
				a, b = b, a
			}
			if b != nil {
				t.Fatalf("neither won: %v, %v", a, b)
			}
			wantErr(t, a, run.ErrUnderWay)
			open, ok, err := r.st.OpenRun(r.ctx)
			if err != nil || !ok {
				t.Fatal(ok, err)
			}
			r.finish(open, run.Complete)
		}
	})
}
