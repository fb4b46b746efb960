package rows

import (
	"cmp"
	"context"
	"time"

	"github.com/trueup/trueup/internal/run"
)

// LatchFuse latches the fuse for everybody, naming the run. One that is latched already
// keeps its own reason.
func (d *Door) LatchFuse(ctx context.Context, turn int64, runID, why string) error {
	return d.inRun(ctx, "LatchFuse", turn, runID, func(*keptRun) error {
		if f := &d.db.fuse; f.latchedAt.IsZero() {
			f.latchedAt, f.why, f.runID = now(), why, runID
		}
		return nil
	})
}

// Fuse says whether the fuse is latched, how many candidates the last day had, and how
// many live rows there are.
func (d *Door) Fuse(ctx context.Context) (latched bool, today, live int64, err error) {
	err = d.do(ctx, "Fuse", "", func() error {
		latched, today, live = !d.db.fuse.latchedAt.IsZero(), d.db.candidates(), int64(len(d.db.rows))
		return nil
	})
	if err != nil {
		return false, 0, 0, err
	}
	return latched, today, live, nil
}

// DoubtAccount notes that the account is not confirmed; an empty why ends the doubt.
func (d *Door) DoubtAccount(ctx context.Context, turn int64, runID, why string) error {
	return d.inRun(ctx, "DoubtAccount", turn, runID, func(*keptRun) error {
		if why == "" {
			d.db.trustAccount(runID)
			return nil
		}
		f := &d.db.fuse
		f.accountDoubt, f.accountRun, f.accountDoubtedAt = why, runID, cmp.Or(f.accountDoubtedAt, now())
		return nil
	})
}

// trustAccount ends the doubt and remembers the run's account, if that is confirmed.
func (db *Database) trustAccount(runID string) {
	f := &db.fuse
	f.accountDoubt, f.accountRun, f.accountDoubtedAt = "", "", time.Time{}
	if k := db.runs[runID]; k != nil && k.Account.Confirmed {
		f.account = k.Account
	}
}

// Account is the account that was confirmed last, and why it is doubted now.
func (d *Door) Account(ctx context.Context) (last run.Account, doubt string, err error) {
	err = d.do(ctx, "Account", "", func() error { last, doubt = d.db.fuse.account, d.db.fuse.accountDoubt; return nil })
	if err != nil {
		return run.Account{}, "", err
	}
	return last, doubt, nil
}

// PollPosition is the highest updatedAt that was polled; zero when none was.
func (d *Door) PollPosition(ctx context.Context) (at time.Time, err error) {
	err = d.do(ctx, "PollPosition", "", func() error { at = d.db.poll; return nil })
	if err != nil {
		return time.Time{}, err
	}
	return at, nil
}

// SavePollPosition stores how far polling has come.
func (d *Door) SavePollPosition(ctx context.Context, turn int64, at time.Time) error {
	return d.do(ctx, "SavePollPosition", "", func() error {
		if err := d.db.guard(turn); err != nil {
			return err
		}
		d.db.poll = micros(at)
		return nil
	})
}
