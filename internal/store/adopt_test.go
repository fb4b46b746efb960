package store_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/store"
	"github.com/trueup/trueup/internal/testenv"
	"github.com/trueup/trueup/migrations"
)

// guideTable is the Neon guide's, and guideInsert what its server sends.
const (
	guideTable = `CREATE TABLE imagekit_files (id SERIAL PRIMARY KEY, file_id TEXT NOT NULL UNIQUE, file_url TEXT NOT NULL, user_id TEXT NOT NULL,
		upload_timestamp TIMESTAMPTZ DEFAULT NOW())`
	guideInsert = `INSERT INTO imagekit_files (file_id, file_url, user_id) VALUES ($1, $2, $3)`
)

// guideRig is a guide's database that was in use before trueup came.
func guideRig(t *testing.T, o migrations.Options, before ...string) *rig {
	t.Helper()
	url := testenv.Postgres(t)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range append([]string{guideTable}, before...) {
		if _, err := conn.Exec(t.Context(), q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
	_ = conn.Close(t.Context())
	if err := migrations.Up(t.Context(), url, o); err != nil {
		t.Fatal(err)
	}
	return rigOn(t, url, url)
}

func TestAdoption(t *testing.T) {
	r := guideRig(t, migrations.Options{},
		`ALTER TABLE imagekit_files ADD COLUMN album text NOT NULL DEFAULT 'none', ADD COLUMN tags jsonb DEFAULT '["app"]', ADD COLUMN width smallint, ADD COLUMN file_name varchar`,
		`INSERT INTO imagekit_files (file_id, file_url, user_id, album) VALUES ('f1', 'https://client.said/so', 'ann', 'a1'), ('f2', 'x', '', 'a2'), ('f3', 'x', 'cat', 'a3')`)
	t.Run("AHitOrLookUpTakesTheRowWithItsUser", func(t *testing.T) {
		rep := report("f1", "eve")
		_, got := r.settle([]event.Pending{rep, webhook("f2")}, r.look("f1", snap("f1", 0)), r.hit(snap("f2", 0)))
		r.expect(got[rep.ID], file.Applied, file.ReasonAdopted)
		if got[rep.ID].Claim != file.ClaimRefused {
			t.Errorf("claim %q on an adopted file", got[rep.ID].Claim)
		}
		r.wantRows("f1=ann", "f2=", "f3=cat")
		r.want("row", `SELECT (id, file_url, file_name, album, tags, width)::text FROM imagekit_files WHERE file_id = 'f1'`,
			`(1,https://ik.example/f1.jpg,f1.jpg,a1,"[""app""]",)`)
		r.want("state", `SELECT owner || ',' || owner_kind FROM trueup.file_state WHERE file_id = 'f1'`, "ann,adopted")
	})
	t.Run("ARepeatLeavesIt", func(t *testing.T) {
		before := r.xmins()
		r.settle(nil, r.look("f1", snap("f1", 0)), r.hit(snap("f2", 0)))
		if r.xmins() != before {
			t.Error("rows were rewritten")
		}
	})
	t.Run("ARowNobodyKnowsIsOnlyNominatedByA404", func(t *testing.T) {
		r.expect(r.see(recheck("f3"), r.lost("f3", "f1")), file.LookAgain, file.ReasonNominated)
		r.want("state", `SELECT owner || ',' || owner_kind || ',' || (high = '-infinity') FROM trueup.file_state WHERE file_id = 'f3'`, "cat,adopted,true")
		r.expect(r.see(webhook("f3"), r.hit(snap("f3", 0))), file.Applied, file.ReasonRaised)
	})
	t.Run("AnUnownedRowCanBeClaimed", func(t *testing.T) {
		p := report("f2", "bob")
		if got := r.see(p, r.look("f2", snap("f2", 0))); got.Claim != file.ClaimHeld || got.Reason != file.ReasonOwner {
			t.Errorf("got %+v", got)
		}
		r.wantRows("f1=ann", "f2=bob", "f3=cat")
	})
}

func TestOwnership(t *testing.T) {
	t.Run("AReportClaimsARowThatAWebhookMade", func(t *testing.T) {
		r := newRig(t)
		r.settle([]event.Pending{webhook("f1")}, r.look("f1", snap("f1", 0)))
		p := report("f1", "ann")
		got := r.see(p, r.look("f1", snap("f1", 0)))
		r.expect(got, file.Applied, file.ReasonOwner)
		if got.Claim != file.ClaimHeld {
			t.Errorf("claim %q", got.Claim)
		}
		r.wantRows("f1=ann")
		earlier := report("f1", "bob")
		earlier.AcceptedAt = base
		r.expect(r.see(earlier, r.look("f1", snap("f1", 0))), file.Applied, file.ReasonOwner)
		r.wantRows("f1=bob")
	})
	t.Run("OnAnAnswerOlderThanWhatWasSeenOfItsFirstVersion", func(t *testing.T) {
		r := newRig(t)
		o := r.look("f1", snap("f1", 0))
		r.settle([]event.Pending{webhook("f1")}, r.look("f1", snap("f1", 5)))
		r.expect(r.see(report("f1", "ann"), o), file.LookAgain, file.ReasonStaleHit)
		r.wantRows("f1=ann")
	})
	t.Run("NotOnOneOlderThanAnotherVersion", func(t *testing.T) {
		r := newRig(t)
		o, second := r.look("f1", snap("f1", 0)), snap("f1", 5)
		second.FirstVersion = false
		r.settle([]event.Pending{webhook("f1")}, r.look("f1", second))
		r.expect(r.see(report("f1", "ann"), o), file.LookAgain, file.ReasonStaleHit)
		r.want("rewritten", `SELECT rewritten FROM trueup.file_state`, true)
		r.wantRows("f1=")
	})
	t.Run("EvenWhenItsLookUpMayNotDecideTheContent", func(t *testing.T) {
		r := newRig(t)
		o := r.look("f1", snap("f1", 5))
		changed := snap("f1", 5)
		name := "other.jpg"
		changed.Name = &name
		r.settle([]event.Pending{webhook("f1")}, r.look("f1", changed))
		r.expect(r.see(report("f1", "ann"), o), file.LookAgain, file.ReasonStaleHit)
		r.wantRows("f1=ann")
	})
	t.Run("FlagsAreWrittenAndCountedOnce", func(t *testing.T) {
		r := newRig(t)
		o := r.look("f1", snap("f1", 0))
		o.Proof = file.Proof{User: "ann", Ticket: "t1"}
		p2 := r.look("f2", snap("f2", 0))
		p2.Proof = o.Proof
		done, _ := r.settle([]event.Pending{report("f1", "eve"), webhook("f2")}, o, p2)
		if fmt.Sprint(done.Security) != "map[claim_refused:1 ticket_reused:1]" {
			t.Errorf("security %v", done.Security)
		}
		o.Fence, p2.Fence = r.fence(), r.fence()
		before := r.xmins()
		if again, _ := r.settle([]event.Pending{report("f1", "eve")}, o, p2); len(again.Security) != 0 || r.xmins() != before {
			t.Errorf("flagged again: %v", again.Security)
		}
		r.wantRows("f1=ann", "f2=ann")
		r.want("notes", `SELECT string_agg(file_id || reason, ',' ORDER BY file_id) FROM trueup.ledger WHERE kind = 'security'`, "f1claim_refused,f2ticket_reused")
	})
	t.Run("SignedModeOwnsByTicketOnly", func(t *testing.T) {
		r := newRig(t, func(c *store.Config) { c.Ownership = store.BySigned })
		if got := r.see(report("f1", "ann"), r.look("f1", snap("f1", 0))); got.Claim != file.ClaimRefused {
			t.Errorf("got %+v", got)
		}
		r.wantRows("f1=")
	})
	t.Run("AnAssignmentHolds", func(t *testing.T) {
		r := newRig(t)
		r.settle([]event.Pending{report("f1", "ann")}, r.look("f1", snap("f1", 0)))
		act := store.Act{Who: "op", Note: "asked for", Key: "k1"}
		for range 2 {
			if err := r.st.Assign(r.ctx, "f1", "bob", act); err != nil {
				t.Fatal(err)
			}
		}
		earlier := report("f1", "eve")
		earlier.AcceptedAt = base
		r.see(earlier, r.look("f1", snap("f1", 1)))
		r.wantRows("f1=bob")
		r.want("ledger", `SELECT count(*) FROM trueup.ledger WHERE kind = 'assign'`, 1)
		r.want("audit", `SELECT count(*) FROM trueup.audit WHERE verb = 'assign' AND who = 'op'`, 1)
		wantErr(t, r.st.Assign(r.ctx, "nobody", "bob", store.Act{Who: "op"}), store.ErrUnknownFile)
	})
}

// The guide's own server goes on inserting, plainly, beside us.
func TestCompatInsert(t *testing.T) {
	insert := func(r *rig, id, user string) {
		r.Helper()
		r.exec(guideInsert, id, "https://client.said/"+id, user)
	}
	t.Run("OverOurUnownedRowItsUserIsAdopted", func(t *testing.T) {
		r := guideRig(t, migrations.Options{CompatInsert: true})
		r.settle([]event.Pending{webhook("f1")}, r.look("f1", snap("f1", 0)))
		insert(r, "f1", "ann")
		insert(r, "f1", "eve")
		r.wantRows("f1=ann")
		r.want("state", `SELECT owner || owner_kind FROM trueup.file_state`, "annadopted")
		before := r.xmins()
		r.settle(nil, r.look("f1", snap("f1", 0)))
		if r.xmins() != before {
			t.Error("what the application did was undone")
		}
		r.want("url", `SELECT file_url FROM imagekit_files`, snap("f1", 0).URL)
	})
	t.Run("OverAnOwnedRowItIsSwallowed", func(t *testing.T) {
		r := guideRig(t, migrations.Options{CompatInsert: true})
		r.settle([]event.Pending{report("f1", "ann")}, r.look("f1", snap("f1", 0)))
		insert(r, "f1", "eve")
		r.wantRows("f1=ann")
	})
	t.Run("FirstItIsARowToBeAdopted", func(t *testing.T) {
		r := guideRig(t, migrations.Options{CompatInsert: true})
		insert(r, "f1", "ann")
		r.want("states", `SELECT count(*) FROM trueup.file_state`, 0)
		r.expect(r.see(webhook("f1"), r.look("f1", snap("f1", 0))), file.Applied, file.ReasonAdopted)
		r.wantRows("f1=ann")
		r.see(deleted("f1"), r.look("f1", nil))
		r.wantRows()
		insert(r, "f1", "ann")
		r.wantRows("f1=ann")
		r.expect(r.see(webhook("f1"), r.look("f1", nil)), file.LookAgain, file.ReasonNominated)
	})
	t.Run("WhileOursIsNotCommittedItWaits", func(t *testing.T) {
		r := guideRig(t, migrations.Options{CompatInsert: true})
		r.exec(slowCommit)
		holder := r.connect()
		if _, err := holder.Exec(r.ctx, `SELECT pg_advisory_lock(42)`); err != nil {
			t.Fatal(err)
		}
		var wait sync.WaitGroup
		var failed, refused error
		wait.Go(func() { _, _, failed = r.trySettle([]event.Pending{webhook("f1")}, r.look("f1", snap("f1", 0))) })
		r.blocked(1)
		app := r.connect()
		wait.Go(func() { _, refused = app.Exec(r.ctx, guideInsert, "f1", "x", "ann") })
		r.blocked(2)
		r.unlock(holder)
		wait.Wait()
		if failed != nil || refused != nil {
			t.Errorf("settle: %v; insert: %v", failed, refused)
		}
		r.wantRows("f1=ann")
	})
	t.Run("WhileTheirsIsNotCommittedOursWaits", func(t *testing.T) {
		r := guideRig(t, migrations.Options{CompatInsert: true})
		got := r.during(webhook("f1"), r.look("f1", snap("f1", 0)), true, func(tx pgx.Tx) error {
			_, err := tx.Exec(r.ctx, guideInsert, "f1", "x", "ann")
			return err
		})
		r.expect(got, file.Applied, file.ReasonAdopted)
		r.wantRows("f1=ann")
	})
	t.Run("BothAtFullSpeedWithoutAnError", func(t *testing.T) {
		r := guideRig(t, migrations.Options{CompatInsert: true})
		const files, apps = 60, 3
		var wait sync.WaitGroup
		for range apps {
			app := r.connect()
			wait.Go(func() {
				for i := range files {
					if _, err := app.Exec(r.ctx, guideInsert, fmt.Sprintf("f%02d", i), "x", "ann"); err != nil {
						r.Error(err)
					}
				}
			})
		}
		wait.Go(func() {
			for i := 0; i < files; i += 5 {
				var all []event.Pending
				var seen []file.Observation
				for j := i; j < i+5; j++ {
					id := fmt.Sprintf("f%02d", j)
					all, seen = append(all, webhook(id)), append(seen, r.look(id, snap(id, 0)))
				}
				if _, _, err := r.trySettle(all, seen...); err != nil {
					r.Error(err)
				}
			}
		})
		wait.Wait()
		rows := r.rows()
		if len(rows) != files {
			t.Errorf("%d rows", len(rows))
		}
		for _, row := range rows {
			if !strings.HasSuffix(row, "=ann") {
				t.Errorf("row %s", row)
			}
		}
	})
}
