package store_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/run"
	"github.com/trueup/trueup/internal/store"
)

// library makes n live files f00…, which nobody owns.
func (r *rig) library(n int) (ids []string) {
	r.Helper()
	fence := r.fence()
	var seen []file.Observation
	for i := range n {
		id := fmt.Sprintf("f%02d", i)
		ids, seen = append(ids, id), append(seen, lookAt(fence, id, snap(id, 0)))
	}
	r.settle(nil, seen...)
	return ids
}

// send takes the run's open findings of a kind as events, and says that they were sent.
func (r *rig) send(k run.Run, kind run.FindingKind) []event.Pending {
	r.Helper()
	events, err := r.st.TakeFindings(r.ctx, r.turn, k.ID, []run.FindingKind{kind}, 500)
	if err != nil {
		r.Fatal(err)
	}
	pending := pendingOf(events)
	ids := make([]string, len(events))
	for i, e := range events {
		ids[i] = e.ID
	}
	if err := r.st.ConfirmFindings(r.ctx, r.turn, k.ID, ids); err != nil {
		r.Fatal(err)
	}
	return pending
}

// lost is a look-up that answers 404, beside a canary that answered 200; empty is none.
func (r *rig) lost(id, canary string) file.Observation {
	r.Helper()
	o := r.look(id, nil)
	if o.Canary = (file.Canary{}); canary != "" {
		o.Canary.FileIDs = []string{canary}
	}
	return o
}

// applyPartial ends the run as partial, with its candidates, and applies it.
func (r *rig) applyPartial(k run.Run, candidates int64, a run.Apply) run.Run {
	r.Helper()
	k.State, k.Candidates, k.Account.Confirmed = run.Partial, candidates, !a.AcceptAccount
	if err := r.st.FinishRun(r.ctx, r.turn, k); err != nil {
		r.Fatal(err)
	}
	a.Who = "op"
	out, err := r.st.ApplyRun(r.ctx, k.ID, a)
	if err != nil {
		r.Fatal(err)
	}
	return out
}

func expecting(n int64) *int64 { return &n }

