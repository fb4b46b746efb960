package store_test

import (
	"fmt"
	"maps"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/run"
	"github.com/trueup/trueup/internal/store"
	"github.com/trueup/trueup/internal/testenv"
	"github.com/trueup/trueup/migrations"
)

// found stores one open finding per file.
func (r *rig) found(k run.Run, kind run.FindingKind, ids ...string) {
	r.Helper()
	all := make([]run.Finding, len(ids))
	for i, id := range ids {
		all[i] = run.Finding{FileID: id, Kind: kind, Status: run.Found, Evidence: []string{"the listing"}}
	}
	if err := r.st.SaveFindings(r.ctx, r.turn, k.ID, all); err != nil {
		r.Fatal(err)
	}
}

// wantFinding compares a finding's status and reason.
func (r *rig) wantFinding(k run.Run, id, want string) {
	r.Helper()
	r.want("finding of "+id, `SELECT status || '/' || reason FROM trueup.findings WHERE run_id = $1 AND file_id = $2`, want, k.ID, id)
}

func (r *rig) repair(k run.Run, hits ...file.Observation) map[string]run.Repair {
	r.Helper()
	out, err := r.st.Repair(r.ctx, r.turn, k.ID, k.Fence, hits)
	if err != nil {
		r.Fatal(err)
	}
	return out
}

// did says what was done to each file, in one text.
func did(all map[string]run.Repair) string { return fmt.Sprint(all) }

// asHit is a hit of a page that was asked for when the run began.
func asHit(k run.Run, s *file.Snapshot) file.Observation {
	return file.Observation{FileID: s.ID, How: file.Hit, Fence: file.Fence{Number: k.Fence}, Snapshot: s, Status: 200}
}

