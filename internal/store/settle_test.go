package store_test

import (
	"testing"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/store"
)

func TestSettle(t *testing.T) {
	t.Run("WritesAFreshFileWithEveryColumnUnderItsOwner", func(t *testing.T) {
		r := newRig(t)
		p, w := report("f1", "ann"), webhook("f1")
		done, got := r.settle([]event.Pending{p, w}, r.look("f1", snap("f1", 0)))
		r.expect(got[p.ID], file.Applied, file.ReasonAdded)
		r.expect(got[w.ID], file.Applied, file.ReasonAdded)
		if got[p.ID].Claim != file.ClaimHeld || got[w.ID].Claim != file.ClaimNone || !got[p.ID].Live {
			t.Errorf("claims %q and %q, live %v", got[p.ID].Claim, got[w.ID].Claim, got[p.ID].Live)
		}
		if len(done.Ends) != 2 || done.Already != 0 || !done.NextDue.IsZero() {
			t.Errorf("settled %+v", done)
		}
		r.wantRows("f1=ann")
		r.want("row", `SELECT (file_url, upload_timestamp = $2, file_name, file_path, file_type, mime, size_bytes, width, height, thumbnail_url, tags,
			custom_metadata, version_id, is_private, remote_updated_at = $2, synced_at IS NOT NULL)::text FROM public.imagekit_files WHERE file_id = $1`,
			`(https://ik.example/f1.jpg,t,f1.jpg,/f1.jpg,image,image/jpeg,2048,640,640,https://ik.example/t/f1,"{""a \\""b\\"""",""c\\\\d"",""e,{f}""}",`+
				`"{""n"": 1.50, ""s"": ""x""}",f1,f,t,t)`, "f1", base)
		r.want("ledger", `SELECT count(*) FROM trueup.ledger WHERE verdict = 'present' AND outcome = 'applied' AND end_kind = 'done' AND request_id = 'req-f1'`, 2)
		r.want("state", `SELECT owner || owner_kind || claim_open FROM trueup.file_state`, "annclaimedtrue")
	})

	t.Run("LeavesEverythingUntouchedOnARepeat", func(t *testing.T) {
		r := newRig(t)
		r.settle([]event.Pending{report("f1", "ann"), webhook("f2")}, r.look("f1", snap("f1", 0)), r.look("f2", snap("f2", 0)))
		before, id := r.xmins(), one[int64](r, `SELECT last_value FROM public.imagekit_files_id_seq`)
		for range 3 {
			_, got := r.settle([]event.Pending{report("f1", "ann"), webhook("f2")}, r.look("f1", snap("f1", 0)), r.hit(snap("f2", 0)))
			for _, res := range got {
				if res.Reason != file.ReasonSame && res.Reason != file.ReasonNotNews {
					t.Errorf("got %+v", res)
				}
			}
		}
		if after := r.xmins(); after != before {
			t.Errorf("rows were rewritten:\n%s\n%s", before, after)
		}
		r.want("id sequence", `SELECT last_value FROM public.imagekit_files_id_seq`, id)
	})

	t.Run("IsANoOpForARedelivery", func(t *testing.T) {
		r := newRig(t)
		all := []event.Pending{report("f1", "ann"), report("f2", "ann"), webhook("f3")}
		seen := []file.Observation{r.look("f1", snap("f1", 0)), r.look("f2", nil)}
		first, _ := r.settle(all, seen...)
		if first.Ends[all[1].ID].Kind != event.Retry || first.Ends[all[2].ID].Kind != event.Retry {
			t.Fatalf("ends %+v", first.Ends)
		}
		before, lines := r.xmins(), one[int64](r, `SELECT count(*) FROM trueup.ledger`)
		again, _ := r.settle(all, seen...)
		if again.Already != 3 || len(again.Ends) != 0 {
			t.Errorf("settled again: %+v", again)
		}
		if r.xmins() != before {
			t.Error("rows were rewritten")
		}
		r.want("ledger", `SELECT count(*) FROM trueup.ledger`, lines)
		r.want("retries", `SELECT count(*) FROM trueup.retries`, 2)
	})

	t.Run("KeepsARetryUntilItEnds", func(t *testing.T) {
		r := newRig(t)
		p := report("f1", "ann")
		p.UpdatedAt, p.WebhookID = base, "wh"
		attempt := event.Attempt{At: base, Class: event.ClassImageKit, Reason: "unavailable", Status: 503, Version: "test"}
		_, err := r.st.Settle(r.ctx, r.turn, []event.Pending{p}, nil, always(event.End{Kind: event.Retry, Reason: "unavailable", After: time.Millisecond, Attempt: &attempt}))
		if err != nil {
			t.Fatal(err)
		}
		due := r.due(1)[0]
		if due.Tries != 1 || due.Waited != time.Millisecond || !due.Retried || len(due.Attempts) != 1 || due.Attempts[0] != attempt ||
			string(due.Body) != string(p.Body) || due.Headers["user-agent"] != "test" || !due.AcceptedAt.Equal(p.AcceptedAt) || due.User != "ann" || due.WebhookID != "wh" {
			t.Errorf("due %+v", due)
		}
		done, got := r.settle([]event.Pending{due}, r.look("f1", snap("f1", 0)))
		r.expect(got[p.ID], file.Applied, file.ReasonAdded)
		if !done.NextDue.IsZero() {
			t.Errorf("next due %v", done.NextDue)
		}
		again, _ := r.settle([]event.Pending{due}, r.look("f1", snap("f1", 0)))
		if again.Already != 1 {
			t.Errorf("a retry whose row is gone was settled again: %+v", again)
		}
		r.want("retries", `SELECT count(*) FROM trueup.retries`, 0)
	})

	t.Run("WritesACompleteDeadLetterAndResolvesItByItsReplay", func(t *testing.T) {
		r := newRig(t)
		p := webhook("f1")
		p.Attempts = []event.Attempt{{At: base, Class: event.ClassImageKit, Reason: "garbled", Excerpt: "a\x00b"}}
		dead := event.End{Kind: event.Dead, Reason: "garbled", Class: event.ClassImageKit, Note: "no JSON", Attempt: &event.Attempt{At: base, Reason: "garbled"}}
		if _, err := r.st.Settle(r.ctx, r.turn, []event.Pending{p}, nil, always(dead)); err != nil {
			t.Fatal(err)
		}
		r.want("dead letter", `SELECT (state, class, reason, note, jsonb_array_length(attempts), convert_from(body, 'UTF8'), headers->>'user-agent')::text
			FROM trueup.dead_letters WHERE event_id = $1`, `(dead,imagekit,garbled,"no JSON",2,"{""fileId"":""f1""}",test)`, p.ID)
		letter := one[string](r, `SELECT id FROM trueup.dead_letters`)

		replay := p
		replay.ID, replay.Source, replay.DeadLetter = report("", "").ID, event.Replay, letter
		if _, err := r.st.Settle(r.ctx, r.turn, []event.Pending{replay}, nil, always(dead)); err != nil {
			t.Fatal(err)
		}
		r.want("died again", `SELECT (state, jsonb_array_length(history), replay_event = $1)::text FROM trueup.dead_letters`, "(dead,1,t)", replay.ID)
		replay.ID = report("", "").ID
		r.expect(r.see(replay, r.look("f1", snap("f1", 0))), file.Applied, file.ReasonAdded)
		r.want("resolved", `SELECT (state, jsonb_array_length(history), replay_event = $1)::text FROM trueup.dead_letters`, "(resolved,2,t)", replay.ID)
	})

	t.Run("WritesNothingOnceTheTurnHasMoved", func(t *testing.T) {
		r := newRig(t)
		if _, err := r.st.BeginTurn(r.ctx); err != nil {
			t.Fatal(err)
		}
		_, _, err := r.trySettle([]event.Pending{webhook("f1")}, r.look("f1", snap("f1", 0)))
		wantErr(t, err, event.ErrTurnMoved)
		r.wantRows()
		r.want("ledger", `SELECT count(*) FROM trueup.ledger`, 0)
		if _, err := r.st.Mark(r.ctx, r.turn, []string{"e"}); err == nil {
			t.Error("a trial mark was written in a turn that is over")
		}
	})

	t.Run("WritesNothingWhilePaused", func(t *testing.T) {
		r := newRig(t)
		p := webhook("f1")
		if _, err := r.st.SetPaused(r.ctx, true, store.Act{Who: "op"}); err != nil {
			t.Fatal(err)
		}
		_, _, err := r.trySettle([]event.Pending{p}, r.look("f1", snap("f1", 0)))
		wantErr(t, err, event.ErrPaused)
		_, err = r.st.Mark(r.ctx, r.turn, []string{p.ID})
		wantErr(t, err, event.ErrPaused)
		r.wantRows()
		r.want("ledger and marks", `SELECT (SELECT count(*) FROM trueup.ledger) + (SELECT count(*) FROM trueup.trial_marks)`, 0)
		if now, err := r.st.Turn(r.ctx); err != nil || !now.Paused || now.Number != r.turn {
			t.Errorf("turn %+v, %v", now, err)
		}
		if _, err := r.st.SetPaused(r.ctx, false, store.Act{Who: "op"}); err != nil {
			t.Fatal(err)
		}
		r.expect(r.see(p, r.look("f1", snap("f1", 0))), file.Applied, file.ReasonAdded)
	})

	t.Run("EndsAnEventWithoutAnObservation", func(t *testing.T) {
		r := newRig(t)
		p := webhook("f1")
		_, err := r.st.Settle(r.ctx, r.turn, []event.Pending{p}, nil, func(_ event.Pending, res file.Result) event.End {
			if res != (file.Result{}) {
				t.Errorf("result %+v", res)
			}
			return event.End{Kind: event.Rejected, Reason: "x"}
		})
		if err != nil {
			t.Fatal(err)
		}
		r.want("verdict", `SELECT verdict FROM trueup.ledger`, "undecided")
	})
}

// due waits for n retries to be due.
func (r *rig) due(n int) []event.Pending {
	r.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		got, _, err := r.st.Due(r.ctx, 100)
		if err != nil {
			r.Fatal(err)
		}
		if len(got) == n {
			return got
		}
		if time.Now().After(deadline) {
			r.Fatalf("%d retries are due, want %d", len(got), n)
		}
	}
}
