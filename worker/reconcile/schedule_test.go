package reconcile

import (
	"slices"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/run"
)

func TestScheduleDue(t *testing.T) {
	began := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	now := began.Add(5 * time.Hour)
	last := run.Run{ID: "R", StartedAt: began}
	long := last
	long.FinishedAt = began.Add(3 * time.Hour)
	for name, c := range map[string]struct {
		last   run.Run
		jitter float64
		want   time.Time
	}{
		"NeverBefore": {run.Run{}, 0.5, now},
		"Earliest":    {last, 0, began.Add(54 * time.Minute)},
		"Middle":      {last, 0.5, began.Add(time.Hour)},
		"Latest":      {last, 1, began.Add(66 * time.Minute)},
		"TookLonger":  {long, 0.5, began.Add(3*time.Hour + 6*time.Minute)},
	} {
		t.Run(name, func(t *testing.T) {
			if got := due(c.last, time.Hour, c.jitter, now); !got.Equal(c.want) {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

func TestNotes(t *testing.T) {
	var n []string
	for _, c := range []struct {
		what  string
		times int
	}{{"a page came twice", 1}, {"a page was cut", 3}, {"a page came twice", 2}, {"a page was cut", 1}, {"a page", 1}, {"nothing", 0}} {
		n = noted(n, c.what, c.times)
	}
	if want := []string{"a page came twice (2×)", "a page was cut", "a page"}; !slices.Equal(n, want) {
		t.Errorf("%q, want %q", n, want)
	}
	w := &work{}
	for range 12 {
		w.note("it went on after page %d (of 9)", 5)
	}
	w.noteOnce("once")
	w.noteOnce("once")
	if want := []string{"it went on after page 5 (of 9) (12×)", "once"}; !slices.Equal(w.run.Notes, want) {
		t.Errorf("%q, want %q", w.run.Notes, want)
	}
}
