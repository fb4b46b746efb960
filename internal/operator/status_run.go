package operator

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/run"
)

// RunStatus is the youngest reconciliation run.
type RunStatus struct {
	run.Run
	// Drift is how many of its findings say that a row is wrong, lacking or too many, and
	// are still open: found or refused.
	Drift int64 `json:"drift"`
}

// AccountStatus is there while ImageKit's account is doubted: nothing is judged then.
type AccountStatus struct {
	Doubt string     `json:"doubt"`
	Since *time.Time `json:"since,omitempty"`
	Run   string     `json:"run,omitempty"` // the one that doubted it
}

// status adds to what the Service says what follows from it.
func (h *Handler) status(r *http.Request) (Status, error) {
	st, err := h.Service.Status(r.Context())
	if err != nil {
		return st, err
	}
	if st.Run != nil {
		st.Run.Drift = Drift(st.Run.Run)
	}
	if st.Fuse != nil && st.Fuse.Latched {
		st.Fuse.Release = h.release(r.Context(), &st)
	}
	return st, nil
}

// release is the command for the fuse as it is; empty where that cannot be asked now.
func (h *Handler) release(ctx context.Context, st *Status) string {
	switch id := st.Fuse.Run; {
	case id == "" || h.Runs == nil:
		return PlanCommand
	case st.Run != nil && st.Run.ID == id:
		return Release(st.Run.Run)
	default:
		latched, err := h.Runs.Run(ctx, id)
		switch {
		case errors.Is(err, event.ErrUnknown): // past its retention
			return PlanCommand
		case err != nil:
			return ""
		}
		return Release(latched)
	}
}

// PlanCommand makes a run that shows how to release the fuse.
const PlanCommand = "trueup reconcile plan"

// Release is what to type to release the fuse for exactly the candidates of this run.
// Where it has none to go by, a plan has to be made first; it is empty while the run is
// under way.
func Release(r run.Run) string {
	switch {
	case r.State.Open():
		return ""
	case r.State == run.Cancelled, r.State == run.Failed && r.Candidates == 0, !r.Account.Confirmed:
		return PlanCommand
	}
	return fmt.Sprintf("trueup reconcile apply %s --expect-deletions %d", r.ID, r.Candidates)
}

// Drift counts the findings of a run by which the table differs from the library.
func Drift(r run.Run) int64 {
	var n int64
	for _, kind := range []run.FindingKind{run.Missing, run.Drifted, run.Orphaned} {
		n += r.Found[kind][run.Found] + r.Found[kind][run.Refused]
	}
	return n
}