func TestAnEventOfARunClosesItsFinding(t *testing.T) {
	t.Run("AnOrphanThatIsGone", func(t *testing.T) {
		r := newRig(t)
		r.library(2)
		k := r.running()
		r.found(k, run.Orphaned, "f00")
		sent := r.send(k, run.Orphaned)
		first := r.lost("f00", "f01")
		r.settle(sent, first)
		r.wantFinding(k, "f00", "found/")
		r.want("ended", `SELECT ended_at IS NULL FROM trueup.findings`, true)
		r.want("write line", `SELECT detail->>'run' FROM trueup.ledger WHERE file_id = 'f00' AND reason = 'nominated'`, k.ID)
		r.settle(r.due(1), r.lost("f00", "f01"))
		r.wantFinding(k, "f00", "repaired/confirmed")
		r.want("ended", `SELECT ended_at IS NOT NULL FROM trueup.findings`, true)
		r.want("event's line", `SELECT detail->>'run' FROM trueup.ledger WHERE id = $1`, k.ID, sent[0].ID)
		r.wantRows("f01=")
		evidence := one[[]string](r, `SELECT array(SELECT jsonb_array_elements_text(evidence)) FROM trueup.findings`)
		at := first.Fence.At.UTC().Format("2006-01-02T15:04:05Z")
		if len(evidence) != 3 || evidence[0] != "the listing" || evidence[1] != at+", looked up by id: ImageKit answered 404 (request req-f00)" || !strings.Contains(evidence[2], "404") {
			t.Errorf("evidence %q", evidence)
		}
		if n, err := r.st.Unsettled(r.ctx, k.ID); err != nil || n != 0 {
			t.Errorf("%d unsettled, %v", n, err)
		}
		r.settle(sent, first)
		r.want("evidence after a repeat", `SELECT jsonb_array_length(evidence) FROM trueup.findings`, 3)
	})
	t.Run("AnOrphanThatIsThere", func(t *testing.T) {
		r := newRig(t)
		r.library(2)
		k := r.running()
		r.found(k, run.Orphaned, "f00")
		r.settle(r.send(k, run.Orphaned), r.lost("f00", "f01"))
		r.settle(r.due(1), r.look("f00", snap("f00", 0)))
		r.wantFinding(k, "f00", "skipped/present")
		r.want("evidence", `SELECT jsonb_array_length(evidence) FROM trueup.findings`, 3)
		r.wantRows("f00=", "f01=")
	})
	t.Run("ContentThatWentBackIsRepairedOnce", func(t *testing.T) {
		r := newRig(t)
		r.settle(nil, r.look("f1", snap("f1", 9)))
		k := r.running()
		r.found(k, run.Drifted, "f1")
		r.settle(r.send(k, run.Drifted), r.look("f1", snap("f1", 0)))
		r.wantFinding(k, "f1", "repaired/regressed")
		if n, err := r.st.Unsettled(r.ctx, k.ID); err != nil || n != 1 {
			t.Errorf("%d unsettled, %v", n, err)
		}
		r.exec(`UPDATE trueup.retries SET due_at = now()`)
		r.settle(r.due(1), r.look("f1", snap("f1", 0)))
		r.wantFinding(k, "f1", "repaired/regressed")
		if n, err := r.st.Unsettled(r.ctx, k.ID); err != nil || n != 0 {
			t.Errorf("%d unsettled, %v", n, err)
		}
	})
	t.Run("OneThatDiesIsRefusedWithoutASecret", func(t *testing.T) {
		r := newRig(t, func(c *store.Config) { c.Secrets = [][]byte{[]byte("hunter2hunter2")} })
		r.library(1)
		k := r.running()
		r.found(k, run.Orphaned, "f00")
		dead := event.End{Kind: event.Dead, Reason: "gave_up", Class: event.ClassImageKit, Note: "key hunter2hunter2"}
		o := r.lost("f00", "")
		o.RequestID = "hunter2hunter2"
		if _, err := r.st.Settle(r.ctx, r.turn, r.send(k, run.Orphaned), []file.Observation{o}, always(dead)); err != nil {
			t.Fatal(err)
		}
		r.wantFinding(k, "f00", "refused/gave_up")
		r.want("evidence", `SELECT evidence::text LIKE '%hunter2%' FROM trueup.findings`, false)
	})
	t.Run("ManyLooksLeaveABoundedStory", func(t *testing.T) {
		r := newRig(t)
		r.library(2)
		k := r.running()
		r.found(k, run.Orphaned, "f00")
		r.settle(r.send(k, run.Orphaned), r.lost("f00", ""))
		for range 30 {
			r.settle(r.due(1), r.lost("f00", ""))
		}
		r.want("evidence", `SELECT jsonb_array_length(evidence) FROM trueup.findings`, 20)
		r.settle(r.due(1), r.lost("f00", "f01")) // nominated: nobody had vouched before
		r.settle(r.due(1), r.lost("f00", "f01"))
		r.wantFinding(k, "f00", "repaired/confirmed")
		r.want("evidence", `SELECT jsonb_array_length(evidence) FROM trueup.findings`, 21)
	})
	t.Run("OfAnotherRunOnTheSameFileStaysAsItIs", func(t *testing.T) {
		r := newRig(t)
		r.library(2)
		k := r.running()
		r.found(k, run.Orphaned, "f00")
		r.exec(`INSERT INTO trueup.runs (id, kind, state) VALUES ('old', 'run', 'partial')`)
		r.exec(`INSERT INTO trueup.findings (run_id, file_id, kind, event_id) VALUES ('old', 'f00', 'orphaned', 'other')`)
		r.settle(r.send(k, run.Orphaned), r.look("f00", snap("f00", 0)))
		r.wantFinding(k, "f00", "skipped/present")
		r.wantFinding(run.Run{ID: "old"}, "f00", "found/")
	})
}

