package store_test

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/run"
	"github.com/trueup/trueup/internal/store"
	"github.com/trueup/trueup/internal/testenv"
	"github.com/trueup/trueup/migrations"
)

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// begin starts a run of nobody's in particular.
func (r *rig) begin(kind run.Kind) run.Run {
	r.Helper()
	got, err := r.st.StartRun(r.ctx, run.Run{Kind: kind, StartedBy: "schedule"})
	r.must(err)
	return got
}

func (r *rig) run(id string) run.Run {
	r.Helper()
	got, err := r.st.Run(r.ctx, id)
	r.must(err)
	return got
}

// finish ends a run with what it has said of itself so far.
func (r *rig) finish(it run.Run, state run.State) run.Run {
	r.Helper()
	it.State = state
	r.must(r.st.FinishRun(r.ctx, r.turn, it))
	return r.run(it.ID)
}

func TestARunIsStartedOnce(t *testing.T) {
	t.Run("WithItsAuditLine", func(t *testing.T) {
		r := newRig(t)
		it, err := r.st.StartRun(r.ctx, run.Run{Kind: run.Plan, StartedBy: "op", Note: "look\x00", Key: "k"})
		r.must(err)
		if it.ID == "" || it.Kind != run.Plan || it.State != run.Running || it.StartedBy != "op" || it.Note != "look\uFFFD" || it.StartedAt.IsZero() || !it.FinishedAt.IsZero() {
			t.Errorf("run %+v", it)
		}
		r.want("audit", `SELECT (who, verb, note, key, filter->>'run' = $1)::text FROM trueup.audit`, "(op,\"reconcile plan\",look\uFFFD,k,t)", it.ID)
		open, ok, err := r.st.OpenRun(r.ctx)
		if err != nil || !ok || !reflect.DeepEqual(open, it) {
			t.Errorf("open run %+v, %t, %v", open, ok, err)
		}
	})
	t.Run("TheSameKeyIsTheSameRun", func(t *testing.T) {
		r := newRig(t)
		first, err := r.st.StartRun(r.ctx, run.Run{Kind: run.Full, StartedBy: "op", Key: "k"})
		r.must(err)
		r.finish(first, run.Complete)
		other := r.begin(run.Full)
		again, err := r.st.StartRun(r.ctx, run.Run{Kind: run.Full, StartedBy: "op", Key: "k"})
		if err != nil || again.ID != first.ID || again.State != run.Complete {
			t.Errorf("the same key: %+v, %v", again, err)
		}
		_, err = r.st.StartRun(r.ctx, run.Run{Kind: run.Plan, StartedBy: "op", Key: "k"})
		wantErr(t, err, store.ErrKeyReused)
		busy, err := r.st.StartRun(r.ctx, run.Run{Kind: run.Full, StartedBy: "op2", Key: "k"})
		wantErr(t, err, run.ErrUnderWay)
		if busy.ID != other.ID {
			t.Errorf("in its way stands %s, not %s", busy.ID, other.ID)
		}
		r.want("audit lines", `SELECT count(*) FROM trueup.audit`, 2)
	})
	t.Run("NoOtherKind", func(t *testing.T) {
		r := newRig(t)
		if _, err := r.st.StartRun(r.ctx, run.Run{Kind: "sweep"}); err == nil {
			t.Error("started")
		}
	})
	t.Run("TwoAtOnce", func(t *testing.T) {
		r := newRig(t)
		for range 20 {
			var wait sync.WaitGroup
			var mu sync.Mutex
			won := map[string]int{}
			for n := range 4 {
				wait.Go(func() {
					it, err := r.st.StartRun(r.ctx, run.Run{Kind: run.Full, StartedBy: fmt.Sprint("op", n)})
					mu.Lock()
					defer mu.Unlock()
					if err == nil {
						won[it.ID]++
					} else if !errors.Is(err, run.ErrUnderWay) {
						t.Error(err)
					}
				})
			}
			wait.Wait()
			it, ok, err := r.st.OpenRun(r.ctx)
			if err != nil || !ok || len(won) != 1 || won[it.ID] != 1 {
				t.Fatalf("won %v, open %s %t, %v", won, it.ID, ok, err)
			}
			r.finish(it, run.Complete)
		}
	})
	t.Run("TwoAtOnceWithOneKey", func(t *testing.T) {
		r := newRig(t)
		var wait sync.WaitGroup
		ids := make([]string, 4)
		for n := range ids {
			wait.Go(func() {
				it, err := r.st.StartRun(r.ctx, run.Run{Kind: run.Full, StartedBy: "op", Key: "k"})
				if err != nil {
					t.Error(err)
				}
				ids[n] = it.ID
			})
		}
		wait.Wait()
		if ids[0] == "" || ids[1] != ids[0] || ids[2] != ids[0] || ids[3] != ids[0] {
			t.Errorf("runs %v", ids)
		}
		r.want("runs", `SELECT count(*) FROM trueup.runs`, 1)
		r.want("audit lines", `SELECT count(*) FROM trueup.audit`, 1)
	})
}

