package operator

import (
	"fmt"

	"github.com/trueup/trueup/internal/event"
)

// tellPreview says in one sentence what a replay would do now.
func tellPreview(p Previewed) string {
	s := verdicts.of(p.Verdict)
	if p.Status != 0 {
		s += fmt.Sprintf(" (ImageKit answered %d)", p.Status)
	}
	switch event.EndKind(p.End) {
	case event.Done, event.Superseded:
		s += "; replayed now, the letter would be resolved"
		if p.Outcome != "" {
			s += ": " + outcomes.of(p.Outcome)
		}
	case event.Rejected:
		s += "; replayed now, the event would be rejected and the letter resolved"
	case event.Retry:
		s += "; replayed now, it would wait for another look"
	case event.Dead:
		s += "; replayed now, it would be parked again"
	default:
		s += "; it would end " + p.End
	}
	if p.Reason != "" {
		s += " (" + reasons.of(p.Reason) + ")"
	}
	return s + "."
}
