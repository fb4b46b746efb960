package service

import (
	"context"
	"crypto/rand"
	"errors"
	"iter"
	"net/http"
	"sync"

	"github.com/oklog/ulid/v2"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/operator"
	"github.com/trueup/trueup/internal/store"
	"github.com/trueup/trueup/worker/verify"
)

// Letters is what the verbs on dead letters need of the database.
type Letters interface {
	operator.Work
	DeadLetters(ctx context.Context, f event.Filter, after string, limit int) ([]event.DeadLetter, error)
	DeadLetter(ctx context.Context, id string) (event.DeadLetter, error)
	CountDead(ctx context.Context, f event.Filter) (event.DeadCount, error)
	ExportDead(ctx context.Context, f event.Filter, each func(event.DeadLetter) error) error
	Import(ctx context.Context, importID string, letters iter.Seq2[event.DeadLetter, error], act store.Act) (inserted, known int, err error)
	Preview(ctx context.Context, pending []event.Pending, seen []file.Observation,
		end func(event.Pending, file.Result) event.End) (map[string]store.Previewed, error)
	Assign(ctx context.Context, fileID, user string, act store.Act) error
	StartJob(ctx context.Context, job event.Job) (event.Job, error)
	Job(ctx context.Context, id string) (event.Job, error)
	Jobs(ctx context.Context, after string, limit int) ([]event.Job, error)
	CancelJob(ctx context.Context, id string, act store.Act) (event.Job, error)
}

// begun is what goes on beside the worker while it has the turn.
func (s *Service) begun(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	for _, work := range s.besides(ctx, s.worker.State().Turn) {
		all.Go(work)
	}
}

// wake says to what goes on beside the worker here that an operator has done something.
func (s *Service) wake() {
	s.runner.Wake()
	s.reconciler.Wake()
}

// jobsChanged wakes the active worker, here or elsewhere. A lost notice is made good by
// the next one or the next turn; so a job or run is told of twice, when it starts and
// whenever somebody asks for it.
func (o operations) jobsChanged(ctx context.Context) {
	o.s.wake()
	if err := o.s.Queue.Tell(topicJobs, nil); err != nil {
		o.s.Logger.WarnContext(ctx, "jobs.not_told", "error", err.Error())
	}
}

func actOf(a operator.Act) store.Act { return store.Act{Who: a.Who, Note: a.Note, Key: a.Key} }

// said gives the store's own errors the words of the API.
func said(err error) error {
	switch {
	case errors.Is(err, store.ErrKeyReused):
		return operator.ErrKeyReused
	case errors.Is(err, store.ErrUnknownFile):
		return errors.Join(err, event.ErrUnknown)
	case errors.Is(err, store.ErrTooOld):
		return &operator.Problem{Status: http.StatusBadRequest, Code: "too_old", Text: err.Error() + "; nothing was imported"}
	}
	return err
}

func (o operations) DeadLetters(ctx context.Context, f event.Filter, after string, limit int) ([]event.DeadLetter, error) {
	return o.s.Rows.DeadLetters(ctx, f, after, limit)
}

func (o operations) DeadLetter(ctx context.Context, id string) (event.DeadLetter, error) {
	return o.s.Rows.DeadLetter(ctx, id)
}

func (o operations) CountDead(ctx context.Context, f event.Filter) (event.DeadCount, error) {
	return o.s.Rows.CountDead(ctx, f)
}

func (o operations) ExportDead(ctx context.Context, f event.Filter, each func(event.DeadLetter) error) error {
	return o.s.Rows.ExportDead(ctx, f, each)
}

func (o operations) Import(ctx context.Context, importID string, letters iter.Seq2[event.DeadLetter, error], act operator.Act) (inserted, known int, err error) {
	inserted, known, err = o.s.Rows.Import(ctx, importID, letters, actOf(act))
	return inserted, known, said(err)
}

func (o operations) Assign(ctx context.Context, fileID, user string, act operator.Act) error {
	return said(o.s.Rows.Assign(ctx, fileID, user, actOf(act)))
}