// confirmAll nominates all of these events' files and then removes them; it returns the
// reasons of the last look.
func (r *rig) confirmAll(sent []event.Pending, canary string) map[file.Reason]int {
	r.Helper()
	look := func(pending []event.Pending) map[file.Reason]int {
		r.Helper()
		var seen []file.Observation
		for _, p := range pending {
			seen = append(seen, r.lost(p.FileID, canary))
		}
		_, results := r.settle(pending, seen...)
		out := map[file.Reason]int{}
		for _, res := range results {
			out[res.Reason]++
		}
		return out
	}
	look(sent)
	return look(r.due(len(sent)))
}

func TestExpectedDeletions(t *testing.T) {
	t.Run("DoNotCountAndAllGoThrough", func(t *testing.T) {
		r := newRig(t)
		ids := r.library(40)
		k := r.running()
		r.found(k, run.Orphaned, ids[:30]...)
		k = r.applyPartial(k, 30, run.Apply{ExpectDeletions: expecting(30)})
		if got := r.confirmAll(r.send(k, run.Orphaned), ids[39]); got[file.ReasonConfirmed] != 30 {
			t.Errorf("got %v", got)
		}
		r.want("rows", `SELECT count(*) FROM imagekit_files`, 10)
		r.want("fuse", `SELECT (latched_at IS NULL)::text || (SELECT count(*) FROM trueup.fuse_hours) FROM trueup.fuse`, "true0")
		r.want("repaired", `SELECT count(*) FROM trueup.findings WHERE status = 'repaired'`, 30)
	})
	t.Run("WithoutThemTheFuseLatches", func(t *testing.T) {
		r := newRig(t)
		ids := r.library(40)
		k := r.running()
		r.found(k, run.Orphaned, ids[:30]...)
		if got := r.confirmAll(r.send(k, run.Orphaned), ids[39]); got[file.ReasonFuseLatched] != 30 {
			t.Errorf("got %v", got)
		}
		r.want("rows", `SELECT count(*) FROM imagekit_files`, 40)
	})
	t.Run("ExemptNothingButTheRunsOwnOrphans", func(t *testing.T) {
		r := newRig(t)
		ids := r.library(40)
		k := r.running()
		r.found(k, run.Orphaned, ids[:5]...)
		r.found(k, run.Drifted, ids[10:15]...)
		k = r.applyPartial(k, 5, run.Apply{ExpectDeletions: expecting(5)})
		r.confirmAll(r.send(k, run.Orphaned), ids[39])
		r.want("candidates of approved orphans", `SELECT count(*) FROM trueup.fuse_hours`, 0)
		drifted := r.send(k, run.Drifted)
		others := []event.Pending{recheck(ids[20]), recheck(ids[21]), webhook(ids[22])}
		if got := r.confirmAll(append(drifted, others...), ids[39]); got[file.ReasonConfirmed] != 8 {
			t.Errorf("got %v", got)
		}
		r.want("candidates", `SELECT sum(candidates) FROM trueup.fuse_hours`, 8)
	})
	t.Run("DoNotPassAFuseThatOthersLatched", func(t *testing.T) {
		r := newRig(t)
		ids := r.library(40)
		k := r.running()
		r.found(k, run.Orphaned, ids[:5]...)
		k = r.applyPartial(k, 5, run.Apply{ExpectDeletions: expecting(5)})
		sent := r.send(k, run.Orphaned)
		for _, id := range ids[10:21] {
			r.see(recheck(id), r.lost(id, ids[39]))
		}
		r.want("latched", `SELECT latched_at IS NOT NULL FROM trueup.fuse`, true)
		r.exec(`DELETE FROM trueup.retries`)
		if got := r.confirmAll(sent, ids[39]); got[file.ReasonFuseLatched] != 5 {
			t.Errorf("got %v", got)
		}
		r.want("rows", `SELECT count(*) FROM imagekit_files`, 40)
	})
	t.Run("EndWithTheRunsCancellation", func(t *testing.T) {
		r := newRig(t)
		ids := r.library(40)
		k := r.running()
		r.found(k, run.Orphaned, ids[:30]...)
		k = r.applyPartial(k, 30, run.Apply{ExpectDeletions: expecting(30)})
		sent := r.send(k, run.Orphaned)
		if _, err := r.st.CancelRun(r.ctx, k.ID, store.Act{Who: "op"}); err != nil {
			t.Fatal(err)
		}
		if got := r.confirmAll(sent, ids[39]); got[file.ReasonFuseLatched] != 30 {
			t.Errorf("got %v", got)
		}
	})
	t.Run("AreNotThoseOfARunThatNamedNoNumber", func(t *testing.T) {
		r := newRig(t)
		ids := r.library(40)
		k := r.running()
		r.found(k, run.Orphaned, ids[:3]...)
		k = r.applyPartial(k, 3, run.Apply{})
		r.confirmAll(r.send(k, run.Orphaned), ids[39])
		r.want("candidates", `SELECT sum(candidates) FROM trueup.fuse_hours`, 3)
	})
}

