package reconcile

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/run"
)

// survive waits after a failure, longer each time, so that the run can go on where it
// was. For the database and the end of a pause it waits as long as it takes; of anything
// else it has enough after GiveUp without getting on.
func (w *work) survive(ctx context.Context, cause error) error {
	w.Logger.WarnContext(ctx, "reconcile.held_up", "run", w.run.ID, "phase", string(w.run.Phase), "error", cause.Error())
	if !elsewhere(cause) { // the disk, or a database that may come back as it was long ago: what is spooled is read and checked anew
		w.close()
	}
	wait, _ := w.backoff.Next()
	if errors.Is(cause, event.ErrOutage) || errors.Is(cause, event.ErrPaused) {
		err := w.rest(ctx, wait, func(err error) bool { return err == nil || over(err) })
		w.progress = w.Now() // nobody could have got on
		return err           // ImageKit is not asked again before the database takes what it says
	}
	w.run.Waiting = waitsFor(cause)
	if err := w.save(ctx); over(err) {
		return err
	}
	if err := w.rest(ctx, wait, over); over(err) {
		return err
	}
	if w.Now().Sub(w.progress) >= w.GiveUp {
		return w.giveUp(ctx, cause)
	}
	return nil
}

// rest waits, and then saves the run, which shows whether it may go on. It does so at once
// when it is woken, but then waits on unless that was enough: an operator may have
// cancelled the run, or ended a pause, or only watches, which must not make it ask
// ImageKit more often.
func (w *work) rest(ctx context.Context, wait time.Duration, enough func(error) bool) error {
	resting, stop := context.WithTimeout(ctx, wait)
	defer stop()
	for w.pause(resting, wait) {
		if err := w.save(ctx); enough(err) {
			return err
		}
	}
	return w.save(ctx)
}

// over reports whether the run, or the turn, has ended.
func over(err error) bool {
	return errors.Is(err, run.ErrEnded) || errors.Is(err, event.ErrTurnMoved)
}

// elsewhere reports whether the cause is ImageKit or the queue.
func elsewhere(cause error) bool {
	var fault *file.Fault
	return errors.As(cause, &fault) || errors.Is(cause, event.ErrNotAccepted)
}

// waitsFor says in a sentence what a run waits for.
func waitsFor(cause error) string {
	var fault *file.Fault
	switch {
	case errors.As(cause, &fault):
		return "ImageKit does not answer as it should: " + fault.Error()
	case errors.Is(cause, event.ErrNotAccepted):
		return "the queue is full or does not answer; what was drawn is sent again until it is accepted"
	}
	return "it is tried again: " + cause.Error()
}

// giveUp ends what has not got on for too long. A listing that breaks off is compared as
// far as it goes; everything else ends the run.
func (w *work) giveUp(ctx context.Context, cause error) error {
	why := fmt.Sprintf("it did not get on for %s: %v", w.GiveUp, cause)
	var fault *file.Fault
	switch w.run.Phase {
	case run.PhaseList:
		if w.spool != nil && errors.As(cause, &fault) {
			w.moved()
			return w.breakOff(why)
		}
	case run.PhaseBrake, run.PhaseRepair, run.PhaseSettle:
		return w.finish(ctx, run.Partial, why)
	}
	return w.finish(ctx, run.Failed, why)
}
