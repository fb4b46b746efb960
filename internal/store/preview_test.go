package store_test

import (
	"testing"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/store"
)

func TestPreviewSaysWhatSettlingWouldAndWritesNothing(t *testing.T) {
	r := newRig(t)
	r.exec(`ALTER TABLE public.imagekit_files ADD CONSTRAINT small CHECK (size_bytes < 5000)`)
	r.settle([]event.Pending{report("held", "ann"), webhook("gone")}, r.look("held", snap("held", 0)), r.look("gone", snap("gone", 0)))
	big := snap("big", 0)
	big.SizeBytes = new(int64)
	*big.SizeBytes = 9000
	fresh, foreign, removed, unasked, refused := report("fresh", "ann"), report("held", "bob"), deleted("gone"), webhook("unasked"), webhook("big")
	r.die(event.End{}, fresh, foreign, removed, unasked, refused)
	job := r.start(event.Job{Verb: event.JobReplay})
	pending := pendingOf(r.take(job.ID, 9))
	gone := r.look("gone", nil)
	gone.Canary.FileIDs = []string{"held"}
	seen := []file.Observation{r.look("fresh", snap("fresh", 0)), r.look("held", snap("held", 0)), gone, r.look("big", big)}
	everything := func() string {
		return one[string](r, `SELECT (SELECT string_agg(f.xmin::text || f::text, ' ' ORDER BY file_id) FROM public.imagekit_files f)
			|| (SELECT string_agg(s.xmin::text || s::text, ' ' ORDER BY file_id) FROM trueup.file_state s) || (SELECT string_agg(l::text, ' ' ORDER BY id) FROM trueup.ledger l) || (SELECT string_agg(d.xmin::text || d.state, ' ' ORDER BY id)
			FROM trueup.dead_letters d) || (SELECT string_agg(i::text, ' ' ORDER BY item) FROM trueup.job_items i) || (SELECT count(*) FROM trueup.retries)`)
	}
	before := everything()
	// Neither another turn nor a pause stops somebody who only asks.
	if _, err := r.st.BeginTurn(r.ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := r.st.SetPaused(r.ctx, true, store.Act{Who: "op"}); err != nil {
		t.Fatal(err)
	}
	got, err := r.st.Preview(r.ctx, pending, seen, settleTable)
	if err != nil {
		t.Fatal(err)
	}
	if everything() != before {
		t.Error("the preview wrote something")
	}
	for id, want := range map[string]struct {
		verdict string
		end     event.EndKind
		outcome file.Outcome
		reason  string
	}{
		"fresh": {"present", event.Done, file.Applied, "added"}, "held": {"refused", event.Rejected, file.Unchanged, "claim_refused"},
		"gone": {"absent", event.Done, file.Tombstoned, "announced"}, "unasked": {"undecided", event.Retry, "", ""}, "big": {"undecided", event.Dead, "", "unstorable"},
	} {
		p := got[eventOf(pending, id)]
		if p.Verdict != want.verdict || p.End.Kind != want.end || p.Result.Outcome != want.outcome || p.End.Reason != want.reason {
			t.Errorf("%s: %+v, want %+v", id, p, want)
		}
	}
}

func eventOf(pending []event.Pending, fileID string) string {
	for _, p := range pending {
		if p.FileID == fileID {
			return p.ID
		}
	}
	return ""
}
