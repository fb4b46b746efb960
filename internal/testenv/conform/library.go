package conform

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"mime/multipart"
	"net/http"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/file"
)

// LibraryDoor is ImageKit's management API, asked by one process.
type LibraryDoor interface {
	Details(ctx context.Context, id string) (file.Answer, error)
	Search(ctx context.Context, ids []string) (file.Answer, error)
	ListOne(ctx context.Context) (file.Answer, error)
	ListCreated(ctx context.Context, from time.Time, skip int) (file.Answer, error)
	ListUpdated(ctx context.Context, from time.Time, skip int) (file.Answer, error)
	Newest(ctx context.Context) (file.Answer, error)
}

// Account is an empty library.
type Account struct {
	Origin     string            // what its URLs begin with
	Way        http.RoundTripper // to it, for those who upload, and for the emulator's controls
	PrivateKey string
	// Open asks it with a key, empty for its own, and a timeout, zero for the door's own.
	Open func(privateKey string, timeout time.Duration) LibraryDoor
}

// Libraries is a kind of library.
type Libraries struct {
	// Account makes one, which ends with the test.
	Account func(t testing.TB) Account
	// Run runs a case; nil runs it as it is. A simulated library runs it in a bubble.
	Run func(t *testing.T, f func(t *testing.T))
}

// Library tests what ImageKit's door tells of it. Behind it is the emulator.
func Library(t *testing.T, l Libraries) {
	cases := map[string]func(*libraries){
		"LooksAFileUpAsItIs":               (*libraries).asItIs,
		"KnowsAnOverwriteFromAFirst":       (*libraries).overwrite,
		"TellsWhatIsAbsent":                (*libraries).absent,
		"SearchesForMany":                  (*libraries).search,
		"ListsOne":                         (*libraries).one,
		"ListsPageByPageOldestFirst":       (*libraries).pages,
		"ListsWhatWasUpdatedSince":         (*libraries).updated,
		"GivesEachFaultItsName":            (*libraries).faults,
		"NamesTheSameFaultsOfAList":        (*libraries).listFaults,
		"TellsA404ThatImageKitDidNotWrite": (*libraries).foreign404,
		"GivesUpAtTheTimeout":              (*libraries).hangs,
		"EndsWithItsContext":               (*libraries).ends,
		"HearsOfItsLimit":                  (*libraries).limited,
		"IsRefusedWithAnothersKey":         (*libraries).stranger,
		"SeesALateFileLate":                (*libraries).late,
		"SeesAnOldList":                    (*libraries).lag,
		"IsToldWhereIdsAreNotSearched":     (*libraries).noIDSearch,
		"AsksOnceAndOnlyWhatItWasAsked":    (*libraries).once,
	}
	run := l.Run
	if run == nil {
		run = func(t *testing.T, f func(*testing.T)) { f(t) }
	}
	for name, f := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t, func(t *testing.T) {
				c := &libraries{T: t, Account: l.Account(t)}
				c.LibraryDoor = c.Open("", 0)
				f(c)
			})
		})
	}
}

// libraries is one case under way.
type libraries struct {
	*testing.T
	Account
	LibraryDoor
}

// do sends a request of somebody else's with the account's key, and returns the answer's
// body.
func (l *libraries) do(method, path, kind string, body io.Reader) []byte {
	l.Helper()
	r, err := http.NewRequestWithContext(l.Context(), method, l.Origin+path, body)
	if err != nil {
		l.Fatal(err)
	}
	r.SetBasicAuth(l.PrivateKey, "")
	r.Header.Set("Content-Type", kind)
	w, err := l.Way.RoundTrip(r)
	if err != nil {
		l.Fatalf("%s %s: %v", method, path, err)
	}
	defer w.Body.Close()
	answer, err := io.ReadAll(w.Body)
	if err != nil || w.StatusCode/100 != 2 {
		l.Fatalf("%s %s: %d %s %v", method, path, w.StatusCode, answer, err)
	}
	return answer
}

func (l *libraries) json(method, path string, v any) []byte {
	l.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		l.Fatal(err)
	}
	return l.do(method, path, "application/json", bytes.NewReader(b))
}

