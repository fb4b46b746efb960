package operator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/event"
)

// drawer is an in-memory Letters and Jobs.
type drawer struct {
	letters  []event.DeadLetter
	jobs     []event.Job
	acts     []string
	imports  int
	breakOff error // of the first letter in an export
}

func (d *drawer) match(f event.Filter) []event.DeadLetter {
	var out []event.DeadLetter
	for _, l := range d.letters {
		if (len(f.IDs) == 0 || slices.Contains(f.IDs, l.ID)) && (f.State == "" || f.State == l.State) && (f.Class == "" || f.Class == l.Class) {
			out = append(out, l)
		}
	}
	return out
}

func (d *drawer) DeadLetters(_ context.Context, f event.Filter, after string, limit int) ([]event.DeadLetter, error) {
	var out []event.DeadLetter
	for _, l := range d.match(f) {
		if l.ID > after && len(out) < limit {
			l.Body, l.Headers = nil, nil
			out = append(out, l)
		}
	}
	return out, nil
}

func (d *drawer) DeadLetter(_ context.Context, id string) (event.DeadLetter, error) {
	for _, l := range d.letters {
		if l.ID == id {
			return l, nil
		}
	}
	return event.DeadLetter{}, fmt.Errorf("dead letter %s: %w", id, event.ErrUnknown)
}

func (d *drawer) CountDead(ctx context.Context, f event.Filter) (event.DeadCount, error) {
	n := event.DeadCount{Classes: map[event.Class]int64{}}
	for _, id := range f.IDs {
		if _, err := d.DeadLetter(ctx, id); err != nil {
			return n, fmt.Errorf("count: %w", err)
		}
	}
	for _, l := range d.match(f) {
		n.Total++
		n.Classes[l.Class]++
	}
	return n, nil
}

func (d *drawer) ExportDead(_ context.Context, f event.Filter, each func(event.DeadLetter) error) error {
	for i, l := range d.match(f) {
		if i == 1 && d.breakOff != nil {
			return d.breakOff
		}
		if err := each(l); err != nil {
			return err
		}
	}
	return nil
}

func (d *drawer) Import(_ context.Context, _ string, letters iter.Seq2[event.DeadLetter, error], _ Act) (inserted, known int, err error) {
	d.imports++
	for range 2 { // the transaction runs again
		inserted = 0
		var all []event.DeadLetter
		for l, err := range letters {
			if err != nil {
				return 0, 0, err
			}
			all = append(all, l)
			inserted++
		}
		d.letters = all
	}
	return inserted, 0, nil
}

func (d *drawer) Preview(_ context.Context, letters []event.DeadLetter) ([]Previewed, error) {
	out := make([]Previewed, len(letters))
	for i, l := range letters {
		out[i] = Previewed{ID: l.ID, FileID: l.FileID, Verdict: "present", Status: 200, Outcome: "applied", End: "done", Reason: "added"}
	}
	return out, nil
}

func (d *drawer) Assign(_ context.Context, fileID, user string, act Act) error {
	if fileID == "unknown" {
		return fmt.Errorf("assign: %s: %w", fileID, event.ErrUnknown)
	}
	d.acts = append(d.acts, "assign "+fileID+" "+user+" "+act.Who+" "+act.Note)
	return nil
}

func (d *drawer) StartJob(ctx context.Context, j event.Job) (event.Job, error) {
	if _, err := d.CountDead(ctx, j.Filter); err != nil {
		return j, err
	}
	j.ID, j.State, j.Total = fmt.Sprintf("job%d", len(d.jobs)), event.JobRunning, int64(len(d.match(j.Filter))+len(j.Files))
	d.jobs = append(d.jobs, j)
	return j, nil
}

func (d *drawer) Job(_ context.Context, id string) (event.Job, error) {
	for _, j := range d.jobs {
		if j.ID == id {
			return j, nil
		}
	}
	return event.Job{}, fmt.Errorf("job %s: %w", id, event.ErrUnknown)
}

func (d *drawer) Jobs(context.Context, string, int) ([]event.Job, error) { return d.jobs, nil }

func (d *drawer) CancelJob(ctx context.Context, id string, _ Act) (event.Job, error) {
	j, err := d.Job(ctx, id)
	j.State = event.JobCancelled
	return j, err
}

const letterID = "01JZ000000000000000000000"

