package service

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/trueup/trueup/internal/config"
	"github.com/trueup/trueup/internal/operator"
	"github.com/trueup/trueup/internal/store"
	"github.com/trueup/trueup/internal/telemetry"
)

// What a control notice says.
const (
	controlPause  = "pause"
	controlResume = "resume"
)

// operations is the operator listener's handler. An ingest has no API: it has no
// right to the tables behind it.
func (s *Service) operations() (http.Handler, error) {
	c := operator.Config{
		Role: string(s.Role), Version: s.Version, Ready: s.opsReady, Metrics: telemetry.MetricsHandler(s.Registry), Logger: s.Logger,
	}
	for _, t := range s.OperatorTokens() {
		c.Tokens = append(c.Tokens, operator.Token{Name: t.Name, Value: t.Value.Reveal()})
	}
	if s.Role != config.Ingest {
		c.Service, c.Runs = operations{s}, operations{s}
	}
	return operator.New(c)
}

func (s *Service) opsReady() operator.Readiness {
	r := s.ready()
	parts := map[string]string{}
	if r.Database != "" {
		parts["database"], parts["imagekit"] = r.Database, r.ImageKit
	}
	return operator.Readiness{Ready: r.Accepting, Durability: r.Durability, Why: r.Why, Parts: parts}
}

// operations is what the operator API asks of a process.
type operations struct{ s *Service }

// Status tells what each door can tell; a door that does not answer is named and the
// others are told all the same.
func (o operations) Status(ctx context.Context) (operator.Status, error) {
	out := operator.Status{At: o.s.Now().UTC(), Role: string(o.s.Role), Version: o.s.Version, Unavailable: map[string]string{}}
	own := o.s.worker.State()
	out.Worker = &operator.WorkerStatus{Here: own.Active, Turn: own.Turn}
	if own.Paused.Why != "operator" {
		out.Worker.Outage = own.Paused.Why
	}
	o.queue(ctx, &out)
	o.database(ctx, &out)
	budget := o.s.verifier.Status()
	out.API = &operator.APIStatus{PerSecond: budget.Rate, BlockedUntil: moment(budget.BlockedUntil), Waiting: budget.Waiting}
	return out, nil
}

func (o operations) queue(ctx context.Context, out *operator.Status) {
	ready := o.s.Queue.Ready()
	out.Queue = &operator.QueueStatus{Accepting: ready.Accepting, Durability: ready.Durability, Why: ready.Why}
	depth, err := o.s.Queue.Depth(ctx)
	if err != nil {
		out.Unavailable["queue"] = err.Error()
		return
	}
	out.Queue.Waiting, out.Queue.Unacked, out.Queue.Bytes = int64(depth.Waiting), int64(depth.Unacked), int64(depth.Bytes)
	out.Queue.Oldest = moment(depth.Oldest)
}

func (o operations) database(ctx context.Context, out *operator.Status) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	st, err := o.s.Rows.Status(ctx)
	if err != nil {
		out.Unavailable["database"] = err.Error()
		return
	}
	out.Worker.Turn = max(out.Worker.Turn, st.Turn)
	out.Worker.Paused = pausedOf(st.Paused)
	out.Retries = &operator.RetryStatus{Count: st.Retries.Count, NextDue: moment(st.Retries.NextDue)}
	out.DeadLetters, out.Rows = st.Dead, &st.LiveRows
	out.Fuse = &operator.FuseStatus{Latched: st.Fuse.Latched, LatchedAt: moment(st.Fuse.At), Why: st.Fuse.Why, Candidates: st.Fuse.Candidates, Run: st.Fuse.Run}
	reconciled(out, &st)
}

func pausedOf(p store.Paused) operator.Paused {
	return operator.Paused{Paused: p.Paused, PausedBy: p.By, PausedNote: p.Note, PausedAt: moment(p.At)}
}

