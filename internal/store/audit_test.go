package store_test

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/run"
	"github.com/trueup/trueup/internal/store"
	"github.com/trueup/trueup/internal/testenv"
)

// bareRig is a database that trueup has never seen.
func bareRig(t testing.TB, statements ...string) *rig {
	t.Helper()
	r := &rig{TB: t, ctx: t.Context(), url: testenv.Postgres(t)}
	r.sql = r.connect()
	for _, s := range statements {
		r.exec(s)
	}
	return r
}

func (r *rig) audit(url string) *store.Audit {
	r.Helper()
	a, err := store.OpenAudit(r.ctx, url)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(a.Close)
	return a
}

func auditLocal(t testing.TB, a *store.Audit) (out []run.Local) {
	t.Helper()
	if err := a.Local(t.Context(), func(l run.Local) error { out = append(out, l); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestAuditReadsTheGuidesOwnTable(t *testing.T) {
	r := bareRig(t, guideTable, `INSERT INTO imagekit_files (file_id, file_url, user_id) VALUES
		('b', 'https://ik.example/b.jpg', 'ann'), ('B', 'https://ik.example/other.jpg', ''), ('_', 'https://ik.example/_.jpg?x=1', 'bob')`,
		`UPDATE imagekit_files SET upload_timestamp = '2026-03-01 12:00:00Z' WHERE file_id <> '_'`)
	a := r.audit(r.url)
	if want := []string{"file_url", "upload_timestamp"}; !slices.Equal(a.Columns, want) {
		t.Errorf("columns %v, want %v", a.Columns, want)
	}
	snaps := []*file.Snapshot{snap("b", 0), snap("B", 0), snap("_", 0), snap("never", 0)}
	hashes, err := a.Hash(r.ctx, snaps)
	if err != nil || len(hashes) != 4 {
		t.Fatal(hashes, err)
	}
	local := auditLocal(t, a)
	if got := idsIn(local); got != "B _ b" {
		t.Errorf("rows come as %q, want the order of their bytes", got)
	}
	if same := []bool{local[0].Hash == hashes[1], local[1].Hash == hashes[2], local[2].Hash == hashes[0]}; !slices.Equal(same, []bool{false, false, true}) {
		t.Errorf("the same: %v", same)
	}
	if !local[0].Unowned || local[1].Unowned {
		t.Errorf("unowned: %+v", local)
	}
	diffs, err := a.Differences(r.ctx, snaps)
	if err != nil {
		t.Fatal(err)
	}
	if got := told2(diffs); got != "B.file_url=https://ik.example/other.jpg _.file_url=https://ik.example/_.jpg?x=1 _.upload_timestamp" {
		t.Errorf("differences: %s", got)
	}
	r.want("schemas made", `SELECT count(*) FROM pg_namespace WHERE nspname = 'trueup'`, 0)
}

// told2 writes differences in order, with the values that do not depend on the clock.
func told2(diffs map[string][]run.Difference) string {
	var out []string
	for id, ds := range diffs {
		for _, d := range ds {
			s := id + "." + d.Column
			if d.Column != "upload_timestamp" {
				s += "=" + *d.Row
			}
			out = append(out, s)
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func idsIn(local []run.Local) string {
	ids := make([]string, len(local))
	for i, l := range local {
		ids[i] = l.FileID
	}
	return strings.Join(ids, " ")
}

// Whatever the table is like: what can be compared is, what cannot is said.
func TestAuditTakesTheTableAsItIs(t *testing.T) {
	t.Run("DoubledAndMissingIDs", func(t *testing.T) {
		r := bareRig(t, `CREATE TABLE imagekit_files (file_id varchar(80), file_url text)`,
			`INSERT INTO imagekit_files VALUES ('b', 'x'), (NULL, 'x'), ('b', 'y'), ('a', 'x')`)
		a := r.audit(r.url)
		if got := idsIn(auditLocal(t, a)); got != " a b b" {
			t.Errorf("rows %q", got)
		}
		diffs, err := a.Differences(r.ctx, []*file.Snapshot{snap("b", 0)})
		if err != nil || len(diffs["b"]) != 1 {
			t.Errorf("differences %+v %v", diffs, err)
		}
		if len(a.Notes) == 0 || !strings.Contains(a.Notes[0], "user_id") {
			t.Errorf("notes: %q", a.Notes)
		}
	})
	t.Run("OwnColumnsAndNarrowOnes", func(t *testing.T) {
		r := bareRig(t, guideTable, `ALTER TABLE imagekit_files ADD COLUMN width smallint, ADD COLUMN size_bytes bigint, ADD COLUMN likes int`,
			`ALTER TABLE imagekit_files DROP COLUMN upload_timestamp`)
		a := r.audit(r.url)
		if want := []string{"file_url", "size_bytes"}; !slices.Equal(a.Columns, want) {
			t.Errorf("columns %v, want %v", a.Columns, want)
		}
		if notes := strings.Join(a.Notes, "\n"); !strings.Contains(notes, "width") || !strings.Contains(notes, "likes") {
			t.Errorf("notes: %q", notes)
		}
	})
	for name, tt := range map[string]struct{ table, want string }{
		"NoTable":     {``, store.ErrNoTable.Error()},
		"AView":       {`CREATE VIEW imagekit_files AS SELECT 'a'::text AS file_id`, "not a table"},
		"NoFileID":    {`CREATE TABLE imagekit_files (id int)`, "no column file_id"},
		"NumericID":   {`CREATE TABLE imagekit_files (file_id bigint, file_url text)`, "file_id of public.imagekit_files is bigint"},
		"NothingElse": {`CREATE TABLE imagekit_files (file_id text)`, "no column that trueup knows"},
	} {
		t.Run(name, func(t *testing.T) {
			r := bareRig(t)
			if tt.table != "" {
				r.exec(tt.table)
			}
			a, err := store.OpenAudit(r.ctx, r.url)
			if err == nil {
				a.Close()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if tt.table == "" && !errors.Is(err, store.ErrNoTable) {
				t.Errorf("%v is not ErrNoTable", err)
			}
		})
	}
}

// Nothing of it writes, also through a pooler whose server connections others use too.
func TestAuditOnlyReads(t *testing.T) {
	r := bareRig(t, guideTable, `INSERT INTO imagekit_files (file_id, file_url, user_id) SELECT 'f' || g, 'x', 'ann' FROM generate_series(1, 2000) g`)
	before := one[string](r, `SELECT string_agg(xmin || '/' || ctid || md5(f::text), ',' ORDER BY id) FROM imagekit_files f`)
	for name, at := range map[string]string{"Direct": r.url, "Pooled": testenv.PgBouncer(t, r.url, testenv.PgBouncerOptions{PoolSize: 2})} {
		t.Run(name, func(t *testing.T) {
			a := r.audit(at)
			if n := len(auditLocal(t, a)); n != 2000 {
				t.Errorf("%d rows", n)
			}
			snaps := []*file.Snapshot{snap("f1", 0), snap("f2", 0)}
			if _, err := a.Hash(r.ctx, snaps); err != nil {
				t.Error(err)
			}
			if d, err := a.Differences(r.ctx, snaps); err != nil || len(d) != 2 {
				t.Error(d, err)
			}
		})
	}
	if after := one[string](r, `SELECT string_agg(xmin || '/' || ctid || md5(f::text), ',' ORDER BY id) FROM imagekit_files f`); after != before {
		t.Error("rows were written")
	}
	r.want("schemas", `SELECT count(*) FROM pg_namespace WHERE nspname = 'trueup'`, 0)
}

// A role that may only read the one table is enough; one that may not gets one
// sentence. The table shows itself to read-only transactions alone.
func TestAuditWithFewRights(t *testing.T) {
	r := bareRig(t, guideTable, `INSERT INTO imagekit_files (file_id, file_url, user_id) VALUES ('a', 'x', 'ann')`,
		`CREATE FUNCTION reading() RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
			IF current_setting('transaction_read_only') <> 'on' THEN RAISE EXCEPTION 'a transaction that could write'; END IF;
			RETURN true; END $$`,
		`ALTER TABLE imagekit_files ENABLE ROW LEVEL SECURITY`, `CREATE POLICY p ON imagekit_files USING (reading())`)
	role := fmt.Sprintf("reader_%d", one[int64](r, `SELECT oid::bigint FROM pg_database WHERE datname = current_database()`))
	r.exec(`CREATE ROLE ` + role + ` LOGIN PASSWORD 'x'`)
	as, err := url.Parse(r.url)
	if err != nil {
		t.Fatal(err)
	}
	as.User = url.UserPassword(role, "x")
	a := r.audit(as.String())
	if err := a.Local(r.ctx, func(run.Local) error { return nil }); err == nil || !strings.Contains(err.Error(), "may not read") {
		t.Errorf("without rights: %v", err)
	}
	r.exec(`GRANT SELECT ON imagekit_files TO ` + role)
	if got := idsIn(auditLocal(t, a)); got != "a" {
		t.Errorf("rows %q", got)
	}
	if d, err := a.Differences(r.ctx, []*file.Snapshot{snap("a", 0)}); err != nil || len(d["a"]) != 2 {
		t.Error(d, err)
	}
	if _, err := r.sql.Exec(r.ctx, `SET ROLE `+role); err != nil {
		t.Fatal(err)
	}
	if _, err := r.sql.Exec(r.ctx, `SELECT * FROM imagekit_files`); err == nil {
		t.Error("the table does not tell who could write")
	}
}
