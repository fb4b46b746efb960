package service_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/trueup/trueup/internal/config"
	"github.com/trueup/trueup/internal/emulator"
	"github.com/trueup/trueup/internal/service"
	"github.com/trueup/trueup/internal/store"
	"github.com/trueup/trueup/internal/testenv"
	"github.com/trueup/trueup/worker/reconcile"
)

// audited is a database and a library that trueup has nothing to do with.
type audited struct {
	testing.TB
	ctx   context.Context
	key   string
	api   string // the emulator's address
	db    string
	sql   *pgx.Conn
	files []listedFile
}

type listedFile struct {
	FileID string `json:"fileId"`
	URL    string `json:"url"`
}

// newAudited makes a library of n files and a guide's table with a row for each.
func newAudited(t testing.TB, n int) *audited {
	t.Helper()
	a := &audited{TB: t, ctx: t.Context(), key: "private_audited_0123456789", db: testenv.Postgres(t)}
	a.api = a.library(a.key)
	a.files = a.generate(n)
	sql, err := pgx.Connect(a.ctx, a.db)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sql.Close(context.Background()) })
	a.sql = sql
	a.exec(guideTable)
	for _, f := range a.files {
		address, _, _ := strings.Cut(f.URL, "?") // an upload's answer has no query
		a.exec(`INSERT INTO imagekit_files (file_id, file_url, user_id) VALUES ($1, $2, 'ann')`, f.FileID, address)
	}
	return a
}

// library starts an emulator of its own.
func (a *audited) library(key string) string {
	a.Helper()
	e, err := emulator.New(emulator.Config{Dir: testenv.Dir(a), PublicKey: "public_audited", PrivateKey: key})
	if err != nil {
		a.Fatal(err)
	}
	if err := e.Listen(); err != nil {
		a.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	a.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			a.Error(err)
		}
	})
	return e.URL()
}

func (a *audited) call(method, path string, body any) []byte {
	a.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		a.Fatal(err)
	}
	r, err := http.NewRequestWithContext(a.ctx, method, a.api+path, bytes.NewReader(raw))
	if err != nil {
		a.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.SetBasicAuth(a.key, "")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(r)
	if err != nil {
		a.Fatal(err)
	}
	defer res.Body.Close()
	out, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode >= 300 {
		a.Fatalf("%s %s: %s %s %v", method, path, res.Status, out, err)
	}
	return out
}

// generate makes n more files and returns all of them, oldest first.
func (a *audited) generate(n int) (files []listedFile) {
	a.Helper()
	a.call("PATCH", "/_emulator/settings", map[string]any{"rateLimit": map[string]any{"perSecond": 0}})
	a.call("POST", "/_emulator/files/generate", map[string]any{"count": n, "folder": "/"})
	if err := json.Unmarshal(a.call("GET", "/v1/files?limit=1000", nil), &files); err != nil {
		a.Fatal(err)
	}
	return files
}

func (a *audited) exec(sql string, args ...any) {
	a.Helper()
	if _, err := a.sql.Exec(a.ctx, sql, args...); err != nil {
		a.Fatalf("%s: %v", sql, err)
	}
}

func (a *audited) ids(from, to int) (ids []string) {
	for _, f := range a.files[from:to] {
		ids = append(ids, f.FileID)
	}
	return ids
}

// versions is everything that a write could leave behind.
func (a *audited) versions() (v string) {
	a.Helper()
	err := a.sql.QueryRow(a.ctx, `SELECT coalesce(string_agg(xmin || '/' || ctid || '/' || md5(f::text), ' ' ORDER BY id), '') || ' '
		|| (SELECT string_agg(n.nspname || '.' || c.relname, ' ' ORDER BY 1) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname !~ '^pg_')
		FROM imagekit_files f`).Scan(&v)
	if err != nil {
		a.Fatal(err)
	}
	return v
}

func (a *audited) audit(sample int, more ...string) (service.Audited, error) {
	a.Helper()
	env := map[string]string{"DATABASE_URL": a.db, "IMAGEKIT_PRIVATE_KEY": a.key, "IMAGE_KIT_BASE_URL": a.api}
	for i := 0; i+1 < len(more); i += 2 {
		env[more[i]] = more[i+1]
	}
	c, err := config.Load(config.Audit, env)
	if err != nil {
		a.Fatal(err)
	}
	return service.Audit(a.ctx, c, "test", sample, nil)
}