// A row that was committed before the run began is not newer than it, whatever else was
// under way then, here or in another database of the server; one whose own transaction was
// under way is, though its number is smaller than the run's.
func TestWhereARunBegan(t *testing.T) {
	r := newRig(t)
	const add = `INSERT INTO public.imagekit_files (file_id, file_url, user_id) VALUES ($1, 'x', '')`
	idle, err := r.connect().Begin(r.ctx) // older than all the rest, and open to the end
	r.must(err)
	_, err = idle.Exec(r.ctx, `SELECT pg_current_xact_id()`)
	r.must(err)
	r.exec(add, "before")
	slow, err := r.connect().Begin(r.ctx)
	r.must(err)
	_, err = slow.Exec(r.ctx, add, "meanwhile")
	r.must(err)
	r.exec(add, "late") // a later transaction, and over before
	it := r.begin(run.Full)
	r.must(slow.Commit(r.ctx))
	r.exec(add, "after")
	moved := map[string]bool{}
	r.must(r.st.Local(r.ctx, it.ID, 1<<40, func(l run.Local) error {
		moved[l.FileID] = l.Moved
		return nil
	}))
	if want := map[string]bool{"before": false, "late": false, "meanwhile": true, "after": true}; !maps.Equal(moved, want) {
		t.Errorf("come during the run: %v, want %v", moved, want)
	}
	r.must(idle.Rollback(r.ctx))
}

func TestWhatARunSaysOfItselfIsKept(t *testing.T) {
	r := newRig(t)
	it := r.begin(run.Full)
	said := it
	said.Phase, said.Fence, said.Spool, said.Slices = run.PhaseCompare, 17, "01SPOOL", 12
	said.Listed, said.Calls, said.Whole, said.Rows, said.Same, said.Moved, said.Unowned, said.Candidates = 11_000, 12, true, 10_900, 10_000, 3, 4, 5
	said.Fuse, said.Waiting, said.Error = "5 of 10 rows", "waits for ImageKit", "no\x00"
	said.Account = run.Account{Key: "ab12", Endpoint: "https://ik.example/x", Asked: 5, Answered: 1, Confirmed: true}
	said.Notes = []string{"a page came twice (2×)", "nul \x00"}
	// What is not the run's to say.
	said.Kind, said.State, said.StartedBy, said.Note, said.Key, said.AccountAcceptedBy = run.Plan, run.Complete, "eve", "x", "x", "eve"
	n := int64(99)
	said.ExpectedDeletions = &n
	for range 2 {
		r.must(r.st.SaveRun(r.ctx, r.turn, said))
	}
	got := r.run(it.ID)
	want := said
	want.Kind, want.State, want.StartedBy, want.Note, want.Key, want.AccountAcceptedBy, want.ExpectedDeletions = it.Kind, it.State, it.StartedBy, it.Note, it.Key, "", nil
	want.Error, want.Notes, want.ChangedAt = "no\uFFFD", []string{said.Notes[0], "nul \uFFFD"}, got.ChangedAt
	if !reflect.DeepEqual(got, want) {
		t.Errorf("kept\n%+v, want\n%+v", got, want)
	}
	if !got.ChangedAt.After(it.ChangedAt) {
		t.Error("nobody sees that it moved")
	}
	got = r.finish(said, run.Partial)
	if got.State != run.Partial || got.FinishedAt.IsZero() || got.Waiting != "" || got.Error == "" || got.Kind != run.Full {
		t.Errorf("finished %+v", got)
	}
}

