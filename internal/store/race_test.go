package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/store"
	"github.com/trueup/trueup/internal/testenv"
)

// blocked waits until n sessions of this database wait for a lock.
func (r *rig) blocked(n int) {
	r.Helper()
	testenv.Eventually(r, 10*time.Second, func() error {
		var got int
		err := r.sql.QueryRow(r.ctx, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&got)
		if err == nil && got < n {
			err = fmt.Errorf("%d sessions wait for a lock, want %d", got, n)
		}
		return err
	})
}

// during settles while another session holds what `hold` took, and lets go (commit or
// roll back) only once the settlement waits for it.
func (r *rig) during(p event.Pending, o file.Observation, commit bool, hold func(pgx.Tx) error) file.Result {
	r.Helper()
	other := r.connect()
	tx, err := other.Begin(r.ctx)
	if err != nil {
		r.Fatal(err)
	}
	if err := hold(tx); err != nil {
		r.Fatal(err)
	}
	var got told
	var failed error
	var wait sync.WaitGroup
	wait.Go(func() { _, got, failed = r.trySettle([]event.Pending{p}, o) })
	r.blocked(1)
	if commit {
		err = tx.Commit(r.ctx)
	} else {
		err = tx.Rollback(r.ctx)
	}
	wait.Wait()
	if err = errors.Join(err, failed); err != nil {
		r.Fatal(err)
	}
	return got[p.ID]
}

func execAll(ctx context.Context, tx pgx.Tx, statements ...string) error {
	for _, q := range statements {
		if _, err := tx.Exec(ctx, q); err != nil {
			return fmt.Errorf("%s: %w", q, err)
		}
	}
	return nil
}

const (
	holdState    = `SELECT FROM trueup.file_state WHERE file_id = 'f1' FOR UPDATE`
	putRow       = `INSERT INTO public.imagekit_files (file_id, file_url, user_id) VALUES ('f1', 'x', '')`
	putState     = `INSERT INTO trueup.file_state (file_id, seen) VALUES ('f1', nextval('trueup.fence'))`
	putTombstone = `INSERT INTO trueup.file_state (file_id, seen, gone_at) VALUES ('f1', nextval('trueup.fence'), now())`
)

