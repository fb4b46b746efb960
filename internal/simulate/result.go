package simulate

import (
	"fmt"
	"strings"
	"time"

	"github.com/trueup/trueup/internal/check"
)

// Result is what became of one run.
type Result struct {
	Plan       Plan
	Violations []check.Violation
	// Counts are the checker's, and what the world counted.
	Counts map[string]int64
	// Digest is of everything that happened, in order, in Lines lines.
	Digest uint64
	Lines  int
	Story  []string
	// Virtual is how much time passed inside.
	Virtual time.Duration
}

// Failed reports whether anything was violated.
func (r *Result) Failed() bool { return len(r.Violations) > 0 }

// Command repeats the run and tells all of it.
func (r *Result) Command() string {
	return fmt.Sprintf("go test ./internal/simulate -run TestCampaign -v -args -seed %d -n 1 -story", r.Plan.Seed)
}

// String is what a failing run prints.
func (r *Result) String() string {
	var b strings.Builder
	b.WriteString(r.Plan.String())
	b.WriteString("  story:\n")
	for _, line := range r.Story {
		b.WriteString("    " + line + "\n")
	}
	for _, v := range r.Violations {
		b.WriteString("  violated " + v.String() + "\n")
	}
	b.WriteString("  again: " + r.Command() + "\n")
	return b.String()
}

// result judges what happened.
func (w *world) result() *Result {
	r := &Result{Plan: w.Plan, Counts: map[string]int64{}, Virtual: w.elapsed()}
	e := w.evidence()
	verdict := check.Run(&e, check.Settled)
	r.Violations = append(r.Violations, verdict.Violations...)
	for k, n := range verdict.Counts {
		r.Counts[k] += n
	}
	w.record.mu.Lock()
	r.Violations = append(r.Violations, w.record.wrongs...)
	for k, n := range w.record.counts {
		r.Counts[k] += n
	}
	w.record.mu.Unlock()
	r.Digest, r.Lines = w.trace.sum()
	r.Story = w.trace.story()
	return r
}
