package reconcile

import (
	"context"
	"fmt"
	"strings"

	"github.com/trueup/trueup/internal/run"
)

// brake judges the brakes once, before the first candidate of this run counts for
// anything, and latches the fuse where they say so. A plan only says what they would do.
// An operator who has named the number of candidates has judged them.
func (w *work) brake(ctx context.Context) error {
	var why []string
	if w.run.ExpectedDeletions == nil {
		b, err := w.braking(ctx)
		if err != nil {
			return err
		}
		why = brakes(b)
	}
	w.run.Fuse = strings.Join(why, "; ")
	if w.planning() {
		return w.finish(ctx, run.Planned, "")
	}
	if len(why) > 0 {
		if err := w.latch(ctx, w.run.Fuse); err != nil {
			return err
		}
	}
	return w.enter(ctx, run.PhaseRepair)
}

func (w *work) braking(ctx context.Context) (braking, error) {
	_, last, err := w.runs.LastRuns(ctx)
	if err != nil {
		return braking{}, err
	}
	latched, today, _, err := w.Brakes.Fuse(ctx)
	if err != nil {
		return braking{}, err
	}
	w.Metrics.latched(latched)
	w.Metrics.completed(last)
	if latched {
		w.noteOnce("the fuse was latched before: whatever the listing does not show stays")
	}
	b := braking{Listed: w.run.Listed, Rows: w.run.Rows, Whole: w.run.Whole, Refused: w.mark.Refused, Candidates: w.run.Candidates, Today: today}
	if last.ID != w.run.ID {
		b.LastListed = last.Listed
	}
	if !b.Whole {
		b.Broken = w.whyIncomplete()
	}
	return b, nil
}

// braking is what the brakes are judged by, once a run has compared everything.
type braking struct {
	Listed int64 // files in the listing
	Rows   int64 // live rows
	Whole  bool
	// Broken says in a sentence why the listing is not whole.
	Broken string
	// Refused: ImageKit answered 401 or 403.
	Refused bool
	// LastListed is what the last complete run listed; zero when there was none.
	LastListed int64
	Candidates int64
	// Today is how many candidates the last day had without these.
	Today int64
}

// brakes says in sentences why the fuse has to be latched; none when it has not.
func brakes(b braking) []string {
	var why []string
	if b.Refused {
		why = append(why, "ImageKit refused the private key while its listing was read")
	}
	if !b.Whole {
		why = append(why, "the listing is incomplete: "+b.Broken)
	}
	if b.Listed == 0 && b.Rows > 0 {
		why = append(why, fmt.Sprintf("the listing is empty, and %d rows exist", b.Rows))
	}
	if b.Listed*10 < b.LastListed*9 {
		why = append(why, fmt.Sprintf("the listing has %d files, fewer than 90 %% of the %d of the last complete run", b.Listed, b.LastListed))
	}
	if tooMany(b.Candidates, b.Rows, 1) {
		why = append(why, fmt.Sprintf("%d of %d rows are candidates for deletion, more than 10 and more than 1 %%", b.Candidates, b.Rows))
	}
	if day := b.Today + b.Candidates; b.Candidates > 0 && tooMany(day, b.Rows, 5) {
		why = append(why, fmt.Sprintf("with this run's, %d of %d rows were candidates for deletion within a day, more than 10 and more than 5 %%", day, b.Rows))
	}
	return why
}

// tooMany reports whether n is more than max(10, percent of rows).
func tooMany(n, rows, percent int64) bool { return n > 10 && n*100 > rows*percent }
