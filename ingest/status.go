package ingest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/trueup/trueup/internal/file"
)

const (
	// maxWait caps ?wait=; the server's write timeout allows for it.
	maxWait = 25 * time.Second
	// lookEvery is how often a waiting question looks by itself, in case the notice
	// that should wake it is lost.
	lookEvery = time.Second
	// maxWaiting bounds the questions that wait at once; more are answered as they
	// stand, so that waiting can never use up connections or the database.
	maxWaiting = 1024
)

// notClaimable is the only reason a reporter ever learns.
const notClaimable = string(file.ReasonNotClaimable)

// told is the answer about a report.
type told struct {
	Success bool      `json:"success"`
	State   State     `json:"state"`
	Reason  string    `json:"reason,omitempty"`
	File    *fileView `json:"file,omitempty"`
}

// fileView is the reporter's file as our row has it.
type fileView struct {
	FileID         string          `json:"fileId"`
	URL            string          `json:"url"`
	Name           *string         `json:"name,omitempty"`
	Path           *string         `json:"path,omitempty"`
	Type           *string         `json:"type,omitempty"`
	MIME           *string         `json:"mime,omitempty"`
	SizeBytes      *int64          `json:"size,omitempty"`
	Width          *int32          `json:"width,omitempty"`
	Height         *int32          `json:"height,omitempty"`
	ThumbnailURL   *string         `json:"thumbnailUrl,omitempty"`
	Tags           []string        `json:"tags,omitempty"`
	CustomMetadata json.RawMessage `json:"customMetadata,omitempty"`
	IsPrivate      *bool           `json:"isPrivate,omitempty"`
	CreatedAt      *time.Time      `json:"createdAt,omitempty"`
	UpdatedAt      *time.Time      `json:"updatedAt,omitempty"`
}

func viewOf(s *file.Snapshot) *fileView {
	if s == nil {
		return nil
	}
	return &fileView{
		FileID: s.ID, URL: s.URL, Name: s.Name, Path: s.Path, Type: s.Type, MIME: s.MIME, SizeBytes: s.SizeBytes,
		Width: s.Width, Height: s.Height, ThumbnailURL: s.ThumbnailURL, Tags: s.Tags, CustomMetadata: s.CustomMetadata,
		IsPrivate: s.IsPrivate, CreatedAt: moment(s.CreatedAt), UpdatedAt: moment(s.UpdatedAt),
	}
}

func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// report answers GET /reports/{reportID}. A forged or foreign id is refused without
// asking anybody.
func (h *handler) report(_ http.ResponseWriter, r *http.Request, user string) (reply, error) {
	wait, err := waitOf(r)
	if err != nil {
		return reply{}, err
	}
	id, acceptedAt, err := h.Tickets.OpenReport(chi.URLParam(r, "reportID"), user)
	if err != nil {
		return reply{}, fmt.Errorf("open report id: %w", err)
	}
	if h.Now().Sub(acceptedAt) > h.ReportRetention {
		return reply{}, &problem{status: http.StatusGone, code: "report_expired", sentence: "This report is too old; its outcome is no longer kept."}
	}
	status, err := h.outcome(r.Context(), id, user, wait)
	if err != nil {
		h.Logger.WarnContext(r.Context(), "report status not available", "requestId", requestID(r.Context()), "error", err)
		return reply{}, unavailable("status_unavailable", "The outcome cannot be looked up now; ask again.")
	}
	return reply{body: tell(status)}, nil
}

func tell(s ReportStatus) told {
	switch s.State {
	case Verified:
		return told{Success: true, State: Verified, File: viewOf(s.File)}
	case Rejected:
		return told{Success: true, State: Rejected, Reason: notClaimable}
	}
	return told{Success: true, State: Pending}
}

// waitOf reads ?wait= as a duration or as seconds; longer than maxWait is maxWait.
func waitOf(r *http.Request) (time.Duration, error) {
	given := r.URL.Query().Get("wait")
	if given == "" {
		return 0, nil
	}
	wait, err := time.ParseDuration(given)
	if err != nil {
		var seconds int
		seconds, err = strconv.Atoi(given)
		wait = time.Duration(min(max(seconds, -1), 3600)) * time.Second
	}
	if err != nil || wait < 0 {
		return 0, badRequest("bad_wait", "The parameter wait is a duration such as 20s.")
	}
	return min(wait, maxWait), nil
}

// outcome looks up a report and, while it is pending, waits for at most wait.
func (h *handler) outcome(ctx context.Context, id, user string, wait time.Duration) (ReportStatus, error) {
	if h.Reports == nil {
		return ReportStatus{State: Pending}, nil
	}
	if wait <= 0 || !h.enterWait() {
		return h.Reports.Report(ctx, id, user)
	}
	defer h.waiting.Add(-1)
	waited, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	notice := h.listen(waited, id)
	defer func() { cancel(); <-notice }()
	return h.watch(ctx, waited, notice, id, user)
}

func (h *handler) enterWait() bool {
	if h.waiting.Add(1) <= maxWaiting {
		return true
	}
	h.waiting.Add(-1)
	return false
}

// listen returns a channel that is closed at the notice, or when ctx ends.
func (h *handler) listen(ctx context.Context, id string) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if h.Settled == nil || h.Settled.Wait(ctx, id) != nil {
			<-ctx.Done()
		}
	}()
	return done
}

func (h *handler) watch(ctx, waited context.Context, notice <-chan struct{}, id, user string) (ReportStatus, error) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		status, err := h.Reports.Report(ctx, id, user)
		if err != nil || status.State == Verified || status.State == Rejected || waited.Err() != nil {
			return status, err
		}
		select {
		case <-notice:
			notice = nil // it comes once; from here on the ticker alone
		case <-tick.C:
		case <-waited.Done():
		case <-h.Draining:
			return status, nil
		}
	}
}