func TestFinishingTwiceChangesNothing(t *testing.T) {
	r := newRig(t)
	it := r.begin(run.Full)
	first := r.finish(it, run.Complete)
	it.Listed = 5 // its answer was lost, and the run has nothing new to say
	if again := r.finish(it, run.Complete); !reflect.DeepEqual(again, first) {
		t.Errorf("finished again: %+v, then %+v", first, again)
	}
	it.State = run.Failed
	wantErr(t, r.st.FinishRun(r.ctx, r.turn, it), run.ErrEnded)
	it.State = run.Applying
	if err := r.st.FinishRun(r.ctx, r.turn, it); err == nil {
		t.Error("a run that is under way is finished")
	}
	if _, ok, err := r.st.OpenRun(r.ctx); ok || err != nil {
		t.Errorf("open: %t, %v", ok, err)
	}
}

// Every method with a turn: none writes for a run that was cancelled, in a turn that is
// over, while an operator has paused the worker, or for a run that is not there.
func TestNothingIsWrittenForARunThatMayNotGoOn(t *testing.T) {
	methods := map[string]func(r *rig, it run.Run) error{
		"SaveRun":   func(r *rig, it run.Run) error { it.Listed = 1; return r.st.SaveRun(r.ctx, r.turn, it) },
		"FinishRun": func(r *rig, it run.Run) error { it.State = run.Complete; return r.st.FinishRun(r.ctx, r.turn, it) },
		"SaveFindings": func(r *rig, it run.Run) error {
			return r.st.SaveFindings(r.ctx, r.turn, it.ID, []run.Finding{finding("new", run.Missing)})
		},
		"CloseFindings": func(r *rig, it run.Run) error {
			_, err := r.st.CloseFindings(r.ctx, r.turn, it.ID, []run.FindingKind{run.Missing}, run.Refused, "x")
			return err
		},
		"TakeFindings": func(r *rig, it run.Run) error {
			_, err := r.st.TakeFindings(r.ctx, r.turn, it.ID, []run.FindingKind{run.Missing}, 5)
			return err
		},
		"ConfirmFindings": func(r *rig, it run.Run) error { return r.st.ConfirmFindings(r.ctx, r.turn, it.ID, []string{"E"}) },
		"LatchFuse":       func(r *rig, it run.Run) error { return r.st.LatchFuse(r.ctx, r.turn, it.ID, "x") },
		"DoubtAccount":    func(r *rig, it run.Run) error { return r.st.DoubtAccount(r.ctx, r.turn, it.ID, "x") },
	}
	const all = `SELECT (SELECT string_agg(f::text, ' ' ORDER BY f.file_id) FROM trueup.findings f) || (SELECT (f)::text FROM trueup.fuse f)
		|| (SELECT string_agg(remote_rows::text || state, ' ') FROM trueup.runs)`
	r := newRig(t)
	it := r.begin(run.Full)
	r.must(r.st.SaveRun(r.ctx, r.turn, it))
	r.must(r.st.SaveFindings(r.ctx, r.turn, it.ID, []run.Finding{finding("f1", run.Missing), finding("f2", run.Orphaned)}))
	r.exec(`UPDATE trueup.findings SET event_id = 'E' WHERE file_id = 'f2'`)
	for name, call := range methods {
		t.Run(name, func(t *testing.T) {
			before := one[string](r, all)
			r.exec(`UPDATE trueup.leases SET turn = turn + 1`)
			wantErr(t, call(r, it), event.ErrTurnMoved)
			r.exec(`UPDATE trueup.leases SET turn = turn - 1, paused = true`)
			wantErr(t, call(r, it), event.ErrPaused)
			r.exec(`UPDATE trueup.leases SET paused = false`)
			gone := it
			gone.ID = "01GONE"
			wantErr(t, call(r, gone), run.ErrEnded)
			r.exec(`UPDATE trueup.runs SET state = 'cancelled'`)
			wantErr(t, call(r, it), run.ErrEnded)
			r.exec(`UPDATE trueup.runs SET state = 'running'`)
			if after := one[string](r, all); after != before {
				t.Errorf("written: %s, then %s", before, after)
			}
		})
	}
	r.exec(`UPDATE trueup.leases SET paused = true`)
	wantErr(t, r.st.SavePollPosition(r.ctx, r.turn, base), event.ErrPaused)
	wantErr(t, r.st.SavePollPosition(r.ctx, r.turn-1, base), event.ErrTurnMoved)
	r.want("poll", `SELECT position IS NULL FROM trueup.poll`, true)
}