func TestRepair(t *testing.T) {
	t.Run("AddsPutsBackRaisesAndAdopts", func(t *testing.T) {
		r := newRig(t)
		r.settle([]event.Pending{report("deleted", "ann"), report("corrupted", "ann"), report("user", "ann"), report("old", "ann")},
			r.look("deleted", snap("deleted", 0)), r.look("corrupted", snap("corrupted", 0)), r.look("user", snap("user", 0)), r.look("old", snap("old", 0)))
		r.exec(`DELETE FROM imagekit_files WHERE file_id = 'deleted'`)
		r.exec(`UPDATE imagekit_files SET tags = NULL WHERE file_id = 'corrupted'`)
		r.exec(`UPDATE imagekit_files SET user_id = 'eve' WHERE file_id = 'user'`)
		r.exec(`INSERT INTO imagekit_files (file_id, file_url, user_id) VALUES ('app', 'u', 'bob')`)
		k := r.running()
		r.found(k, run.Missing, "new", "deleted")
		r.found(k, run.Drifted, "corrupted", "user", "old")
		r.found(k, run.Adopted, "app")
		hits := []file.Observation{asHit(k, snap("new", 0)), asHit(k, snap("deleted", 0)), asHit(k, snap("corrupted", 0)), asHit(k, snap("user", 0)),
			asHit(k, snap("old", 7)), asHit(k, snap("app", 0))}
		if got := did(r.repair(k, hits...)); got != "map[app:repaired corrupted:repaired deleted:repaired new:repaired old:repaired user:repaired]" {
			t.Error(got)
		}
		r.wantRows("app=bob", "corrupted=ann", "deleted=ann", "new=", "old=ann", "user=ann")
		for id, why := range map[string]string{"new": "added", "deleted": "repaired", "corrupted": "repaired", "user": "repaired", "old": "raised", "app": "adopted"} {
			r.wantFinding(k, id, "repaired/"+why)
			r.want("ledger", `SELECT (kind, reason, detail->>'run', detail->>'how')::text FROM trueup.ledger WHERE file_id = $1 AND kind = 'write'`,
				fmt.Sprintf("(write,%s,%s,hit)", why, k.ID), id)
		}
		for id, local := range r.local("", 0) {
			minutes := 0
			if id == "old" {
				minutes = 7
			}
			if local.Hash != r.hash(snap(id, minutes))[0] || !local.Followed {
				t.Errorf("afterwards %+v", local)
			}
		}

		before, lines := r.xmins(), one[int](r, `SELECT count(*) FROM trueup.ledger`)
		again := k
		again.Fence = r.fence().Number
		if got := did(r.repair(again, hits...)); got != "map[app:same corrupted:same deleted:same new:same old:same user:same]" {
			t.Error(got)
		}
		if r.xmins() != before || one[int](r, `SELECT count(*) FROM trueup.ledger`) != lines {
			t.Error("repairing the same again has written")
		}
		r.wantFinding(k, "new", "repaired/added")
	})

	t.Run("LeavesWhatIsNewerThanTheRun", func(t *testing.T) {
		r := newRig(t)
		k := r.running()
		r.found(k, run.Missing, "f1")
		r.settle([]event.Pending{webhook("f1")}, r.look("f1", snap("f1", 0)))
		r.exec(`UPDATE imagekit_files SET mime = 'x'`)
		before := r.xmins()
		if got := did(r.repair(k, asHit(k, snap("f1", 9)))); got != "map[f1:moved]" {
			t.Error(got)
		}
		if r.xmins() != before {
			t.Error("the row was judged")
		}
		r.wantFinding(k, "f1", "skipped/changed_since")
		// A poll has no fence to keep to.
		if got := did(r.repair(run.Run{Fence: k.Fence}, asHit(k, snap("f1", 9)))); got != "map[f1:repaired]" {
			t.Error(got)
		}
	})

	t.Run("AsksAboutWhatAHitMayNotDecide", func(t *testing.T) {
		r := newRig(t)
		r.settle(nil, r.look("f1", snap("f1", 5)), r.look("f2", snap("f2", 0)), r.look("f3", snap("f3", 9)))
		r.see(deleted("f2"), r.look("f2", nil))
		r.exec(`DELETE FROM imagekit_files WHERE file_id = 'f2'`)
		o := r.look("f2", nil)
		o.Canary = file.Canary{FileIDs: []string{"f1"}}
		r.see(deleted("f2"), o)
		k := r.running()
		r.found(k, run.Drifted, "f1", "f3")
		r.found(k, run.Missing, "f2", "f4", "f5")
		before := r.xmins()
		gone := r.look("f5", nil)
		back := lookAt(r.fence(), "f3", snap("f3", 0)) // decides alone, and is to be confirmed
		got := did(r.repair(k, asHit(k, snap("f1", 4)), asHit(k, snap("f2", 9)), asHit(k, unstorable("f4")), gone))
		if got != "map[f1:ask f2:ask f4:ask f5:ask]" {
			t.Error(got)
		}
		if r.xmins() != before {
			t.Error("something was written")
		}
		if got := did(r.repair(k, back)); got != "map[f3:ask]" {
			t.Error(got)
		}
		for _, id := range []string{"f1", "f2", "f3", "f4", "f5"} {
			r.wantFinding(k, id, "found/")
		}
		r.wantRows("f1=", "f3=")
	})

	t.Run("NeverNominatesOrRemoves", func(t *testing.T) {
		r := newRig(t)
		r.settle(nil, r.look("f1", snap("f1", 0)))
		k := r.running()
		for range 3 {
			gone := r.look("f1", nil)
			gone.Canary = file.Canary{EmptyLibrary: true}
			if got := did(r.repair(k, gone)); got != "map[f1:ask]" {
				t.Error(got)
			}
		}
		r.want("suspects", `SELECT count(*) FROM trueup.file_state WHERE suspect_at IS NOT NULL`, 0)
		r.wantRows("f1=")
	})

	t.Run("OneThatCannotBeStoredSpoilsNoOther", func(t *testing.T) {
		r := newRig(t)
		k := r.running()
		var hits []file.Observation
		want := map[string]run.Repair{}
		for i := range 21 {
			id := fmt.Sprintf("f%02d", i)
			s, repair := snap(id, 0), run.RepairDone
			if i%9 == 4 {
				s, repair = unstorable(id), run.RepairAsk
			}
			want[id], hits = repair, append(hits, asHit(k, s))
			r.found(k, run.Missing, id)
		}
		if got := r.repair(k, hits...); !maps.Equal(got, want) {
			t.Errorf("got %v", got)
		}
		r.want("rows", `SELECT count(*) FROM imagekit_files`, 19)
		r.wantFinding(k, "f04", "found/")
		r.wantFinding(k, "f05", "repaired/added")
	})
}

