package store_test

import (
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/run"
)

func finding(id string, kind run.FindingKind) run.Finding {
	return run.Finding{FileID: id, Kind: kind, Status: run.Found}
}

func findings(kind run.FindingKind, ids ...string) []run.Finding {
	out := make([]run.Finding, len(ids))
	for i, id := range ids {
		out[i] = finding(id, kind)
	}
	return out
}

func fileIDs(all []run.Finding) []string {
	out := make([]string, len(all))
	for i, f := range all {
		out[i] = f.FileID
	}
	return out
}

func eventsOf(events []event.Event) (files, ids []string) {
	for _, e := range events {
		files, ids = append(files, e.FileID), append(ids, e.ID)
	}
	return files, ids
}

func (r *rig) save(it run.Run, all ...run.Finding) {
	r.Helper()
	r.must(r.st.SaveFindings(r.ctx, r.turn, it.ID, all))
}

func (r *rig) open(it run.Run, after string, limit int, kinds ...run.FindingKind) []string {
	r.Helper()
	got, err := r.st.OpenFindings(r.ctx, it.ID, kinds, after, limit)
	r.must(err)
	return fileIDs(got)
}

func (r *rig) takeFindings(it run.Run, limit int, kinds ...run.FindingKind) []event.Event {
	r.Helper()
	got, err := r.st.TakeFindings(r.ctx, r.turn, it.ID, kinds, limit)
	r.must(err)
	return got
}

func (r *rig) confirmFindings(it run.Run, events []event.Event) {
	r.Helper()
	_, ids := eventsOf(events)
	r.must(r.st.ConfirmFindings(r.ctx, r.turn, it.ID, ids))
}

func (r *rig) unsettled(it run.Run, want int64) {
	r.Helper()
	if n, err := r.st.Unsettled(r.ctx, it.ID); err != nil || n != want {
		r.Errorf("unsettled %d, %v; want %d", n, err, want)
	}
}

func TestSavedFindingsStayAsTheyWere(t *testing.T) {
	r := newRig(t)
	it := r.begin(run.Full)
	row, imagekit := "cat.jpg", "dog\x00.jpg"
	full := run.Finding{
		FileID: "f1", Kind: run.Drifted, Status: run.Skipped, Reason: run.ReasonNobody,
		Columns:  []run.Difference{{Column: "file_name", Row: &row, ImageKit: &imagekit}, {Column: "width", Row: nil, ImageKit: &row}},
		Evidence: []string{"listed with file_name dog.jpg", "a \x00 b"},
	}
	r.save(it, full, run.Finding{FileID: "f2", Kind: run.Unowned}, finding("f2", run.Missing))
	r.save(it, finding("f1", run.Missing), finding("f3", run.Missing))
	r.save(it)
	got, err := r.st.Findings(r.ctx, it.ID, run.FindingFilter{}, "", 10)
	r.must(err)
	if !slices.Equal(fileIDs(got), []string{"f1", "f2", "f3"}) {
		t.Fatalf("findings %+v", got)
	}
	// The first one of a file stands, with everything that was said.
	want, shown := full, "dog\uFFFD.jpg"
	want.Columns = []run.Difference{{Column: "file_name", Row: &row, ImageKit: &shown}, {Column: "width", ImageKit: &row}}
	want.Evidence = []string{full.Evidence[0], "a \uFFFD b"}
	want.FoundAt, want.ChangedAt = got[0].FoundAt, got[0].ChangedAt
	if !reflect.DeepEqual(got[0], want) || got[0].FoundAt.IsZero() {
		t.Errorf("finding %+v, want %+v", got[0], want)
	}
	if got[1].Kind != run.Unowned || got[1].Status != run.Found {
		t.Errorf("finding %+v", got[1])
	}
}

func TestListingFindings(t *testing.T) {
	r := newRig(t)
	_, err := r.st.Findings(r.ctx, "01NONE", run.FindingFilter{}, "", 5)
	wantErr(t, err, event.ErrUnknown)
	it := r.begin(run.Full)
	r.save(it, findings(run.Missing, "Z", "a", "-", "_", "B")...)
	r.save(it, findings(run.Orphaned, "b", "A")...)
	r.exec(`UPDATE trueup.findings SET status = 'repaired' WHERE file_id IN ('Z', 'b')`)
	for _, c := range []struct {
		f     run.FindingFilter
		after string
		limit int
		want  []string
	}{
		{run.FindingFilter{}, "", 10, []string{"-", "A", "B", "Z", "_", "a", "b"}}, // the order of the bytes
		{run.FindingFilter{}, "", 2, []string{"-", "A"}},
		{run.FindingFilter{}, "A", 3, []string{"B", "Z", "_"}},
		{run.FindingFilter{Kind: run.Orphaned}, "", 10, []string{"A", "b"}},
		{run.FindingFilter{Status: run.Repaired}, "", 10, []string{"Z", "b"}},
		{run.FindingFilter{Kind: run.Missing, Status: run.Found}, "B", 10, []string{"_", "a"}},
		{run.FindingFilter{Kind: run.Drifted}, "", 10, []string{}},
	} {
		got, err := r.st.Findings(r.ctx, it.ID, c.f, c.after, c.limit)
		if err != nil || !slices.Equal(fileIDs(got), c.want) {
			t.Errorf("%+v after %q: %v, %v; want %v", c.f, c.after, fileIDs(got), err, c.want)
		}
	}
}