// An operator cancels while the run's own transactions go on: each is whole or is not,
// and none comes after.
func TestCancellingBesideARunAtWork(t *testing.T) {
	r := newRig(t)
	it := r.begin(run.Full)
	var wait sync.WaitGroup
	over := make(chan struct{})
	saved := 0
	wait.Go(func() {
		for {
			var late bool
			select {
			case <-over:
				late = true
			default:
			}
			err := r.st.SaveFindings(r.ctx, r.turn, it.ID, []run.Finding{finding(fmt.Sprint("f", saved), run.Missing)})
			if err == nil && !late {
				saved++
				continue
			}
			if !errors.Is(err, run.ErrEnded) {
				t.Errorf("after it was cancelled: %v", err)
			}
			return
		}
	})
	cancelled, err := r.st.CancelRun(r.ctx, it.ID, store.Act{Who: "op", Note: "wrong key"})
	close(over)
	wait.Wait()
	r.must(err)
	if cancelled.State != run.Cancelled || cancelled.FinishedAt.IsZero() {
		t.Errorf("cancelled %+v", cancelled)
	}
	r.want("findings", `SELECT count(*) FROM trueup.findings`, saved)
}

func TestCancelRun(t *testing.T) {
	r := newRig(t)
	_, err := r.st.CancelRun(r.ctx, "01NONE", store.Act{Who: "op"})
	wantErr(t, err, event.ErrUnknown)
	it := r.begin(run.Full)
	for range 2 {
		got, err := r.st.CancelRun(r.ctx, it.ID, store.Act{Who: "op", Note: "stop"})
		if err != nil || got.State != run.Cancelled {
			t.Errorf("cancelled %+v, %v", got, err)
		}
	}
	r.want("audit", `SELECT string_agg(who || verb || note, ' ') FROM trueup.audit WHERE verb = 'reconcile cancel'`, "opreconcile cancelstop")
	plan := r.finish(r.begin(run.Plan), run.Planned)
	if got, err := r.st.CancelRun(r.ctx, plan.ID, store.Act{Who: "op"}); err != nil || got.State != run.Cancelled {
		t.Errorf("a plan given up: %+v, %v", got, err)
	}
	over := r.finish(r.begin(run.Full), run.Complete)
	if got, err := r.st.CancelRun(r.ctx, over.ID, store.Act{Who: "op"}); err != nil || !reflect.DeepEqual(got, over) {
		t.Errorf("one that was over: %+v, %v", got, err)
	}
}

