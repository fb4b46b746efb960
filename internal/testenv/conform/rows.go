package conform

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/service"
	"github.com/trueup/trueup/internal/store"
)

// Databases is a kind of database.
type Databases struct {
	// New makes an empty one. What it opens it closes at the end.
	New func(t testing.TB) Database
	// Run runs a case; nil runs it as it is. Simulated rows run it in a bubble.
	Run func(t *testing.T, f func(t *testing.T))
}

// Database is one database, and a person who has SQL.
type Database interface {
	// Open opens it for another process, configured so.
	Open(c store.Config) service.Rows
	// Insert, SetUser, SetName and Delete write to imagekit_files.
	Insert(fileID, user string)
	SetUser(fileID, user string)
	SetName(fileID, name string)
	Delete(fileID string)
	// Rows are the live rows: user and file name, by file.
	Rows() map[string]string
	// Pass returns when the database's clock has gone on by d.
	Pass(d time.Duration)
}

// Rows tests what the rows promise.
func Rows(t *testing.T, d Databases) {
	cases := map[string]func(*rows){}
	for _, part := range []map[string]func(*rows){turnCases(), settleCases(), orderCases(), ownerCases(), absenceCases(), retryCases(), runCases(), findingCases(),
		letterCases(), operatorCases()} {
		maps.Copy(cases, part)
	}
	run := d.Run
	if run == nil {
		run = func(t *testing.T, f func(*testing.T)) { f(t) }
	}
	for _, name := range slices.Sorted(maps.Keys(cases)) {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T) { cases[name](newRows(t, d)) })
		})
	}
}

// confirm is ABSENT_CONFIRM in the cases.
const confirm = 30 * time.Millisecond

// made is when the cases' files were made.
func made() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

// rows is one case under way: a database, the door of the process that has the turn, and
// everything else that is known of it.
type rows struct {
	*testing.T
	Database
	door service.Rows
	turn int64
	last int
}

func newRows(t *testing.T, d Databases) *rows {
	r := &rows{T: t, Database: d.New(t)}
	r.reopened(store.Config{})
	return r
}

// reopened goes on as another process, configured so.
func (r *rows) reopened(c store.Config) {
	r.Helper()
	c.AbsentConfirm = confirm
	r.door = r.Open(c)
	r.turn = r.begin(r.door)
}

func (r *rows) begin(d service.Rows) int64 {
	r.Helper()
	turn, err := d.BeginTurn(r.Context())
	r.must(err)
	return turn.Number
}

func (r *rows) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *rows) fails(err, want error) {
	r.Helper()
	if !errors.Is(err, want) {
		r.Errorf("got error %v, want %v", err, want)
	}
}

// same compares what both print as.
func (r *rows) same(what string, got, want any) {
	r.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		r.Errorf("%s: got %s, want %s", what, g, w)
	}
}

// holds compares the live rows, as "file=user" in order.
func (r *rows) holds(want ...string) {
	r.Helper()
	var got []string
	all := r.Rows()
	for _, id := range slices.Sorted(maps.Keys(all)) {
		user, _, _ := strings.Cut(all[id], " ")
		got = append(got, id+"="+user)
	}
	if !slices.Equal(got, want) {
		r.Errorf("rows: got %v, want %v", got, want)
	}
}

// event is one that nobody has seen yet; ids grow, and are older than any clock here.
func (r *rows) event(source event.Source, kind, fileID string) event.Pending {
	r.last++
	return event.Pending{Event: event.Event{
		ID: fmt.Sprintf("00A%023d", r.last), Source: source, Origin: source, Kind: kind, FileID: fileID, AcceptedAt: made().Add(time.Minute),
		Body: []byte(`{"fileId":"` + fileID + `"}`), Headers: map[string]string{"user-agent": "conform"},
	}}
}

func (r *rows) report(fileID, user string) event.Pending {
	p := r.event(event.Client, event.KindReport, fileID)
	p.User = user
	return p
}

func (r *rows) webhook(fileID string) event.Pending {
	return r.event(event.Webhook, "file.created", fileID)
}

// updated is a webhook of a file.updated some minutes after the file was made.
func (r *rows) updated(fileID string, minutes int) event.Pending {
	p := r.event(event.Webhook, "file.updated", fileID)
	p.UpdatedAt = made().Add(time.Duration(minutes) * time.Minute)
	return p
}

func (r *rows) deleted(fileID string) event.Pending {
	return r.event(event.Webhook, event.KindDeleted, fileID)
}

