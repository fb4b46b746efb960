package verify

import (
	"context"
	"errors"
	"time"

	"github.com/sethvargo/go-retry"

	"github.com/trueup/trueup/internal/file"
)

// maxLimited is how many 429s one question takes before it gives up. Each halves
// the rate of everybody, so that only a limit below one call in some seconds, or a
// 429 that is always there, gets so far; and a 429 that only one file meets must
// not slow the others for long.
const maxLimited = 6

// Do sends one call within the budget and tells the budget how it went. It waits
// for its turn, and for the reset after a 429 that anybody met. The error is a
// *file.Fault, or the context's while waiting. Reconciliation's listings go this
// way, too.
func (v *Verifier) Do(ctx context.Context, p Priority, endpoint string, call func(context.Context) (file.Answer, error)) (file.Answer, error) {
	for {
		queued := time.Now()
		leave, err := standInLine(ctx)
		if err != nil {
			return file.Answer{}, err
		}
		err = v.budget.acquire(ctx, p)
		leave()
		if err != nil {
			return file.Answer{}, err
		}
		sent := time.Now()
		v.Metrics.waited(p, sent.Sub(queued))
		answer, held, err := v.send(ctx, call)
		if err != nil && held && ctx.Err() == nil {
			v.Metrics.held() // it never left: another call met a 429 meanwhile
			continue
		}
		fault := faultOf(err)
		v.Metrics.called(endpoint, fault, time.Since(sent))
		v.budget.heard(endpoint, answer.Rate, fault, sent)
		return answer, err
	}
}

// send lets a call that was granted leave; held means that it did not, after all.
func (v *Verifier) send(ctx context.Context, call func(context.Context) (file.Answer, error)) (answer file.Answer, held bool, err error) {
	gated, stopped, done := v.budget.gate(ctx)
	defer done()
	answer, err = call(gated)
	return answer, stopped(), err
}

// ask repeats a question while its faults are transient. Exactly one of fault and
// err is set when there is no answer; err is the context's.
func (v *Verifier) ask(ctx context.Context, p Priority, endpoint string, tries int, patience time.Duration,
	call func(context.Context) (file.Answer, error)) (answer file.Answer, fault *file.Fault, err error) {
	left := &tally{tries: tries, limited: maxLimited, patience: patience,
		backoff: v.Random.Spread(25, retry.NewExponential(100*time.Millisecond))}
	err = retry.Do(ctx, left, func(ctx context.Context) error {
		var err error
		answer, err = v.Do(ctx, p, endpoint, left.timed(call))
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if fault = faultOf(err); fault == nil {
			return nil
		}
		left.count(fault)
		if fault.Transient() {
			return retry.RetryableError(fault)
		}
		return fault
	})
	if fault != nil && ctx.Err() == nil {
		return answer, fault, nil
	}
	if ctx.Err() != nil {
		return file.Answer{}, nil, context.Cause(ctx)
	}
	return answer, nil, err
}

// tally is a retry.Backoff that counts what a question has cost so far. Time spent
// waiting for the budget costs nothing.
type tally struct {
	tries    int // left, this one included
	limited  int // 429s left
	patience time.Duration
	backoff  retry.Backoff
	wait     bool // whether the last fault asks for a pause of our own
}

func (t *tally) count(f *file.Fault) {
	if t.wait = f.Kind != file.Limited; t.wait {
		t.tries--
		return
	}
	t.limited--
}

// Next implements retry.Backoff.
func (t *tally) Next() (time.Duration, bool) {
	if t.tries <= 0 || t.limited <= 0 || t.patience <= 0 {
		return 0, true
	}
	if !t.wait {
		return 0, false // the budget makes everybody wait
	}
	pause, stop := t.backoff.Next()
	t.patience -= pause
	return pause, stop || t.patience <= 0
}

// timed bounds a call by the patience that is left, and takes off what it used.
func (t *tally) timed(call func(context.Context) (file.Answer, error)) func(context.Context) (file.Answer, error) {
	return func(ctx context.Context) (file.Answer, error) {
		begun := time.Now()
		ctx, cancel := context.WithTimeout(ctx, t.patience)
		defer cancel()
		defer func() { t.patience -= time.Since(begun) }()
		return call(ctx)
	}
}

// faultOf reads a library's error; what is no fault is one of ours.
func faultOf(err error) *file.Fault {
	if err == nil {
		return nil
	}
	var fault *file.Fault
	if errors.As(err, &fault) {
		return fault
	}
	return &file.Fault{Kind: file.Unreachable, Err: err}
}
