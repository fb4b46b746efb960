package operator

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/sethvargo/go-retry"
)

// persistMost is how often a change is asked for again, each time after twice the wait
// of the one before: four seconds in all, so that a restart of the server is outlived.
const persistMost = 4

// persist asks for a change until its answer is known. The key makes sure that it is
// carried out once: a connection that broke off, or a database that did not answer, may
// have been carried out and may not.
func persist[Out any](ctx context.Context, first time.Duration, once func(context.Context) (Out, error)) (out Out, err error) {
	waits := retry.WithMaxRetries(persistMost, retry.NewExponential(first))
	asked := false // nothing was carried out as long as nobody took a request
	err = retry.Do(ctx, waits, func(ctx context.Context) (err error) {
		out, err = once(ctx)
		asked = asked || !undialled(err)
		if asked && undecided(err) {
			return retry.RetryableError(err)
		}
		return err
	})
	if ctx.Err() != nil {
		return out, context.Cause(ctx)
	}
	return out, err
}

// undecided is an error that leaves it open whether the change was made. Whoever is not
// trueup, or refuses, has not made it.
func undecided(err error) bool {
	var problem *Problem
	if errors.As(err, &problem) {
		return problem.Status == http.StatusServiceUnavailable
	}
	var broken *brokenOff
	return errors.As(err, &broken)
}

// undialled is an error of making the connection.
func undialled(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// brokenOff is an exchange that did not come to its end.
type brokenOff struct{ error }

func (b *brokenOff) Unwrap() error { return b.error }