// The races of two sessions that broke other designs: a delete that does not see a row
// committed while it waited, and an insert that does not see a tombstone.
func TestRaces(t *testing.T) {
	t.Run("TombstoneRemovesARowThatIsCommittedWhileItWaits", func(t *testing.T) {
		r := newRig(t)
		r.settle([]event.Pending{webhook("f1")}, r.look("f1", snap("f1", 0)))
		r.exec(`DELETE FROM public.imagekit_files`)
		got := r.during(deleted("f1"), r.look("f1", nil), true, func(tx pgx.Tx) error { return execAll(r.ctx, tx, holdState, putRow) })
		r.expect(got, file.Tombstoned, file.ReasonAnnounced)
		r.wantRows()
	})
	t.Run("TombstoneOfAFileNeverSeenRemovesARowThatIsCommittedWhileItWaits", func(t *testing.T) {
		r := newRig(t)
		got := r.during(deleted("f1"), r.look("f1", nil), true, func(tx pgx.Tx) error { return execAll(r.ctx, tx, putState, putRow) })
		// Its look-up overlaps the other's write, so it may not decide: the next one does.
		r.expect(got, file.LookAgain, file.ReasonStaleHit)
		r.expect(r.see(deleted("f1"), r.look("f1", nil)), file.Tombstoned, file.ReasonAnnounced)
		r.wantRows()
	})
	t.Run("AHitDoesNotResurrectWhatIsTombstonedWhileItWaits", func(t *testing.T) {
		r := newRig(t)
		got := r.during(webhook("f1"), r.hit(snap("f1", 0)), true, func(tx pgx.Tx) error { return execAll(r.ctx, tx, putTombstone) })
		r.expect(got, file.LookAgain, file.ReasonStaleHit)
		r.wantRows()
	})
	t.Run("AnOverlappingLookUpDoesNotResurrectEither", func(t *testing.T) {
		r := newRig(t)
		got := r.during(webhook("f1"), r.look("f1", snap("f1", 0)), true, func(tx pgx.Tx) error { return execAll(r.ctx, tx, putTombstone) })
		r.expect(got, file.LookAgain, file.ReasonStaleHit)
		r.wantRows()
		r.expect(r.see(webhook("f1"), r.look("f1", snap("f1", 0))), file.Applied, file.ReasonRevived)
		r.wantRows("f1=")
	})
	t.Run("AddsOnceTheOtherGivesUp", func(t *testing.T) {
		r := newRig(t)
		got := r.during(webhook("f1"), r.look("f1", snap("f1", 0)), false, func(tx pgx.Tx) error { return execAll(r.ctx, tx, putState, putRow) })
		r.expect(got, file.Applied, file.ReasonAdded)
		r.wantRows("f1=")
	})
	t.Run("AdoptsARowThatAnApplicationInsertsMeanwhile", func(t *testing.T) {
		r := newRig(t)
		got := r.during(webhook("f1"), r.look("f1", snap("f1", 0)), true, func(tx pgx.Tx) error {
			return execAll(r.ctx, tx, `INSERT INTO public.imagekit_files (file_id, file_url, user_id) VALUES ('f1', 'x', 'app')`)
		})
		r.expect(got, file.Applied, file.ReasonAdopted)
		r.wantRows("f1=app")
		r.want("url", `SELECT file_url FROM public.imagekit_files`, snap("f1", 0).URL)
	})
	t.Run("PutsBackARowThatAPersonDeletesMeanwhile", func(t *testing.T) {
		r := newRig(t)
		r.settle([]event.Pending{webhook("f1")}, r.look("f1", snap("f1", 0)))
		got := r.during(webhook("f1"), r.look("f1", snap("f1", 5)), true, func(tx pgx.Tx) error {
			return execAll(r.ctx, tx, `DELETE FROM public.imagekit_files WHERE file_id = 'f1'`)
		})
		r.expect(got, file.Applied, file.ReasonRaised)
		r.wantRows("f1=")
	})
	t.Run("WhatIsRaisedMeanwhileIsNotOverwrittenByOlder", func(t *testing.T) {
		for _, how := range []file.How{file.Hit, file.LookUp} {
			r := newRig(t)
			r.settle([]event.Pending{webhook("f1")}, r.look("f1", snap("f1", 0)))
			o := r.look("f1", snap("f1", 1))
			o.How = how
			got := r.during(webhook("f1"), o, true, func(tx pgx.Tx) error {
				return execAll(r.ctx, tx, holdState,
					`UPDATE trueup.file_state SET seen = nextval('trueup.fence'), high = high + interval '9 minutes', hash = NULL`,
					`UPDATE public.imagekit_files SET file_name = 'newer'`)
			})
			r.expect(got, file.LookAgain, file.ReasonStaleHit)
			r.want("name", `SELECT file_name FROM public.imagekit_files`, "newer")
		}
	})
	t.Run("WhatIsTombstonedMeanwhileIsNotRaised", func(t *testing.T) {
		for _, how := range []file.How{file.Hit, file.LookUp} {
			r := newRig(t)
			r.settle([]event.Pending{webhook("f1")}, r.look("f1", snap("f1", 0)))
			o := r.look("f1", snap("f1", 1))
			o.How = how
			got := r.during(webhook("f1"), o, true, func(tx pgx.Tx) error {
				return execAll(r.ctx, tx, holdState,
					`UPDATE trueup.file_state SET seen = nextval('trueup.fence'), gone_at = now(), hash = NULL`, `DELETE FROM public.imagekit_files`)
			})
			r.expect(got, file.LookAgain, file.ReasonStaleHit)
			r.wantRows()
		}
	})
	t.Run("WhatIsSeenMeanwhileIsNotRemoved", func(t *testing.T) {
		r := newRig(t)
		r.settle([]event.Pending{webhook("f1")}, r.look("f1", snap("f1", 0)))
		got := r.during(deleted("f1"), r.look("f1", nil), true, func(tx pgx.Tx) error {
			return execAll(r.ctx, tx, holdState, `UPDATE trueup.file_state SET seen = nextval('trueup.fence')`)
		})
		r.expect(got, file.LookAgain, file.ReasonStaleHit)
		r.wantRows("f1=")
	})
	t.Run("AnOwnerWhoIsAssignedMeanwhileStays", func(t *testing.T) {
		r := newRig(t)
		r.settle([]event.Pending{webhook("f1")}, r.look("f1", snap("f1", 0)))
		r.during(report("f1", "eve"), r.look("f1", snap("f1", 0)), true, func(tx pgx.Tx) error {
			return execAll(r.ctx, tx, holdState, `UPDATE trueup.file_state SET owner = 'ann', owner_kind = 'assigned', seen = nextval('trueup.fence')`,
				`UPDATE public.imagekit_files SET user_id = 'ann'`)
		})
		r.wantRows("f1=ann")
	})
	t.Run("AFlickering404DoesNotBeatA200ThatBeganLater", func(t *testing.T) {
		for _, first := range []string{"absent", "present"} {
			r := newRig(t)
			r.settle([]event.Pending{webhook("f1")}, r.look("f1", snap("f1", 0)))
			r.see(recheck("f1"), r.look("f1", nil)) // nominated
			r.due(1)                                // 50 ms later
			absent, present := r.look("f1", nil), r.look("f1", snap("f1", 0))
			if first == "absent" {
				r.see(recheck("f1"), absent)
				r.expect(r.see(recheck("f1"), present), file.LookAgain, file.ReasonStaleHit)
			} else {
				r.expect(r.see(recheck("f1"), present), file.Applied, file.ReasonCleared)
				r.expect(r.see(recheck("f1"), absent), file.LookAgain, file.ReasonStaleHit)
			}
			r.see(recheck("f1"), r.look("f1", snap("f1", 0)))
			r.wantRows("f1=")
		}
	})
	t.Run("A200AndATombstoneAtOnceConverge", func(t *testing.T) {
		for range 5 {
			r := newRig(t)
			r.settle([]event.Pending{webhook("f1")}, r.look("f1", snap("f1", 0)))
			present, absent := r.look("f1", snap("f1", 3)), r.look("f1", nil) // it was deleted in between
			var wait sync.WaitGroup
			for _, each := range []struct {
				p event.Pending
				o file.Observation
			}{{webhook("f1"), present}, {deleted("f1"), absent}} {
				wait.Go(func() {
					if _, _, err := r.trySettle([]event.Pending{each.p}, each.o); err != nil {
						r.Error(err)
					}
				})
			}
			wait.Wait()
			r.see(deleted("f1"), r.look("f1", nil))
			r.wantRows()
			r.expect(r.see(webhook("f1"), r.hit(snap("f1", 3))), file.LookAgain, file.ReasonStaleHit)
			r.wantRows()
		}
	})
}

