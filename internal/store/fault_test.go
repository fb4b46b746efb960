package store_test

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/store"
	"github.com/trueup/trueup/internal/testenv"
	"github.com/trueup/trueup/migrations"
)

// slowCommit makes every COMMIT that settles an event wait for an advisory lock, so
// that a test can act while it is on its way.
const slowCommit = `
CREATE FUNCTION public.wait_at_commit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock(42); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER wait_at_commit AFTER INSERT ON trueup.ledger DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.wait_at_commit();`

// The worst place to lose a connection, both ways: the commit never happened, or it did
// and only the reply was lost. Settling again is right in both.
func TestALostCommit(t *testing.T) {
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
			r.exec(slowCommit)
			holder := r.connect()
			if _, err := holder.Exec(r.ctx, `SELECT pg_advisory_lock(42)`); err != nil {
				t.Fatal(err)
			}
			all := []event.Pending{report("f1", "ann"), report("f2", "ann")}
			seen := []file.Observation{r.look("f1", snap("f1", 0))}
			var lost error
			var wait sync.WaitGroup
			wait.Go(func() { _, _, lost = r.trySettle(all, seen...) })
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
			done, _ := r.settle(all, seen...)
			if happened != (done.Already == 2) || happened != (r.xmins() == before) {
				t.Errorf("settled again: %+v", done)
			}
			r.wantRows("f1=ann")
			r.want("ledger", `SELECT count(*) FROM trueup.ledger`, 1)
			r.want("retries", `SELECT count(*) FROM trueup.retries`, 1)
		})
	}
}

func (r *rig) unlock(holder *pgx.Conn) {
	r.Helper()
	if _, err := holder.Exec(r.ctx, `SELECT pg_advisory_unlock(42)`); err != nil {
		r.Fatal(err)
	}
}

func (r *rig) eventuallyRows(n int) {
	r.Helper()
	testenv.Eventually(r, 10*time.Second, func() error {
		if len(r.rows()) != n {
			return errors.New("not committed yet")
		}
		return nil
	})
}

