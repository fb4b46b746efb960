package verify

import (
	"errors"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
)

func countHow(answers []Answer) map[file.How]int {
	n := map[file.How]int{}
	for _, a := range answers {
		if a.Observation != nil && a.Observation.Present() {
			n[a.Observation.How]++
		}
	}
	return n
}

func TestSearch(t *testing.T) {
	t.Run("AnswersABacklogInChunksOf50", func(t *testing.T) {
		ids := names("f", 120)
		l := newLibrary(t, ids...)
		r := newRows()
		got := look(t, verifier(t, l, r), asksFor(ids)...)
		if n := countHow(got); n[file.Hit] != 120 {
			t.Errorf("seen %v, want 120 hits", n)
		}
		if len(l.calls("search")) != 3 || len(l.calls("details")) != 0 || r.last != 1 {
			t.Errorf("%d searches, %d look-ups, %d fences", len(l.calls("search")), len(l.calls("details")), r.last)
		}
		for i, a := range got {
			if a.Observation.FileID != ids[i] || a.Observation.Fence.Number != 1 {
				t.Fatalf("answer %d: %+v", i, a.Observation)
			}
		}
	})
	t.Run("DoesNotPayForFew", func(t *testing.T) {
		ids := names("f", 4)
		l := newLibrary(t, ids...)
		look(t, verifier(t, l, newRows()), asksFor(ids)...)
		if len(l.calls("search")) != 0 || len(l.calls("details")) != 4 {
			t.Errorf("calls %v", l.calls(""))
		}
	})
	t.Run("LooksUpWhatItDoesNotShowWithAFreshFence", func(t *testing.T) {
		ids := names("f", 20)
		l := newLibrary(t, ids[:15]...) // the last five are missing altogether
		for _, id := range ids[:5] {
			l.lag[id] = true // there, and not yet in the index
		}
		got := look(t, verifier(t, l, newRows()), asksFor(ids)...)
		for i, a := range got {
			o := a.Observation
			wantHow, wantFence, wantPresent := file.Hit, int64(1), true
			if i < 5 || i >= 15 {
				wantHow, wantFence, wantPresent = file.LookUp, 2, i < 5
			}
			if o.How != wantHow || o.Fence.Number != wantFence || o.Present() != wantPresent {
				t.Errorf("%s: %s with fence %d, present %v", o.FileID, o.How, o.Fence.Number, o.Present())
			}
		}
	})
	t.Run("DoesNotBelieveStaleHits", func(t *testing.T) {
		ids := names("f", 8)
		l := newLibrary(t, ids...)
		webhook := func(a *Ask) { a.UpdatedAt = epoch.Add(time.Hour) }
		got := look(t, verifier(t, l, newRows().live(epoch, ids...)), asksFor(ids, webhook)...)
		if n := countHow(got); n[file.LookUp] != 8 {
			t.Errorf("seen %v, want 8 look-ups", n)
		}
		if len(l.calls("search")) != 1 {
			t.Errorf("%d searches, want 1", len(l.calls("search")))
		}
	})
	t.Run("AnswersWebhooksAtTheirTime", func(t *testing.T) {
		ids := names("f", 8)
		l := newLibrary(t, ids...)
		webhook := func(a *Ask) { a.UpdatedAt = epoch }
		got := look(t, verifier(t, l, newRows().live(epoch, ids...)), asksFor(ids, webhook)...)
		if n := countHow(got); n[file.Hit] != 8 || len(l.calls("details")) != 0 {
			t.Errorf("seen %v with %d look-ups, want 8 hits", n, len(l.calls("details")))
		}
	})
	t.Run("IsNeverUsedForTombstones", func(t *testing.T) {
		ids := names("f", 8)
		l := newLibrary(t, ids...)
		r := newRows()
		for _, id := range ids {
			r.known[id] = file.Known{Seen: true, Gone: true}
		}
		look(t, verifier(t, l, r), asksFor(ids)...)
		if len(l.calls("search")) != 0 || len(l.calls("details")) != 8 {
			t.Errorf("calls %v", l.calls(""))
		}
	})
}