func TestReadingRuns(t *testing.T) {
	r := newRig(t)
	_, err := r.st.Run(r.ctx, "01NONE")
	wantErr(t, err, event.ErrUnknown)
	began, complete, err := r.st.LastRuns(r.ctx)
	if err != nil || began.ID != "" || complete.ID != "" {
		t.Errorf("last of none: %+v, %+v, %v", began, complete, err)
	}
	if _, ok, err := r.st.OpenRun(r.ctx); ok || err != nil {
		t.Errorf("open of none: %t, %v", ok, err)
	}
	full := r.begin(run.Full)
	r.must(r.st.SaveFindings(r.ctx, r.turn, full.ID, []run.Finding{finding("f1", run.Missing), finding("f2", run.Missing), finding("f3", run.Orphaned)}))
	r.exec(`UPDATE trueup.findings SET status = 'repaired', event_id = 'E1', ended_at = now() WHERE file_id = 'f1'`)
	r.exec(`UPDATE trueup.findings SET event_id = 'E2' WHERE file_id = 'f2'`)
	full.Listed = 40
	full = r.finish(full, run.Complete)
	if full.Found[run.Missing][run.Repaired] != 1 || full.Found[run.Missing][run.Found] != 1 || full.Found[run.Orphaned][run.Found] != 1 || full.Unsettled != 1 {
		t.Errorf("counted %+v, unsettled %d", full.Found, full.Unsettled)
	}
	failed := r.finish(r.begin(run.Full), run.Failed)
	plan := r.finish(r.begin(run.Plan), run.Planned)
	began, complete, err = r.st.LastRuns(r.ctx)
	if err != nil || began.ID != failed.ID || complete.ID != full.ID || complete.Listed != 40 {
		t.Errorf("last runs %+v, %+v, %v", began, complete, err)
	}
	page, err := r.st.RunList(r.ctx, "", 2)
	if err != nil || len(page) != 2 || page[0].ID != plan.ID || page[1].ID != failed.ID {
		t.Errorf("page %+v, %v", page, err)
	}
	page, err = r.st.RunList(r.ctx, failed.ID, 2)
	if err != nil || len(page) != 1 || !reflect.DeepEqual(page[0], full) {
		t.Errorf("page %+v, %v", page, err)
	}
}

func TestThePollPosition(t *testing.T) {
	r := newRig(t)
	if at, err := r.st.PollPosition(r.ctx); err != nil || !at.IsZero() {
		t.Errorf("before any: %v, %v", at, err)
	}
	want := base.Add(123456 * time.Microsecond)
	for range 2 {
		r.must(r.st.SavePollPosition(r.ctx, r.turn, want))
	}
	if at, err := r.st.PollPosition(r.ctx); err != nil || !at.Equal(want) || at.Location() != time.UTC {
		t.Errorf("position %v, %v", at, err)
	}
}

// Every method of a run over two server connections of a pooler in transaction mode.
func TestRunsThroughATransactionPooler(t *testing.T) {
	direct := testenv.Postgres(t)
	r := rigOn(t, testenv.PgBouncer(t, migrated(t, direct), testenv.PgBouncerOptions{PoolSize: 2}), direct)
	for _, kind := range []run.Kind{run.Plan, run.Full} {
		it := r.compared(kind, 2)
		r.save(it, findings(run.Missing, "f1", "f2")...)
		r.save(it, findings(run.Orphaned, "f3", "f4")...)
		if open := r.open(it, "f1", 5, run.Missing); len(open) != 1 {
			t.Errorf("open %v", open)
		}
		r.confirmFindings(it, r.takeFindings(it, 5, run.Missing))
		r.unsettled(it, 2)
		r.must(r.st.LatchFuse(r.ctx, r.turn, it.ID, "x"))
		r.must(r.st.DoubtAccount(r.ctx, r.turn, it.ID, "x"))
		if n, err := r.st.CloseFindings(r.ctx, r.turn, it.ID, []run.FindingKind{run.Orphaned}, run.Refused, run.ReasonFuse); err != nil || n != 2 {
			t.Errorf("closed %d, %v", n, err)
		}
		r.finish(it, run.Partial)
		it = r.apply(it.ID, run.Apply{ExpectDeletions: number(2), AcceptAccount: true})
		if got := r.takeFindings(it, 5, run.Orphaned); len(got) != 2 {
			t.Errorf("took %+v", got)
		}
		if _, err := r.st.CancelRun(r.ctx, it.ID, store.Act{Who: "op"}); err != nil {
			t.Error(err)
		}
	}
	if all, err := r.st.RunList(r.ctx, "", 5); err != nil || len(all) != 2 {
		t.Errorf("runs %+v, %v", all, err)
	}
	r.must(r.st.SavePollPosition(r.ctx, r.turn, base))
}

func migrated(t *testing.T, url string) string {
	t.Helper()
	if err := migrations.Up(t.Context(), url, migrations.Options{}); err != nil {
		t.Fatal(err)
	}
	return url
}