type fields = map[string]string

// settings patches those of the emulator.
func (l *libraries) settings(v map[string]any) {
	l.Helper()
	l.json(http.MethodPatch, "/_emulator/settings", v)
}

// wrong makes the next request to a path go wrong.
func (l *libraries) wrong(fault map[string]any) {
	l.Helper()
	fault = maps.Clone(fault)
	fault["times"] = 1
	fault["path"] = "/v1/files*"
	l.json(http.MethodPost, "/_emulator/faults", fault)
}

// upload is what a server of the application does.
func (l *libraries) upload(name string, more fields) (id string) {
	l.Helper()
	var b bytes.Buffer
	form := multipart.NewWriter(&b)
	all := fields{"file": base64.StdEncoding.EncodeToString([]byte("bytes of " + name)), "fileName": name, "useUniqueFileName": "false"}
	maps.Copy(all, more)
	for k, v := range all {
		if err := form.WriteField(k, v); err != nil {
			l.Fatal(err)
		}
	}
	if err := form.Close(); err != nil {
		l.Fatal(err)
	}
	var made struct{ FileID string }
	answer := l.do(http.MethodPost, "/api/v1/files/upload", form.FormDataContentType(), &b)
	if err := json.Unmarshal(answer, &made); err != nil || made.FileID == "" {
		l.Fatalf("uploaded %s: %v", answer, err)
	}
	return made.FileID
}

// snapshot looks a file up that must be there.
func (l *libraries) snapshot(id string) file.Snapshot {
	l.Helper()
	a, err := l.Details(l.Context(), id)
	if err != nil || len(a.Snapshots) != 1 || a.Snapshots[0].ID != id || a.Status != http.StatusOK {
		l.Fatalf("%+v, %v", a, err)
	}
	return a.Snapshots[0]
}

// faultOf is the fault in err; an empty one where there is none.
func faultOf(err error) *file.Fault {
	f := &file.Fault{}
	errors.As(err, &f)
	return f
}

func (l *libraries) asItIs() {
	began := time.Now()
	id := l.upload("a b.txt", fields{"folder": "/x", "tags": "one,two", "isPrivateFile": "true"})
	a, err := l.Details(l.Context(), id)
	if err != nil {
		l.Fatal(err)
	}
	s := l.snapshot(id)
	if a.RequestID == "" || a.Rate.Limit != 40 || a.Rate.Interval != time.Second || a.Date.IsZero() {
		l.Errorf("answer %+v", a)
	}
	if s.Name == nil || *s.Name != "a_b.txt" && *s.Name != "a b.txt" || s.Path == nil || *s.Path != "/x/"+*s.Name || s.Type == nil || *s.Type != "non-image" ||
		s.SizeBytes == nil || *s.SizeBytes != int64(len("bytes of a b.txt")) || s.IsPrivate == nil || !*s.IsPrivate || !slices.Equal(s.Tags, []string{"one", "two"}) {
		l.Errorf("snapshot %+v", s)
	}
	if !s.FirstVersion || s.VersionID == nil || s.URL == "" || s.CreatedAt.Before(began.Add(-time.Minute)) || !s.UpdatedAt.Equal(s.CreatedAt) {
		l.Errorf("snapshot %+v", s)
	}
}

func (l *libraries) overwrite() {
	id := l.upload("a.txt", nil)
	first := l.snapshot(id)
	if again := l.upload("a.txt", fields{"overwriteFile": "true"}); again != id {
		l.Fatalf("the overwritten file is %s", again)
	}
	second := l.snapshot(id)
	if second.FirstVersion || *second.VersionID == *first.VersionID || !second.UpdatedAt.After(first.UpdatedAt) || !second.CreatedAt.Equal(first.CreatedAt) {
		l.Errorf("%+v\nbecame %+v", first, second)
	}
}

const nobodys = "00000000000000000000beef"