func TestSearchThatIsRefused(t *testing.T) {
	t.Run("HalvesUntilItFits", func(t *testing.T) {
		for _, status := range []int{http.StatusBadRequest, http.StatusRequestURITooLong} {
			ids := names("f", 50)
			l := newLibrary(t, ids...)
			l.fail = func(w http.ResponseWriter, c call) bool {
				if c.endpoint == "search" && len(c.ids) > 13 {
					say(w, status, "too long")
					return true
				}
				return false
			}
			v := verifier(t, l, newRows())
			if n := countHow(look(t, v, asksFor(ids)...)); n[file.Hit] != 50 {
				t.Errorf("seen %v, want 50 hits", n)
			}
			before := len(l.calls("search"))
			look(t, v, asksFor(ids)...)
			for _, c := range l.calls("search")[before:] {
				if len(c.ids) > 13 {
					t.Errorf("asked for %d at once after %d was learned", len(c.ids), 13)
				}
			}
			if n := len(l.calls("details")); n != 0 {
				t.Errorf("%d look-ups, want none", n)
			}
		}
	})
	t.Run("OneOddIDDoesNotSwitchItOff", func(t *testing.T) {
		ids := names("f", 50)
		l := newLibrary(t, ids...)
		l.fail = func(w http.ResponseWriter, c call) bool {
			if c.endpoint == "search" && slices.Contains(c.ids, "f007") {
				say(w, 400, "odd id")
				return true
			}
			return false
		}
		v := verifier(t, l, newRows())
		if n := countHow(look(t, v, asksFor(ids)...)); n[file.Hit] != 49 || n[file.LookUp] != 1 {
			t.Errorf("seen %v, want 49 hits and one look-up", n)
		}
		if !v.search.on() || v.search.chunk(50) != 50 {
			t.Errorf("search on: %v, chunk %d", v.search.on(), v.search.chunk(50))
		}
	})
	t.Run("FallsBackWhereItIsNotUnderstood", func(t *testing.T) {
		ids := names("f", 120)
		l := newLibrary(t, ids...)
		l.idSearch = false
		v := verifier(t, l, newRows())
		for range 2 {
			if n := countHow(look(t, v, asksFor(ids)...)); n[file.LookUp] != 120 {
				t.Errorf("seen %v, want 120 look-ups", n)
			}
		}
		// Three chunks were under way at most when the probe said so; never again.
		if n := len(l.calls("search")); n > 4 {
			t.Errorf("%d searches, want at most 4", n)
		}
	})
	t.Run("IsProbedAtStart", func(t *testing.T) {
		ids := names("f", 10)
		l := newLibrary(t, ids...)
		l.idSearch = false
		v := verifier(t, l, newRows())
		if on, err := v.ProbeSearch(t.Context()); on || err != nil {
			t.Fatalf("ProbeSearch: %v, %v", on, err)
		}
		look(t, v, asksFor(ids)...)
		if n := len(l.calls("search")); n != 1 {
			t.Errorf("%d searches, want the probe alone", n)
		}
		l.with(func() { l.idSearch = true })
		if on, err := v.ProbeSearch(t.Context()); !on || err != nil {
			t.Fatalf("ProbeSearch: %v, %v", on, err)
		}
		if n := countHow(look(t, v, asksFor(ids)...)); n[file.Hit] != 10 {
			t.Errorf("seen %v, want 10 hits", n)
		}
	})
	t.Run("ThatFailsProvesNothing", func(t *testing.T) {
		for _, answer := range []func(http.ResponseWriter){
			func(w http.ResponseWriter) { say(w, 503, "x") },
			func(w http.ResponseWriter) { say(w, 403, "x") },
			func(w http.ResponseWriter) { say(w, 200, map[string]any{}) },
			func(w http.ResponseWriter) { say(w, 200, []any{}) },
			func(w http.ResponseWriter) { say(w, 200, []any{1, "x", nil, map[string]any{"type": "file"}}) },
			func(w http.ResponseWriter) { say(w, 200, []any{object("stranger", epoch)}) },
			func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
		} {
			ids := names("f", 10)
			l := newLibrary(t, ids...)
			l.fail = func(w http.ResponseWriter, c call) bool {
				if c.endpoint == "search" {
					answer(w)
				}
				return c.endpoint == "search"
			}
			if n := countHow(look(t, verifier(t, l, newRows()), asksFor(ids)...)); n[file.LookUp] != 10 {
				t.Errorf("seen %v, want 10 look-ups", n)
			}
		}
	})
}

func TestTheWholeLibraryGoesAwayInTheMiddle(t *testing.T) {
	ids := names("f", 60)
	l := newLibrary(t, ids...)
	l.fail = func(w http.ResponseWriter, c call) bool {
		if c.nth >= 20 {
			say(w, 503, "away")
		}
		return c.nth >= 20
	}
	v := verifier(t, l, newRows())
	answers, err := v.Look(t.Context(), asksFor(ids, byID))
	if !errors.Is(err, ErrLibraryOutage) || answers != nil {
		t.Fatalf("%d answers, error %v, want an outage", len(answers), err)
	}
	l.with(func() { l.fail = nil })
	if n := countHow(look(t, v, asksFor(ids, byID)...)); n[file.LookUp] != 60 {
		t.Errorf("seen %v afterwards, want 60", n)
	}
}

// TestTheRowsGoAwayInTheMiddle: the second fence cannot be drawn.
func TestTheRowsGoAwayInTheMiddle(t *testing.T) {
	ids := names("f", 10)
	l := newLibrary(t, ids...)
	r := newRows()
	l.fail = func(_ http.ResponseWriter, c call) bool {
		if c.endpoint == "search" {
			r.mu.Lock()
			r.err = event.ErrOutage
			r.mu.Unlock()
			l.lag["f003"] = true
		}
		return false
	}
	answers, err := verifier(t, l, r).Look(t.Context(), asksFor(ids))
	if !errors.Is(err, event.ErrOutage) || answers != nil {
		t.Errorf("answers %v, error %v, want the rows' outage", answers, err)
	}
	if n := len(l.calls("details")); n != 0 {
		t.Errorf("%d look-ups without a fence", n)
	}
}

// TestEveryFifthAnswerFails: with one answer in five an error, every file still
// gets its answer and nothing is taken for an outage.
func TestEveryFifthAnswerFails(t *testing.T) {
	ids := names("f", 200)
	l := newLibrary(t, ids...)
	failed := 0
	l.fail = func(w http.ResponseWriter, c call) bool {
		if c.nth%5 == 4 {
			failed++
			say(w, 500+c.nth%2*3, "x")
		}
		return c.nth%5 == 4
	}
	got := look(t, verifier(t, l, newRows()), asksFor(ids, byID)...)
	if n := countHow(got); n[file.LookUp] < 180 {
		t.Errorf("seen %v of 200", n)
	}
	if failed < 40 {
		t.Errorf("only %d faults fired", failed)
	}
}
