package worker

import (
	"context"
	"time"

	"github.com/sethvargo/go-retry"
)

// acquitPatience bounds one try to acquit: the last thing a trial does when its turn is
// over.
const acquitPatience = 2 * time.Second

// acquittal is owed to events whose trial in a turn ended without an end and without a
// crash. Until it is written, the next turn takes their marks for a crash.
type acquittal struct {
	turn int64
	ids  []string
}

func (t *turn) acquit(ids []string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.running), acquitPatience)
	defer cancel()
	err := t.Rows.Acquit(ctx, t.number, ids)
	if err == nil {
		return
	}
	t.Logger.WarnContext(ctx, "trial.not_acquitted", "events", len(ids), "error", err.Error())
	select {
	case t.owed <- acquittal{t.number, ids}:
	default: // so much is owed that the database has been away for long
	}
}

// pay acquits those who were on trial when both turn and database were lost, for as long
// as this process lives. The next turn needs the database, too, and has to wait for the
// envelopes besides, so this comes first as a rule.
func (w *Worker) pay(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case a := <-w.owed:
			again := retry.WithCappedDuration(5*time.Second, retry.NewExponential(100*time.Millisecond))
			_ = retry.Do(ctx, again, func(ctx context.Context) error {
				ctx, cancel := context.WithTimeout(ctx, acquitPatience)
				defer cancel()
				return retry.RetryableError(w.Rows.Acquit(ctx, a.turn, a.ids)) // nil stays nil
			})
		}
	}
}
