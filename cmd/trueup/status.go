package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/trueup/trueup/internal/operator"
	"github.com/trueup/trueup/internal/run"
)

func statusCommand(p *program) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show queue, retries, dead letters, last run, drift, fuse, API budget and durability",
		Args:  cobra.NoArgs,
		RunE: verb(p, func(ctx context.Context, c *operator.Client, _ []string) (operator.Status, error) {
			return c.Status(ctx)
		},
			func(s operator.Status) error { return p.table(statusLines(s)) }),
	}
}

// table writes pairs of name and text in two columns.
func (p *program) table(lines [][2]string) error {
	tw := tabwriter.NewWriter(p.stdout, 0, 0, 3, ' ', 0)
	for _, l := range lines {
		_, _ = fmt.Fprintf(tw, "%s\t%s\n", visible(l[0]), visible(l[1]))
	}
	return tw.Flush()
}

// statusLines leaves out what is not known; the last lines say what could not be
// asked and why.
func statusLines(s operator.Status) [][2]string {
	out := [][2]string{{"trueup", s.Role + " " + s.Version}}
	put := func(name, text string) { out = append(out, [2]string{name, text}) }
	if s.Worker != nil {
		put("worker", workerLine(s.Worker))
	}
	if q := s.Queue; q != nil {
		put("queue", queueLine(q, s.At))
	}
	if r := s.Retries; r != nil {
		put("retries", retriesLine(r, s.At))
	}
	if s.DeadLetters != nil || s.Retries != nil {
		put("dead letters", countsLine(s.DeadLetters))
	}
	if s.Rows != nil {
		put("live rows", fmt.Sprintf("about %d", *s.Rows))
	}
	if f := s.Fuse; f != nil {
		put("fuse", fuseLine(f))
	}
	if a := s.Account; a != nil {
		put("account", accountDoubt(a))
	}
	if r := s.Run; r != nil {
		put("last run", lastRunLine(r, s.At))
	}
	if a := s.API; a != nil {
		put("ImageKit", apiLine(a, s.At))
	}
	if len(s.Security) > 0 {
		put("security", countsLine(s.Security))
	}
	for _, part := range slices.Sorted(maps.Keys(s.Unavailable)) {
		put(part, "did not answer: "+s.Unavailable[part])
	}
	return out
}

func workerLine(w *operator.WorkerStatus) string {
	where := "stands by here"
	if w.Here {
		where = "active here"
	}
	if w.Turn > 0 {
		where += fmt.Sprintf(", turn %d", w.Turn)
	}
	switch {
	case w.Paused.Paused:
		where += ", paused by " + w.PausedBy
		if w.PausedNote != "" {
			where += ": " + w.PausedNote
		}
	case w.Outage != "":
		where += ", waiting for " + w.Outage
	}
	return where
}

func queueLine(q *operator.QueueStatus, now time.Time) string {
	s := fmt.Sprintf("%d waiting, %d unacked, %d bytes; ", q.Waiting, q.Unacked, q.Bytes)
	if q.Oldest != nil {
		s += "oldest " + span(now.Sub(*q.Oldest)) + "; "
	}
	if !q.Accepting {
		return s + "takes nothing: " + q.Why
	}
	return s + "accepting, durability " + q.Durability
}

func retriesLine(r *operator.RetryStatus, now time.Time) string {
	if r.Count == 0 {
		return "none"
	}
	s := fmt.Sprint(r.Count)
	if r.NextDue != nil {
		s += ", next " + due(r.NextDue.Sub(now))
	}
	return s
}

func due(d time.Duration) string {
	if d <= 0 {
		return "due now"
	}
	return "in " + span(d)
}

// span is a duration as people say it: to the second, below that to the millisecond.
func span(d time.Duration) string {
	if d < time.Second {
		return d.Round(time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

func countsLine(counts map[string]int64) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		if counts[name] > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", name, counts[name]))
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

func fuseLine(f *operator.FuseStatus) string {
	s := "not latched"
	if f.Latched {
		s = "LATCHED: nothing is removed that ImageKit did not announce"
		if f.Why != "" {
			s += " (" + f.Why + ")"
		}
	}
	s += fmt.Sprintf("; %d unannounced absences in a day", f.Candidates)
	switch f.Release {
	case "":
	case operator.PlanCommand:
		s += "; to see how to release it: " + f.Release
	default:
		s += "; to release it: " + f.Release
	}
	return s
}

// accountDoubt says why nothing is judged.
func accountDoubt(a *operator.AccountStatus) string {
	s := "NOT RECOGNISED"
	if a.Since != nil {
		s += " since " + stamp(*a.Since)
	}
	s += ", so nothing is judged or removed: " + a.Doubt
	if a.Run != "" {
		s += "; if it is ours: trueup reconcile apply " + a.Run + " --accept-account"
	}
	return s
}

func lastRunLine(r *operator.RunStatus, now time.Time) string {
	s := fmt.Sprintf("%s (%s) %s", r.ID, r.Kind, r.State)
	switch {
	case r.State.Open():
		s += fmt.Sprintf(" for %s", span(now.Sub(r.StartedAt)))
	case !r.FinishedAt.IsZero():
		s += fmt.Sprintf(" %s ago", span(now.Sub(r.FinishedAt)))
	}
	s += fmt.Sprintf(", %d files listed, drift %d", r.Listed, r.Drift)
	if found := foundSoFar(r.Run); found != "" {
		s += "; found: " + found
	}
	if n := sumOf(r.Run, "", run.Repaired); n > 0 {
		s += fmt.Sprintf("; repaired: %d", n)
	}
	return s
}

func apiLine(a *operator.APIStatus, now time.Time) string {
	s := fmt.Sprintf("%.0f calls/s allowed", a.PerSecond)
	if a.BlockedUntil != nil && a.BlockedUntil.After(now) {
		s += ", none for " + span(a.BlockedUntil.Sub(now))
	}
	waiting := map[string]int64{}
	for class, n := range a.Waiting {
		waiting[class] = int64(n)
	}
	if w := countsLine(waiting); w != "none" {
		s += ", waiting: " + w
	}
	return s
}