func TestOpenFindings(t *testing.T) {
	r := newRig(t)
	it := r.begin(run.Full)
	r.save(it, findings(run.Missing, "Z", "a", "m", "x")...)
	r.save(it, findings(run.Drifted, "B", "_")...)
	r.save(it, findings(run.Orphaned, "A")...)
	r.save(it, run.Finding{FileID: "skipped", Kind: run.Missing, Status: run.Skipped})
	r.exec(`UPDATE trueup.findings SET event_id = 'E' WHERE file_id = 'm'`)
	both := []run.FindingKind{run.Missing, run.Drifted}
	for _, c := range []struct {
		after string
		limit int
		kinds []run.FindingKind
		want  []string
	}{
		{"", 10, both, []string{"B", "Z", "_", "a", "x"}},
		{"", 2, both, []string{"B", "Z"}},
		{"Z", 2, both, []string{"_", "a"}},
		{"x", 2, both, []string{}},
		{"", 10, []run.FindingKind{run.Orphaned}, []string{"A"}},
		{"", 10, nil, []string{}},
	} {
		if got := r.open(it, c.after, c.limit, c.kinds...); !slices.Equal(got, c.want) {
			t.Errorf("%v after %q: %v, want %v", c.kinds, c.after, got, c.want)
		}
	}
}

func TestClosingFindings(t *testing.T) {
	r := newRig(t)
	it := r.begin(run.Full)
	r.save(it, findings(run.Orphaned, "f1", "f2", "f3")...)
	r.save(it, findings(run.Missing, "f4")...)
	r.save(it, run.Finding{FileID: "f5", Kind: run.Orphaned, Status: run.Skipped, Reason: run.ReasonMoved})
	r.exec(`UPDATE trueup.findings SET event_id = 'E' WHERE file_id = 'f2'`)
	n, err := r.st.CloseFindings(r.ctx, r.turn, it.ID, []run.FindingKind{run.Orphaned}, run.Refused, run.ReasonFuse)
	if err != nil || n != 2 {
		t.Errorf("closed %d, %v", n, err)
	}
	again, err := r.st.CloseFindings(r.ctx, r.turn, it.ID, []run.FindingKind{run.Orphaned}, run.Skipped, "x")
	if err != nil || again != 0 {
		t.Errorf("closed again %d, %v", again, err)
	}
	r.want("findings", `SELECT string_agg(file_id || ':' || status || ':' || reason, ' ' ORDER BY file_id) FROM trueup.findings`,
		"f1:refused:fuse_latched f2:found: f3:refused:fuse_latched f4:found: f5:skipped:changed_since")
	r.exec(`INSERT INTO trueup.findings (run_id, file_id, kind) SELECT $1, 'x' || i, 'missing' FROM generate_series(1, 20000) i`, it.ID)
	if n, err := r.st.CloseFindings(r.ctx, r.turn, it.ID, []run.FindingKind{run.Missing, run.Drifted}, run.Refused, run.ReasonNotJudged); err != nil || n != 20_001 {
		t.Errorf("closed %d of more than one slice, %v", n, err)
	}
}

