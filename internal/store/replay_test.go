package store_test

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/store"
	"github.com/trueup/trueup/internal/testenv"
	"github.com/trueup/trueup/migrations"
)

// webhooks are n events of n files, and what a look-up of each sees.
func (r *rig) webhooks(n int) (pending []event.Pending, seen []file.Observation) {
	r.Helper()
	fence := r.fence()
	for i := range n {
		id := fmt.Sprintf("f%03d", i)
		pending, seen = append(pending, webhook(id)), append(seen, lookAt(fence, id, snap(id, 0)))
	}
	return pending, seen
}

// drain replays a whole job in slices, settling what it publishes, and returns the
// letters in the order in which they were sent.
func (r *rig) drain(job event.Job, slice int, seen ...file.Observation) []string {
	r.Helper()
	var out []string
	for {
		events := r.take(job.ID, slice)
		if len(events) == 0 {
			break
		}
		for _, e := range events {
			out = append(out, e.DeadLetter)
		}
		r.confirm(job.ID, events)
		r.settle(pendingOf(events), seen...)
	}
	if err := r.st.FinishJob(r.ctx, r.turn, job.ID, event.JobDone, ""); err != nil {
		r.Fatal(err)
	}
	return out
}

func TestI10ReplayIsSafeAnyNumberOfTimes(t *testing.T) {
	t.Run("TwoOperatorsAtOnceSendEachLetterOnce", func(t *testing.T) {
		r := newRig(t)
		pending, seen := r.webhooks(60)
		letters := r.die(event.End{}, pending...)
		var mu sync.Mutex
		var sent []string
		var jobs [2]event.Job
		var wait sync.WaitGroup
		for i := range jobs { // both count all letters before either takes one
			jobs[i] = r.start(event.Job{Verb: event.JobReplay, Who: fmt.Sprint("op", i)})
		}
		for i := range jobs {
			wait.Go(func() {
				for {
					events, err := r.st.TakeReplays(r.ctx, r.turn, jobs[i].ID, 7)
					if err != nil || len(events) == 0 {
						if err != nil {
							r.Error(err)
						}
						return
					}
					mu.Lock()
					for _, e := range events {
						sent = append(sent, e.DeadLetter)
					}
					mu.Unlock()
					r.confirm(jobs[i].ID, events)
					r.settle(pendingOf(events), seen...)
				}
			})
		}
		wait.Wait()
		slices.Sort(sent)
		if !slices.Equal(sent, letters) {
			t.Errorf("%d letters were sent, want each of %d once", len(sent), len(letters))
		}
		var done, skipped int64
		for _, j := range jobs {
			if err := r.st.FinishJob(r.ctx, r.turn, j.ID, event.JobDone, ""); err != nil {
				t.Fatal(err)
			}
			j = r.job(j.ID)
			if j.Total != 60 || j.Done+j.Skipped != 60 || j.Outcomes["resolved"] != j.Done {
				t.Errorf("job %+v", j)
			}
			done, skipped = done+j.Done, skipped+j.Skipped
		}
		if done != 60 || skipped != 60 {
			t.Errorf("done %d, skipped %d", done, skipped)
		}
		r.want("rows", `SELECT count(*) FROM public.imagekit_files`, 60)
	})

	t.Run("ALetterThatAnotherSessionIsTakingIsLeftToIt", func(t *testing.T) {
		r := newRig(t)
		letters := r.die(event.End{}, webhook("f1"), webhook("f2"))
		job := r.start(event.Job{Verb: event.JobReplay})
		tx, err := r.sql.Begin(r.ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := execAll(r.ctx, tx, `UPDATE trueup.dead_letters SET state = 'replaying', replay_event = 'theirs', updated_at = clock_timestamp() WHERE file_id = 'f1'`); err != nil {
			t.Fatal(err)
		}
		var got []event.Event
		var wait sync.WaitGroup
		wait.Go(func() { got, err = r.st.TakeReplays(r.ctx, r.turn, job.ID, 1) })
		r.blocked(1)
		if err := tx.Commit(r.ctx); err != nil {
			t.Fatal(err)
		}
		wait.Wait()
		if err != nil || len(got) != 1 || got[0].DeadLetter != letters[1] || r.letter(letters[0]).ReplayEvent != "theirs" {
			t.Errorf("took %+v, %v", got, err)
		}
	})

	t.Run("ASecondReplayOfAllChangesNothing", func(t *testing.T) {
		r := newRig(t)
		pending, seen := r.webhooks(10)
		r.die(event.End{}, pending...)
		r.drain(r.start(event.Job{Verb: event.JobReplay}), 3, seen...)
		before := r.xmins()
		if again := r.start(event.Job{Verb: event.JobReplay}); again.Total != 0 {
			t.Errorf("job %+v", again)
		}
		// Named one by one they go again, and change no row either.
		again := r.start(event.Job{Verb: event.JobReplay, Filter: event.Filter{State: event.LetterResolved}})
		if sent := r.drain(again, 4, seen...); len(sent) != 10 {
			t.Errorf("sent %v", sent)
		}
		if r.xmins() != before {
			t.Error("rows were rewritten")
		}
		r.want("states", `SELECT string_agg(DISTINCT state || jsonb_array_length(history), ' ') FROM trueup.dead_letters`, "resolved2")
	})

	t.Run("ALetterThatDiesAgainIsSentOncePerJob", func(t *testing.T) {
		r := newRig(t)
		pending, _ := r.webhooks(5)
		r.die(event.End{}, pending...)
		job := r.start(event.Job{Verb: event.JobReplay})
		sent := 0
		for events := r.take(job.ID, 2); len(events) > 0; events = r.take(job.ID, 2) {
			r.confirm(job.ID, events)
			sent += len(events)
			if _, err := r.st.Settle(r.ctx, r.turn, pendingOf(events), nil, always(event.End{Kind: event.Dead, Class: event.ClassDatabase, Reason: "x"})); err != nil {
				t.Fatal(err)
			}
		}
		if j := r.job(job.ID); sent != 5 || j.Outcomes["dead"] != 5 || j.Reasons["x"] != 5 {
			t.Errorf("sent %d, job %+v", sent, j)
		}
	})

	t.Run("AWorkerThatEndsAtAnyPointLosesNone", func(t *testing.T) {
		// Where the process ends in each slice: after taking, after publishing, after
		// settling, after confirming.
		for point, name := range []string{"Taken", "Published", "Settled", "Confirmed"} {
			t.Run(name, func(t *testing.T) {
				r := newRig(t)
				pending, seen := r.webhooks(9)
				r.die(event.End{}, pending...)
				job := r.start(event.Job{Verb: event.JobReplay})
				events := r.take(job.ID, 4)
				if point >= 2 {
					r.settle(pendingOf(events), seen...)
				}
				if point >= 3 {
					r.confirm(job.ID, events)
				}
				turn, err := r.st.BeginTurn(r.ctx)
				if err != nil {
					t.Fatal(err)
				}
				_, err = r.st.TakeReplays(r.ctx, r.turn, job.ID, 4)
				wantErr(t, err, event.ErrTurnMoved)
				wantErr(t, r.st.ConfirmReplays(r.ctx, r.turn, job.ID, []string{events[0].ID}), event.ErrTurnMoved)
				r.turn = turn.Number
				open, err := r.st.OpenJobs(r.ctx)
				if err != nil || len(open) != 1 || open[0].ID != job.ID {
					t.Fatalf("open %+v, %v", open, err)
				}
				sent := r.drain(job, 4, seen...)
				if point == 1 { // what had been published arrives as well, late
					done, _ := r.settle(pendingOf(events), seen...)
					if done.Already != 4 {
						t.Errorf("settled twice: %+v", done)
					}
				}
				if want := map[bool]int{true: 5, false: 9}[point >= 2]; len(sent) != want {
					t.Errorf("sent %d more, want %d", len(sent), want)
				}
				if j := r.job(job.ID); j.Done != 9 || j.Outcomes["resolved"] != 9 || j.Skipped != 0 {
					t.Errorf("job %+v", j)
				}
				r.want("rows", `SELECT count(*) FROM public.imagekit_files`, 9)
				r.want("histories", `SELECT string_agg(DISTINCT state || jsonb_array_length(history), ' ') FROM trueup.dead_letters`, "resolved1")
			})
		}
	})

	t.Run("AReplayThatIsNowhereIsSentAgainWithItsOwnEvent", func(t *testing.T) {
		r := newRig(t, func(c *store.Config) { c.ReplayLost = time.Nanosecond })
		pending, seen := r.webhooks(3)
		letters := r.die(event.End{}, pending...)
		first := r.start(event.Job{Verb: event.JobReplay})
		lost := r.take(first.ID, 9)
		r.confirm(first.ID, lost)
		if _, err := r.st.Settle(r.ctx, r.turn, pendingOf(lost[1:2]), nil, always(event.End{Kind: event.Retry, After: time.Hour})); err != nil {
			t.Fatal(err)
		}
		r.settle(pendingOf(lost[2:]), seen...)
		second := r.start(event.Job{Verb: event.JobReplay})
		again := r.take(second.ID, 9)
		if second.Total != 2 || len(again) != 1 || again[0].ID != lost[0].ID || again[0].DeadLetter != letters[0] {
			t.Errorf("job %+v took %+v", second, again)
		}
		r.settle(pendingOf(again), seen...)
		for _, j := range []event.Job{r.job(first.ID), r.job(second.ID)} {
			if j.Outcomes["resolved"] == 0 || j.Verb != event.JobReplay {
				t.Errorf("job %+v", j)
			}
		}
	})

	t.Run("WhatIsReplayingIsSomebodyElses", func(t *testing.T) {
		r := newRig(t)
		letters := r.die(event.End{}, webhook("f1"))
		r.take(r.start(event.Job{Verb: event.JobReplay}).ID, 1)
		second := r.start(event.Job{Verb: event.JobReplay, Filter: event.Filter{IDs: letters}})
		if got := r.drain(second, 1); len(got) != 0 {
			t.Errorf("took %v", got)
		}
		if j := r.job(second.ID); j.Total != 1 || j.Skipped != 1 || j.Done != 0 || r.letter(letters[0]).State != event.LetterReplaying {
			t.Errorf("job %+v", j)
		}
	})
}

// The answer to a COMMIT is lost, both ways: the letters are taken or they are not, and
// asking again is right in both.
func TestALostCommitOfTakenReplays(t *testing.T) {
	for _, happened := range []bool{false, true} {
		t.Run(map[bool]string{false: "NothingHappened", true: "ItHappened"}[happened], func(t *testing.T) {
			direct := testenv.Postgres(t)
			if err := migrations.Up(t.Context(), direct, migrations.Options{}); err != nil {
				t.Fatal(err)
			}
			u, err := url.Parse(direct)
			if err != nil {
				t.Fatal(err)
			}
			link := testenv.Cut(t, u.Host)
			r := rigOn(t, link.URL(direct), direct, func(c *store.Config) { c.ConnectTimeout = 2 * time.Second })
			r.die(event.End{}, webhook("f1"), webhook("f2"))
			job := r.start(event.Job{Verb: event.JobReplay})
			r.exec(`CREATE FUNCTION public.wait_at_commit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock(42); RETURN NULL; END $$`)
			r.exec(`CREATE CONSTRAINT TRIGGER wait_at_commit AFTER INSERT ON trueup.job_items DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.wait_at_commit()`)
			holder := r.connect()
			if _, err := holder.Exec(r.ctx, `SELECT pg_advisory_lock(42)`); err != nil {
				t.Fatal(err)
			}
			var lost error
			var wait sync.WaitGroup
			wait.Go(func() { _, lost = r.st.TakeReplays(r.ctx, r.turn, job.ID, 2) })
			r.blocked(1)
			if happened {
				link.DropReplies()
				r.unlock(holder)
				testenv.Eventually(r, 10*time.Second, func() error {
					if one[int64](r, `SELECT count(*) FROM trueup.job_items`) != 2 {
						return errors.New("not committed yet")
					}
					return nil
				})
				link.Cut()
			} else {
				r.exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'`)
				wait.Wait()
				r.unlock(holder)
				r.want("taken", `SELECT count(*) FROM trueup.job_items`, 0)
			}
			wait.Wait()
			wantErr(t, lost, event.ErrOutage)
			link.Restore()
			ids := one[string](r, `SELECT coalesce(string_agg(event_id, ' ' ORDER BY item), '') FROM trueup.job_items`)
			got := r.take(job.ID, 2)
			if len(got) != 2 || happened != (got[0].ID+" "+got[1].ID == ids) {
				t.Errorf("taken were %q, now %+v", ids, got)
			}
			r.want("items", `SELECT count(*) FROM trueup.job_items`, 2)
		})
	}
}

func TestDiscard(t *testing.T) {
	r := newRig(t)
	p := report("f1", "ann")
	letters := r.die(event.End{}, p, webhook("f2"), webhook("f3"))
	r.take(r.start(event.Job{Verb: event.JobReplay, Filter: event.Filter{FileID: "f2"}}).ID, 1)
	job := r.start(event.Job{Verb: event.JobDiscard, Note: "spam"})
	if job.Total != 2 {
		t.Errorf("job %+v", job)
	}
	for _, want := range []struct {
		n    int
		done bool
	}{{1, false}, {1, false}, {0, true}} {
		if n, done, err := r.st.DiscardSlice(r.ctx, r.turn, job.ID, 1); n != want.n || done != want.done || err != nil {
			t.Errorf("discarded %d, %v, %v; want %+v", n, done, err, want)
		}
	}
	if err := r.st.FinishJob(r.ctx, r.turn, job.ID, event.JobDone, ""); err != nil {
		t.Fatal(err)
	}
	if j := r.job(job.ID); j.Done != 2 || j.Skipped != 0 {
		t.Errorf("job %+v", j)
	}
	r.want("states", `SELECT string_agg(state, ' ' ORDER BY id) FROM trueup.dead_letters`, "discarded replaying discarded")
	r.want("ledger", `SELECT (end_kind, detail->>'who', detail->>'note', detail->>'deadLetter' = $1)::text FROM trueup.ledger WHERE kind = 'discard' AND file_id = 'f1'`,
		"(discarded,op,spam,t)", letters[0])
	if got, err := r.st.Report(r.ctx, p.ID, "ann"); err != nil || got.State != "rejected" || got.Reason != "not_claimable" {
		t.Errorf("its reporter is told %+v, %v", got, err)
	}
	pass, err := r.st.Passport(r.ctx, "f2")
	if err != nil || len(pass.Jobs) != 1 || pass.Jobs[0].Letter != letters[1] || pass.Jobs[0].Who != "op" {
		t.Errorf("passport %+v, %v", pass.Jobs, err)
	}
}

func TestRecheck(t *testing.T) {
	r := newRig(t)
	job := r.start(event.Job{Verb: event.JobRecheck, Files: []string{"f2", "f1", "f2"}, Note: "look"})
	take := func() []event.Event {
		t.Helper()
		got, err := r.st.TakeRechecks(r.ctx, r.turn, job.ID, 5)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	first, again := take(), take()
	if job.Total != 2 || len(first) != 2 || first[0].FileID != "f1" || first[0].Kind != event.KindRecheck || first[0].Source != event.Replay ||
		first[0].Origin != event.Reconcile || first[0].AcceptedAt.IsZero() || first[0].ID != again[0].ID {
		t.Fatalf("job %+v took %+v, then %+v", job, first, again)
	}
	if err := r.st.ConfirmRechecks(r.ctx, r.turn, job.ID, []string{first[0].ID}); err != nil {
		t.Fatal(err)
	}
	if n, err := r.st.Outstanding(r.ctx, job.ID); err != nil || n != 1 {
		t.Errorf("outstanding %d, %v", n, err)
	}
	r.settle(pendingOf(first[:1]), r.look("f1", snap("f1", 0)))
	if rest := take(); len(rest) != 1 || rest[0].FileID != "f2" {
		t.Errorf("rest %+v", rest)
	}
	if j := r.job(job.ID); j.Done != 1 || j.Outcomes["done"] != 1 || j.Outcomes["pending"] != 1 || !slices.Equal(j.Files, []string{"f1", "f2"}) {
		t.Errorf("job %+v", j)
	}
	if _, err := r.st.CancelJob(r.ctx, job.ID, store.Act{Who: "op"}); err != nil {
		t.Fatal(err)
	}
	if rest := take(); len(rest) != 0 {
		t.Errorf("a cancelled job took %+v", rest)
	}
	pass, err := r.st.Passport(r.ctx, "f1")
	if err != nil || len(pass.Jobs) != 1 || pass.Jobs[0].End != event.Done || pass.Jobs[0].Verb != event.JobRecheck {
		t.Errorf("passport %+v, %v", pass.Jobs, err)
	}
	_, err = r.st.StartJob(r.ctx, event.Job{Verb: event.JobRecheck, Who: "op", Files: []string{"../x"}})
	if err == nil {
		t.Error("an id that cannot be one was taken")
	}
}

func TestCancelledReplaysGoTheirWay(t *testing.T) {
	r := newRig(t)
	pending, seen := r.webhooks(4)
	r.die(event.End{}, pending...)
	job := r.start(event.Job{Verb: event.JobReplay})
	taken := r.take(job.ID, 2)
	for range 2 {
		got, err := r.st.CancelJob(r.ctx, job.ID, store.Act{Who: "op", Note: "stop"})
		if err != nil || got.State != event.JobCancelled || got.FinishedAt.IsZero() {
			t.Fatalf("job %+v, %v", got, err)
		}
	}
	open, err := r.st.OpenJobs(r.ctx)
	if err != nil || len(open) != 1 {
		t.Errorf("open %+v, %v", open, err)
	}
	if sent := r.drain(job, 2, seen...); len(sent) != len(taken) {
		t.Errorf("sent %v", sent)
	}
	if open, err = r.st.OpenJobs(r.ctx); err != nil || len(open) != 0 {
		t.Errorf("open %+v, %v", open, err)
	}
	if j := r.job(job.ID); j.State != event.JobCancelled || j.Done != 2 {
		t.Errorf("job %+v", j)
	}
	r.want("states", `SELECT string_agg(state, ' ' ORDER BY id) FROM trueup.dead_letters`, "resolved resolved dead dead")
	r.want("audit", `SELECT string_agg(verb, ' ' ORDER BY id) FROM trueup.audit`, "replay cancel")
	_, err = r.st.CancelJob(r.ctx, "nobody", store.Act{Who: "op"})
	wantErr(t, err, event.ErrUnknown)
}

func TestJobsAreListedAndWaited(t *testing.T) {
	r := newRig(t)
	r.die(event.End{}, webhook("f1"))
	var ids []string
	for range 3 {
		ids = append(ids, r.start(event.Job{Verb: event.JobReplay}).ID)
	}
	page, err := r.st.Jobs(r.ctx, "", 2)
	if err != nil || len(page) != 2 || page[0].ID != ids[2] {
		t.Fatalf("page %+v, %v", page, err)
	}
	if page, err = r.st.Jobs(r.ctx, page[1].ID, 2); err != nil || len(page) != 1 || page[0].ID != ids[0] {
		t.Errorf("page %+v, %v", page, err)
	}
	if err := r.st.SetJobWaiting(r.ctx, ids[0], "the queue is full"); err != nil {
		t.Fatal(err)
	}
	if j := r.job(ids[0]); j.Waiting != "the queue is full" {
		t.Errorf("job %+v", j)
	}
	r.take(ids[0], 1)
	if err := r.st.FinishJob(r.ctx, r.turn, ids[1], event.JobFailed, "too large"); err != nil {
		t.Fatal(err)
	}
	if j := r.job(ids[1]); j.State != event.JobFailed || j.Error != "too large" || j.Skipped != 0 {
		t.Errorf("job %+v", j)
	}
	if j := r.job(ids[0]); j.Waiting != "" {
		t.Errorf("it moves, and says %q", j.Waiting)
	}
	_, err = r.st.TakeReplays(r.ctx, r.turn, "nobody", 1)
	wantErr(t, err, event.ErrUnknown)
	_, err = r.st.StartJob(r.ctx, event.Job{Verb: event.JobReplay, Who: "op", Filter: event.Filter{IDs: []string{"nobody"}}})
	wantErr(t, err, event.ErrUnknown)
	r.want("jobs of unknown letters", `SELECT count(*) FROM trueup.jobs`, 3)
}