func (o operations) StartJob(ctx context.Context, job event.Job) (event.Job, error) {
	job, err := o.s.Rows.StartJob(ctx, job)
	if err == nil && job.State == event.JobRunning {
		o.jobsChanged(ctx)
	}
	return job, said(err)
}

func (o operations) Job(ctx context.Context, id string) (event.Job, error) {
	job, err := o.s.Rows.Job(ctx, id)
	if err == nil && job.State == event.JobRunning {
		o.jobsChanged(ctx)
	}
	return job, err
}

func (o operations) Jobs(ctx context.Context, after string, limit int) ([]event.Job, error) {
	return o.s.Rows.Jobs(ctx, after, limit)
}

func (o operations) CancelJob(ctx context.Context, id string, act operator.Act) (event.Job, error) {
	job, err := o.s.Rows.CancelJob(ctx, id, actOf(act))
	if err == nil {
		o.jobsChanged(ctx)
	}
	return job, said(err)
}

// Preview asks and settles as the worker would, and keeps nothing.
func (o operations) Preview(ctx context.Context, letters []event.DeadLetter) ([]operator.Previewed, error) {
	pending := make([]event.Pending, len(letters))
	var asks []verify.Ask
	var asked []event.Pending
	for i := range letters {
		pending[i] = event.Pending{Event: replayOf(&letters[i])}
		if letters[i].FileID == "" {
			continue // could not be decoded: there is nothing to look up
		}
		asks, asked = append(asks, askOf(&pending[i])), append(asked, pending[i])
	}
	answers, err := o.s.verifier.Look(ctx, asks)
	if errors.Is(err, verify.ErrLibraryOutage) {
		return nil, &operator.Problem{Status: http.StatusServiceUnavailable, Code: "imagekit_unavailable", Text: "ImageKit as a whole does not answer; try again"}
	}
	if err != nil {
		return nil, err
	}
	byFile, seen := map[string]verify.Answer{}, []file.Observation(nil)
	for i, a := range answers {
		if _, twice := byFile[asks[i].FileID]; !twice && a.Observation != nil {
			seen = append(seen, *a.Observation)
		}
		byFile[asks[i].FileID] = a
	}
	would, err := o.s.Rows.Preview(ctx, asked, seen, func(p event.Pending, r file.Result) event.End {
		return o.s.worker.Table.End(p, byFile[p.FileID], r)
	})
	if err != nil {
		return nil, err
	}
	out := make([]operator.Previewed, len(letters))
	for i := range letters {
		out[i] = previewedOf(&letters[i], would[pending[i].ID], byFile[letters[i].FileID])
	}
	return out, nil
}

// replayOf is the event that a replay of the letter would publish, but for its id.
func replayOf(d *event.DeadLetter) event.Event {
	return event.Event{ID: ulid.MustNew(ulid.Now(), rand.Reader).String(), Source: event.Replay, Origin: d.Origin, Kind: d.Kind, FileID: d.FileID, User: d.User,
		AcceptedAt: d.AcceptedAt, UpdatedAt: d.UpdatedAt, WebhookID: d.WebhookID, DeadLetter: d.ID}
}

// askOf is the question that a replay brings up: always a look-up by id.
func askOf(p *event.Pending) verify.Ask {
	return verify.Ask{FileID: p.FileID, Priority: verify.Replay, ByID: true, NewsOnly: p.Origin == event.Client,
		Announced: p.Kind == event.KindDeleted && p.Signed(), UpdatedAt: p.UpdatedAt}
}

func previewedOf(d *event.DeadLetter, p store.Previewed, a verify.Answer) operator.Previewed {
	out := operator.Previewed{ID: d.ID, FileID: d.FileID, Verdict: p.Verdict, Outcome: string(p.Result.Outcome), End: string(p.End.Kind), Reason: p.End.Reason}
	switch {
	case d.FileID == "":
		out.Verdict, out.End, out.Reason = "undecided", string(event.Dead), "undecodable"
	case a.Fault != nil:
		out.Status = a.Fault.Status
	case a.Observation != nil && a.Observation.Present():
		out.Status = http.StatusOK
	case a.Observation != nil:
		out.Status = http.StatusNotFound
	}
	return out
}
