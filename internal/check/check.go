// Package check decides whether trueup kept its promises. It is apart from everything
// it judges: it works from acknowledgements, ImageKit's own truth and log, a read-only
// dump of the database and of the stream, and it has its own reading of every format
// and its own statement of every rule. A mistake in trueup's code, counters or rules can
// therefore not hide itself here.
//
// Its one invariant: what was not examined never passes. Missing evidence is a
// violation, and the verdict counts what each check looked at.
package check

// Invariant is a promise by its number in the design.
type Invariant string

const (
	I1  Invariant = "I1"  // no acknowledged event is lost
	I2  Invariant = "I2"  // the table converges to ImageKit
	I3  Invariant = "I3"  // only verified data is written
	I4  Invariant = "I4"  // any order of the same events gives the same table
	I5  Invariant = "I5"  // a row never moves to an older observation
	I6  Invariant = "I6"  // no resurrection by stale news
	I7  Invariant = "I7"  // no live row is removed by a short or library-wide failure
	I8  Invariant = "I8"  // the fuse
	I9  Invariant = "I9"  // dead letters are complete
	I10 Invariant = "I10" // replay is safe any number of times
	I11 Invariant = "I11" // nobody gets a file that is somebody else's
	I12 Invariant = "I12" // overload gives 503
	I13 Invariant = "I13" // no request before a 429's reset
	I14 Invariant = "I14" // unsigned input has no effect
	I15 Invariant = "I15" // poison delays nobody
	I16 Invariant = "I16" // every row, tombstone and rejection can be explained
)

// Phase says what may be expected.
type Phase string

const (
	// Safety: faults are under way. What may never happen must not have happened.
	Safety Phase = "safety"
	// Settled: everything healed, and the bound of the liveness phase has passed. What had
	// to happen must have happened, too.
	Settled Phase = "settled"
)

// Violation is one broken promise.
type Violation struct {
	Invariant Invariant `json:"invariant"`
	// Subject is a file, event, run or request; empty for evidence that is missing.
	Subject string `json:"subject,omitempty"`
	Says    string `json:"says"`
}

func (v Violation) String() string {
	if v.Subject == "" {
		return string(v.Invariant) + ": " + v.Says
	}
	return string(v.Invariant) + " " + v.Subject + ": " + v.Says
}

// Verdict is what the checks found.
type Verdict struct {
	Violations []Violation `json:"violations"`
	// Counts is how many things each check looked at, and the sums of I1.
	Counts map[string]int64 `json:"counts"`
	// Unchecked are the invariants that Evidence.Without named.
	Unchecked []Invariant `json:"unchecked,omitempty"`
}

// OK reports whether nothing was violated.
func (v *Verdict) OK() bool { return len(v.Violations) == 0 }
