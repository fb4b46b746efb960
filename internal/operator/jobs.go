package operator

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/go-chi/chi/v5"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
)

// Jobs are verbs on many items. The active worker does them; see Runner.
type Jobs interface {
	// StartJob stores the job with its audit line and its total. The same caller with
	// the same key gets the job that is there.
	StartJob(ctx context.Context, job event.Job) (event.Job, error)
	Job(ctx context.Context, id string) (event.Job, error)
	// Jobs are the youngest first; after is the id of the last one of the page before.
	Jobs(ctx context.Context, after string, limit int) ([]event.Job, error)
	// CancelJob ends it where it stands; what was published goes its way. A job that
	// has ended stays as it is.
	CancelJob(ctx context.Context, id string, act Act) (event.Job, error)
}

// jobBody is what a replay or discard works on.
type jobBody struct {
	Filter event.Filter `json:"filter"`
	All    bool         `json:"all,omitempty"`
	Note   string       `json:"note,omitempty"`
}

// startOnLetters makes an endpoint that starts a job on everything a filter matches.
func (h *Handler) startOnLetters(verb event.JobVerb) http.HandlerFunc {
	return h.once(func(r *http.Request, key string, body []byte) (any, error) {
		var in jobBody
		if err := decode(body, &in); err != nil {
			return nil, err
		}
		f, err := bulk(in.Filter, in.All)
		if err != nil {
			return nil, err
		}
		return h.start(r, event.Job{Verb: verb, Filter: f, Note: in.Note, Key: key})
	})
}

func (h *Handler) start(r *http.Request, job event.Job) (any, error) {
	job.Who = callerOf(r)
	job, err := h.Service.StartJob(r.Context(), job)
	if err == nil {
		h.acted(r, string(job.Verb), job.Note, "job", job.ID, "total", job.Total)
	}
	return job, err
}

// recheckBody names the files to look up again.
type recheckBody struct {
	Files []string `json:"files"`
	Note  string   `json:"note,omitempty"`
}

// recheckMost keeps a list inside the body that is read.
const recheckMost = 10_000

func (h *Handler) recheck(r *http.Request, key string, body []byte) (any, error) {
	var in recheckBody
	if err := decode(body, &in); err != nil {
		return nil, err
	}
	slices.Sort(in.Files)
	files := slices.Compact(in.Files)
	if len(files) == 0 || len(files) > recheckMost {
		return nil, &Problem{http.StatusBadRequest, "invalid_files", fmt.Sprintf("files is a list of 1 to %d fileIds", recheckMost)}
	}
	for i, id := range files {
		if !file.ValidID(id) {
			return nil, &Problem{errBadID.Status, errBadID.Code, fmt.Sprintf("%q: %s", files[i], errBadID.Text)}
		}
	}
	return h.start(r, event.Job{Verb: event.JobRecheck, Files: files, Note: in.Note, Key: key})
}

func (h *Handler) jobList(r *http.Request) (Page[event.Job], error) {
	after, limit, err := pageOf(r, pageDefault, pageMost)
	if err != nil {
		return Page[event.Job]{}, err
	}
	found, err := h.Service.Jobs(r.Context(), after, limit+1)
	for i := range found {
		found[i].Files = nil // a list of jobs, not of all their files
	}
	return paged(found, limit, err, func(j event.Job) string { return j.ID })
}

func (h *Handler) jobShow(r *http.Request) (event.Job, error) {
	id := chi.URLParam(r, "id")
	j, err := h.Service.Job(r.Context(), id)
	return j, named("job", id, err)
}

func (h *Handler) jobCancel(r *http.Request, key string, body []byte) (any, error) {
	id := chi.URLParam(r, "id")
	var in actBody
	if err := decode(body, &in); err != nil {
		return nil, err
	}
	j, err := h.Service.CancelJob(r.Context(), id, Act{Who: callerOf(r), Note: in.Note, Key: key})
	if err != nil {
		return nil, named("job", id, err)
	}
	h.acted(r, "cancel", in.Note, "job", id)
	return j, nil
}