// I4, I5, I6: many sessions settle look-ups and hits, old and new, of a library that
// changes under them, while a person breaks rows; then one look-up each makes the table
// the library, and no id was burned beyond the rows added.
func TestAnyInterleavingConverges(t *testing.T) {
	r := newRig(t, func(c *store.Config) { c.AbsentConfirm = time.Nanosecond })
	const files, sessions, rounds = 4, 5, 40
	var mu sync.Mutex
	library := map[string]*file.Snapshot{}
	name := func(i int) string { return fmt.Sprintf("f%d", i) }
	var wait sync.WaitGroup
	for s := range sessions {
		rng := rand.New(rand.NewPCG(7, uint64(s)))
		wait.Go(func() {
			for round := range rounds {
				id := name(rng.IntN(files))
				fence, _, err := r.st.Fence(r.ctx, nil)
				if err != nil {
					r.Error(err)
					return
				}
				mu.Lock()
				switch rng.IntN(4) {
				case 0:
					library[id] = snap(id, s*rounds+round)
				case 1:
					delete(library, id)
				}
				now := library[id]
				mu.Unlock()
				o := lookAt(fence, id, now)
				if now != nil && rng.IntN(2) == 0 {
					o.How = file.Hit
				}
				p := []event.Pending{webhook(id), deleted(id)}[rng.IntN(2)]
				if _, _, err := r.trySettle([]event.Pending{p}, o); err != nil {
					r.Error(err)
					return
				}
			}
		})
	}
	person := r.connect()
	wait.Go(func() {
		for i := range rounds {
			q := []string{`DELETE FROM public.imagekit_files WHERE file_id = $1`, `UPDATE public.imagekit_files SET file_url = 'x', user_id = 'eve' WHERE file_id = $1`}[i%2]
			if _, err := person.Exec(r.ctx, q, name(i%files)); err != nil {
				r.Error(err)
			}
		}
	})
	wait.Wait()
	for range 3 { // nominate, confirm, and once more for what went back
		for i := range files {
			r.see(recheck(name(i)), r.look(name(i), library[name(i)]))
		}
	}
	var want []string
	for i := range files {
		if s := library[name(i)]; s != nil {
			want = append(want, name(i)+"=")
			r.want("content of "+name(i), `SELECT file_url || '|' || (remote_updated_at = $2) FROM public.imagekit_files WHERE file_id = $1`, s.URL+"|true", name(i), s.UpdatedAt)
		}
	}
	r.wantRows(want...)
}
