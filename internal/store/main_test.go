package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/oklog/ulid/v2"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/store"
	"github.com/trueup/trueup/internal/testenv"
	"github.com/trueup/trueup/migrations"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// base is when the tests' files were made.
var base = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// rig is a store on a fresh, migrated database, with a connection of its own beside it
// that plays every other person who has SQL.
type rig struct {
	testing.TB
	ctx  context.Context
	url  string
	st   *store.Store
	sql  *pgx.Conn
	turn int64
}

func newRig(t testing.TB, tune ...func(*store.Config)) *rig {
	t.Helper()
	url := testenv.Postgres(t)
	if err := migrations.Up(t.Context(), url, migrations.Options{}); err != nil {
		t.Fatal(err)
	}
	return rigOn(t, url, url, tune...)
}

// rigOn opens the store on one URL and the person's connection on another.
func rigOn(t testing.TB, url, direct string, tune ...func(*store.Config)) *rig {
	t.Helper()
	r := &rig{TB: t, ctx: t.Context(), url: direct}
	r.sql = r.connect()
	c := store.Config{URL: url, AbsentConfirm: 50 * time.Millisecond}
	for _, f := range tune {
		f(&c)
	}
	st, err := store.Open(r.ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.Close)
	r.st = st
	turn, err := st.BeginTurn(r.ctx)
	if err != nil {
		t.Fatal(err)
	}
	r.turn = turn.Number
	return r
}

