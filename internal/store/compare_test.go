package store_test

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/run"
	"github.com/trueup/trueup/internal/store"
	"github.com/trueup/trueup/internal/testenv"
	"github.com/trueup/trueup/migrations"
)

// unstorable is what ImageKit may hold and PostgreSQL cannot.
func unstorable(id string) *file.Snapshot {
	s := snap(id, 0)
	s.CustomMetadata = []byte(`{"n": 1e999999}`)
	return s
}

// local reads our side of everything.
func (r *rig) local(runID string, fence int64) map[string]run.Local {
	r.Helper()
	out := map[string]run.Local{}
	err := r.st.Local(r.ctx, runID, fence, func(l run.Local) error {
		if _, twice := out[l.FileID]; twice {
			r.Errorf("%s came twice", l.FileID)
		}
		out[l.FileID] = l
		return nil
	})
	if err != nil {
		r.Fatal(err)
	}
	return out
}

// running starts a run to repair, with a fence of its own.
func (r *rig) running() run.Run {
	r.Helper()
	k, err := r.st.StartRun(r.ctx, run.Run{Kind: run.Full, StartedBy: "op"})
	if err != nil {
		r.Fatal(err)
	}
	k.Fence = r.fence().Number
	if err := r.st.SaveRun(r.ctx, r.turn, k); err != nil {
		r.Fatal(err)
	}
	return k
}

func (r *rig) hash(snapshots ...*file.Snapshot) []int64 {
	r.Helper()
	out, err := r.st.Hash(r.ctx, snapshots)
	if err != nil {
		r.Fatal(err)
	}
	return out
}