func TestAnAcceptedAccountStandsInForTheCanary(t *testing.T) {
	for accepted, want := range map[bool]file.Reason{true: file.ReasonConfirmed, false: file.ReasonNoCanary} {
		t.Run(fmt.Sprintf("Accepted=%v", accepted), func(t *testing.T) {
			r := newRig(t)
			ids := r.library(6)
			k := r.running()
			r.found(k, run.Orphaned, ids[:2]...)
			r.found(k, run.Drifted, ids[2])
			k = r.applyPartial(k, 2, run.Apply{AcceptAccount: accepted})
			sent := append(r.send(k, run.Orphaned), r.send(k, run.Drifted)...)
			if got := r.confirmAll(sent, ""); got[want] != 3 {
				t.Errorf("got %v", got)
			}
			if accepted { // nobody else's absences gain by it
				if got := r.confirmAll([]event.Pending{recheck(ids[4])}, ""); got[file.ReasonNoCanary] != 1 {
					t.Errorf("another event: %v", got)
				}
				r.wantRows("f03=", "f04=", "f05=")
			}
		})
	}
}

// The settling transaction of a run's events is lost on its way, with and without effect;
// settled again, the finding is told once.
func TestAFindingIsToldOnce(t *testing.T) {
	r := newRig(t)
	r.library(2)
	k := r.running()
	r.found(k, run.Orphaned, "f00")
	sent, o := r.send(k, run.Orphaned), r.look("f00", snap("f00", 0))
	for range 3 {
		r.settle(sent, o)
	}
	r.wantFinding(k, "f00", "skipped/present")
	r.want("evidence", `SELECT jsonb_array_length(evidence) FROM trueup.findings`, 2)
}

// What was nominated and counted before a release, and is not among the files it named,
// begins anew: it counts, and latches the fuse again.
func TestAReleaseLetsNoMoreThroughThanItNamed(t *testing.T) {
	r := newRig(t)
	ids := r.library(40)
	var asked []event.Pending
	for _, id := range ids[:30] {
		asked = append(asked, recheck(id))
	}
	if got := r.confirmAll(asked, ids[39]); got[file.ReasonFuseLatched] != 30 {
		t.Fatalf("got %v", got)
	}
	k := r.running() // its listing still shows all 40: no candidate
	r.applyPartial(k, 0, run.Apply{ExpectDeletions: expecting(0)})
	r.exec(`UPDATE trueup.retries SET due_at = now()`)
	var again []event.Pending
	var seen []file.Observation
	for _, p := range r.due(30) {
		again, seen = append(again, p), append(seen, r.lost(p.FileID, ids[39]))
	}
	r.settle(again, seen...)
	r.want("rows", `SELECT count(*) FROM imagekit_files`, int64(40))
	r.want("latched again", `SELECT latched_at IS NOT NULL FROM trueup.fuse`, true)
}
