package reconcile

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/run"
)

// publish makes events of the open findings of these kinds, slice by slice: event ids are
// drawn in the rows, the events published, and that confirmed in the rows. What was drawn
// and not confirmed comes first and again under the same ids, which settle once. It stops
// where the events published before do not settle.
func (w *work) publish(ctx context.Context, kinds []run.FindingKind) error {
	since, least := w.Now(), int64(-1)
	for {
		n, err := w.rows.Unsettled(ctx, w.run.ID)
		if err != nil {
			return err
		}
		if w.run.Unsettled = n; least < 0 || n < least {
			since, least = w.Now(), n
		}
		slice := w.eventSlice()
		room := min(int64(w.Ahead)-n, slice)
		// A slice is worth its transactions: a handful of free places waits for more.
		if room < slice/4+1 {
			if w.Now().Sub(since) >= w.SettleFor {
				return w.conclude(ctx)
			}
			if err := w.look(ctx, fmt.Sprintf("%d of its events are published and not settled yet", n)); err != nil {
				return err
			}
			continue
		}
		if err := w.refuseOrphans(ctx); err != nil {
			return err
		}
		events, err := w.rows.TakeFindings(ctx, w.turn, w.run.ID, kinds, int(room))
		if err != nil || len(events) == 0 {
			return err
		}
		if err := w.send(ctx, events); err != nil {
			return err
		}
		since, least = w.Now(), -1
		if err := w.tell(ctx); err != nil {
			return err
		}
	}
}

// eventSlice is how many events are drawn at once: one envelope at most, and so few that
// those drawn and not published never fill all that may be unsettled.
func (w *work) eventSlice() int64 { return int64(max(1, min(256, w.Ahead/2))) }

// refuseOrphans closes the orphans that have no event yet when the fuse is latched, by
// this run or by anybody, now or before.
func (w *work) refuseOrphans(ctx context.Context) error {
	latched, _, _, err := w.Brakes.Fuse(ctx)
	if err != nil {
		return err
	}
	if w.Metrics.latched(latched); !latched {
		return nil
	}
	_, err = w.rows.CloseFindings(ctx, w.turn, w.run.ID, []run.FindingKind{run.Orphaned}, run.Refused, run.ReasonFuse)
	return err
}

// send publishes and confirms, in halves where the queue says that it is too much for
// one message.
func (w *work) send(ctx context.Context, events []event.Event) error {
	err := w.Queue.Publish(ctx, events)
	if errors.Is(err, event.ErrTooLarge) && len(events) > 1 {
		half := len(events) / 2
		if err := w.send(ctx, events[:half]); err != nil {
			return err
		}
		return w.send(ctx, events[half:])
	}
	if err != nil {
		return fmt.Errorf("publish %d events from %s on: %w", len(events), events[0].ID, err)
	}
	ids := make([]string, len(events))
	for i, e := range events {
		ids[i] = e.ID
	}
	if err := w.rows.ConfirmFindings(ctx, w.turn, w.run.ID, ids); err != nil {
		return err
	}
	w.moved()
	return nil
}

// look waits a moment for events to settle, and says so when that lasts.
func (w *work) look(ctx context.Context, why string) error {
	woken := w.pause(ctx, w.Look)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	w.progress = w.Now() // it is not held up, it waits
	if !woken && w.Now().Sub(w.saved) < w.SaveEvery {
		return nil // when woken, an operator may have cancelled the run, or watches it
	}
	w.run.Waiting = why
	return w.save(ctx)
}

// settle waits for the events that are published, and stores how the run ended.
func (w *work) settle(ctx context.Context) error {
	for since := w.Now(); w.Now().Sub(since) < w.SettleFor; {
		n, err := w.rows.Unsettled(ctx, w.run.ID)
		if err != nil {
			return err
		}
		if w.run.Unsettled = n; n == 0 {
			break
		}
		if err := w.look(ctx, fmt.Sprintf("%d of its events are not settled yet", n)); err != nil {
			return err
		}
	}
	return w.conclude(ctx)
}

// conclude stores the run's end: complete only when the whole listing was compared and
// every finding has its answer.
func (w *work) conclude(ctx context.Context) error {
	if err := w.count(ctx); err != nil {
		return err
	}
	if why := w.shortOf(); len(why) > 0 {
		return w.finish(ctx, run.Partial, strings.Join(why, "; "))
	}
	return w.finish(ctx, run.Complete, "")
}

// shortOf says in sentences what keeps the run from being complete.
func (w *work) shortOf() (why []string) {
	if !w.run.Whole {
		why = append(why, incomplete+w.whyIncomplete())
	}
	var open, refused int64
	for kind, of := range w.run.Found {
		open += of[run.Found]
		if kind != run.Orphaned || w.run.Fuse == "" {
			refused += of[run.Refused]
		}
	}
	// What was asked about one by one shows what the listing left out; of files without a
	// row nobody can know.
	if n := w.run.Found[run.Orphaned][run.Skipped]; n > 0 {
		why = append(why, fmt.Sprintf("the listing did not show %d files that ImageKit has: there may be others without a row", n))
	}
	if n := w.run.Unsettled; n > 0 {
		why = append(why, fmt.Sprintf("%d events are not settled yet", n))
	}
	if n := open - w.run.Unsettled; n > 0 {
		why = append(why, fmt.Sprintf("%d findings have no answer yet", n))
	}
	if w.run.Fuse != "" {
		why = append(why, fmt.Sprintf("it latched the fuse: %s", w.run.Fuse))
	}
	if refused > 0 {
		why = append(why, fmt.Sprintf("%d findings were refused", refused))
	}
	return why
}
