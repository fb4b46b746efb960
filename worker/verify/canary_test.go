package verify

import (
	"errors"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"

	"context"
)

func TestCanary(t *testing.T) {
	canary := func(t *testing.T, a Answer) file.Canary {
		t.Helper()
		if a.Observation == nil || a.Observation.Present() {
			t.Fatalf("answer %+v, want an absence", a)
		}
		return a.Observation.Canary
	}
	t.Run("IsAFileThatAnsweredInTheSameLook", func(t *testing.T) {
		l := newLibrary(t, "there")
		v := verifier(t, l, newRows().live(epoch, "there", "missing"))
		got := canary(t, look(t, v, Ask{FileID: "there"}, Ask{FileID: "missing"})[1])
		if !slices.Equal(got.FileIDs, []string{"there"}) || got.EmptyLibrary {
			t.Errorf("canary %+v", got)
		}
		if n := len(l.calls("")); n != 2 {
			t.Errorf("%d calls, want 2", n)
		}
	})
	t.Run("OfAnAnnouncedOneIsAFileThatAnsweredAMomentAgo", func(t *testing.T) {
		l := newLibrary(t, "there")
		v := verifier(t, l, newRows().live(epoch, "there", "missing"))
		look(t, v, Ask{FileID: "there"})
		got := canary(t, look(t, v, Ask{FileID: "missing", Announced: true})[0])
		if !slices.Equal(got.FileIDs, []string{"there"}) || len(l.calls("")) != 2 {
			t.Errorf("canary %+v after %d calls", got, len(l.calls("")))
		}
	})
	t.Run("OfAFirstAbsenceAnsweredAfterTheLook", func(t *testing.T) {
		// What answered before says nothing of the account that denies the file now.
		l := newLibrary(t, "there", "missing")
		v := verifier(t, l, newRows().live(epoch, "there", "missing"))
		look(t, v, Ask{FileID: "there"})
		l.fail = func(w http.ResponseWriter, c call) bool {
			say(w, 404, "The requested file does not exist.")
			return true
		}
		if got := canary(t, look(t, v, Ask{FileID: "missing"})[0]); len(got.FileIDs) > 0 || got.EmptyLibrary {
			t.Errorf("canary %+v, want none", got)
		}
		l.fail = func(w http.ResponseWriter, c call) bool {
			lost := slices.Contains(c.ids, "missing")
			if lost {
				say(w, 404, "The requested file does not exist.")
			}
			return lost
		}
		if got := canary(t, look(t, v, Ask{FileID: "missing"})[0]); !slices.Equal(got.FileIDs, []string{"there"}) {
			t.Errorf("canary %+v, want the file that is there", got)
		}
	})
	t.Run("OfAnUnannouncedConfirmationAnsweredBeforeTheLookToo", func(t *testing.T) {
		// Another account's key denies the file, and ours is back when somebody asks whether
		// it is ours.
		l := newLibrary(t, "there", "missing")
		r := newRows().live(epoch, "there", "missing")
		r.known["missing"] = file.Known{Seen: true, Live: true, Suspect: true, SuspectFor: time.Minute}
		denied := false
		l.fail = func(w http.ResponseWriter, c call) bool {
			if denied {
				return false
			}
			denied = slices.Contains(c.ids, "missing")
			say(w, 404, "The requested file does not exist.")
			return true
		}
		if got := canary(t, look(t, verifier(t, l, r), Ask{FileID: "missing"})[0]); len(got.FileIDs) > 0 || got.EmptyLibrary {
			t.Errorf("canary %+v, want none", got)
		}
		if n := len(l.calls("details")); n != 3 {
			t.Errorf("%d look-ups, want a canary before, the file, and a canary after", n)
		}
	})
	t.Run("BeforeTheLookMayBeAsOldAsTheFirst404", func(t *testing.T) {
		l := newLibrary(t, "there")
		r := newRows().live(epoch, "there", "missing")
		v := verifier(t, l, r)
		look(t, v, Ask{FileID: "there"})
		r.known["missing"] = file.Known{Seen: true, Live: true, Suspect: true, SuspectFor: time.Minute}
		if got := canary(t, look(t, v, Ask{FileID: "missing"})[0]); !slices.Equal(got.FileIDs, []string{"there"}) {
			t.Errorf("canary %+v, want there", got)
		}
		if n := len(l.calls("details")); n != 3 {
			t.Errorf("%d look-ups, want there, the file, and there again", n)
		}
		r.known["missing"] = file.Known{Seen: true, Live: true, Suspect: true, SuspectFor: 1}
		look(t, v, Ask{FileID: "missing"})
		if n := len(l.calls("details")); n != 6 {
			t.Errorf("%d look-ups, want three more: what answered before the first 404 says nothing", n)
		}
	})
	t.Run("OfAnUnannouncedConfirmationIsAskedInTheSameLook", func(t *testing.T) {
		// Nominated by one lie about the file; the second 404 is another account's. What
		// answered between the two was ours.
		l := newLibrary(t, "there")
		r := newRows().live(epoch, "there", "missing")
		v := verifier(t, l, r)
		look(t, v, Ask{FileID: "there"})
		r.known["missing"] = file.Known{Seen: true, Live: true, Suspect: true}
		l.with(func() { clear(l.files) })
		if got := canary(t, look(t, v, Ask{FileID: "missing"})[0]); len(got.FileIDs) > 0 || got.EmptyLibrary {
			t.Errorf("canary %+v, want none", got)
		}
		if got := canary(t, look(t, v, Ask{FileID: "missing"}, Ask{FileID: "there"})[0]); len(got.FileIDs) > 0 {
			t.Errorf("canary %+v, want none", got)
		}
	})
	t.Run("IsAsOldAsItsQuestionNotAsItsAnswer", func(t *testing.T) {
		r := &recent{}
		r.saw("slow", time.Now().Add(-time.Minute))
		r.saw("quick", time.Now())
		if got := r.within(50*time.Second, 5, nil); !slices.Equal(got, []string{"quick"}) {
			t.Errorf("%v vouch; slow was asked a minute ago", got)
		}
		if got := r.within(0, 5, nil); len(got) != 2 {
			t.Errorf("%v have answered", got)
		}
	})
	t.Run("IsALiveRowAskedForThePurpose", func(t *testing.T) {
		l := newLibrary(t, "r3")
		v := verifier(t, l, newRows().live(epoch, "missing", "r1", "r2", "r3", "r4"))
		got := canary(t, look(t, v, Ask{FileID: "missing"})[0])
		if !slices.Equal(got.FileIDs, []string{"r3"}) || got.EmptyLibrary {
			t.Errorf("canary %+v", got)
		}
	})
	t.Run("NeverAFileThatIsItselfMissingOrAnnounced", func(t *testing.T) {
		l := newLibrary(t, "announced", "other")
		v := verifier(t, l, newRows().live(epoch, "announced", "missing", "other"))
		answers := look(t, v, Ask{FileID: "announced", Announced: true}, Ask{FileID: "missing"})
		if got := canary(t, answers[1]); !slices.Equal(got.FileIDs, []string{"other"}) {
			t.Errorf("canary %+v, want other alone", got)
		}
	})
	t.Run("AFileThatAnsweredAndIsNoRowDoesNotSuffice", func(t *testing.T) {
		l := newLibrary(t, "new", "row")
		v := verifier(t, l, newRows().live(epoch, "missing", "row"))
		got := canary(t, look(t, v, Ask{FileID: "new"}, Ask{FileID: "missing"})[1])
		if !slices.Contains(got.FileIDs, "row") {
			t.Errorf("canary %+v, want row in it", got)
		}
	})
	t.Run("NobodyVouchesWhenEverythingIsMissing", func(t *testing.T) {
		// A valid key of another account: every file answers 404, listings answer.
		l := newLibrary(t, "strangers")
		r := newRows().live(epoch, names("r", 20)...)
		got := canary(t, look(t, verifier(t, l, r), Ask{FileID: "r000", Announced: true})[0])
		if len(got.FileIDs) != 0 || got.EmptyLibrary {
			t.Errorf("canary %+v, want none", got)
		}
		if n := len(l.calls("details")); n != 6 {
			t.Errorf("%d look-ups, want the file and five live rows", n)
		}
	})
	t.Run("AListingStandsInWhereThereIsNoOtherRow", func(t *testing.T) {
		l := newLibrary(t)
		v := verifier(t, l, newRows().live(epoch, "last"))
		for range 2 {
			if got := canary(t, look(t, v, Ask{FileID: "last", Announced: true})[0]); len(got.FileIDs) != 0 || !got.EmptyLibrary {
				t.Errorf("canary %+v, want the empty library", got)
			}
		}
		if n := len(l.calls("list")); n != 1 {
			t.Errorf("%d listings, want one for both", n)
		}
	})
	t.Run("AListingThatFailsDoesNot", func(t *testing.T) {
		l := newLibrary(t)
		l.fail = func(w http.ResponseWriter, c call) bool {
			if c.endpoint == "list" {
				say(w, 200, map[string]any{})
			}
			return c.endpoint == "list"
		}
		if got := canary(t, look(t, verifier(t, l, newRows()), Ask{FileID: "x", Announced: true})[0]); got.EmptyLibrary {
			t.Errorf("canary %+v", got)
		}
	})
	t.Run("AnOutageOfTheRowsIsOne", func(t *testing.T) {
		l := newLibrary(t)
		v := verifier(t, l, newRows().live(epoch, "missing"), func(c *Config) {
			c.LiveFiles = func(context.Context, int, []string) ([]string, error) { return nil, event.ErrOutage }
		})
		if _, err := v.Look(t.Context(), []Ask{{FileID: "missing"}}); !errors.Is(err, event.ErrOutage) {
			t.Errorf("error %v, want the rows' outage", err)
		}
	})
	t.Run("ForgetsWhatIsMissingNow", func(t *testing.T) {
		l := newLibrary(t, "a", "b")
		v := verifier(t, l, newRows().live(epoch, "a", "b"))
		look(t, v, Ask{FileID: "a"}, Ask{FileID: "b"})
		l.with(func() { clear(l.files) })
		look(t, v, Ask{FileID: "a"})
		if got := canary(t, look(t, v, Ask{FileID: "b"})[0]); slices.Contains(got.FileIDs, "a") {
			t.Errorf("canary %+v: a answered 404 since", got)
		}
	})
}
