// Package check decides whether trueup kept its promises. It is apart from everything
// it judges: it works from acknowledgements, ImageKit's own truth and log, a read-only
// dump of the database and of the stream, and it has its own reading of every format
// and its own statement of every rule. A mistake in trueup's code, counters or rules can
// therefore not hide itself here.
//
// Its one invariant: what was not examined never passes. Missing evidence is a
// violation, and the verdict counts what each check looked at.
package check

import "strings"

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

// check is one invariant's: what it needs, and how it looks.
type check struct {
	invariant Invariant
	// needs names the evidence that is missing; empty when nothing is.
	needs func(*Evidence) string
	look  func(*looking)
	// settled: there is nothing to look at before.
	settled bool
}

// checks are all that Run does itself. I5, I6 and part of I7 and I9 are also about what
// lies between two dumps, and are looked at step by step (watch.go); I4 and I10 compare
// two runs or two moments (compare.go); I17 and I18 need no checker.
func checks() []check {
	return []check{
		{I1, needs(acks, dump, stream), lookAtAccount, false},
		{I2, needs(truth, dump, stream), lookAtTable, true},
		{I3, needs(dump, truth, history, hands), lookAtContent, false},
		{I5, needs(series, requests, history, hands), nil, false},
		{I6, needs(series, requests, hands), nil, false},
		{I7, needs(series, truth, history, requests, acks, lies), lookAtRemovals, false},
		{I8, needs(series, requests), lookAtFuse, false},
		{I9, needs(acks, dump, series), lookAtLetters, false},
		{I11, needs(dump, truth, history, hands), lookAtOwners, false},
		{I12, needs(acks), lookAtAnswers, false},
		{I13, needs(requests), lookAtRate, false},
		{I14, needs(acks, dump, stream, requests, truth, history), lookAtForged, false},
		{I15, needs(acks, dump, stream), lookAtPoison, true},
		{I16, needs(dump), lookAtStories, false},
	}
}

// missing says which evidence was not gathered; empty when it was.
type missing func(*Evidence) string

func acks(e *Evidence) string     { return unless(e.Acks != nil, "Acks") }
func truth(e *Evidence) string    { return unless(e.Truth != nil, "Truth") }
func history(e *Evidence) string  { return unless(e.History != nil, "History") }
func requests(e *Evidence) string { return unless(e.Requests != nil, "Requests") }
func lies(e *Evidence) string     { return unless(e.Lies != nil, "Lies") }
func hands(e *Evidence) string    { return unless(e.Hands != nil, "Hands") }
func stream(e *Evidence) string   { return unless(e.Stream != nil, "Stream") }
func series(e *Evidence) string   { return unless(e.Series != nil, "Series") }

func dump(e *Evidence) string {
	for _, part := range []struct {
		name string
		has  bool
	}{
		{"At", !e.At.IsZero()}, {"Rows", e.Rows != nil}, {"States", e.States != nil}, {"Ledger", e.Ledger != nil},
		{"Retries", e.Retries != nil}, {"DeadLetters", e.DeadLetters != nil}, {"Runs", e.Runs != nil}, {"Findings", e.Findings != nil},
		{"Audit", e.Audit != nil}, {"Fuse", e.Fuse != nil}, {"Expired", e.Expired != nil},
	} {
		if !part.has {
			return "Dump." + part.name
		}
	}
	return ""
}

func unless(has bool, name string) string {
	if has {
		return ""
	}
	return name
}

func needs(all ...missing) func(*Evidence) string {
	return func(e *Evidence) string {
		var names []string
		for _, m := range append(all, rules) {
			if name := m(e); name != "" {
				names = append(names, name)
			}
		}
		return strings.Join(names, ", ")
	}
}

// rules are the settings without which no rule can be stated.
func rules(e *Evidence) string {
	s := &e.Settings
	switch {
	case s.AbsentConfirm <= 0:
		return "Settings.AbsentConfirm"
	case s.NotFoundGrace <= 0:
		return "Settings.NotFoundGrace"
	case !s.Signed && s.ClaimWindow <= 0:
		return "Settings.ClaimWindow"
	}
	return ""
}

// Run judges evidence of one campaign, or of one moment in it. What each invariant is
// judged by:
//
//	I1   Acks, Dump, Stream; Stored where there is one
//	I2   Truth, Dump, Stream; at Settled only
//	I3   Dump, Truth, History, Hands, Settings.Markers
//	I5   Series and Dump, Requests, History, Hands
//	I6   Series and Dump, Requests, Hands
//	I7   Series and Dump, Truth, History, Requests, Acks, Lies
//	I8   Series and Dump, Requests
//	I9   Acks, Series and Dump
//	I11  Dump, Truth, History, Hands, Settings.Keys and Account
//	I12  Acks
//	I13  Requests; Starts where there are some
//	I14  Acks, Dump, Stream, Requests, Truth, History
//	I15  Acks, Dump, Stream, Settings.Poison; at Settled only
//	I16  Dump
//
// I4 and I10 are for SameTable and Unmoved.
func Run(e *Evidence, phase Phase) Verdict {
	w := NewWatch()
	now := e.Dump
	for i := range e.Series {
		e.Dump = e.Series[i]
		w.Step(e)
	}
	e.Dump = now
	if e.Rows != nil {
		w.Step(e)
	}
	return w.Verdict(e, phase)
}