// connect is one more session.
func (r *rig) connect() *pgx.Conn {
	r.Helper()
	conn, err := pgx.Connect(r.ctx, r.url)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func (r *rig) exec(sql string, args ...any) {
	r.Helper()
	if _, err := r.sql.Exec(r.ctx, sql, args...); err != nil {
		r.Fatalf("%s: %v", sql, err)
	}
}

// one reads one value.
func one[T any](r *rig, sql string, args ...any) T {
	r.Helper()
	var v T
	if err := r.sql.QueryRow(r.ctx, sql, args...).Scan(&v); err != nil {
		r.Fatalf("%s: %v", sql, err)
	}
	return v
}

func (r *rig) want(what, sql string, want any, args ...any) {
	r.Helper()
	got := one[any](r, sql, args...)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		r.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func (r *rig) fence() file.Fence {
	r.Helper()
	f, _, err := r.st.Fence(r.ctx, nil)
	if err != nil {
		r.Fatal(err)
	}
	return f
}

// snap is a file as ImageKit describes it at base plus a number of minutes.
func snap(id string, minutes int) *file.Snapshot {
	size, wide, private := int64(2048), int32(640), false
	name, path, kind, mime, thumb, version := id+".jpg", "/"+id+".jpg", "image", "image/jpeg", "https://ik.example/t/"+id, id
	return &file.Snapshot{
		ID: id, URL: "https://ik.example/" + id + ".jpg", Name: &name, Path: &path, Type: &kind, MIME: &mime, SizeBytes: &size,
		Width: &wide, Height: &wide, ThumbnailURL: &thumb, Tags: []string{`a "b"`, `c\d`, "e,{f}"}, CustomMetadata: []byte(`{"n": 1.50, "s": "x"}`),
		VersionID: &version, FirstVersion: true, IsPrivate: &private, CreatedAt: base, UpdatedAt: base.Add(time.Duration(minutes) * time.Minute),
	}
}

// look is a look-up that begins now and sees s; nil sees nothing.
func (r *rig) look(id string, s *file.Snapshot) file.Observation {
	r.Helper()
	return lookAt(r.fence(), id, s)
}

func lookAt(f file.Fence, id string, s *file.Snapshot) file.Observation {
	o := file.Observation{FileID: id, How: file.LookUp, Fence: f, Snapshot: s, Status: 200, RequestID: "req-" + id}
	if s == nil {
		o.Status, o.Canary = 404, file.Canary{EmptyLibrary: true}
	}
	return o
}

// hit is a search hit.
func (r *rig) hit(s *file.Snapshot) file.Observation {
	r.Helper()
	return file.Observation{FileID: s.ID, How: file.Hit, Fence: r.fence(), Snapshot: s, Status: 200}
}

func newEvent(source event.Source, kind, id string) event.Pending {
	return event.Pending{Event: event.Event{
		ID: ulid.Make().String(), Source: source, Origin: source, Kind: kind, FileID: id,
		AcceptedAt: base.Add(time.Minute), Body: []byte(`{"fileId":"` + id + `"}`), Headers: map[string]string{"user-agent": "test"},
	}}
}

func report(id, user string) event.Pending {
	p := newEvent(event.Client, event.KindReport, id)
	p.User = user
	return p
}

func webhook(id string) event.Pending { return newEvent(event.Webhook, "file.created", id) }
func deleted(id string) event.Pending { return newEvent(event.Webhook, event.KindDeleted, id) }
func recheck(id string) event.Pending { return newEvent(event.Reconcile, event.KindRecheck, id) }

// settleTable is a small stand-in for the worker's.
func settleTable(_ event.Pending, r file.Result) event.End {
	switch {
	case r.Outcome == "" || r.Outcome == file.LookAgain || r.Wait > 0 || r.Reason == file.ReasonNotFound:
		return event.End{Kind: event.Retry, Reason: string(r.Reason), After: max(r.Wait, time.Millisecond)}
	case r.Claim == file.ClaimRefused:
		return event.End{Kind: event.Rejected, Reason: string(file.ReasonClaimRefused)}
	default:
		return event.End{Kind: event.Done, Reason: string(r.Reason)}
	}
}

// always ends every event the same way.
func always(e event.End) func(event.Pending, file.Result) event.End {
	return func(event.Pending, file.Result) event.End { return e }
}

// told is what a settlement told each event, by event id.
type told map[string]file.Result

func (r *rig) trySettle(pending []event.Pending, seen ...file.Observation) (event.Settled, told, error) {
	results := told{}
	done, err := r.st.Settle(r.ctx, r.turn, pending, seen, func(p event.Pending, res file.Result) event.End {
		results[p.ID] = res
		return settleTable(p, res)
	})
	return done, results, err
}

func (r *rig) settle(pending []event.Pending, seen ...file.Observation) (event.Settled, told) {
	r.Helper()
	done, results, err := r.trySettle(pending, seen...)
	if err != nil {
		r.Fatal(err)
	}
	return done, results
}

// see settles one observation with one event and returns what that was told.
func (r *rig) see(p event.Pending, o file.Observation) file.Result {
	r.Helper()
	_, results := r.settle([]event.Pending{p}, o)
	return results[p.ID]
}

func (r *rig) expect(got file.Result, outcome file.Outcome, reason file.Reason) {
	r.Helper()
	if got.Outcome != outcome || got.Reason != reason {
		r.Errorf("got %s/%s, want %s/%s", got.Outcome, got.Reason, outcome, reason)
	}
}

// xmins are the versions of all rows of both tables: equal means nothing was written.
func (r *rig) xmins() string {
	r.Helper()
	return one[string](r, `SELECT coalesce(string_agg(x, ' ' ORDER BY x), '') FROM (
		SELECT 'f' || file_id || ':' || xmin || ':' || ctid AS x FROM public.imagekit_files
		UNION ALL SELECT 's' || file_id || ':' || xmin || ':' || xmax || ':' || ctid FROM trueup.file_state) v`)
}

func (r *rig) rows() []string {
	r.Helper()
	rows, err := r.sql.Query(r.ctx, `SELECT file_id || '=' || user_id FROM public.imagekit_files ORDER BY file_id COLLATE "C"`)
	if err != nil {
		r.Fatal(err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		r.Fatal(err)
	}
	return out
}

func (r *rig) wantRows(want ...string) {
	r.Helper()
	if got := r.rows(); !slices.Equal(got, want) {
		r.Errorf("rows: got %v, want %v", got, want)
	}
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v, want %v", err, want)
	}
}