// Owners come with hits, too: a listing shows tickets.
func TestRepairOfUnownedRows(t *testing.T) {
	r := newRig(t)
	r.settle([]event.Pending{report("f4", "cat")}, r.look("f1", snap("f1", 0)), r.look("f2", snap("f2", 0)), r.look("f3", snap("f3", 0)), r.look("f4", snap("f4", 0)))
	r.exec(`INSERT INTO imagekit_files (file_id, file_url, user_id) VALUES ('f5', 'u', '')`)
	k := r.running()
	r.found(k, run.Unowned, "f1", "f2", "f3", "f5")
	with := func(o file.Observation, p file.Proof) file.Observation { o.Proof = p; return o }
	hits := []file.Observation{
		with(asHit(k, snap("f1", 0)), file.Proof{User: "ann", Ticket: "t1"}), asHit(k, snap("f2", 0)),
		with(asHit(k, snap("f3", 0)), file.Proof{Conflict: true}), with(asHit(k, snap("f4", 0)), file.Proof{User: "eve", Ticket: "t4"}),
		with(asHit(k, snap("f5", 0)), file.Proof{User: "dan", Ticket: "t5"}),
	}
	if got := did(r.repair(k, hits...)); got != "map[f1:repaired f2:same f3:same f4:same f5:repaired]" {
		t.Error(got)
	}
	r.wantRows("f1=ann", "f2=", "f3=", "f4=cat", "f5=dan")
	r.want("evidence", `SELECT string_agg(file_id || owner_kind || array_to_string(flags, '+'), ' ' ORDER BY file_id) FROM trueup.file_state`,
		"f1proven f2 f3ticket_conflict f4claimedticket_conflict f5proven")
	r.wantFinding(k, "f1", "repaired/owner")
	r.wantFinding(k, "f2", "skipped/nobody")
	r.wantFinding(k, "f3", "skipped/nobody")
	r.wantFinding(k, "f5", "repaired/adopted")
	r.want("security notes", `SELECT string_agg(file_id || (detail->>'run' = $1), ' ' ORDER BY file_id) FROM trueup.ledger WHERE kind = 'security'`, "f3true f4true", k.ID)
	before := r.xmins()
	k.Fence = r.fence().Number
	if got := did(r.repair(k, hits...)); got != "map[f1:same f2:same f3:same f4:same f5:same]" || r.xmins() != before {
		t.Errorf("again: %s", got)
	}
}

