package verify

import (
	"context"
	"time"

	"github.com/trueup/trueup/internal/file"
)

// Ask sends one question of somebody else's within the budget, again while its faults
// are transient: at most tries times, and as long as patience lasts, which the waits
// for the budget do not use up. The error is a *file.Fault, with what the answer's
// headers said beside it, or the context's. Whether a fault means that ImageKit as a
// whole is away is for the caller to find out; Healthy tells.
func (v *Verifier) Ask(ctx context.Context, p Priority, endpoint string, tries int, patience time.Duration,
	call func(context.Context) (file.Answer, error)) (file.Answer, error) {
	answer, fault, err := v.ask(ctx, p, endpoint, tries, patience, call)
	if fault != nil {
		return answer, fault
	}
	return answer, err
}