func someLetters(n int) []event.DeadLetter {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	out := make([]event.DeadLetter, n)
	for i := range out {
		id := fmt.Sprintf("%s%d", letterID, i)
		out[i] = event.DeadLetter{ID: id, EventID: "01JY" + id[4:], FileID: fmt.Sprintf("file%d", i), Source: event.Webhook, Origin: event.Webhook, Kind: "file.created",
			AcceptedAt: at, Class: event.ClassImageKit, Reason: "gave_up", State: event.LetterDead, CreatedAt: at, ChangedAt: at, User: "me",
			Body: []byte{0, 0xff, '<', byte(i), '\n'}, Headers: map[string]string{"x": "<&>"}, Attempts: []event.Attempt{{At: at, Class: event.ClassImageKit, Reason: "server_error", Status: 500, Version: "v1"}}}
	}
	return out
}

func TestDeadLettersContract(t *testing.T) {
	r := newRig(t)
	r.letters = someLetters(3)
	r.letters[1].Class, r.letters[2].State = event.ClassCaller, event.LetterReplaying
	one := letterID + "0"
	tests := []struct {
		name, method, path, body string
		status                   int
		want                     string
	}{
		{"List", "GET", "/api/dead?limit=1", "", 200, `"next":"` + one + `"`},
		{"ListIsOfDeadOnes", "GET", "/api/dead?limit=2", "", 200, letterID + `1"`},
		{"ListAnyState", "GET", "/api/dead?state=any&after=" + letterID + "1", "", 200, `"state":"replaying"`},
		{"ListNothing", "GET", "/api/dead?class=trueup", "", 200, `{"items":[]}`},
		{"ListMistypedClass", "GET", "/api/dead?class=imagekitt", "", 400, "invalid_filter"},
		{"ListMistypedTime", "GET", "/api/dead?since=yesterday", "", 400, "invalid_filter"},
		{"ListBadLimit", "GET", "/api/dead?limit=x", "", 400, "invalid_limit"},
		{"Count", "GET", "/api/dead/count", "", 200, `{"total":2,"classes":{"caller":1,"imagekit":1}}`},
		{"CountUnknownID", "GET", "/api/dead/count?id=nobody", "", 404, "there is no dead letter nobody"},
		{"Show", "GET", "/api/dead/" + one, "", 200, `"body":"AP88AAo="`},
		{"ShowUnknown", "GET", "/api/dead/nobody", "", 404, `there is no dead letter \"nobody\"`},
		{"ReplayNothingSaid", "POST", "/api/dead/replay", `{}`, 400, "no_filter"},
		{"ReplayUnknown", "POST", "/api/dead/replay", `{"filter":{"ids":["nobody"]}}`, 404, "there is no dead letter nobody"},
		{"ReplayOfWordlessFilter", "POST", "/api/dead/replay", `{"filter":{"klass":"caller"}}`, 400, "invalid_body"},
		{"Replay", "POST", "/api/dead/replay", `{"filter":{"class":"caller"},"note":"healed"}`, 200, `"total":1`},
		{"ReplayAll", "POST", "/api/dead/replay", `{"all":true}`, 200, `"verb":"replay"`},
		{"Discard", "POST", "/api/dead/discard", `{"filter":{"ids":["` + one + `"]}}`, 200, `"verb":"discard"`},
		{"Preview", "POST", "/api/dead/preview", `{"all":true,"limit":1}`, 200, `replayed now, the letter would be resolved`},
		{"PreviewUnknown", "POST", "/api/dead/preview", `{"filter":{"ids":["nobody"]}}`, 404, "nobody"},
		{"PreviewNothingSaid", "POST", "/api/dead/preview", `{}`, 400, "no_filter"},
		{"Recheck", "POST", "/api/recheck", `{"files":["b","a","b"]}`, 200, `"files":["a","b"]`},
		{"RecheckNone", "POST", "/api/recheck", `{"files":[]}`, 400, "invalid_files"},
		{"RecheckBadID", "POST", "/api/recheck", `{"files":["a","b.c"]}`, 400, `\"b.c\"`},
		{"Assign", "POST", "/api/files/abc/assign", `{"user":"eve","note":"bought"}`, 200, `"user":"eve"`},
		{"AssignWithoutNote", "POST", "/api/files/abc/assign", `{"user":"eve"}`, 400, "no_note"},
		{"AssignWithoutUser", "POST", "/api/files/abc/assign", `{"note":"x"}`, 400, "no_user"},
		{"AssignUnknown", "POST", "/api/files/unknown/assign", `{"user":"eve","note":"x"}`, 404, "unknown"},
		{"Jobs", "GET", "/api/jobs", "", 200, `"id":"job0"`},
		{"Job", "GET", "/api/jobs/job0", "", 200, `"note":"healed"`},
		{"JobUnknown", "GET", "/api/jobs/job99", "", 404, "job99"},
		{"Cancel", "POST", "/api/jobs/job0/cancel", "", 200, `"state":"cancelled"`},
		{"CancelUnknown", "POST", "/api/jobs/job99/cancel", "", 404, "job99"},
		{"ImportOfJSON", "POST", "/api/dead/import", `{}`, 415, "x-ndjson"},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := r.do(t, tt.method, tt.path, annToken, tt.body, "Idempotency-Key", fmt.Sprint("k", i))
			if got.status != tt.status || !strings.Contains(got.body, tt.want) {
				t.Errorf("%d %s, want %d with %s", got.status, got.body, tt.status, tt.want)
			}
			if bare := r.do(t, tt.method, tt.path, "", tt.body, "Idempotency-Key", "k"); bare.status != 401 {
				t.Errorf("without a token: %d", bare.status)
			}
			if tt.method != "POST" {
				return
			}
			if bare := r.do(t, tt.method, tt.path, annToken, tt.body); bare.status != 400 || bare.code() != "idempotency_key_missing" {
				t.Errorf("without a key: %d %s", bare.status, bare.body)
			}
		})
	}
	if got := strings.Join(r.drawer.acts, ","); got != "assign abc eve ann bought" {
		t.Errorf("acts %q: a refused request must do nothing", got)
	}
	if len(r.jobs) != 4 || r.jobs[0].Who != "ann" {
		t.Errorf("%d jobs, the first by %s", len(r.jobs), r.jobs[0].Who)
	}
}