func (l *libraries) absent() {
	gone := l.upload("a.txt", nil)
	l.do(http.MethodDelete, "/v1/files/"+gone, "", nil)
	for id, want := range map[string]file.Fault{
		nobodys: {Kind: file.NotFound, Status: 404}, gone: {Kind: file.NotFound, Status: 404},
		"not-an-id": {Kind: file.InvalidID, Status: 400}, "../../v1/accounts": {Kind: file.InvalidID},
	} {
		a, err := l.Details(l.Context(), id)
		if f := faultOf(err); !f.Absent() || f.Kind != want.Kind || f.Status != want.Status || len(a.Snapshots) != 0 {
			l.Errorf("%s: %+v, %v", id, a, err)
		}
	}
}

func ids(snapshots []file.Snapshot) (out []string) {
	for _, s := range snapshots {
		out = append(out, s.ID)
	}
	slices.Sort(out)
	return out
}

func (l *libraries) search() {
	here, there, gone, other := l.upload("a.txt", nil), l.upload("b.txt", nil), l.upload("c.txt", nil), l.upload("d.txt", nil)
	l.do(http.MethodDelete, "/v1/files/"+gone, "", nil)
	want := []string{here, there}
	slices.Sort(want)
	a, err := l.Search(l.Context(), []string{there, gone, here, nobodys})
	if err != nil || !slices.Equal(ids(a.Snapshots), want) || slices.Contains(want, other) {
		l.Errorf("%+v, %v", a, err)
	}
	if hit := a.Snapshots[slices.IndexFunc(a.Snapshots, func(s file.Snapshot) bool { return s.ID == here })]; !reflect.DeepEqual(hit, l.snapshot(here)) {
		l.Errorf("a hit says %+v", hit)
	}
	if a, err = l.Search(l.Context(), nil); err != nil || len(a.Snapshots) != 0 || a.Status != 0 {
		l.Errorf("nothing was asked for: %+v, %v", a, err)
	}
	if a, err = l.Search(l.Context(), []string{`x" OR id IN ["` + here}); faultOf(err).Kind != file.BadRequest || a.Status != 0 {
		l.Errorf("an id that is none was asked for: %+v, %v", a, err)
	}
}

func (l *libraries) one() {
	for want := range 3 {
		a, err := l.ListOne(l.Context())
		if err != nil || a.Status != 200 || len(a.Snapshots) != min(want, 1) {
			l.Errorf("of %d: %+v, %v", want, a, err)
		}
		l.upload(string(rune('a'+want))+".txt", nil)
	}
}

func (l *libraries) pages() {
	l.json(http.MethodPost, "/_emulator/files/generate", map[string]any{"count": 2300, "folder": "/g"})
	var all []file.Snapshot
	for skip := 0; ; skip += 1000 {
		a, err := l.ListCreated(l.Context(), time.Time{}, skip)
		if err != nil || a.Rows != len(a.Snapshots) || len(a.Snapshots) > 1000 {
			l.Fatalf("after %d: %d rows, %d snapshots, %v", skip, a.Rows, len(a.Snapshots), err)
		}
		if all = append(all, a.Snapshots...); len(a.Snapshots) < 1000 {
			break
		}
	}
	if len(all) != 2300 || len(slices.Compact(ids(all))) != 2300 || !slices.IsSortedFunc(all, func(a, b file.Snapshot) int { return a.CreatedAt.Compare(b.CreatedAt) }) {
		l.Errorf("%d files, or out of order", len(all))
	}
	from := all[2000].CreatedAt.Truncate(time.Second)
	want := 0
	for _, s := range all {
		if !s.CreatedAt.Before(from) {
			want++
		}
	}
	if a, err := l.ListCreated(l.Context(), from, 0); err != nil || len(a.Snapshots) != want {
		l.Errorf("%d files since %v, not %d: %v", len(a.Snapshots), from, want, err)
	}
	if a, err := l.ListCreated(l.Context(), time.Time{}, 5000); err != nil || len(a.Snapshots) != 0 {
		l.Errorf("beyond the end: %+v, %v", a, err)
	}
}