func TestAFindingIsAskedAboutUnderOneEventOnly(t *testing.T) {
	r := newRig(t)
	it := r.begin(run.Full)
	r.save(it, findings(run.Missing, "f1", "f3", "f5")...)
	r.save(it, findings(run.Orphaned, "f2", "f4")...)
	first := r.takeFindings(it, 2, run.Missing)
	files, ids := eventsOf(first)
	if !slices.Equal(files, []string{"f1", "f3"}) || len(ids[0]) != 26 || ids[0] == ids[1] {
		t.Fatalf("took %+v", first)
	}
	e := first[0]
	if e.Source != event.Reconcile || e.Origin != event.Reconcile || e.Kind != event.KindRecheck || e.User != "" || e.AcceptedAt.IsZero() || e.Signed() {
		t.Errorf("event %+v", e)
	}
	// The process ended before it could publish, or before it could say so.
	again := r.takeFindings(it, 5, run.Missing)
	if !reflect.DeepEqual(again, first) {
		t.Fatalf("unconfirmed ones do not come again: %+v, then %+v", first, again)
	}
	r.unsettled(it, 2)
	r.confirmFindings(it, first[:1])
	if rest := r.takeFindings(it, 5, run.Missing); !reflect.DeepEqual(rest, first[1:]) {
		t.Fatalf("took %+v", rest)
	}
	r.confirmFindings(it, first)
	r.confirmFindings(it, nil)
	last := r.takeFindings(it, 5, run.Missing)
	if files, _ := eventsOf(last); !slices.Equal(files, []string{"f5"}) {
		t.Fatalf("took %+v", last)
	}
	// Taken as missing, and still handed over while orphans are being taken.
	if got := r.takeFindings(it, 5, run.Orphaned); !reflect.DeepEqual(got, last) {
		t.Errorf("took %+v", got)
	}
	r.confirmFindings(it, last)
	if got := r.takeFindings(it, 5, run.Missing); len(got) != 0 {
		t.Errorf("took %+v", got)
	}
	r.unsettled(it, 3)
	r.exec(`UPDATE trueup.findings SET status = 'repaired', ended_at = now() WHERE file_id = 'f1'`)
	r.unsettled(it, 2)
	if got := r.run(it.ID); got.Unsettled != 2 {
		t.Errorf("run %+v", got)
	}
	if got := r.open(it, "", 5, run.Missing, run.Orphaned); !slices.Equal(got, []string{"f2", "f4"}) {
		t.Errorf("open %v", got)
	}
}

// One event of a run that was settled before the run could say that it was published.
func TestAFindingWhoseEventWasQuickerThanItsConfirmation(t *testing.T) {
	r := newRig(t)
	it := r.begin(run.Full)
	r.save(it, findings(run.Missing, "f1", "f2")...)
	taken := r.takeFindings(it, 1, run.Missing)
	r.exec(`UPDATE trueup.findings SET status = 'repaired', ended_at = now() WHERE file_id = 'f1'`)
	next := r.takeFindings(it, 1, run.Missing)
	if files, _ := eventsOf(next); !slices.Equal(files, []string{"f2"}) {
		t.Errorf("took %+v after %+v", next, taken)
	}
}

func TestTakingAtOnceCutsNoSliceTwice(t *testing.T) {
	r := newRig(t)
	it := r.begin(run.Full)
	r.exec(`INSERT INTO trueup.findings (run_id, file_id, kind) SELECT $1, 'x' || i, 'missing' FROM generate_series(1, 200) i`, it.ID)
	var wait sync.WaitGroup
	var mu sync.Mutex
	asked := map[string]string{}
	for range 4 {
		wait.Go(func() {
			for {
				events, err := r.st.TakeFindings(r.ctx, r.turn, it.ID, []run.FindingKind{run.Missing}, 7)
				if err != nil {
					t.Error(err)
				}
				if err != nil || len(events) == 0 {
					return
				}
				mu.Lock()
				for _, e := range events {
					if was := asked[e.FileID]; was != "" && was != e.ID {
						t.Errorf("%s is asked about as %s and %s", e.FileID, was, e.ID)
					}
					asked[e.FileID] = e.ID
				}
				mu.Unlock()
				_, ids := eventsOf(events)
				if err := r.st.ConfirmFindings(r.ctx, r.turn, it.ID, ids); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	if len(asked) != 200 {
		t.Errorf("asked about %d", len(asked))
	}
	r.unsettled(it, 200)
}

func TestThePassportTellsWhatRunsFound(t *testing.T) {
	r := newRig(t)
	var ids []string
	for i := range 52 {
		it := r.begin(run.Full)
		r.save(it, run.Finding{FileID: "f1", Kind: run.Drifted, Status: run.Repaired, Evidence: []string{fmt.Sprint("run ", i)}}, finding("f2", run.Missing))
		ids = append(ids, it.ID)
		r.exec(`UPDATE trueup.runs SET state = 'complete'`)
	}
	got, err := r.st.Passport(r.ctx, "f1")
	r.must(err)
	if len(got.Findings) != 50 || got.Findings[49].Run != ids[51] || got.Findings[0].Run != ids[2] || got.Findings[49].Evidence[0] != "run 51" || got.Findings[0].FileID != "f1" {
		t.Errorf("findings %+v", got.Findings)
	}
	none, err := r.st.Passport(r.ctx, "nobody")
	if err != nil || len(none.Findings) != 0 {
		t.Errorf("findings %+v, %v", none.Findings, err)
	}
}