// snapshot is a file as ImageKit describes it, some minutes after it was made.
func snapshot(id string, minutes int) *file.Snapshot {
	size, wide, private := int64(2048), int32(640), false
	name, path, kind, mime, thumb, version := id+".jpg", "/"+id+".jpg", "image", "image/jpeg", "https://ik.example/t/"+id, id
	return &file.Snapshot{
		ID: id, URL: "https://ik.example/" + id + ".jpg", Name: &name, Path: &path, Type: &kind, MIME: &mime, SizeBytes: &size,
		Width: &wide, Height: &wide, ThumbnailURL: &thumb, Tags: []string{`a "b"`, `c\d`, "e,{f}", "", "null"},
		CustomMetadata: []byte(`{"s": "x\n\"", "n": 1.50, "deep": {"b": [1, true, null], "a": {}}}`), VersionID: &version, FirstVersion: true,
		IsPrivate: &private, CreatedAt: made(), UpdatedAt: made().Add(time.Duration(minutes) * time.Minute),
	}
}

func (r *rows) fence() file.Fence {
	r.Helper()
	f, _, err := r.door.Fence(r.Context(), nil)
	r.must(err)
	return f
}

// look is a look-up that begins now and sees s; nil sees nothing.
func (r *rows) look(id string, s *file.Snapshot) file.Observation {
	r.Helper()
	return looked(r.fence(), id, s)
}

func looked(f file.Fence, id string, s *file.Snapshot) file.Observation {
	o := file.Observation{FileID: id, How: file.LookUp, Fence: f, Snapshot: s, Status: 200, RequestID: "req-" + id}
	if s == nil {
		o.Status, o.Canary = 404, file.Canary{EmptyLibrary: true}
	}
	return o
}

// hit is a search hit.
func (r *rows) hit(s *file.Snapshot) file.Observation {
	r.Helper()
	return file.Observation{FileID: s.ID, How: file.Hit, Fence: r.fence(), Snapshot: s, Status: 200}
}

// table is a small stand-in for the worker's.
func table(_ event.Pending, res file.Result) event.End {
	switch {
	case res.Outcome == "" || res.Outcome == file.LookAgain || res.Wait > 0 || res.Reason == file.ReasonNotFound:
		return event.End{Kind: event.Retry, Reason: string(res.Reason), After: max(res.Wait, time.Millisecond)}
	case res.Claim == file.ClaimRefused:
		return event.End{Kind: event.Rejected, Reason: string(file.ReasonClaimRefused)}
	default:
		return event.End{Kind: event.Done, Reason: string(res.Reason)}
	}
}

// always ends every event the same way.
func always(e event.End) func(event.Pending, file.Result) event.End {
	return func(event.Pending, file.Result) event.End { return e }
}

// dead parks it.
func dead() func(event.Pending, file.Result) event.End {
	return always(event.End{Kind: event.Dead, Reason: "gave_up", Class: event.ClassImageKit, Note: "It did not answer.",
		Attempt: &event.Attempt{At: made(), Class: event.ClassImageKit, Reason: "unavailable", Status: 503, Version: "test"}})
}

func (r *rows) settled(pending []event.Pending, seen []file.Observation, end func(event.Pending, file.Result) event.End) event.Settled {
	r.Helper()
	out, err := r.door.Settle(r.Context(), r.turn, pending, seen, end)
	r.must(err)
	return out
}

// settle settles by the table and says what each event was told.
func (r *rows) settle(pending []event.Pending, seen ...file.Observation) map[string]file.Result {
	r.Helper()
	told := map[string]file.Result{}
	r.settled(pending, seen, func(p event.Pending, res file.Result) event.End {
		told[p.ID] = res
		return table(p, res)
	})
	return told
}

// see settles one observation with one event, and compares what that was told.
func (r *rows) see(p event.Pending, o file.Observation, outcome file.Outcome, reason file.Reason) file.Result {
	r.Helper()
	got := r.settle([]event.Pending{p}, o)[p.ID]
	if got.Outcome != outcome || got.Reason != reason {
		r.Errorf("got %s/%s, want %s/%s", got.Outcome, got.Reason, outcome, reason)
	}
	return got
}

// passport is what is held about a file.
func (r *rows) passport(id string) store.Passport {
	r.Helper()
	p, err := r.door.Passport(r.Context(), id)
	r.must(err)
	return p
}

// story is the file's ledger, as sorted "kind/end/outcome/reason" lines.
func (r *rows) story(id string) []string {
	r.Helper()
	var out []string
	for _, l := range r.passport(id).Lines {
		out = append(out, strings.Join([]string{l.Kind, l.End, l.Outcome, l.Reason}, "/"))
	}
	slices.Sort(out)
	return out
}

// due waits for n retries and returns them.
func (r *rows) due(n int) []event.Pending {
	r.Helper()
	for r.Context().Err() == nil {
		all, _, err := r.door.Due(r.Context(), n+1)
		r.must(err)
		if len(all) >= n {
			return all
		}
		r.Pass(10 * time.Millisecond)
	}
	r.Fatalf("%d retries did not become due", n)
	return nil
}

// closed is a context that is over.
func (r *rows) closed() context.Context {
	ctx, cancel := context.WithCancel(r.Context())
	cancel()
	return ctx
}