func (l *libraries) updated() {
	if a, err := l.Newest(l.Context()); err != nil || len(a.Snapshots) != 0 {
		l.Errorf("the newest of none: %+v, %v", a, err)
	}
	l.json(http.MethodPost, "/_emulator/files/generate", map[string]any{"count": 20, "folder": "/g"})
	a, err := l.ListCreated(l.Context(), time.Time{}, 0)
	if err != nil || len(a.Snapshots) != 20 {
		l.Fatalf("%+v, %v", a, err)
	}
	oldest := a.Snapshots[0]
	l.json(http.MethodPatch, "/v1/files/"+oldest.ID+"/details", map[string]any{"tags": []string{"changed"}})
	a, err = l.Newest(l.Context())
	if err != nil || len(a.Snapshots) != 1 || a.Snapshots[0].ID != oldest.ID || !a.Snapshots[0].UpdatedAt.After(oldest.UpdatedAt) {
		l.Errorf("the newest: %+v, %v", a, err)
	}
	a, err = l.ListUpdated(l.Context(), a.Snapshots[0].UpdatedAt, 0)
	if err != nil || !slices.Contains(ids(a.Snapshots), oldest.ID) || a.Snapshots[len(a.Snapshots)-1].ID != oldest.ID {
		l.Errorf("updated since: %+v, %v", a, err)
	}
}

// faults: each goes wrong once before the request was carried out and once after, which
// must look the same; then the file is there again.
func (l *libraries) faults() {
	l.settings(map[string]any{"rateLimit": map[string]any{"perSecond": 0}})
	id := l.upload("a.txt", nil)
	for name, m := range mishaps() {
		for _, after := range []bool{false, true} {
			m.fault["after"] = after
			l.wrong(m.fault)
			a, err := l.Details(l.Context(), id)
			if f := faultOf(err); f.Kind != m.kind || f.Status != m.status || f.Wait != m.wait || f.Absent() || len(a.Snapshots) != 0 || a.Status != m.status {
				l.Errorf("%s, after %v: %+v, %+v", name, after, a, err)
			}
			l.snapshot(id)
		}
	}
}

func (l *libraries) listFaults() {
	l.settings(map[string]any{"rateLimit": map[string]any{"perSecond": 0}})
	id := l.upload("a.txt", nil)
	asks := map[string]func() (file.Answer, error){
		"Search":      func() (file.Answer, error) { return l.Search(l.Context(), []string{id}) },
		"ListOne":     func() (file.Answer, error) { return l.ListOne(l.Context()) },
		"ListCreated": func() (file.Answer, error) { return l.ListCreated(l.Context(), time.Time{}, 0) },
		"ListUpdated": func() (file.Answer, error) { return l.ListUpdated(l.Context(), time.Time{}, 0) },
		"Newest":      func() (file.Answer, error) { return l.Newest(l.Context()) },
	}
	all := mishaps()
	all["404"] = mishap{map[string]any{"status": 404}, file.Garbled, 404, 0}
	for name, ask := range asks {
		for what, m := range all {
			l.wrong(m.fault)
			a, err := ask()
			if f := faultOf(err); f.Kind != m.kind || f.Status != m.status || f.Wait != m.wait || f.Absent() || len(a.Snapshots) != 0 {
				l.Errorf("%s, %s: %+v, %+v", name, what, a, err)
			}
		}
		if a, err := ask(); err != nil || !slices.Equal(ids(a.Snapshots), []string{id}) {
			l.Errorf("%s: %+v, %v", name, a, err)
		}
	}
}

func (l *libraries) foreign404() {
	id := l.upload("a.txt", nil)
	l.wrong(map[string]any{"status": 404, "body": "<h1>Not Found</h1>", "headers": fields{"Content-Type": "text/html"}})
	if _, err := l.Details(l.Context(), id); faultOf(err).Kind != file.Garbled {
		l.Errorf("a page says that it is absent: %v", err)
	}
	l.wrong(map[string]any{"status": 404, "close": true})
	if _, err := l.Details(l.Context(), id); faultOf(err).Absent() || faultOf(err).Kind == "" {
		l.Errorf("half a 404 says that it is absent: %v", err)
	}
	l.wrong(map[string]any{"status": 404})
	if _, err := l.Details(l.Context(), id); faultOf(err).Kind != file.NotFound {
		l.Errorf("a flicker: %v", err)
	}
	l.snapshot(id)
}