func TestOutages(t *testing.T) {
	t.Run("NoServer", func(t *testing.T) {
		r := newRig(t)
		u, _ := url.Parse(r.url)
		link := testenv.Cut(t, u.Host)
		st, err := store.Open(r.ctx, store.Config{URL: link.URL(r.url)})
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		link.Cut()
		_, err = st.BeginTurn(r.ctx)
		wantErr(t, err, event.ErrOutage)
		_, _, err = st.Fence(r.ctx, nil)
		wantErr(t, err, event.ErrOutage)
		_, _, err = st.Due(r.ctx, 1)
		wantErr(t, err, event.ErrOutage)
		wantErr(t, st.Ping(r.ctx), event.ErrOutage)
		link.Restore()
		if err := st.Ping(r.ctx); err != nil {
			t.Error(err)
		}
	})
	t.Run("NoSchema", func(t *testing.T) {
		st, err := store.Open(t.Context(), store.Config{URL: testenv.Postgres(t)})
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		_, err = st.BeginTurn(t.Context())
		wantErr(t, err, event.ErrOutage)
		if !strings.Contains(err.Error(), "trueup.leases") {
			t.Errorf("it does not say what is missing: %v", err)
		}
	})
	t.Run("BackendsKilledInBetween", func(t *testing.T) {
		r := newRig(t)
		for i := range 3 {
			r.exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`)
			p := report("f1", "ann")
			for tries := 0; ; tries++ {
				_, _, err := r.trySettle([]event.Pending{p}, r.lookOrAgain("f1", i))
				if err == nil {
					break
				}
				wantErr(t, err, event.ErrOutage)
				if tries == 5 {
					t.Fatal("it does not recover")
				}
			}
		}
		r.wantRows("f1=ann")
		r.want("ledger", `SELECT count(*) FROM trueup.ledger`, 3)
	})
	t.Run("ALockThatIsNotFreeInTime", func(t *testing.T) {
		r := newRig(t, func(c *store.Config) { c.CallTimeout = 300 * time.Millisecond })
		r.settle([]event.Pending{webhook("f1")}, r.look("f1", snap("f1", 0)))
		o := r.look("f1", snap("f1", 1))
		tx, err := r.sql.Begin(r.ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := execAll(r.ctx, tx, holdState); err != nil {
			t.Fatal(err)
		}
		p := webhook("f1")
		_, _, err = r.trySettle([]event.Pending{p}, o)
		wantErr(t, err, event.ErrOutage)
		if err := tx.Rollback(r.ctx); err != nil {
			t.Fatal(err)
		}
		r.expect(r.see(p, o), file.Applied, file.ReasonRaised)
	})
	t.Run("ACallerWhoGoesAwayIsNoOutage", func(t *testing.T) {
		r := newRig(t)
		ctx, stop := context.WithCancel(r.ctx)
		stop()
		_, err := r.st.Settle(ctx, r.turn, nil, nil, settleTable)
		if !errors.Is(err, context.Canceled) || errors.Is(err, event.ErrOutage) {
			t.Errorf("got %v", err)
		}
	})
}

// lookOrAgain draws its fence from the person's connection, as the store's may be cut.
func (r *rig) lookOrAgain(id string, minutes int) file.Observation {
	r.Helper()
	return lookAt(file.Fence{Number: one[int64](r, `SELECT nextval('trueup.fence')`), At: time.Now()}, id, snap(id, minutes))
}

func TestBadData(t *testing.T) {
	r := newRig(t)
	r.exec(`ALTER TABLE public.imagekit_files ADD CONSTRAINT small CHECK (size_bytes < 5000)`)
	big := snap("f2", 0)
	size := int64(9000)
	big.SizeBytes = &size
	good, bad := report("f1", "ann"), report("f2", "ann")
	_, _, err := r.trySettle([]event.Pending{good, bad}, r.look("f1", snap("f1", 0)), r.look("f2", big))
	wantErr(t, err, event.ErrUnstorable)
	var data *store.BadData
	if !errors.As(err, &data) || data.Code != "23514" {
		t.Errorf("got %v", err)
	}
	r.wantRows()
	r.want("ledger", `SELECT count(*) FROM trueup.ledger`, 0)
	r.expect(r.see(good, r.look("f1", snap("f1", 0))), file.Applied, file.ReasonAdded)

	nul := report("f3", "a\x00b")
	_, _, err = r.trySettle([]event.Pending{nul}, r.look("f3", snap("f3", 0)))
	wantErr(t, err, event.ErrUnstorable)
}

func TestAnApplicationMayChangeItsTable(t *testing.T) {
	r := newRig(t)
	s := snap("f1", 0)
	r.settle([]event.Pending{webhook("f1")}, r.look("f1", s))
	r.exec(`ALTER TABLE public.imagekit_files DROP COLUMN width, ADD COLUMN album text`)
	r.exec(`UPDATE public.imagekit_files SET album = 'x'`)
	r.settle([]event.Pending{webhook("f1")}, r.look("f1", snap("f1", 1)))
	r.exec(`ALTER TABLE public.imagekit_files ALTER COLUMN height TYPE text`)
	r.settle([]event.Pending{webhook("f1"), webhook("f2")}, r.look("f1", snap("f1", 2)), r.look("f2", s2(snap("f2", 0))))
	r.wantRows("f1=", "f2=")
	r.want("the application's column", `SELECT album FROM public.imagekit_files WHERE file_id = 'f1'`, "x")
}

// s2 is a file about which ImageKit says as little as it can.
func s2(s *file.Snapshot) *file.Snapshot {
	return &file.Snapshot{ID: s.ID, URL: s.URL, CreatedAt: s.CreatedAt, UpdatedAt: s.UpdatedAt}
}

// A repeat writes no WAL for the two tables. What remains is the lease's row lock, some
// hundred bytes for the whole call, where rewriting 300 rows would take 300 kB.
func TestARepeatWritesNoWAL(t *testing.T) {
	r := newRig(t)
	var seen []file.Observation
	fence := r.fence()
	for i := range 300 {
		id := "f" + string(rune('a'+i%26)) + string(rune('a'+i/26))
		seen = append(seen, lookAt(fence, id, snap(id, 0)))
	}
	r.settle(nil, seen...)
	fence = r.fence()
	for i := range seen {
		seen[i].Fence = fence
	}
	least := int64(1 << 40)
	for range 5 { // others share the server: the quietest run counts
		from := one[string](r, `SELECT pg_current_wal_insert_lsn()::text`)
		r.settle(nil, seen...)
		least = min(least, one[int64](r, `SELECT (pg_current_wal_insert_lsn() - $1::text::pg_lsn)::bigint`, from))
	}
	if least > 2000 {
		t.Errorf("a repeat of 300 files wrote %d bytes of WAL", least)
	}
	r.want("rows", `SELECT count(*) FROM public.imagekit_files`, 300)
}