// moment is nil for the zero time.
func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func (o operations) Passport(ctx context.Context, fileID string) (operator.Passport, error) {
	p, err := o.s.Rows.Passport(ctx, fileID)
	if err != nil {
		return operator.Passport{}, err
	}
	out := operator.Passport{FileID: p.FileID, Cut: p.Cut, Row: rowOf(p.Row), State: stateOf(p.State),
		Lines: []operator.Line{}, Retries: []operator.Retry{}, DeadLetters: []operator.DeadLetter{}}
	for _, l := range p.Lines {
		out.Lines = append(out.Lines, operator.Line{ID: l.ID, At: l.At, Source: l.Source, Origin: l.Origin, Kind: l.Kind, User: l.User,
			AcceptedAt: moment(l.AcceptedAt), Verdict: l.Verdict, Outcome: l.Outcome, Reason: l.Reason, End: l.End, Fence: l.Fence,
			Status: l.Status, RequestID: l.RequestID, Detail: l.Detail})
	}
	for _, r := range p.Retries {
		out.Retries = append(out.Retries, operator.Retry{EventID: r.EventID, Source: r.Source, Kind: r.Kind, User: r.User,
			AcceptedAt: r.AcceptedAt, DueAt: r.DueAt, Tries: r.Tries, WaitedMS: r.Waited.Milliseconds(), Reason: r.Reason})
	}
	for _, d := range p.DeadLetters {
		out.DeadLetters = append(out.DeadLetters, operator.DeadLetter{ID: d.ID, EventID: d.EventID, Source: d.Source, Kind: d.Kind, User: d.User,
			AcceptedAt: d.AcceptedAt, Class: d.Class, Reason: d.Reason, Note: d.Note, State: d.State, CreatedAt: d.CreatedAt, Attempts: d.Attempts,
			Origin: d.Origin, ReplayEvent: d.ReplayEvent, ChangedAt: d.ChangedAt, Tries: d.Tries, History: d.History})
	}
	for _, j := range p.Jobs {
		out.Jobs = append(out.Jobs, operator.FileJob{JobID: j.JobID, Verb: string(j.Verb), Who: j.Who, Note: j.Note, At: j.At, Letter: j.Letter, Event: j.Event,
			PublishedAt: moment(j.PublishedAt), EndedAt: moment(j.EndedAt), End: string(j.End), Reason: j.Reason})
	}
	for _, f := range p.Findings {
		out.Findings = append(out.Findings, operator.FileFinding(f))
	}
	for _, a := range p.Acts {
		out.Acts = append(out.Acts, operator.FileAct{ID: a.ID, At: a.At, Who: a.Who, Verb: a.Verb, Note: a.Note, JobID: a.JobID})
	}
	return out, nil
}

// rowOf reduces the row to what explains it; the row may have columns of the
// application's own.
func rowOf(raw json.RawMessage) *operator.Row {
	if len(raw) == 0 {
		return nil
	}
	var columns struct {
		URL       string     `json:"file_url"`
		User      string     `json:"user_id"`
		Name      *string    `json:"file_name"`
		Path      *string    `json:"file_path"`
		Uploaded  *time.Time `json:"upload_timestamp"`
		Updated   *time.Time `json:"remote_updated_at"`
		Synced    *time.Time `json:"synced_at"`
		VersionID *string    `json:"version_id"`
	}
	// A column of another type in somebody's table is left out, not an error.
	_ = json.Unmarshal(raw, &columns)
	return &operator.Row{URL: columns.URL, User: columns.User, Name: value(columns.Name), Path: value(columns.Path),
		Uploaded: columns.Uploaded, Updated: columns.Updated, Synced: columns.Synced, VersionID: value(columns.VersionID)}
}

func value(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func stateOf(s *store.State) *operator.State {
	if s == nil {
		return nil
	}
	return &operator.State{Seen: s.Seen, High: moment(s.High), FirstSeen: moment(s.FirstSeen), GoneAt: moment(s.GoneAt), GoneWhy: s.GoneWhy,
		SuspectAt: moment(s.SuspectAt), Owner: s.Owner, OwnerKind: s.OwnerKind, OwnerAt: moment(s.OwnerAt), OwnerEvent: s.OwnerEvent, Flags: s.Flags}
}

func (o operations) Pause(ctx context.Context, act operator.Act) (operator.Paused, error) {
	return o.setPaused(ctx, true, act)
}

func (o operations) Resume(ctx context.Context, act operator.Act) (operator.Paused, error) {
	return o.setPaused(ctx, false, act)
}

// setPaused makes it durable first, then tells the worker that is active, here or in
// another process.
func (o operations) setPaused(ctx context.Context, paused bool, act operator.Act) (operator.Paused, error) {
	now, err := o.s.Rows.SetPaused(ctx, paused, store.Act{Who: act.Who, Note: act.Note, Key: act.Key})
	if err != nil {
		return operator.Paused{}, err
	}
	word := controlResume
	if now.Paused {
		word = controlPause
	}
	o.s.worker.SetPaused(now.Paused, now.Note)
	o.s.wake()
	if err := o.s.Queue.Tell(topicControl, []byte(word)); err != nil {
		o.s.Logger.WarnContext(ctx, "control.not_told", "word", word, "error", err.Error())
	}
	return pausedOf(now), nil
}
