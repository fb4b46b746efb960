package ingest

import (
	"net/http"

	"github.com/trueup/trueup/ingest/hint"
	"github.com/trueup/trueup/internal/event"
)

// taken answers a single report, and is one line of the answer to an array.
type taken struct {
	Success  bool   `json:"success,omitempty"`
	FileID   string `json:"fileId,omitempty"`
	ReportID string `json:"reportId"`
}

type allTaken struct {
	Success bool    `json:"success"`
	Reports []taken `json:"reports"`
}

// saveMetadata takes reports. Whether a file exists, and whose it is, is not known
// here, so the answer cannot tell.
func (h *handler) saveMetadata(w http.ResponseWriter, r *http.Request, user string) (reply, error) {
	body, err := readBody(w, r, maxReportBody)
	if err != nil {
		return reply{}, err
	}
	leave, err := h.admission.enter(r.Context())
	if err != nil {
		return reply{}, err
	}
	defer leave()
	reports, array, err := hint.ParseReports(body)
	if err != nil {
		return reply{}, err
	}
	// The request itself has been counted; each report is a look-up of its own.
	if wait, ok := h.users.allowN(user, len(reports)-1); !ok {
		return reply{}, rateLimited(wait)
	}
	events, err := h.reported(r, user, reports)
	if err != nil {
		return reply{}, err
	}
	if err := h.accept(r.Context(), events); err != nil {
		return reply{}, err
	}
	if array {
		return reply{status: http.StatusAccepted, body: h.receipts(events)}, nil
	}
	id := h.Tickets.SealReport(events[0].ID, user)
	return reply{status: http.StatusAccepted, header: map[string]string{"Location": "/reports/" + id}, body: taken{Success: true, ReportID: id}}, nil
}

func (h *handler) reported(r *http.Request, user string, reports []hint.Report) ([]event.Event, error) {
	at, headers := h.acceptedAt(), kept(r, reportHeaders)
	events := make([]event.Event, len(reports))
	for i, report := range reports {
		id, err := newID(at)
		if err != nil {
			return nil, err
		}
		events[i] = event.Event{
			ID: id, Source: event.Client, Origin: event.Client, Kind: event.KindReport, FileID: report.FileID,
			User: user, AcceptedAt: at, Headers: headers, Body: report.Raw,
		}
	}
	return events, nil
}

func (h *handler) receipts(events []event.Event) allTaken {
	all := allTaken{Success: true, Reports: make([]taken, len(events))}
	for i, e := range events {
		all.Reports[i] = taken{FileID: e.FileID, ReportID: h.Tickets.SealReport(e.ID, e.User)}
	}
	return all
}