func TestRepairWritesNothing(t *testing.T) {
	none := func(r *rig, k run.Run) {
		r.Helper()
		r.wantRows()
		r.want("states and lines", `SELECT (SELECT count(*) FROM trueup.file_state) + (SELECT count(*) FROM trueup.ledger)`, 0)
		r.want("findings", `SELECT string_agg(status, '') FROM trueup.findings WHERE run_id = $1`, "found", k.ID)
	}
	begin := func(t *testing.T) (*rig, run.Run) {
		r := newRig(t)
		k := r.running()
		r.found(k, run.Missing, "f1")
		return r, k
	}
	refused := func(r *rig, k run.Run, want error) {
		r.Helper()
		_, err := r.st.Repair(r.ctx, r.turn, k.ID, k.Fence, []file.Observation{asHit(k, snap("f1", 0))})
		wantErr(r, err, want)
		none(r, k)
	}
	t.Run("OnceTheTurnHasMoved", func(t *testing.T) {
		r, k := begin(t)
		if _, err := r.st.BeginTurn(r.ctx); err != nil {
			t.Fatal(err)
		}
		refused(r, k, event.ErrTurnMoved)
	})
	t.Run("WhilePaused", func(t *testing.T) {
		r, k := begin(t)
		if _, err := r.st.SetPaused(r.ctx, true, store.Act{Who: "op"}); err != nil {
			t.Fatal(err)
		}
		refused(r, k, event.ErrPaused)
	})
	t.Run("OnceTheRunIsCancelled", func(t *testing.T) {
		r, k := begin(t)
		if _, err := r.st.CancelRun(r.ctx, k.ID, store.Act{Who: "op"}); err != nil {
			t.Fatal(err)
		}
		refused(r, k, run.ErrEnded)
	})
	t.Run("OfARunThatIsNotThere", func(t *testing.T) {
		r, k := begin(t)
		_, err := r.st.Repair(r.ctx, r.turn, "nobody", k.Fence, []file.Observation{asHit(k, snap("f1", 0))})
		wantErr(t, err, run.ErrEnded)
		none(r, k)
	})
	t.Run("OfARunThatIsCancelledWhileItWaits", func(t *testing.T) {
		r, k := begin(t)
		other := r.connect()
		tx, err := other.Begin(r.ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(r.ctx, `UPDATE trueup.runs SET state = 'cancelled' WHERE id = $1`, k.ID); err != nil {
			t.Fatal(err)
		}
		var lost error
		var wait sync.WaitGroup
		wait.Go(func() {
			_, lost = r.st.Repair(r.ctx, r.turn, k.ID, k.Fence, []file.Observation{asHit(k, snap("f1", 0))})
		})
		r.blocked(1)
		if err := tx.Commit(r.ctx); err != nil {
			t.Fatal(err)
		}
		wait.Wait()
		wantErr(t, lost, run.ErrEnded)
		none(r, k)
	})
	t.Run("AndACancellationWaitsForIt", func(t *testing.T) {
		r, k := begin(t)
		r.exec(slowCommit)
		holder := r.connect()
		if _, err := holder.Exec(r.ctx, `SELECT pg_advisory_lock(42)`); err != nil {
			t.Fatal(err)
		}
		var wait sync.WaitGroup
		var failed, uncancelled error
		wait.Go(func() {
			_, failed = r.st.Repair(r.ctx, r.turn, k.ID, k.Fence, []file.Observation{asHit(k, snap("f1", 0))})
		})
		r.blocked(1)
		wait.Go(func() { _, uncancelled = r.st.CancelRun(r.ctx, k.ID, store.Act{Who: "op"}) })
		r.blocked(2)
		r.want("state", `SELECT state FROM trueup.runs`, "running")
		r.unlock(holder)
		wait.Wait()
		if failed != nil || uncancelled != nil {
			t.Errorf("repair: %v; cancel: %v", failed, uncancelled)
		}
		r.wantFinding(k, "f1", "repaired/added")
		r.want("state", `SELECT state FROM trueup.runs`, "cancelled")
	})
}

// The commit is lost, and it had happened or not: repairing again is right in both.
func TestALostCommitOfARepair(t *testing.T) {
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
			k := r.running()
			r.found(k, run.Missing, "f1")
			r.exec(slowCommit)
			holder := r.connect()
			if _, err := holder.Exec(r.ctx, `SELECT pg_advisory_lock(42)`); err != nil {
				t.Fatal(err)
			}
			hits := []file.Observation{asHit(k, snap("f1", 0))}
			var lost error
			var wait sync.WaitGroup
			wait.Go(func() { _, lost = r.st.Repair(r.ctx, r.turn, k.ID, k.Fence, hits) })
			r.blocked(1)
			if happened {
				link.DropReplies()
				r.unlock(holder)
				r.eventuallyRows(1)
				link.Cut()
			} else {
				r.exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'`)
				wait.Wait()
				r.unlock(holder)
				r.wantRows()
			}
			wait.Wait()
			wantErr(t, lost, event.ErrOutage)
			link.Restore()
			before := r.xmins()
			got := r.repair(k, hits...)
			if want := map[bool]run.Repair{false: run.RepairDone, true: run.RepairMoved}[happened]; got["f1"] != want || happened != (r.xmins() == before) {
				t.Errorf("repaired again: %v", got)
			}
			r.wantRows("f1=")
			r.wantFinding(k, "f1", "repaired/added")
			r.want("ledger", `SELECT count(*) FROM trueup.ledger`, 1)
		})
	}
}

