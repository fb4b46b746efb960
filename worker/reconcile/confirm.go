package reconcile

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/run"
)

// account draws the run's fence and looks whether the key still opens our account.
// Until that is sure nothing is judged, and nothing listed.
func (w *work) account(ctx context.Context) error {
	fence, _, err := w.rows.Fence(ctx, nil)
	if err != nil {
		return err
	}
	w.run.Fence = fence.Number
	ours := w.Now().Sub(fence.At)
	seen, err := w.recognise(ctx)
	if err != nil {
		return err
	}
	w.clocks(ours, seen.Date.Sub(w.Now())+ours, seen.Date.IsZero())
	w.run.Account = run.Account{Key: w.Account.Key, Endpoint: w.Account.Endpoint, Asked: seen.Asked, Answered: seen.Answered, Confirmed: seen.Why == ""}
	w.Metrics.doubts(seen.Why != "")
	if seen.Why != "" {
		return w.unrecognised(ctx, seen)
	}
	if err := w.save(ctx); err != nil { // what ends the doubt is this account
		return err
	}
	if !w.planning() {
		if err := w.Brakes.DoubtAccount(ctx, w.turn, w.run.ID, ""); err != nil {
			return err
		}
	}
	return w.enter(ctx, run.PhaseList)
}

// clocks notes whose clock is far from the database's. Nothing is decided by any other;
// but what our own says is late is asked late.
func (w *work) clocks(ours, imagekits time.Duration, untold bool) {
	const far = 5 * time.Minute
	off := func(by time.Duration) string {
		if by < 0 {
			return by.Abs().Round(time.Minute).String() + " behind"
		}
		return by.Round(time.Minute).String() + " ahead of"
	}
	if ours.Abs() >= far {
		w.noteOnce("the clock of this process is %s the database's", off(ours))
	}
	if imagekits.Abs() >= far && !untold {
		w.noteOnce("ImageKit's clock is %s the database's", off(imagekits))
	}
}

// recognise asks known files, unless an operator has vouched for the account.
func (w *work) recognise(ctx context.Context) (recognition, error) {
	if err := w.compareAccounts(ctx); err != nil {
		return recognition{}, err
	}
	if by := w.run.AccountAcceptedBy; by != "" {
		w.noteOnce("%s has vouched for the account: no known file was asked", by)
		return recognition{}, nil
	}
	known, err := w.rows.KnownFiles(ctx, askKnown)
	if err != nil {
		return recognition{}, err
	}
	ids := make([]string, len(known))
	for i, k := range known {
		ids[i] = k.FileID
	}
	fence, standing, err := w.rows.Fence(ctx, ids)
	if err != nil {
		return recognition{}, err
	}
	if w.planning() {
		return recogniseSound(ctx, w.Library, known, standing)
	}
	seen, err := recognise(ctx, w.Library, known)
	if err != nil || seen.Shown == nil {
		return seen, err
	}
	return seen, clearSuspect(ctx, w.rows, w.Queue, w.turn, w.Now(), seen.shownByID(fence, w.Prove))
}

// recogniseSound asks none that a 404 has made suspect: a plan changes nothing, and so
// could not tell the rows that such a file was shown to it.
func recogniseSound(ctx context.Context, library Library, known []run.KnownFile, standing map[string]file.Known) (recognition, error) {
	sound := slices.DeleteFunc(slices.Clone(known), func(k run.KnownFile) bool { return standing[k.FileID].Suspect })
	if len(sound) == 0 && len(known) > 0 {
		return recognition{Why: fmt.Sprintf("of %d known files all have answered 404 lately, and a plan asks none of these: plan again once they are looked up, or run", len(known))}, nil
	}
	return recognise(ctx, library, sound)
}

// compareAccounts notes that another key or endpoint is in use than was confirmed last.
// Keys are changed for good reasons: the known files decide.
func (w *work) compareAccounts(ctx context.Context) error {
	last, _, err := w.Brakes.Account(ctx)
	if err != nil {
		return err
	}
	if last.Key != "" && last.Key != w.Account.Key {
		w.noteOnce("the private key is not the one with which the account was confirmed last")
	}
	if last.Endpoint != "" && last.Endpoint != w.Account.Endpoint {
		w.noteOnce("the endpoint is not the one with which the account was confirmed last: %s, and %s before", w.Account.Endpoint, last.Endpoint)
	}
	return nil
}

// stillOurs looks once more when everything is listed and nothing is judged: the key may
// have been changed meanwhile, or while this process was restarted. A key that is refused
// by now takes nothing back of what it has listed, but latches the fuse.
func (w *work) stillOurs(ctx context.Context) error {
	seen, err := w.recognise(ctx)
	if err != nil || seen.Why == "" {
		return err
	}
	if seen.Refused != nil {
		w.mark.Refused = true // the brakes judge by it
		if w.planning() {
			return nil
		}
		return w.latch(ctx, seen.Why)
	}
	w.run.Account.Asked, w.run.Account.Answered, w.run.Account.Confirmed = seen.Asked, seen.Answered, false
	seen.Why = "after it was listed, " + seen.Why
	return w.unrecognised(ctx, seen)
}

// unrecognised ends the run: nothing of this account is judged.
func (w *work) unrecognised(ctx context.Context, seen recognition) error {
	if !w.planning() {
		if err := w.Brakes.DoubtAccount(ctx, w.turn, w.run.ID, seen.Why); err != nil {
			return err
		}
		if seen.Refused != nil {
			if err := w.latch(ctx, seen.Why); err != nil {
				return err
			}
		}
	}
	return w.finish(ctx, run.Failed, seen.Why)
}

// latch latches the fuse, and says so in the run.
func (w *work) latch(ctx context.Context, why string) error {
	w.run.Fuse = why
	w.Metrics.latched(true)
	return w.Brakes.LatchFuse(ctx, w.turn, w.run.ID, why)
}
