package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
)

// broken is what a person may do to each column of a row.
func broken() map[string]string {
	return map[string]string{
		"file_url": `'x'`, "upload_timestamp": `now()`, "file_name": `NULL`, "file_path": `'/x'`, "file_type": `'non-image'`, "mime": `''`,
		"size_bytes": `1`, "width": `1`, "height": `NULL`, "thumbnail_url": `'x'`, "tags": `'{}'`, "custom_metadata": `'{"n": 2}'`,
		"version_id": `'v'`, "is_private": `true`, "remote_updated_at": `now()`, "user_id": `'eve'`,
	}
}

func TestAPersonsChangeIsPutBack(t *testing.T) {
	r := newRig(t)
	s := snap("f1", 0)
	r.settle([]event.Pending{report("f1", "ann"), webhook("f2")}, r.look("f1", s), r.look("f2", snap("f2", 0)))
	columns := `SELECT (to_jsonb(f) - 'id' - 'synced_at')::text FROM public.imagekit_files f WHERE file_id = 'f1'`
	want := one[string](r, columns)
	for column, value := range broken() {
		for how, see := range map[string]func() file.Observation{
			"LookUp": func() file.Observation { return r.look("f1", s) },
			"Hit":    func() file.Observation { return r.hit(s) },
			"OverlappingLookUp": func() file.Observation {
				o := r.look("f1", s)
				o.Fence.Number = 1
				return o
			},
		} {
			t.Run(column+"By"+how, func(t *testing.T) {
				r.exec(fmt.Sprintf(`UPDATE public.imagekit_files SET %s = %s WHERE file_id = 'f1'`, column, value))
				if one[string](r, columns) == want {
					t.Fatal("the test broke nothing")
				}
				_, _ = r.settle(nil, see())
				if got := one[string](r, columns); got != want {
					t.Errorf("got  %s\nwant %s", got, want)
				}
				r.want("reason", `SELECT reason FROM trueup.ledger WHERE file_id = 'f1' ORDER BY at DESC LIMIT 1`, "repaired")
			})
		}
	}
	t.Run("DeletedRow", func(t *testing.T) {
		r.exec(`DELETE FROM public.imagekit_files WHERE file_id = 'f1'`)
		r.expect(r.see(webhook("f1"), r.look("f1", s)), file.Applied, file.ReasonRepaired)
		r.wantRows("f1=ann", "f2=")
	})
	t.Run("NothingElseIsTouched", func(t *testing.T) {
		before := r.xmins()
		r.settle(nil, r.hit(s), r.look("f2", snap("f2", 0)))
		if r.xmins() != before {
			t.Error("rows were rewritten")
		}
	})
}

func TestAbsence(t *testing.T) {
	t.Run("OneAnnounced404RemovesAndAHitDoesNotBringBack", func(t *testing.T) {
		r := newRig(t)
		late := r.hit(snap("f1", 9))
		r.settle([]event.Pending{report("f1", "ann")}, r.look("f1", snap("f1", 0)))
		r.expect(r.see(deleted("f1"), r.look("f1", nil)), file.Tombstoned, file.ReasonAnnounced)
		r.wantRows()
		r.expect(r.see(webhook("f1"), late), file.LookAgain, file.ReasonStaleHit)
		r.expect(r.see(deleted("f1"), r.look("f1", nil)), file.Unchanged, file.ReasonGone)
		r.wantRows()
		r.want("state", `SELECT gone_why || ',' || (hash IS NULL) || ',' || owner FROM trueup.file_state`, "announced,true,ann")
		r.expect(r.see(webhook("f1"), r.look("f1", snap("f1", 9))), file.Applied, file.ReasonRevived)
		r.wantRows("f1=ann")
	})
	t.Run("UnannouncedTakesTwo404sApart", func(t *testing.T) {
		r := newRig(t)
		r.settle([]event.Pending{webhook("f1")}, r.look("f1", snap("f1", 0)))
		early := r.look("f1", nil)
		p := recheck("f1")
		got := r.see(p, early)
		r.expect(got, file.LookAgain, file.ReasonNominated)
		if got.Wait != 50*time.Millisecond {
			t.Errorf("wait %v", got.Wait)
		}
		r.expect(r.see(recheck("f1"), early), file.LookAgain, file.ReasonStaleHit)
		r.wantRows("f1=")
		r.due(2)
		r.expect(r.see(recheck("f1"), r.look("f1", nil)), file.Tombstoned, file.ReasonConfirmed)
		r.wantRows()
	})
	t.Run("NeverSeenWritesNothing", func(t *testing.T) {
		r := newRig(t)
		r.expect(r.see(report("f1", "ann"), r.look("f1", nil)), file.Unchanged, file.ReasonNotFound)
		r.want("states", `SELECT count(*) FROM trueup.file_state`, 0)
		r.expect(r.see(deleted("f1"), r.look("f1", nil)), file.Tombstoned, file.ReasonAnnounced)
		r.expect(r.see(report("f1", "ann"), r.hit(snap("f1", 0))), file.LookAgain, file.ReasonStaleHit)
		r.wantRows()
	})
}