// A file that an event writes while the run repairs it: whoever is second sees the other.
func TestRepairBesideAnEvent(t *testing.T) {
	r := newRig(t)
	k := r.running()
	r.found(k, run.Missing, "f1")
	other := r.connect()
	tx, err := other.Begin(r.ctx)
	if err != nil {
		t.Fatal(err)
	}
	err = execAll(r.ctx, tx, putState, `INSERT INTO public.imagekit_files (file_id, file_url, user_id) VALUES ('f1', 'newer', 'ann')`)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]run.Repair
	var failed error
	var wait sync.WaitGroup
	wait.Go(func() {
		got, failed = r.st.Repair(r.ctx, r.turn, k.ID, k.Fence, []file.Observation{asHit(k, snap("f1", 0))})
	})
	r.blocked(1)
	if err := tx.Commit(r.ctx); err != nil {
		t.Fatal(err)
	}
	wait.Wait()
	if failed != nil || got["f1"] != run.RepairMoved {
		t.Errorf("got %v, %v", got, failed)
	}
	r.want("row", `SELECT file_url FROM imagekit_files`, "newer")
	r.wantFinding(k, "f1", "skipped/changed_since")
}

// BenchmarkRepair reports files per second in calls of 500: files never seen, and repeats.
func BenchmarkRepair(b *testing.B) {
	for _, what := range []string{"fresh", "same"} {
		b.Run(what, func(b *testing.B) {
			r := newRig(b)
			k := r.running()
			const size = 500
			next := 0
			call := func() {
				if what == "same" {
					next = 0
				}
				hits := make([]file.Observation, size)
				for i := range hits {
					next++
					hits[i] = asHit(k, snap(fmt.Sprintf("f%09d", next), 0))
				}
				if what == "same" {
					k.Fence = 1 << 62
				}
				r.repair(k, hits...)
			}
			call()
			for b.Loop() {
				call()
			}
			b.ReportMetric(size*float64(b.N)/b.Elapsed().Seconds(), "files/s")
		})
	}
}

// BenchmarkRepairMissing reports files per second of a run that finds every row missing:
// its findings are as new as it is, and nobody has analyzed them.
func BenchmarkRepairMissing(b *testing.B) {
	for _, missing := range []int{10_000, 200_000} {
		b.Run(fmt.Sprint(missing), func(b *testing.B) {
			r := newRig(b)
			r.exec(`ALTER TABLE trueup.findings SET (autovacuum_enabled = false)`)
			k := r.running()
			r.exec(`INSERT INTO trueup.findings (run_id, file_id, kind, status) SELECT $1, 'f' || lpad(i::text, 9, '0'), 'missing', 'found'
				FROM generate_series(1, $2::int) i`, k.ID, missing)
			const size = 500
			hits, next := make([]file.Observation, size), 0
			for b.Loop() {
				for i := range hits {
					next++
					hits[i] = asHit(k, snap(fmt.Sprintf("f%09d", next), 0))
				}
				r.repair(k, hits...)
			}
			if next > missing {
				b.Fatalf("%d repaired of %d", next, missing)
			}
			b.ReportMetric(size*float64(b.N)/b.Elapsed().Seconds(), "files/s")
		})
	}
}
