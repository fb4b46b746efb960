package reconcile

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/run"
)

// askKnown is how many known files are asked at most whether the account is ours.
const askKnown = 5

// recognition is what known files answered about the account behind the key.
type recognition struct {
	Asked, Answered int
	// Why the account is not confirmed, in a sentence; empty when it is.
	Why string
	// Refused is ImageKit's 401 or 403; nil otherwise.
	Refused *file.Fault
	// Date is what the last answer said of ImageKit's clock; zero when none did.
	Date time.Time
	// Shown is the answer that confirmed the account; nil where none had to, or none did.
	Shown *file.Answer
}

// recognise asks for known files by id until one is there and as old as we know it:
// another account's library answers 404 to all of them. Without a known file there is
// nothing to mistake, and the account is confirmed. The error is transient: nobody
// knows yet.
func recognise(ctx context.Context, library Library, known []run.KnownFile) (recognition, error) {
	var r recognition
	var away error
	var otherAge, absent, other int
	for _, k := range known[:min(len(known), askKnown)] {
		if !file.ValidID(k.FileID) { // an application's own invention: never asked
			r.Asked++
			absent++
			continue
		}
		answer, err := library.Details(ctx, k.FileID)
		if ctx.Err() != nil {
			return r, context.Cause(ctx)
		}
		r.Asked++
		r.Date = answer.Date
		var fault *file.Fault
		switch {
		case err == nil && sameAge(answer, k):
			r.Answered++
			r.Why, r.Shown = "", &answer
			return r, nil
		case err == nil:
			otherAge++
		case !errors.As(err, &fault):
			return r, fmt.Errorf("look up known file %s: %w", k.FileID, err)
		case refuses(fault):
			r.Refused = fault
			r.Why = fmt.Sprintf("ImageKit refuses the private key: %v", fault)
			return r, nil
		case fault.Transient():
			away = fmt.Errorf("look up known file %s: %w", k.FileID, err)
		case fault.Absent():
			absent++
		default:
			other++
		}
	}
	if away != nil {
		return r, away
	}
	if r.Asked > 0 {
		r.Why = unrecognised(r.Asked, absent, otherAge, other)
	}
	return r, nil
}

// clearSuspect tells the write path of a known file that was shown by id, where a 404 has
// made it suspect. Untold, the next 404 would confirm the first one, as if nobody had been
// shown the file between them. What the rules cannot decide by this answer is looked up by
// id.
func clearSuspect(ctx context.Context, rows Rows, queue Publisher, turn int64, at time.Time, shown file.Observation) error {
	_, known, err := rows.Fence(ctx, []string{shown.FileID})
	if err != nil || !known[shown.FileID].Suspect {
		return err
	}
	did, err := rows.Repair(ctx, turn, "", 0, []file.Observation{shown})
	if err != nil {
		return err
	}
	if did[shown.FileID] != run.RepairAsk {
		return nil
	}
	return recheck(ctx, queue, at, []string{shown.FileID})
}

// shownByID is the answer that confirmed an account as the write path takes it.
func (r *recognition) shownByID(fence file.Fence, prove func(*file.Snapshot) file.Proof) file.Observation {
	s := &r.Shown.Snapshots[0]
	return file.Observation{FileID: s.ID, How: file.LookUp, Fence: fence, Snapshot: s, Proof: prove(s), Status: r.Shown.Status, RequestID: r.Shown.RequestID}
}

// refuses reports whether the fault says that the key may not look.
func refuses(f *file.Fault) bool {
	return f != nil && (f.Kind == file.Unauthorized || f.Kind == file.Forbidden)
}

// sameAge reports whether the answer is the known file, made when we know it was. Rows
// that were never verified do not know.
func sameAge(a file.Answer, k run.KnownFile) bool {
	if len(a.Snapshots) != 1 || a.Snapshots[0].ID != k.FileID {
		return false
	}
	return k.CreatedAt.IsZero() || a.Snapshots[0].CreatedAt.Truncate(time.Microsecond).Equal(k.CreatedAt.Truncate(time.Microsecond))
}

func unrecognised(asked, absent, otherAge, other int) string {
	why := fmt.Sprintf("of %d known files none answered as it should", asked)
	for _, part := range []struct {
		n    int
		what string
	}{{absent, "are not there"}, {otherAge, "were made at another time"}, {other, "gave an answer that says nothing"}} {
		if part.n > 0 {
			why += fmt.Sprintf("; %d %s", part.n, part.what)
		}
	}
	return why + ": this may be another account's key"
}