func TestCanary(t *testing.T) {
	canary := func(o file.Observation, c file.Canary) file.Observation { o.Canary = c; return o }
	r := newRig(t)
	r.settle([]event.Pending{webhook("f1"), webhook("f2"), webhook("f3")}, r.look("f1", snap("f1", 0)), r.look("f2", snap("f2", 0)), r.look("f3", snap("f3", 0)))
	refused := func(name string, c file.Canary) {
		t.Helper()
		if got := r.see(deleted("f1"), canary(r.look("f1", nil), c)); got.Reason != file.ReasonNoCanary {
			t.Errorf("%s: got %+v", name, got)
		}
	}
	refused("none", file.Canary{})
	refused("itself", file.Canary{FileIDs: []string{"f1"}})
	refused("not ours", file.Canary{FileIDs: []string{"f9"}})
	refused("an empty listing where other rows are", file.Canary{EmptyLibrary: true})
	r.see(recheck("f2"), r.look("f2", nil))
	refused("suspect", file.Canary{FileIDs: []string{"f2"}})
	r.see(deleted("f3"), canary(r.look("f3", nil), file.Canary{}))
	refused("announced, waiting in retries", file.Canary{FileIDs: []string{"f3"}})
	// Under another account's key every row that nobody announced is suspect in the end;
	// its listing vouches for nothing, not even for what was announced.
	refused("a listing where a suspect row is", file.Canary{EmptyLibrary: true})
	r.see(deleted("f2"), canary(r.look("f2", nil), file.Canary{}))
	r.exec(`UPDATE trueup.fuse SET account_doubt = 'no known file answered'`)
	refused("while the account is doubted", file.Canary{EmptyLibrary: true})
	r.exec(`UPDATE trueup.fuse SET account_doubt = ''`)
	r.expect(r.see(deleted("f1"), canary(r.look("f1", nil), file.Canary{EmptyLibrary: true})), file.Tombstoned, file.ReasonAnnounced)

	r.settle([]event.Pending{webhook("f4"), webhook("f5")}, r.look("f4", snap("f4", 0)), r.look("f5", snap("f5", 0)))
	_, got := r.settle([]event.Pending{deleted("f4"), deleted("f5")},
		canary(r.look("f4", nil), file.Canary{FileIDs: []string{"f5"}}), canary(r.look("f5", nil), file.Canary{FileIDs: []string{"f4"}}))
	for _, res := range got {
		r.expect(res, file.LookAgain, file.ReasonNoCanary)
	}
	r.settle([]event.Pending{webhook("f6")}, r.look("f6", snap("f6", 0)))
	r.expect(r.see(deleted("f4"), canary(r.look("f4", nil), file.Canary{FileIDs: []string{"f6"}})), file.Tombstoned, file.ReasonAnnounced)
}

func TestFuse(t *testing.T) {
	r := newRig(t)
	const n = 40
	var all []event.Pending
	var seen []file.Observation
	fence := r.fence()
	id := func(i int) string { return fmt.Sprintf("f%02d", i) }
	for i := range n {
		all, seen = append(all, webhook(id(i))), append(seen, lookAt(fence, id(i), snap(id(i), 0)))
	}
	r.settle(all, seen...)
	lost := func(from, to int, event func(string) event.Pending) map[file.Reason]int {
		t.Helper()
		reasons := map[file.Reason]int{}
		for i := from; i < to; i++ {
			o := r.look(id(i), nil)
			o.Canary = file.Canary{FileIDs: []string{id(n - 1)}}
			reasons[r.see(event(id(i)), o).Reason]++
		}
		return reasons
	}
	want := func(what string, got map[file.Reason]int, reason file.Reason, n int) {
		t.Helper()
		if len(got) != 1 || got[reason] != n {
			t.Errorf("%s: got %v, want %d %s", what, got, n, reason)
		}
	}
	want("ten candidates", lost(0, 10, recheck), file.ReasonNominated, 10)
	r.due(10)
	want("the first is confirmed", lost(0, 1, recheck), file.ReasonConfirmed, 1)
	r.see(recheck(id(1)), r.look(id(1), snap(id(1), 0)))
	want("one counts once a day", lost(1, 2, recheck), file.ReasonNominated, 1)
	r.want("not latched", `SELECT latched_at IS NULL FROM trueup.fuse`, true)
	want("the eleventh latches", lost(10, 11, recheck), file.ReasonNominated, 1)
	r.want("latched", `SELECT latched_at IS NOT NULL FROM trueup.fuse`, true)
	r.due(12)
	want("nothing unsigned goes", lost(2, 11, recheck), file.ReasonFuseLatched, 9)
	want("announced deletions go on", lost(2, 4, deleted), file.ReasonAnnounced, 2)
	r.expect(r.see(webhook("new"), r.look("new", snap("new", 0))), file.Applied, file.ReasonAdded)
	r.want("rows", `SELECT count(*) FROM public.imagekit_files`, n-3+1)
}

// A suspicion in the same call as the one that latches must not slip through.
func TestFuseLatchesBeforeTheFirstConfirmation(t *testing.T) {
	r := newRig(t)
	var all []event.Pending
	var seen, lost []file.Observation
	fence := r.fence()
	for i := range 30 {
		id := fmt.Sprintf("f%02d", i)
		all, seen = append(all, webhook(id)), append(seen, lookAt(fence, id, snap(id, 0)))
	}
	r.settle(all, seen...)
	r.expect(r.see(recheck("f00"), r.lost("f00", "f29")), file.LookAgain, file.ReasonNominated)
	r.due(1)
	fence = r.fence()
	for i := range 15 {
		o := lookAt(fence, fmt.Sprintf("f%02d", i), nil)
		o.Canary.FileIDs = []string{"f29"}
		lost = append(lost, o)
	}
	p := recheck("f00")
	_, got := r.settle([]event.Pending{p}, lost...)
	r.expect(got[p.ID], file.LookAgain, file.ReasonFuseLatched)
	r.want("rows", `SELECT count(*) FROM public.imagekit_files`, 30)
}
