package operator

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/go-chi/chi/v5"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/run"
)

// Runs is what stands behind the verbs on reconciliation runs; the active worker does
// them. Its errors wrap event.ErrUnknown for an id that nobody knows, run.ErrUnderWay
// while another run is open, and run.ErrEnded for a run that is past it.
type Runs interface {
	// StartRun stores a run that is to begin, with its audit line. The same caller with
	// the same key gets the run that is there.
	StartRun(ctx context.Context, r run.Run) (run.Run, error)
	Run(ctx context.Context, id string) (run.Run, error)
	// RunList is the youngest first; after is the id of the last one of the page before.
	RunList(ctx context.Context, after string, limit int) ([]run.Run, error)
	// Findings are those that the filter matches, by fileId, with ids after the given one.
	Findings(ctx context.Context, runID string, f run.FindingFilter, after string, limit int) ([]run.Finding, error)
	// ApplyRun carries out what the run found. It wraps run.ErrOtherCount, and
	// run.ErrAccount where AcceptAccount is needed.
	ApplyRun(ctx context.Context, id string, a run.Apply) (run.Run, error)
	// CancelRun ends it where it stands, or gives a plan up; what was published goes its
	// way. A run that is over stays as it is.
	CancelRun(ctx context.Context, id string, act Act) (run.Run, error)
}

// runBody is the run to start.
type runBody struct {
	Kind run.Kind `json:"kind"`
	Note string   `json:"note,omitempty"`
}

func (h *Handler) runStart(r *http.Request, key string, body []byte) (any, error) {
	var in runBody
	if err := decode(body, &in); err != nil {
		return nil, err
	}
	if in.Kind != run.Plan && in.Kind != run.Full {
		return nil, errBadKind
	}
	began, err := h.Runs.StartRun(r.Context(), run.Run{Kind: in.Kind, StartedBy: callerOf(r), Note: in.Note, Key: key})
	if err != nil {
		return nil, h.runProblem(r.Context(), "", err)
	}
	h.acted(r, "reconcile "+string(in.Kind), in.Note, "run", began.ID)
	return began, nil
}

func (h *Handler) runList(r *http.Request) (Page[run.Run], error) {
	after, limit, err := pageOf(r, pageDefault, pageMost)
	if err != nil {
		return Page[run.Run]{}, err
	}
	found, err := h.Runs.RunList(r.Context(), after, limit+1)
	return paged(found, limit, err, func(x run.Run) string { return x.ID })
}

func (h *Handler) runShow(r *http.Request) (run.Run, error) {
	id := chi.URLParam(r, "id")
	found, err := h.Runs.Run(r.Context(), id)
	return found, named("reconciliation run", id, err)
}

func (h *Handler) runFindings(r *http.Request) (Page[run.Finding], error) {
	id, q := chi.URLParam(r, "id"), r.URL.Query()
	f := run.FindingFilter{Kind: run.FindingKind(q.Get("kind")), Status: run.Status(q.Get("status"))}
	if err := checkFindings(f); err != nil {
		return Page[run.Finding]{}, err
	}
	after, limit, err := pageOf(r, pageDefault, pageMost)
	if err != nil {
		return Page[run.Finding]{}, err
	}
	found, err := h.Runs.Findings(r.Context(), id, f, after, limit+1)
	return paged(found, limit, named("reconciliation run", id, err), func(x run.Finding) string { return x.FileID })
}

// checkFindings refuses words that no finding can have, as check does for dead letters.
func checkFindings(f run.FindingFilter) error {
	switch {
	case f.Kind != "" && !slices.Contains(FindingKinds(), f.Kind):
		return filterProblem("kind", "missing, drifted, orphaned, unowned or adopted")
	case f.Status != "" && !slices.Contains(FindingStatuses(), f.Status):
		return filterProblem("status", "found, repaired, skipped or refused")
	}
	return nil
}

// FindingKinds are all of them, in the order in which people are told of them.
func FindingKinds() []run.FindingKind {
	return []run.FindingKind{run.Missing, run.Drifted, run.Orphaned, run.Adopted, run.Unowned}
}

// FindingStatuses are all of them, in the order in which a finding comes to them.
func FindingStatuses() []run.Status {
	return []run.Status{run.Found, run.Repaired, run.Skipped, run.Refused}
}

// applyBody is how far an operator goes.
type applyBody struct {
	ExpectDeletions *int64 `json:"expectDeletions,omitempty"`
	AcceptAccount   bool   `json:"acceptAccount,omitempty"`
	Note            string `json:"note,omitempty"`
}

