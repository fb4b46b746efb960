package store_test

import (
	"testing"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/store"
)

func TestReport(t *testing.T) {
	r := newRig(t)
	ask := func(p event.Pending, user string) store.Report {
		t.Helper()
		got, err := r.st.Report(r.ctx, p.ID, user)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	ann, bob := report("f1", "ann"), report("f1", "bob")
	bob.AcceptedAt = bob.AcceptedAt.Add(time.Second)
	if got := ask(ann, "ann"); got.State != "pending" || got.File != nil {
		t.Errorf("before it is settled: %+v", got)
	}
	r.settle([]event.Pending{ann, bob}, r.look("f1", snap("f1", 0)))
	got := ask(ann, "ann")
	if want := snap("f1", 0); got.State != "verified" || got.File == nil || got.File.URL != want.URL || *got.File.SizeBytes != 2048 ||
		len(got.File.Tags) != 3 || got.File.Tags[0] != want.Tags[0] || !got.File.CreatedAt.Equal(base) || *got.File.IsPrivate {
		t.Errorf("verified: %+v, %+v", got, got.File)
	}
	if got := ask(bob, "bob"); got.State != "rejected" || got.Reason != "not_claimable" || got.File != nil {
		t.Errorf("a refused claim: %+v", got)
	}
	if got := ask(ann, "bob"); got.State != "pending" {
		t.Errorf("somebody else's report: %+v", got)
	}
	if err := r.st.Assign(r.ctx, "f1", "eve", store.Act{Who: "op", Note: "moved"}); err != nil {
		t.Fatal(err)
	}
	if got := ask(ann, "ann"); got.State != "rejected" || got.Reason != "not_claimable" {
		t.Errorf("no longer the owner: %+v", got)
	}
}

func TestAReportOfADeadLetterIsAnsweredByItsReplay(t *testing.T) {
	r := newRig(t)
	p := report("f1", "ann")
	if _, err := r.st.Settle(r.ctx, r.turn, []event.Pending{p}, nil, always(event.End{Kind: event.Dead, Reason: "x", Class: event.ClassTrueup})); err != nil {
		t.Fatal(err)
	}
	state := func() string {
		got, err := r.st.Report(r.ctx, p.ID, "ann")
		if err != nil {
			t.Fatal(err)
		}
		return got.State
	}
	if got := state(); got != "pending" {
		t.Errorf("dead: %s", got)
	}
	replay := p
	replay.ID, replay.Source, replay.DeadLetter = webhook("").ID, event.Replay, one[string](r, `SELECT id FROM trueup.dead_letters`)
	r.settle([]event.Pending{replay}, r.look("f1", snap("f1", 0)))
	if got := state(); got != "verified" {
		t.Errorf("replayed: %s", got)
	}
	r.want("the claim keeps its first event's id", `SELECT owner_event FROM trueup.file_state`, p.ID)
}

func TestPassportTellsEverything(t *testing.T) {
	r := newRig(t)
	p, w := report("f1", "ann"), webhook("f1")
	r.settle([]event.Pending{p}, r.look("f1", snap("f1", 0)))
	r.see(w, r.look("f1", nil)) // nominates and waits
	if _, err := r.st.Settle(r.ctx, r.turn, []event.Pending{webhook("f1")}, nil, always(event.End{Kind: event.Dead, Reason: "x", Class: event.ClassTrueup})); err != nil {
		t.Fatal(err)
	}
	got, err := r.st.Passport(r.ctx, "f1")
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Lines) != 3 || len(got.Retries) != 1 || len(got.DeadLetters) != 1 || got.State == nil || got.State.SuspectAt.IsZero() || len(got.Row) == 0 {
		t.Errorf("passport %+v", got)
	}
	if l := got.Lines[1]; l.Kind != "write" || l.Reason != string(file.ReasonNominated) {
		t.Errorf("the nomination has no line: %+v", l)
	}
	none, err := r.st.Passport(r.ctx, "nobody")
	if err != nil || none.State != nil || none.Row != nil || len(none.Lines) != 0 {
		t.Errorf("passport of an unknown file: %+v, %v", none, err)
	}
}

