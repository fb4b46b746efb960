package worker

import (
	"time"

	"github.com/sethvargo/go-retry"

	"github.com/trueup/trueup/internal/chance"
	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/worker/verify"
)

// Table decides where an event's way ends, given what its look-up said and what
// the write did with it. It is the only place that decides so. It is pure: the
// settling transaction may run again and ask it again.
type Table struct {
	// NotFoundGrace is how long a file that nobody has seen may stay unfound, and how
	// long a refused claim is kept waiting so that both look alike from outside.
	NotFoundGrace time.Duration
	// RetryMaxAge is how long look-ups may fail before an event is parked.
	RetryMaxAge time.Duration
	// Version of trueup, for the history of attempts.
	Version string
	// Now stamps attempts.
	Now func() time.Time
	// Jitter spreads retries by this percentage; zero means none (tests).
	Jitter uint64
	// Random is what they are spread by; nil means the runtime's own.
	Random chance.Source
}

// The ends' reasons that are not a file.Reason.
const (
	reasonStillPresent = "still_present" // announced deleted, yet ImageKit keeps answering 200
	reasonGaveUp       = "gave_up"       // look-ups failed for RetryMaxAge
	reasonLookAgain    = "look_again"
	reasonPanic        = "panic"  // our own code panicked over it
	reasonPoison       = "poison" // the process ended over it, more than once
)

// End is the table. Its rows, first match wins:
//
//	look-up        write                     event            end
//	panicked       –                         any              dead at once, with the stack
//	undecided      –                         any              retry, counted; after RETRY_MAX_AGE dead
//	any            look_again: canary, fuse  any              retry; after RETRY_MAX_AGE dead
//	any            look_again: nominated     any              retry when the absence can be confirmed
//	any            look_again: else          any              retry at once, by id
//	absent         any                       report           retry until NOT_FOUND_GRACE, then rejected
//	absent         unchanged: never seen     any              retry until NOT_FOUND_GRACE, then rejected
//	absent         unchanged: tombstone      file.deleted     done
//	absent         unchanged: tombstone      any other        superseded
//	absent         tombstoned                any              done
//	present        applied: went back        any              retry once more after 5 s
//	present        any, claim refused        report           retry until NOT_FOUND_GRACE, then rejected
//	present        any                       file.deleted     retry until NOT_FOUND_GRACE, then superseded
//	present        superseded                any              superseded
//	present        applied, unchanged        any              done
func (t Table) End(p event.Pending, a verify.Answer, r file.Result) event.End {
	switch verdict, _ := verify.Decide(a); {
	case verdict == verify.Undecided, verdict == verify.Refused:
		return t.undecided(p, a.Fault)
	case r.Outcome == file.LookAgain:
		return t.lookAgain(p, r)
	case verdict == verify.Absent:
		return t.absent(p, r)
	}
	return t.present(p, r)
}

func (t Table) undecided(p event.Pending, f *file.Fault) event.End {
	attempt := t.attempt(f)
	if f != nil && f.Kind == file.Panicked {
		return event.End{Kind: event.Dead, Reason: attempt.Reason, Class: attempt.Class, Attempt: attempt, Note: excerpt(f.Error(), 200)}
	}
	if p.Waited >= t.RetryMaxAge {
		return event.End{Kind: event.Dead, Reason: reasonGaveUp, Class: attempt.Class, Attempt: attempt,
			Note: "ImageKit could not be asked about the file for " + t.RetryMaxAge.String() + "; the last answer was: " + attempt.Reason}
	}
	return event.End{Kind: event.Retry, Reason: attempt.Reason, Attempt: attempt, After: min(t.backoff(p.Tries, 5*time.Minute), t.RetryMaxAge-p.Waited)}
}