func clientOf(t *testing.T, r *rig) *Client {
	t.Helper()
	c, err := NewClient(ClientConfig{URL: r.server.URL, Token: annToken})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func archiveOf(t *testing.T, letters []event.DeadLetter) string {
	t.Helper()
	r := newRig(t)
	r.letters = letters
	var out bytes.Buffer
	if n, err := clientOf(t, r).Export(t.Context(), event.Filter{}, &out); err != nil || int(n) != len(letters) {
		t.Fatal(n, err)
	}
	return out.String()
}

func TestExportIsWhatImportTakes(t *testing.T) {
	letters := someLetters(3)
	archive := archiveOf(t, letters)
	r := newRig(t)
	for range 2 {
		got, err := clientOf(t, r).Import(t.Context(), strings.NewReader(archive), "moved")
		if err != nil || got.Inserted != 3 || got.Total != 3 || got.Import == "" {
			t.Fatalf("%+v %v", got, err)
		}
	}
	if !reflect.DeepEqual(r.letters, letters) {
		t.Errorf("imported %+v\nwant %+v", r.letters, letters)
	}
	if again := archiveOf(t, r.letters); again != archive {
		t.Errorf("exported again it is\n%s\nnot\n%s", again, archive)
	}
	t.Run("ReplayingElsewhereIsDeadHere", func(t *testing.T) {
		letters := someLetters(1)
		letters[0].State, letters[0].ReplayEvent = event.LetterReplaying, "01JZ0000000000000000000009"
		if got := arriving(letters[0]); got.State != event.LetterDead || got.ReplayEvent != "" {
			t.Errorf("%s %q", got.State, got.ReplayEvent)
		}
	})
	t.Run("NoneIsAnArchiveToo", func(t *testing.T) {
		before := r.imports
		got, err := clientOf(t, r).Import(t.Context(), strings.NewReader(archiveOf(t, nil)), "")
		if err != nil || got.Total != 0 || r.imports != before {
			t.Errorf("%+v %v", got, err)
		}
	})
}

func TestImportOfABrokenArchiveImportsNothing(t *testing.T) {
	whole := archiveOf(t, someLetters(3))
	lines := strings.SplitAfter(strings.TrimSuffix(whole, "\n"), "\n")
	tests := []struct {
		name, archive, want string
	}{
		{"Empty", "", "line 1: this is not an export"},
		{"OtherFile", `{"a":1}` + "\n", "line 1: this is not an export"},
		{"NewerVersion", strings.Replace(whole, `"version":1`, `"version":2`, 1), "line 1: the export has version 2"},
		{"ChangedOwner", strings.Replace(whole, `"user":"me"`, `"user":"eve"`, 1), "line 2: its hash does not fit"},
		{"ChangedSecond", lines[0] + lines[1] + strings.Replace(lines[2], `gave_up`, `gave_ip`, 1) + lines[3] + lines[4], "line 3: its hash does not fit"},
		{"LineLost", lines[0] + lines[1] + lines[3] + lines[4], "line 3: its hash does not fit"},
		{"LinesSwapped", lines[0] + lines[2] + lines[1] + lines[3] + lines[4], "line 2: its hash does not fit"},
		{"LineTwice", lines[0] + lines[1] + lines[1] + lines[2] + lines[3] + lines[4], "line 3: its hash does not fit"},
		{"NoTrailer", strings.Join(lines[:4], ""), "line 5: the file ends without its last line"},
		{"CutInALine", whole[:len(lines[0])+len(lines[1])+10], "line 3: it is cut short"},
		{"CutInTheTrailer", whole[:len(whole)-1], "line 5: it is cut short"},
		{"TrailerOfAnother", strings.Replace(whole, `"count":3`, `"count":4`, 1), "line 5: the last line tells of 4"},
		{"SomethingBehind", whole + "{}\n", "line 6: something stands behind"},
		{"Garbage", lines[0] + "garbage\n", "line 2: this is neither"},
		{"UnknownField", lines[0] + strings.Replace(lines[1], `{"letter"`, `{"more":1,"letter"`, 1), "line 2: this is neither"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			_, err := clientOf(t, r).Import(t.Context(), strings.NewReader(tt.archive), "")
			var p *Problem
			if !errors.As(err, &p) || p.Status != 400 || !strings.Contains(p.Text, tt.want) || !strings.Contains(p.Text, "nothing was imported") {
				t.Errorf("%v, want %s", err, tt.want)
			}
			if r.imports != 0 {
				t.Error("the store was asked")
			}
		})
	}
	t.Run("LetterThatCannotBe", func(t *testing.T) {
		for name, change := range map[string]func(*event.DeadLetter){
			"id": func(d *event.DeadLetter) { d.ID = "x" }, "fileId": func(d *event.DeadLetter) { d.FileID = "a.b" },
			"source": func(d *event.DeadLetter) { d.Source = "x" }, "origin": func(d *event.DeadLetter) { d.Origin = event.Replay },
			"class": func(d *event.DeadLetter) { d.Class = "" }, "state": func(d *event.DeadLetter) { d.State = "x" },
			"acceptedAt": func(d *event.DeadLetter) { d.AcceptedAt = time.Time{} },
		} {
			letters := someLetters(1)
			change(&letters[0])
			var out bytes.Buffer
			a, err := newArchiveWriter(&out)
			if err := errors.Join(err, a.add(letters[0]), a.close()); err != nil {
				t.Fatal(err)
			}
			r := newRig(t)
			if _, err := clientOf(t, r).Import(t.Context(), &out, ""); err == nil || !strings.Contains(err.Error(), "line 2: "+name) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
	t.Run("TooLarge", func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.ImportMost = 100 })
		_, err := clientOf(t, r).Import(t.Context(), strings.NewReader(whole), "")
		var p *Problem
		if !errors.As(err, &p) || p.Status != 413 {
			t.Error(err)
		}
	})
}

func TestExportThatBreaksOffIsNotTakenForWhole(t *testing.T) {
	r := newRig(t)
	r.letters, r.breakOff = someLetters(3), event.ErrOutage
	if n, err := clientOf(t, r).Export(t.Context(), event.Filter{}, io.Discard); err == nil || !strings.Contains(err.Error(), "broke off") {
		t.Errorf("%d %v", n, err)
	}
	_, err := clientOf(t, r).Export(t.Context(), event.Filter{IDs: []string{"nobody"}}, io.Discard)
	var p *Problem
	if !errors.As(err, &p) || p.Status != http.StatusNotFound || !strings.Contains(p.Text, "nobody") {
		t.Error(err)
	}
}