// must audits, and sees to it that nothing was written.
func (a *audited) must(sample int, more ...string) service.Audited {
	a.Helper()
	before := a.versions()
	found, err := a.audit(sample, more...)
	if err != nil {
		a.Fatal(err)
	}
	if a.versions() != before {
		a.Error("the audit wrote something")
	}
	return found
}

func (a *audited) want(got, want map[string]int64) {
	a.Helper()
	for name, n := range want {
		if got[name] != n {
			a.Errorf("%s: %d, want %d", name, got[name], n)
		}
	}
}

func figures(r service.Audited) map[string]int64 {
	raw, _ := json.Marshal(r) //nolint:errchkjson // plain fields
	var all map[string]any
	_ = json.Unmarshal(raw, &all)
	out := map[string]int64{}
	for name, v := range all {
		if n, ok := v.(float64); ok {
			out[name] = int64(n)
		}
	}
	return out
}

// The first look at a table that an application has filled by itself, with what went
// wrong over time.
func TestAuditOfTheGuidesTable(t *testing.T) {
	a := newAudited(t, 330)
	a.exec(`DELETE FROM imagekit_files WHERE file_id = ANY($1)`, a.ids(0, 30))
	for _, id := range a.ids(30, 50) {
		a.call("DELETE", "/v1/files/"+id, nil)
	}
	a.exec(`UPDATE imagekit_files SET file_url = file_url || '-old' WHERE file_id = ANY($1)`, a.ids(50, 60))
	a.exec(`UPDATE imagekit_files SET file_url = file_url || '?updatedAt=1' WHERE file_id = ANY($1)`, a.ids(60, 65))

	found := a.must(0)
	a.want(figures(found), map[string]int64{"rows": 300, "files": 310, "deleted": 20, "unlisted": 20, "asked": 20, "gone": 20, "there": 0,
		"noRow": 30, "differ": 10, "formOnly": 270, "same": 0, "doubled": 0, "invalid": 0})
	if !found.Whole || found.Sampled || found.Clean() {
		t.Errorf("%+v", found)
	}
	if want := []reconcile.AuditColumn{{Column: "file_url", Rows: 15, Form: 5}, {Column: "upload_timestamp", Rows: 280, Form: 280}}; !slices.Equal(found.Columns, want) {
		t.Errorf("columns %+v, want %+v", found.Columns, want)
	}
	if n := len(found.Of.Deleted); n != 10 || !slices.Contains(a.ids(30, 50), found.Of.Deleted[0]) || !slices.Contains(a.ids(0, 30), found.Of.NoRow[0]) {
		t.Errorf("examples: %+v", found.Of)
	}
	if e := found.Of.Differ[0]; len(e.Columns) != 1 || e.Columns[0].Column != "file_url" || !strings.HasSuffix(*e.Columns[0].Row, "-old") {
		t.Errorf("example: %+v", e)
	}

	t.Run("ThroughAPooler", func(t *testing.T) {
		a.want(figures(a.must(0, "DATABASE_URL", testenv.PgBouncer(t, a.db, testenv.PgBouncerOptions{PoolSize: 2}))),
			map[string]int64{"deleted": 20, "noRow": 30, "differ": 10})
	})
	t.Run("BySample", func(t *testing.T) {
		found := a.must(7)
		a.want(figures(found), map[string]int64{"deleted": 20, "unlisted": 20, "asked": 7, "gone": 7})
		if !found.Sampled {
			t.Error("it does not say so")
		}
	})
	t.Run("WhatTheListingHidesIsNotDeleted", func(t *testing.T) {
		hidden := a.files[100].FileID
		b := *a
		b.TB, b.api = t, testProxy(t, a.api, func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/v1/files" {
				return false
			}
			var page []map[string]any
			if err := json.Unmarshal(a.call("GET", r.URL.RequestURI(), nil), &page); err != nil {
				t.Error(err)
			}
			page = slices.DeleteFunc(page, func(f map[string]any) bool { return f["fileId"] == hidden })
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(page)
			return true
		})
		a.want(figures(b.must(0)), map[string]int64{"deleted": 20, "unlisted": 21, "gone": 20, "there": 1})
	})
}