func (t Table) lookAgain(p event.Pending, r file.Result) event.End {
	switch r.Reason {
	case file.ReasonNoCanary, file.ReasonFuseLatched:
		if p.Waited < t.RetryMaxAge {
			return event.End{Kind: event.Retry, Reason: string(r.Reason), After: min(t.backoff(p.Tries, 5*time.Minute), t.RetryMaxAge-p.Waited)}
		}
		class := event.ClassTrueup
		if r.Reason == file.ReasonNoCanary {
			class = event.ClassImageKit
		}
		return event.End{Kind: event.Dead, Reason: string(r.Reason), Class: class,
			Note: "the file answers 404, and a brake kept its row; see status"}
	case file.ReasonNominated, file.ReasonTooSoon:
		return event.End{Kind: event.Retry, Reason: string(r.Reason), After: max(r.Wait, time.Millisecond)}
	}
	var after time.Duration
	if p.Tries > 2 {
		after = t.backoff(p.Tries-2, time.Minute)
	}
	return event.End{Kind: event.Retry, Reason: reasonLookAgain, After: after}
}

func (t Table) absent(p event.Pending, r file.Result) event.End {
	isReport := p.Origin == event.Client
	switch {
	case isReport || r.Reason == file.ReasonNotFound:
		return t.untilGrace(p, string(file.ReasonNotFound), event.End{Kind: event.Rejected, Reason: string(file.ReasonNotFound)})
	case r.Reason == file.ReasonGone && p.Kind != event.KindDeleted:
		return event.End{Kind: event.Superseded, Reason: string(r.Reason)}
	}
	return event.End{Kind: event.Done, Reason: string(r.Reason)}
}

func (t Table) present(p event.Pending, r file.Result) event.End {
	switch {
	case r.Reason == file.ReasonRegressed:
		return event.End{Kind: event.Retry, Reason: string(r.Reason), After: r.Wait}
	case r.Claim == file.ClaimRefused:
		return t.untilGrace(p, string(file.ReasonClaimRefused), event.End{Kind: event.Rejected, Reason: string(file.ReasonClaimRefused)})
	case p.Kind == event.KindDeleted && p.Signed():
		return t.untilGrace(p, reasonStillPresent, event.End{Kind: event.Superseded, Reason: reasonStillPresent})
	case r.Outcome == file.Superseded:
		return event.End{Kind: event.Superseded, Reason: string(r.Reason)}
	}
	return event.End{Kind: event.Done, Reason: string(r.Reason)}
}

// untilGrace retries until the event's own grace has run out, with the last look
// exactly then. Missing files and refused claims share it, so that their reporters
// cannot tell them apart by time.
func (t Table) untilGrace(p event.Pending, reason string, last event.End) event.End {
	left := t.NotFoundGrace - p.Waited
	if left <= 0 {
		return last
	}
	return event.End{Kind: event.Retry, Reason: reason, After: min(t.backoff(p.Tries, time.Minute), left)}
}

// backoff is the wait before the try after n tries: 500 ms, doubled each time, at
// most limit, with jitter.
func (t Table) backoff(n int, limit time.Duration) time.Duration {
	b := retry.WithCappedDuration(limit, retry.NewExponential(500*time.Millisecond))
	if t.Jitter > 0 {
		b = t.Random.Spread(t.Jitter, b)
	}
	wait, _ := b.Next()
	for range min(n, 32) {
		wait, _ = b.Next()
	}
	return wait
}

// attempt is what the history keeps of a failed look-up.
func (t Table) attempt(f *file.Fault) *event.Attempt {
	a := &event.Attempt{At: t.Now().UTC(), Class: event.ClassImageKit, Reason: "undecided", Version: t.Version}
	if f == nil {
		a.Class = event.ClassTrueup
		return a
	}
	a.Reason, a.Status, a.RequestID, a.Excerpt = string(f.Kind), f.Status, f.RequestID, f.Excerpt
	switch f.Kind {
	case file.BadRequest: // ImageKit will not hear of this file: whoever named it must act
		a.Class = event.ClassCaller
	case file.Panicked:
		a.Class, a.Reason, a.Excerpt = event.ClassTrueup, reasonPanic, withStack(f.Error(), f.Stack)
	}
	return a
}