func (l *libraries) hangs() {
	id := l.upload("a.txt", nil)
	l.wrong(map[string]any{"latency": "1h"})
	began := time.Now()
	hurried := l.Open("", 200*time.Millisecond)
	if _, err := hurried.Details(l.Context(), id); faultOf(err).Kind != file.TimedOut || time.Since(began) < 200*time.Millisecond {
		l.Errorf("after %v: %v", time.Since(began), err)
	}
	if _, err := hurried.Details(l.Context(), id); err != nil && faultOf(err).Kind != file.TimedOut {
		l.Errorf("afterwards: %v", err)
	}
}

func (l *libraries) ends() {
	id := l.upload("a.txt", nil)
	l.wrong(map[string]any{"latency": "1h"})
	ctx, cancel := context.WithTimeout(l.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := l.Details(ctx, id); faultOf(err).Kind != file.TimedOut || ctx.Err() == nil {
		l.Error(err)
	}
}

func (l *libraries) limited() {
	id := l.upload("a.txt", nil)
	l.settings(map[string]any{"rateLimit": map[string]any{"perSecond": 0.01, "burst": 2}})
	for range 2 {
		l.snapshot(id)
	}
	a, err := l.Details(l.Context(), id)
	if f := faultOf(err); f.Kind != file.Limited || f.Wait <= 0 || f.Wait > 100*time.Second || a.Rate.Reset != f.Wait {
		l.Errorf("%+v, %v", a, err)
	}
	if a, err := l.ListOne(l.Context()); err != nil { // a limit of its own
		l.Errorf("%+v, %v", a, err)
	}
}

func (l *libraries) stranger() {
	id := l.upload("a.txt", nil)
	stranger := l.Open("private_of_somebody_else", 0)
	if _, err := stranger.Details(l.Context(), id); faultOf(err).Kind != file.Forbidden {
		l.Error(err)
	}
	if _, err := stranger.ListOne(l.Context()); faultOf(err).Kind != file.Forbidden {
		l.Error(err)
	}
}

func (l *libraries) late() {
	l.settings(map[string]any{"visibilityDelay": "1h"})
	id := l.upload("a.txt", nil)
	if _, err := l.Details(l.Context(), id); faultOf(err).Kind != file.NotFound {
		l.Error(err)
	}
	l.settings(map[string]any{"visibilityDelay": "0s"})
	l.snapshot(id)
}

func (l *libraries) lag() {
	l.settings(map[string]any{"listLag": "1h"})
	id := l.upload("a.txt", nil)
	l.snapshot(id)
	if a, err := l.ListCreated(l.Context(), time.Time{}, 0); err != nil || len(a.Snapshots) != 0 {
		l.Errorf("%+v, %v", a, err)
	}
	if a, err := l.Search(l.Context(), []string{id}); err != nil || len(a.Snapshots) != 0 {
		l.Errorf("%+v, %v", a, err)
	}
}

func (l *libraries) noIDSearch() {
	id := l.upload("a.txt", nil)
	l.settings(map[string]any{"idSearch": false})
	if _, err := l.Search(l.Context(), []string{id}); faultOf(err).Kind != file.BadRequest {
		l.Error(err)
	}
}

// once: the door repeats nothing by itself and asks nothing of its own.
func (l *libraries) once() {
	id := l.upload("a.txt", nil)
	l.wrong(map[string]any{"status": 503})
	_, _ = l.Details(l.Context(), id)
	_, _ = l.Search(l.Context(), []string{id})
	_, _ = l.Newest(l.Context())
	var log struct {
		Items []struct{ Endpoint, Method string }
	}
	if err := json.Unmarshal(l.do(http.MethodGet, "/_emulator/requests", "", nil), &log); err != nil {
		l.Fatal(err)
	}
	var got []string
	for _, r := range log.Items {
		got = append(got, r.Method+" "+r.Endpoint)
	}
	if want := []string{"POST upload", "GET details", "GET list", "GET list"}; !slices.Equal(got, want) {
		l.Errorf("asked %v", got)
	}
}
