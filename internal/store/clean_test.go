package store_test

import (
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/store"
)

// days ago, as the database counts.
func (r *rig) age(table, column, where string, days int) {
	r.Helper()
	r.exec(`UPDATE trueup.`+table+` SET `+column+` = clock_timestamp() - $1 * interval '1 day' WHERE `+where, days)
}

// reopen opens another store on the rig's database: one that has not cleaned yet.
func (r *rig) reopen() {
	r.Helper()
	st, err := store.Open(r.ctx, store.Config{URL: r.url, AbsentConfirm: 50 * time.Millisecond})
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(st.Close)
	r.st = st
}

// Clean-up finds old lines by their ids; lines that are not old yet it must not even look
// at, however many there are.
func TestCleanUpLeadsToNothingYoung(t *testing.T) {
	at := func(age time.Duration) (id ulid.ULID) {
		if err := id.SetTime(ulid.Timestamp(time.Now().Add(-age))); err != nil {
			t.Fatal(err)
		}
		return id
	}
	const year = 365 * 24 * time.Hour
	if first := store.FirstID(year); first > at(year-time.Minute).String() || first < at(year+time.Minute).String() {
		t.Errorf("it begins at %s, lines of a year ago at %s", first, at(year))
	}
}

func TestWhatIsPastItsRetentionGoesAlongWithTheWork(t *testing.T) {
	t.Run("DeadLettersByClass", func(t *testing.T) {
		r := newRig(t)
		for _, class := range []event.Class{event.ClassCaller, event.ClassImageKit, event.ClassDatabase, event.ClassTrueup} {
			r.die(event.End{Class: class, Reason: "x"}, webhook("old"), webhook("replaying"), webhook("young"))
		}
		r.exec(`UPDATE trueup.dead_letters SET state = 'replaying' WHERE file_id = 'replaying'`)
		r.age("dead_letters", "updated_at", `file_id <> 'young'`, 91)
		r.settle(nil)
		r.want("before the next minute", `SELECT count(*) FROM trueup.dead_letters`, 12)
		r.reopen()
		r.settle(nil)
		r.want("left of the old", `SELECT string_agg(class, ' ') FROM trueup.dead_letters WHERE file_id = 'old'`, "trueup")
		r.want("left of the others", `SELECT count(*) FROM trueup.dead_letters WHERE file_id <> 'old'`, 8)
		r.want("counted", `SELECT string_agg(place || state || class || count, ' ' ORDER BY class) FROM trueup.expired_counts`,
			"dead_lettersdeadcaller1 dead_lettersdeaddatabase1 dead_lettersdeadimagekit1")
		if got, err := r.st.Status(r.ctx); err != nil || got.Expired["caller"] != 1 || got.Expired["trueup"] != 0 {
			t.Errorf("status %+v, %v", got.Expired, err)
		}
		// I1 as far as letters go: everything that died is dead, or counted.
		r.want("sum", `SELECT (SELECT count(*) FROM trueup.dead_letters) + (SELECT sum(count)::bigint FROM trueup.expired_counts)`, 12)
	})

	t.Run("OneClassDoesNotDisplaceAnother", func(t *testing.T) {
		r := newRig(t)
		r.die(event.End{Class: event.ClassTrueup, Reason: "x"}, webhook("ours"))
		r.exec(`INSERT INTO trueup.dead_letters (id, event_id, file_id, source, origin, kind, accepted_at, class, reason)
			SELECT 'L' || i, 'E' || i, 'flood', 'client', 'client', 'report', now(), 'caller', 'x' FROM generate_series(1, 2000) i`)
		r.age("dead_letters", "updated_at", `class = 'caller'`, 100)
		r.age("dead_letters", "updated_at", `class = 'trueup'`, 400)
		r.reopen()
		r.settle(nil)
		r.want("ours, beside a flood of callers'", `SELECT count(*) FROM trueup.dead_letters WHERE class = 'trueup'`, 0)
		r.want("a slice, not all", `SELECT count(*) FROM trueup.dead_letters`, 2000-125)
		r.settle(nil)
		r.want("one slice a minute", `SELECT count(*) FROM trueup.dead_letters`, 2000-125)
	})

	t.Run("LedgerLinesButNotOfStandingLetters", func(t *testing.T) {
		r := newRig(t)
		old, dead := webhook("f1"), webhook("f2")
		old.ID, dead.ID = "01HAAAAAAAAAAAAAAAAAAAAAAA", "01HAAAAAAAAAAAAAAAAAAAAAAB" // of 2023
		r.settle([]event.Pending{old, webhook("f3")}, r.look("f1", snap("f1", 0)), r.look("f3", snap("f3", 0)))
		r.die(event.End{}, dead)
		r.age("ledger", "at", `id LIKE '01HA%'`, 366)
		before := r.xmins()
		r.reopen()
		r.settle(nil)
		r.want("lines", `SELECT string_agg(file_id, ' ' ORDER BY file_id) FROM trueup.ledger`, "f2 f3")
		r.want("counted", `SELECT string_agg(place || state || count, ' ') FROM trueup.expired_counts`, "ledgerdone1")
		if r.xmins() != before {
			t.Error("rows were touched")
		}
	})

	t.Run("TombstonesUnlessSomethingCouldReviveThem", func(t *testing.T) {
		r := newRig(t)
		for _, id := range []string{"gone", "letter", "retry", "young"} {
			r.settle([]event.Pending{webhook(id)}, r.look(id, snap(id, 0)))
			r.see(deleted(id), r.look(id, nil))
		}
		r.settle([]event.Pending{webhook("live")}, r.look("live", snap("live", 0)))
		r.die(event.End{}, webhook("letter"))
		if _, err := r.st.Settle(r.ctx, r.turn, []event.Pending{webhook("retry")}, nil, always(event.End{Kind: event.Retry, After: time.Hour})); err != nil {
			t.Fatal(err)
		}
		r.age("file_state", "gone_at", `gone_at IS NOT NULL AND file_id <> 'young'`, 731)
		r.reopen()
		r.settle(nil)
		r.want("remembered", `SELECT string_agg(file_id, ' ' ORDER BY file_id) FROM trueup.file_state`, "letter live retry young")
		r.want("counted", `SELECT string_agg(place || count, ' ') FROM trueup.expired_counts`, "tombstones1")
	})

	t.Run("FinishedJobs", func(t *testing.T) {
		r := newRig(t)
		r.die(event.End{}, webhook("f1"))
		old, open := r.start(event.Job{Verb: event.JobRecheck, Files: []string{"f1"}}), r.start(event.Job{Verb: event.JobReplay})
		if err := r.st.FinishJob(r.ctx, r.turn, old.ID, event.JobDone, ""); err != nil {
			t.Fatal(err)
		}
		r.exec(`INSERT INTO trueup.jobs SELECT '01HAAAAAAAAAAAAAAAAAAAAAAA', verb, filter, who, note, key, request, state, upto, position, total, done, skipped, waiting, error,
			created_at, changed_at, clock_timestamp() - interval '366 days' FROM trueup.jobs WHERE id = $1`, old.ID)
		r.exec(`UPDATE trueup.job_items SET job_id = '01HAAAAAAAAAAAAAAAAAAAAAAA'`)
		r.reopen()
		r.settle(nil)
		r.want("jobs", `SELECT string_agg(id, ' ' ORDER BY id) FROM trueup.jobs`, old.ID+" "+open.ID)
		r.want("items", `SELECT count(*) FROM trueup.job_items`, 0)
	})

	t.Run("AFailedSliceDoesNotKeepTheWorkFromSettling", func(t *testing.T) {
		r := newRig(t)
		r.die(event.End{}, webhook("old"))
		r.age("dead_letters", "updated_at", `true`, 91)
		r.exec(`CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE SQLSTATE '40001'; END $$`)
		r.exec(`CREATE TRIGGER refuse BEFORE DELETE ON trueup.dead_letters FOR EACH ROW EXECUTE FUNCTION public.refuse()`)
		r.reopen()
		r.settle([]event.Pending{webhook("f1")}, r.look("f1", snap("f1", 0)))
		r.wantRows("f1=")
		r.want("letters", `SELECT count(*) FROM trueup.dead_letters`, 1)
	})
}