func (h *Handler) runApply(r *http.Request, key string, body []byte) (any, error) {
	id := chi.URLParam(r, "id")
	var in applyBody
	if err := decode(body, &in); err != nil {
		return nil, err
	}
	if in.ExpectDeletions != nil && *in.ExpectDeletions < 0 {
		return nil, errBadCount
	}
	a := run.Apply{Who: callerOf(r), Note: in.Note, Key: key, ExpectDeletions: in.ExpectDeletions, AcceptAccount: in.AcceptAccount}
	applied, err := h.Runs.ApplyRun(r.Context(), id, a)
	if err != nil {
		return nil, h.applyProblem(r.Context(), id, a, err)
	}
	more := []any{"run", id, "accept_account", in.AcceptAccount}
	if in.ExpectDeletions != nil {
		more = append(more, "expect_deletions", *in.ExpectDeletions)
	}
	h.acted(r, "reconcile apply", in.Note, more...)
	return applied, nil
}

func (h *Handler) runCancel(r *http.Request, key string, body []byte) (any, error) {
	id := chi.URLParam(r, "id")
	var in actBody
	if err := decode(body, &in); err != nil {
		return nil, err
	}
	cancelled, err := h.Runs.CancelRun(r.Context(), id, Act{Who: callerOf(r), Note: in.Note, Key: key})
	if err != nil {
		return nil, h.runProblem(r.Context(), id, err)
	}
	h.acted(r, "reconcile cancel", in.Note, "run", id)
	return cancelled, nil
}

// applyProblem is runProblem with what only applying can be refused for.
func (h *Handler) applyProblem(ctx context.Context, id string, a run.Apply, err error) error {
	other := errors.Is(err, run.ErrOtherCount) && a.ExpectDeletions != nil
	if !other && !errors.Is(err, run.ErrAccount) {
		return h.runProblem(ctx, id, err)
	}
	r, unread := h.Runs.Run(ctx, id)
	if unread != nil {
		return errors.Join(unread, err)
	}
	if other && r.State == run.Failed && r.Candidates == 0 {
		return &Problem{http.StatusConflict, "other_count", fmt.Sprintf("run %s failed before it had counted candidates for deletion: start another one with %s", id, PlanCommand)}
	}
	if other {
		return &Problem{http.StatusConflict, "other_count", fmt.Sprintf(
			"%d deletions are expected, but run %s has %d candidates: look at them with trueup reconcile show %s --kind orphaned", *a.ExpectDeletions, id, r.Candidates, id)}
	}
	return &Problem{http.StatusConflict, "account_not_confirmed", fmt.Sprintf(
		"run %s has judged nothing: %s; if it is ours all the same, apply it with --accept-account", id, tellAccount(r.Account))}
}

// runProblem says which run is in the way; the store's error need not.
func (h *Handler) runProblem(ctx context.Context, id string, err error) error {
	switch {
	case errors.Is(err, event.ErrUnknown):
		return named("reconciliation run", id, err)
	case errors.Is(err, run.ErrUnderWay):
		return h.underWay(ctx, err)
	case errors.Is(err, run.ErrEnded):
		r, unread := h.Runs.Run(ctx, id)
		switch {
		case unread != nil:
			return errors.Join(unread, err)
		case r.State.Open():
			return underWayProblem(r)
		case r.State == run.Cancelled:
			return &Problem{http.StatusConflict, "run_ended", fmt.Sprintf("run %s is cancelled: start another one", id)}
		case r.State == run.Complete:
			return &Problem{http.StatusConflict, "run_ended", fmt.Sprintf("run %s is complete, and nothing of it is left to apply: look again with %s", id, PlanCommand)}
		}
		return &Problem{http.StatusConflict, "run_ended", fmt.Sprintf("run %s is %s, and its findings are not kept any more: start another one", id, r.State)}
	}
	return err
}

// underWay names the run that is open. It is gone where it has ended meanwhile.
func (h *Handler) underWay(ctx context.Context, err error) error {
	runs, unread := h.Runs.RunList(ctx, "", pageMost)
	if unread != nil {
		return errors.Join(unread, err)
	}
	i := slices.IndexFunc(runs, func(r run.Run) bool { return r.State.Open() })
	if i < 0 {
		return &Problem{http.StatusConflict, "run_under_way", "another run was under way; it has ended by now: try again"}
	}
	return underWayProblem(runs[i])
}

func underWayProblem(r run.Run) *Problem {
	return &Problem{http.StatusConflict, "run_under_way", fmt.Sprintf(
		"run %s (%s, begun by %s at %s) is under way: wait for it, or end it with trueup reconcile cancel %s", r.ID, r.Kind, r.StartedBy, when(r.StartedAt), r.ID)}
}
