package ingest

import (
	"net/http"

	"github.com/trueup/trueup/ingest/grant"
	"github.com/trueup/trueup/ingest/hint"
)

// authParams permits one V1 upload, whose other parameters the client chooses.
func (h *handler) authParams(_ http.ResponseWriter, _ *http.Request, _ string) (reply, error) {
	params, err := h.Grants.V1()
	if err != nil {
		return reply{}, err
	}
	h.metrics.grants.WithLabelValues("v1").Inc()
	return reply{body: struct {
		Success bool `json:"success"`
		grant.V1
	}{true, params}}, nil
}

// uploadToken permits one V2 upload with exactly the parameters it answers.
func (h *handler) uploadToken(w http.ResponseWriter, r *http.Request, user string) (reply, error) {
	body, err := readBody(w, r, maxReportBody)
	if err != nil {
		return reply{}, err
	}
	if err := hint.ValidJSON(body); err != nil {
		return reply{}, err
	}
	upload, err := h.Grants.V2(user, body)
	if err != nil {
		return reply{}, err
	}
	h.metrics.grants.WithLabelValues("v2").Inc()
	return reply{body: upload}, nil
}
