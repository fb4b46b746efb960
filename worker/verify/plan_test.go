package verify

import (
	"reflect"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/file"
)

// TestHitsAnswerOnlyWhatTheyMay is rules 4 and 6 of the order rule as a table.
func TestHitsAnswerOnlyWhatTheyMay(t *testing.T) {
	at := func(s int) time.Time { return epoch.Add(time.Duration(s) * time.Second) }
	never := file.Known{}
	live := file.Known{Seen: true, Live: true, High: at(10)}
	adopted := file.Known{Live: true}
	gone := file.Known{Seen: true, Gone: true, High: at(10)}
	suspect := file.Known{Seen: true, Live: true, Suspect: true, High: at(10)}
	lost := file.Known{Seen: true, High: at(10)}
	report := Ask{NewsOnly: true}
	bare := Ask{}
	webhook := func(s int) Ask { return Ask{UpdatedAt: at(s)} }
	both := Ask{NewsOnly: true, UpdatedAt: at(5)}
	deleted := Ask{UpdatedAt: at(5), Announced: true}

	tests := []struct {
		name    string
		ask     Ask
		known   file.Known
		search  bool
		hit     int
		answers bool
	}{
		{"ReportOnANewFile", report, never, true, 1, true},
		{"ReportOnALiveFileGoesByID", report, live, false, 20, true},
		{"ReportOnALiveFileIsNotAnsweredByOldNews", report, live, false, 10, false},
		{"ReportOnAnAdoptedRow", report, adopted, false, 1, true},
		{"WebhookOnANewFile", webhook(5), never, true, 1, true},
		{"WebhookIsAnsweredAtItsTime", webhook(5), live, true, 5, true},
		{"WebhookIsAnsweredLater", webhook(5), live, true, 7, true},
		{"WebhookIsNotAnsweredBefore", webhook(5), live, true, 4, false},
		{"WebhookIsNotAnsweredByALaggingIndex", webhook(20), live, true, 10, false},
		{"WebhookIsAnsweredByNewsBefore", webhook(20), live, true, 11, true},
		{"WebhookWithoutTimeIsLikeAReport", bare, live, false, 10, false},
		{"WebhookWithoutTimeOnANewFile", bare, never, true, 1, true},
		{"ReportAndWebhookNeedNews", both, live, false, 7, false},
		{"TombstoneGoesByID", webhook(5), gone, false, 20, false},
		{"SuspectGoesByID", webhook(5), suspect, false, 20, true},
		{"MissingRowGoesByID", webhook(5), lost, false, 4, false},
		{"AnnouncedDeletionGoesByID", deleted, never, false, 1, true},
		{"AnyHitOnAMissingRow", Ask{AnyHit: true}, lost, true, 4, true},
		{"AnyHitOnALiveFile", Ask{AnyHit: true}, live, true, 10, true},
		{"AnyHitLiftsNoTombstone", Ask{AnyHit: true}, gone, false, 20, false},
		{"AnyHitOnASuspectGoesByID", Ask{AnyHit: true}, suspect, false, 20, true},
		{"ByIDIsByID", Ask{ByID: true, UpdatedAt: at(5)}, never, false, 1, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := searchable(tt.ask, tt.known); got != tt.search {
				t.Errorf("searchable: %v, want %v", got, tt.search)
			}
			if got := hitAnswers(tt.ask, tt.known, file.Snapshot{UpdatedAt: at(tt.hit)}); got != tt.answers {
				t.Errorf("hitAnswers: %v, want %v", got, tt.answers)
			}
		})
	}
}

func TestMergeIsAsStrictAsTheStrictest(t *testing.T) {
	later := epoch.Add(time.Second)
	merged, at := merge([]Ask{
		{FileID: "a", Priority: Run, UpdatedAt: later},
		{FileID: "b", Priority: 99},
		{FileID: "a", Priority: Live, UpdatedAt: epoch},
		{FileID: "c", UpdatedAt: epoch, AnyHit: true},
		{FileID: "c", Announced: true, ByID: true},
	})
	want := []Ask{
		{FileID: "a", Priority: Live, UpdatedAt: later},
		{FileID: "b", Priority: Run},
		{FileID: "c", UpdatedAt: epoch, NewsOnly: true, Announced: true, ByID: true},
	}
	if !reflect.DeepEqual(merged, want) {
		t.Errorf("merged %+v, want %+v", merged, want)
	}
	if !reflect.DeepEqual(at, []int{0, 1, 0, 2, 2}) {
		t.Errorf("at %v", at)
	}
}

func TestDecide(t *testing.T) {
	seen := &file.Snapshot{}
	fault := func(k file.FaultKind) Answer { return Answer{Fault: &file.Fault{Kind: k}} }
	tests := []struct {
		answer  Answer
		verdict Verdict
		reason  string
	}{
		{Answer{Observation: &file.Observation{How: file.LookUp, Snapshot: seen, Status: 200}}, Present, "look-up"},
		{Answer{Observation: &file.Observation{How: file.Hit, Snapshot: seen, Status: 200}}, Present, "hit"},
		{Answer{Observation: &file.Observation{How: file.LookUp, Status: 404}}, Absent, "not_found"},
		{Answer{Observation: &file.Observation{How: file.LookUp, Status: 400}}, Absent, "invalid_id"},
		{Answer{Observation: &file.Observation{How: file.LookUp}}, Absent, "invalid_id"},
		{fault(file.BadRequest), Refused, "bad_request"},
		{fault(file.Unavailable), Undecided, "unavailable"},
		{fault(file.Forbidden), Undecided, "forbidden"},
		{Answer{}, Undecided, "not_asked"},
	}
	for _, tt := range tests {
		if verdict, reason := Decide(tt.answer); verdict != tt.verdict || reason != tt.reason {
			t.Errorf("%+v: %s, %s, want %s, %s", tt.answer, verdict, reason, tt.verdict, tt.reason)
		}
	}
}
