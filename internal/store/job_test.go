package store_test

import (
	"testing"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/store"
)

// die parks events, each as a dead letter, and returns the letters' ids in order.
func (r *rig) die(end event.End, pending ...event.Pending) []string {
	r.Helper()
	end.Kind = event.Dead
	if end.Class == "" {
		end.Class, end.Reason = event.ClassImageKit, "gave_up"
	}
	if _, err := r.st.Settle(r.ctx, r.turn, pending, nil, always(end)); err != nil {
		r.Fatal(err)
	}
	out := make([]string, len(pending))
	for i, p := range pending {
		out[i] = one[string](r, `SELECT id FROM trueup.dead_letters WHERE event_id = $1`, p.ID)
	}
	return out
}

func (r *rig) start(j event.Job) event.Job {
	r.Helper()
	if j.Who == "" {
		j.Who = "op"
	}
	got, err := r.st.StartJob(r.ctx, j)
	if err != nil {
		r.Fatal(err)
	}
	return got
}

func (r *rig) job(id string) event.Job {
	r.Helper()
	j, err := r.st.Job(r.ctx, id)
	if err != nil {
		r.Fatal(err)
	}
	return j
}

func (r *rig) take(id string, limit int) []event.Event {
	r.Helper()
	got, err := r.st.TakeReplays(r.ctx, r.turn, id, limit)
	if err != nil {
		r.Fatal(err)
	}
	return got
}

func (r *rig) confirm(id string, events []event.Event) {
	r.Helper()
	ids := make([]string, len(events))
	for i, e := range events {
		ids[i] = e.ID
	}
	if err := r.st.ConfirmReplays(r.ctx, r.turn, id, ids); err != nil {
		r.Fatal(err)
	}
}

func pendingOf(events []event.Event) []event.Pending {
	out := make([]event.Pending, len(events))
	for i, e := range events {
		out[i] = event.Pending{Event: e}
	}
	return out
}

func TestAReplayJobFromItsStartToItsEnd(t *testing.T) {
	r := newRig(t)
	letters := r.die(event.End{}, report("f1", "ann"), report("f2", "ann"), webhook("f3"))
	j := r.start(event.Job{Verb: event.JobReplay, Note: "healed", Key: "k"})
	if j.Total != 3 || j.State != event.JobRunning {
		t.Fatalf("job %+v", j)
	}
	first := r.take(j.ID, 2)
	if len(first) != 2 || first[0].DeadLetter != letters[0] || first[0].Source != event.Replay || first[0].Origin != event.Client || first[0].User != "ann" {
		t.Fatalf("took %+v", first)
	}
	again := r.take(j.ID, 2)
	if len(again) != 2 || again[0].ID != first[0].ID || again[1].ID != first[1].ID {
		t.Fatalf("unconfirmed ones do not come again: %+v", again)
	}
	r.confirm(j.ID, first)
	r.confirm(j.ID, first)
	rest := r.take(j.ID, 2)
	if len(rest) != 1 || rest[0].DeadLetter != letters[2] {
		t.Fatalf("took %+v", rest)
	}
	r.confirm(j.ID, rest)
	if more := r.take(j.ID, 2); len(more) != 0 {
		t.Fatalf("took %+v", more)
	}
	if n, err := r.st.Outstanding(r.ctx, j.ID); err != nil || n != 3 {
		t.Errorf("outstanding %d, %v", n, err)
	}
	if err := r.st.FinishJob(r.ctx, r.turn, j.ID, event.JobDone, ""); err != nil {
		t.Fatal(err)
	}
	r.settle(pendingOf(first), r.look("f1", snap("f1", 0)), r.look("f2", snap("f2", 0)))
	if _, err := r.st.Settle(r.ctx, r.turn, pendingOf(rest), nil, always(event.End{Kind: event.Dead, Class: event.ClassTrueup, Reason: "panic"})); err != nil {
		t.Fatal(err)
	}
	j = r.job(j.ID)
	if j.State != event.JobDone || j.Done != 3 || j.Skipped != 0 || j.Outcomes["resolved"] != 2 || j.Outcomes["dead"] != 1 || j.Reasons["panic"] != 1 || j.FinishedAt.IsZero() {
		t.Errorf("job %+v", j)
	}
	r.wantRows("f1=ann", "f2=ann")
	r.want("audit", `SELECT (who, verb, count, note, job_id = $1)::text FROM trueup.audit`, "(op,replay,3,healed,t)", j.ID)
	if n, err := r.st.CountDead(r.ctx, event.Filter{State: event.LetterDead}); err != nil || n.Total != 1 || n.Classes[event.ClassTrueup] != 1 {
		t.Errorf("count %+v, %v", n, err)
	}
	same := r.start(event.Job{Verb: event.JobReplay, Note: "healed", Key: "k"})
	if same.ID != j.ID {
		t.Error("the same key started another job")
	}
	_, err := r.st.StartJob(r.ctx, event.Job{Verb: event.JobReplay, Who: "op", Key: "k", Filter: event.Filter{Reason: "x"}})
	wantErr(t, err, store.ErrKeyReused)
}