func TestHash(t *testing.T) {
	r := newRig(t)
	sparse := &file.Snapshot{ID: "f2", URL: "u", CreatedAt: base, UpdatedAt: base}
	r.settle(nil, r.look("f1", snap("f1", 0)), r.look("f2", sparse), r.look("f3", snap("f3", 3)))
	stands := r.local("", 0)
	t.Run("IsThatOfTheRowInTheOrderGiven", func(t *testing.T) {
		got := r.hash(snap("f3", 3), snap("f1", 0), sparse, snap("f1", 0), snap("f1", 1))
		want := []int64{stands["f3"].Hash, stands["f1"].Hash, stands["f2"].Hash, stands["f1"].Hash}
		if !slices.Equal(got[:4], want) || got[4] == want[1] {
			t.Errorf("got %v, want %v", got, want)
		}
	})
	t.Run("WhatCannotBeStoredIsZeroAndSpoilsNoOther", func(t *testing.T) {
		got := r.hash(unstorable("f9"), snap("f1", 0), unstorable("f8"), sparse, snap("f3", 3))
		if want := []int64{0, stands["f1"].Hash, 0, stands["f2"].Hash, stands["f3"].Hash}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
	t.Run("OfNothingIsNothing", func(t *testing.T) {
		if got := r.hash(); len(got) != 0 {
			t.Error(got)
		}
	})
	t.Run("FollowsAColumnThatIsDropped", func(t *testing.T) {
		r.exec(`ALTER TABLE imagekit_files DROP COLUMN mime`)
		row := r.local("", 0)["f1"].Hash // reading the table is what finds out
		if got := r.hash(snap("f1", 0)); got[0] != row || row == stands["f1"].Hash {
			t.Errorf("hash %d, row %d, before %d", got[0], row, stands["f1"].Hash)
		}
	})
}

func TestLocal(t *testing.T) {
	r := newRig(t)
	before := []string{"same", "corrupted", "deleted", "user", "suspect", "gone", "back"}
	var seen []file.Observation
	var all []event.Pending
	for _, id := range before {
		all, seen = append(all, report(id, "ann")), append(seen, r.look(id, snap(id, 0)))
	}
	r.settle(append(all, webhook("unowned")), append(seen, r.look("unowned", snap("unowned", 0)))...)
	r.see(recheck("suspect"), r.look("suspect", nil))
	for _, id := range []string{"gone", "back"} {
		o := r.look(id, nil)
		o.Canary = file.Canary{FileIDs: []string{"same"}}
		r.see(deleted(id), o)
	}
	r.exec(`INSERT INTO imagekit_files (file_id, file_url, user_id) VALUES ('app', 'u', 'bob'), ('nobody', 'u', ''), ('back', 'u', 'ann')`)
	k := r.running()
	r.exec(`UPDATE imagekit_files SET mime = 'x' WHERE file_id = 'corrupted'`)
	r.exec(`DELETE FROM imagekit_files WHERE file_id = 'deleted'`)
	r.exec(`UPDATE imagekit_files SET user_id = 'eve' WHERE file_id = 'user'`)
	r.exec(`INSERT INTO imagekit_files (file_id, file_url, user_id) VALUES ('late', 'u', 'bob')`)
	r.exec(`UPDATE imagekit_files SET file_url = 'v' WHERE file_id = 'nobody'`)
	r.settle(nil, r.look("fresh", snap("fresh", 0)))

	got := r.local(k.ID, k.Fence)
	hash := r.hash(snap("same", 0), snap("user", 0), snap("suspect", 0), snap("unowned", 0), snap("fresh", 0))
	want := map[string]run.Local{
		"same":      {Live: true, Known: true, Followed: true, Hash: hash[0]},
		"corrupted": {Live: true, Known: true, Followed: true, Hash: got["corrupted"].Hash},
		"deleted":   {Known: true},
		"user":      {Live: true, Known: true, Hash: hash[1]},
		"suspect":   {Live: true, Known: true, Followed: true, Suspect: true, Hash: hash[2]},
		"gone":      {Known: true, Gone: true},
		"back":      {Live: true, Known: true, Gone: true, Followed: true, Hash: got["back"].Hash},
		"unowned":   {Live: true, Known: true, Followed: true, Unowned: true, Hash: hash[3]},
		"fresh":     {Live: true, Known: true, Followed: true, Unowned: true, Moved: true, Hash: hash[4]},
		"app":       {Live: true, Followed: true, Hash: got["app"].Hash},
		"late":      {Live: true, Followed: true, Moved: true, Hash: got["late"].Hash},
		"nobody":    {Live: true, Followed: true, Moved: true, Unowned: true, Hash: got["nobody"].Hash},
	}
	for id, w := range want {
		// Files without a row are followed by nobody.
		w.FileID, w.Followed = id, w.Followed && w.Live
		g := got[id]
		g.Followed = g.Followed && g.Live
		if g != w {
			t.Errorf("got  %+v\nwant %+v", g, w)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d lines, want %d", len(got), len(want))
	}
	if h := r.hash(snap("corrupted", 0)); h[0] == got["corrupted"].Hash || got["corrupted"].Hash == 0 {
		t.Error("a corrupted row has the hash of what it should be")
	}
	for id, l := range r.local("", k.Fence) {
		if l.Moved != (id == "fresh") {
			t.Errorf("without a run: %+v", l)
		}
	}
}

// byteOrderRig is a database whose own order is another one than that of bytes.
func byteOrderRig(t *testing.T, statements ...string) *rig {
	t.Helper()
	direct := testenv.Postgres(t)
	conn, err := pgx.Connect(t.Context(), direct)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	u, err := url.Parse(direct)
	if err != nil {
		t.Fatal(err)
	}
	name := strings.TrimPrefix(u.Path, "/") + "_sorted"
	if _, err := conn.Exec(t.Context(), `CREATE DATABASE `+pgx.Identifier{name}.Sanitize()+` TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US'`); err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + name
	sorted, err := pgx.Connect(t.Context(), u.String())
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range statements {
		if _, err := sorted.Exec(t.Context(), q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
	_ = sorted.Close(t.Context())
	if err := migrations.Up(t.Context(), u.String(), migrations.Options{}); err != nil {
		t.Fatal(err)
	}
	return rigOn(t, u.String(), u.String())
}

func TestLocalComesInByteOrder(t *testing.T) {
	// The guide's table with columns of the application's own, one of them named as
	// something of ours, and without a primary key.
	r := byteOrderRig(t, `CREATE TABLE imagekit_files (file_id text NOT NULL UNIQUE, file_url text NOT NULL, user_id text NOT NULL, upload_timestamp timestamptz DEFAULT now(),
		rank int, hash text, "select" json, flags int)`)
	ids := []string{"a", "B", "b", "A", "_", "-", "0", "Z", "z", "a_b", "a-b", "aB", "ab", "Ab", "a0", "aZ"}
	var seen []file.Observation
	for i, id := range ids {
		if i%3 != 0 {
			seen = append(seen, r.look(id, snap(id, 0)))
		}
		if i%3 != 1 {
			r.exec(`INSERT INTO imagekit_files (file_id, file_url, user_id) VALUES ($1, 'u', '') ON CONFLICT DO NOTHING`, id)
		}
	}
	r.settle(nil, seen...)
	r.exec(`DELETE FROM imagekit_files WHERE file_id IN ('B', 'Z')`)
	var got []string
	if err := r.st.Local(r.ctx, "", 0, func(l run.Local) error { got = append(got, l.FileID); return nil }); err != nil {
		t.Fatal(err)
	}
	slices.Sort(ids)
	if !slices.Equal(got, ids) {
		t.Errorf("got  %v\nwant %v", got, ids)
	}
	if theirs := one[string](r, `SELECT string_agg(file_id, ' ' ORDER BY file_id) FROM imagekit_files`); theirs == one[string](r, `SELECT string_agg(file_id, ' ' ORDER BY file_id COLLATE "C") FROM imagekit_files`) {
		t.Errorf("the database's own order is that of bytes: %s", theirs)
	}
	known, err := r.st.KnownFiles(r.ctx, 5)
	if err != nil || len(known) != 5 {
		t.Errorf("known files %v, %v", known, err)
	}
}

func TestLocalIsOneLongRead(t *testing.T) {
	r := newRig(t)
	r.exec(`INSERT INTO imagekit_files (file_id, file_url, user_id) SELECT 'f' || n, 'u', '' FROM generate_series(1, 30000) n`)
	t.Run("LongerThanTheRolesStatementTimeout", func(t *testing.T) {
		r.exec(`DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET statement_timeout = ''25ms''', current_database()); END $$`)
		r.reopen()
		if _, err := r.st.Turn(r.ctx); err != nil {
			t.Fatal(err)
		}
		n := 0
		err := r.st.Local(r.ctx, "", 0, func(run.Local) error {
			if n++; n == 1 { // as of one moment, and nothing waits for it
				app := r.connect()
				if _, err := app.Exec(r.ctx, `SET statement_timeout = 0`); err != nil {
					return err
				}
				_, err := app.Exec(r.ctx, `DELETE FROM public.imagekit_files WHERE file_id = 'f9'`)
				return err
			}
			return nil
		})
		if err != nil || n != 30000 {
			t.Errorf("%d lines, %v", n, err)
		}
		r.exec(`DO $$ BEGIN EXECUTE format('ALTER DATABASE %I RESET statement_timeout', current_database()); END $$`)
		r.reopen()
	})
	t.Run("EndsWithTheCallersError", func(t *testing.T) {
		stop, n := errors.New("enough"), 0
		err := r.st.Local(r.ctx, "", 0, func(run.Local) error {
			if n++; n == 3 {
				return fmt.Errorf("no more: %w", stop)
			}
			return nil
		})
		if !errors.Is(err, stop) || err.Error() != "no more: enough" || n != 3 {
			t.Errorf("after %d lines: %v", n, err)
		}
		if got := r.local("", 0); len(got) != 29999 {
			t.Errorf("%d lines afterwards", len(got))
		}
	})
	t.Run("EndsWithTheConnection", func(t *testing.T) {
		n := 0
		err := r.st.Local(r.ctx, "", 0, func(run.Local) error {
			if n++; n == 1 {
				r.exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`)
			}
			return nil
		})
		wantErr(t, err, event.ErrOutage)
		if got := r.local("", 0); len(got) != 29999 {
			t.Errorf("%d lines afterwards", len(got))
		}
	})
	t.Run("FollowsAColumnThatIsDropped", func(t *testing.T) {
		r.exec(`ALTER TABLE imagekit_files DROP COLUMN width`)
		if got := r.local("", 0); len(got) != 29999 {
			t.Errorf("%d lines", len(got))
		}
	})
}

func (r *rig) differences(snapshots ...*file.Snapshot) map[string][]run.Difference {
	r.Helper()
	out, err := r.st.Differences(r.ctx, snapshots)
	if err != nil {
		r.Fatal(err)
	}
	return out
}

func shown(s *string) string {
	if s == nil {
		return "NULL"
	}
	return *s
}

func TestDifferences(t *testing.T) {
	r := newRig(t)
	s := snap("f1", 0)
	r.settle([]event.Pending{report("f1", "ann")}, r.look("f1", s), r.look("f2", snap("f2", 0)))
	for column, value := range broken() {
		t.Run(column, func(t *testing.T) {
			want := one[*string](r, fmt.Sprintf(`SELECT %s::text FROM imagekit_files WHERE file_id = 'f1'`, column))
			r.exec(fmt.Sprintf(`UPDATE imagekit_files SET %s = %s WHERE file_id = 'f1'`, column, value))
			row := one[*string](r, fmt.Sprintf(`SELECT %s::text FROM imagekit_files WHERE file_id = 'f1'`, column))
			got := r.differences(snap("f2", 0), s, snap("f3", 0))
			if len(got) != 1 || len(got["f1"]) != 1 {
				t.Fatalf("got %v", got)
			}
			d := got["f1"][0]
			if d.Column != column || shown(d.Row) != shown(row) || shown(d.ImageKit) != shown(want) {
				t.Errorf("%s: %s instead of %s; want %s instead of %s", d.Column, shown(d.Row), shown(d.ImageKit), shown(row), shown(want))
			}
			r.settle(nil, r.look("f1", s))
		})
	}
	t.Run("AllColumnsCutAndInOrder", func(t *testing.T) {
		r.exec(`UPDATE imagekit_files SET user_id = 'eve', file_url = repeat('x', 500), mime = NULL WHERE file_id = 'f1'`)
		got := r.differences(s)["f1"]
		if len(got) != 3 || got[0].Column != "user_id" || got[1].Column != "file_url" || got[2].Column != "mime" || len(shown(got[1].Row)) != 200 || got[2].Row != nil {
			t.Errorf("got %v", got)
		}
	})
	t.Run("ARowNobodyKnowsHasNoWrongUser", func(t *testing.T) {
		r.exec(`INSERT INTO imagekit_files (file_id, file_url, user_id) VALUES ('f4', 'u', 'bob')`)
		for _, d := range r.differences(snap("f4", 0))["f4"] {
			if d.Column == "user_id" {
				t.Errorf("got %v", d)
			}
		}
	})
	t.Run("WhatCannotBeStoredSpoilsNoOther", func(t *testing.T) {
		if got := r.differences(unstorable("f1"), snap("f2", 1), unstorable("f4")); len(got) != 1 || len(got["f2"]) != 1 || got["f2"][0].Column != "remote_updated_at" {
			t.Errorf("got %v", got)
		}
	})
}

// All of it behind a pooler in transaction mode.
func TestComparisonThroughATransactionPooler(t *testing.T) {
	direct := testenv.Postgres(t)
	if err := migrations.Up(t.Context(), direct, migrations.Options{}); err != nil {
		t.Fatal(err)
	}
	r := rigOn(t, testenv.PgBouncer(t, direct, testenv.PgBouncerOptions{PoolSize: 4}), direct, func(c *store.Config) { c.MaxConns = 6 })
	k := r.running()
	for range 3 {
		if _, err := r.st.Repair(r.ctx, r.turn, k.ID, k.Fence, []file.Observation{r.hit(snap("f1", 0)), r.hit(snap("f2", 0))}); err != nil {
			t.Fatal(err)
		}
		if got := r.local(k.ID, 0); len(got) != 2 || got["f1"].Hash != r.hash(snap("f1", 0))[0] {
			t.Errorf("got %v", got)
		}
		if got := r.differences(snap("f1", 1)); len(got) != 1 {
			t.Errorf("got %v", got)
		}
		if got := r.known(5); len(got) != 2 {
			t.Errorf("got %v", got)
		}
		stop := errors.New("stop")
		if err := r.st.Local(r.ctx, k.ID, 0, func(run.Local) error { return stop }); !errors.Is(err, stop) {
			t.Error(err)
		}
	}
	r.want("settings left behind", `SELECT current_setting('work_mem') || current_setting('jit')`, "4MBon")
}

// A plan compares with the rights of a plan.
func TestComparisonUnderThePlansRole(t *testing.T) {
	r := newRig(t)
	r.settle([]event.Pending{report("f1", "ann")}, r.look("f1", snap("f1", 0)), r.look("f2", snap("f2", 0)))
	r.exec(`UPDATE imagekit_files SET mime = NULL WHERE file_id = 'f1'`)
	k, worker := r.running(), r.st
	r.st = r.forPlan()
	if got := r.local(k.ID, k.Fence); len(got) != 2 || got["f2"].Hash != r.hash(snap("f2", 0))[0] {
		t.Errorf("got %v", got)
	}
	if got := r.differences(snap("f1", 0), snap("f2", 0)); len(got) != 1 || len(got["f1"]) != 1 {
		t.Errorf("got %v", got)
	}
	if got := r.known(2); len(got) != 2 {
		t.Errorf("got %v", got)
	}
	before := r.xmins()
	if _, err := r.st.Repair(r.ctx, r.turn, k.ID, k.Fence, []file.Observation{asHit(k, snap("f1", 0))}); err == nil || !strings.Contains(err.Error(), "42501") {
		t.Errorf("a plan repairs: %v", err)
	}
	if r.xmins() != before {
		t.Error("a plan has written")
	}
	if _, err := worker.Repair(r.ctx, r.turn, k.ID, k.Fence, []file.Observation{asHit(k, snap("f1", 0))}); err != nil || r.xmins() == before {
		t.Errorf("the role went on: %v", err)
	}
}