func TestStatus(t *testing.T) {
	r := newRig(t)
	r.settle([]event.Pending{webhook("f1"), webhook("f2")}, r.look("f1", snap("f1", 0)), r.look("f2", nil))
	if _, err := r.st.SetPaused(r.ctx, true, store.Act{Who: "op", Note: "deploy", Key: "k"}); err != nil {
		t.Fatal(err)
	}
	resumed, err := r.st.SetPaused(r.ctx, false, store.Act{Who: "op", Note: "done", Key: "k"})
	if err != nil || resumed != (store.Paused{}) {
		t.Errorf("a key of another verb kept it from resuming, or something of the pause stayed: %+v, %v", resumed, err)
	}
	if again, err := r.st.SetPaused(r.ctx, true, store.Act{Who: "op", Key: "k"}); err != nil || again.Paused {
		t.Errorf("the same key did something twice: %+v, %v", again, err)
	}
	if other, err := r.st.SetPaused(r.ctx, true, store.Act{Who: "op2", Note: "deploy", Key: "k"}); err != nil || !other.Paused {
		t.Errorf("somebody else's key: %+v, %v", other, err)
	}
	got, err := r.st.Status(r.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if got.Turn != r.turn || got.Schema != 5 || !got.Paused.Paused || got.Paused.By != "op2" || got.Retries.Count != 1 || got.Retries.NextDue.IsZero() ||
		got.LiveRows != 1 || got.Fuse.Latched || len(got.Columns) != 16 {
		t.Errorf("status %+v", got)
	}
	turn, err := r.st.BeginTurn(r.ctx)
	if err != nil || !turn.Paused || turn.PausedNote != "deploy" || turn.Number != r.turn+1 || !turn.NextDue.Equal(got.Retries.NextDue) {
		t.Errorf("turn %+v, %v", turn, err)
	}
}

func TestBlame(t *testing.T) {
	r := newRig(t)
	p := webhook("f1")
	mark := func(want event.Mark) {
		t.Helper()
		got, err := r.st.Mark(r.ctx, r.turn, []string{p.ID})
		if err != nil || got[p.ID] != want {
			t.Errorf("mark %+v, %v; want %+v", got, err, want)
		}
	}
	blame := func(stack string) {
		t.Helper()
		for range 2 { // its answer may be lost
			if err := r.st.Blame(r.ctx, r.turn, []string{p.ID}, stack); err != nil {
				t.Fatal(err)
			}
		}
		turn, err := r.st.BeginTurn(r.ctx) // the process ends
		if err != nil {
			t.Fatal(err)
		}
		r.turn = turn.Number
	}
	blame("spin.go:1\x00")
	mark(event.Mark{Survived: 1, Stack: "spin.go:1\uFFFD"})
	blame("spin.go:2") // on trial: one crash is one mark
	mark(event.Mark{Survived: 2, Stack: "spin.go:2"})
	wantErr(t, r.st.Blame(r.ctx, r.turn-1, []string{p.ID}, "x"), event.ErrTurnMoved)
}

func TestMark(t *testing.T) {
	r := newRig(t)
	p := webhook("f1")
	for want := range 3 {
		got, err := r.st.Mark(r.ctx, r.turn, []string{p.ID, p.ID})
		if err != nil || got[p.ID].Survived != want {
			t.Errorf("survived %v, %v; want %d", got, err, want)
		}
		turn, err := r.st.BeginTurn(r.ctx)
		if err != nil {
			t.Fatal(err)
		}
		r.turn = turn.Number
	}
	r.see(p, r.look("f1", snap("f1", 0)))
	if got, err := r.st.Mark(r.ctx, r.turn, []string{p.ID}); err != nil || got[p.ID] != (event.Mark{}) {
		t.Errorf("settling left the mark: %v, %v", got, err)
	}
	// The event is over, and its envelope comes once more, on trial.
	if _, err := r.st.Settle(r.ctx, r.turn, []event.Pending{p}, nil, always(event.End{Kind: event.Done})); err != nil {
		t.Fatal(err)
	}
	r.want("marks of an event that was over", `SELECT count(*) FROM trueup.trial_marks`, 0)
}