// Rows that no library can explain are counted apart.
func TestAuditOfImpossibleRows(t *testing.T) {
	a := newAudited(t, 20)
	a.exec(`ALTER TABLE imagekit_files DROP CONSTRAINT imagekit_files_file_id_key, ALTER COLUMN file_id DROP NOT NULL`)
	a.exec(`INSERT INTO imagekit_files (file_id, file_url, user_id) SELECT file_id, file_url, user_id FROM imagekit_files WHERE file_id = ANY($1)`, a.ids(0, 3))
	a.exec(`INSERT INTO imagekit_files (file_id, file_url, user_id) VALUES (NULL, 'x', 'ann'), ('', 'x', 'ann'), ('no/id', 'x', 'ann'), ('another id', 'x', 'ann')`)
	a.exec(`UPDATE imagekit_files SET user_id = '' WHERE file_id = $1`, a.files[10].FileID)
	found := a.must(0)
	a.want(figures(found), map[string]int64{"rows": 27, "doubled": 3, "nameless": 2, "invalid": 2, "noRow": 0, "deleted": 0, "differ": 0, "unowned": 1})
	if found.Clean() || len(found.Notes) == 0 || !strings.Contains(found.Notes[0], "not unique") {
		t.Errorf("notes %q", found.Notes)
	}
}

// With another account's key, without the right to look, or without a listing, nothing
// is judged; a listing that breaks off judges only what it shows.
func TestAuditJudgesNothing(t *testing.T) {
	a := newAudited(t, 60)
	t.Run("OfAnotherAccount", func(t *testing.T) {
		b := *a
		b.TB, b.api = t, a.library(a.key)
		// Generated ids hold the time: not the same ones.
		b.call("POST", "/_emulator/files/generate", map[string]any{"count": 40, "folder": "/", "spread": "100h"})
		before := a.versions()
		found, err := b.audit(0)
		if !errors.Is(err, reconcile.ErrNotRecognised) || !strings.Contains(err.Error(), "40 files") || !strings.Contains(err.Error(), "60 rows") {
			t.Errorf("%+v %v", found, err)
		}
		if found.Deleted != 0 || found.Asked > 25 || a.versions() != before {
			t.Errorf("%+v", found)
		}
	})
	t.Run("OfAnEmptyLibrary", func(t *testing.T) {
		b := *a
		b.TB, b.api = t, a.library(a.key)
		if _, err := b.audit(0); !errors.Is(err, reconcile.ErrNotRecognised) {
			t.Error(err)
		}
	})
	t.Run("WithARefusedKey", func(t *testing.T) {
		_, err := a.audit(0, "IMAGEKIT_PRIVATE_KEY", "private_wrong_key_0123456")
		if !errors.Is(err, reconcile.ErrNotRecognised) || !strings.Contains(err.Error(), "refuses the private key") {
			t.Error(err)
		}
	})
	t.Run("WithoutATable", func(t *testing.T) {
		if _, err := a.audit(0, "DATABASE_URL", testenv.Postgres(t)); !errors.Is(err, store.ErrNoTable) {
			t.Error(err)
		}
	})
	t.Run("WhatABrokenListingDoesNotShow", func(t *testing.T) {
		a.generate(1500)
		a.exec(`INSERT INTO imagekit_files (file_id, file_url, user_id) SELECT 'ffffffffffffffffffff' || to_char(g, 'FM0000'), 'x', 'ann' FROM generate_series(1, 3) g`)
		found := a.brokenAfterOnePage(t)
		if found.Whole || found.Broken == "" || !found.Sampled && found.Asked != found.Unlisted {
			t.Errorf("%+v", found)
		}
		if found.Deleted > 3 || found.Deleted != found.Gone {
			t.Errorf("%d rows are said to point at deleted files; 3 do", found.Deleted)
		}
	})
}

// brokenAfterOnePage audits through a proxy that lets one page pass.
func (a *audited) brokenAfterOnePage(t *testing.T) service.Audited {
	t.Helper()
	pages := 0
	proxy := testProxy(t, a.api, func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/v1/files" {
			return false
		}
		if pages++; pages == 1 {
			return false
		}
		w.WriteHeader(http.StatusForbidden)
		_, _ = fmt.Fprint(w, `{"message":"Your account is disabled."}`)
		return true
	})
	b := *a
	b.TB, b.api = t, proxy
	found, err := b.audit(0)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// testProxy stands before an address; instead may answer itself.
func testProxy(t *testing.T, to string, instead func(http.ResponseWriter, *http.Request) bool) string {
	t.Helper()
	target, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	pass := httputil.NewSingleHostReverseProxy(target)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !instead(w, r) {
			pass.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}
