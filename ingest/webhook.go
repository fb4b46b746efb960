package ingest

import (
	"errors"
	"net/http"
	"net/netip"

	"github.com/go-chi/chi/v5/middleware"

	"github.com/trueup/trueup/ingest/hint"
	"github.com/trueup/trueup/ingest/signature"
	"github.com/trueup/trueup/internal/event"
)

// received is the one answer to a verified webhook, accepted or of no interest.
type received struct {
	Success bool `json:"success"`
}

// webhook takes a delivery of ImageKit. It verifies the raw bytes before it reads
// anything in them; what does not verify is never logged and never counted by kind.
func (h *handler) webhook(w http.ResponseWriter, r *http.Request) (reply, error) {
	body, err := readBody(w, r, maxWebhookBody)
	if err != nil {
		return reply{}, err
	}
	leave, err := h.admission.enter(r.Context())
	if err != nil {
		return reply{}, err
	}
	defer leave()
	match, err := h.verify(r, body)
	if err != nil {
		return reply{}, err
	}
	n, err := hint.ParseNotice(body)
	if err != nil {
		h.metrics.webhook(hint.KindUnknown, "unreadable")
		return reply{}, err
	}
	if n.FileID == "" {
		h.metrics.webhook(n.Kind, "ignored")
		return reply{body: received{true}}, nil
	}
	e, err := h.heard(r, n, match, body)
	if err != nil {
		return reply{}, err
	}
	if err := h.accept(r.Context(), []event.Event{e}); err != nil {
		h.metrics.webhook(n.Kind, "not_accepted")
		return reply{}, err
	}
	h.metrics.webhook(n.Kind, "accepted")
	return reply{body: received{true}}, nil
}

// verify limits failures only: a verified webhook is never refused because somebody
// behind the same address sends forged ones.
func (h *handler) verify(r *http.Request, body []byte) (signature.Match, error) {
	match, err := h.verified(r, body)
	if err == nil {
		h.metrics.matches.WithLabelValues(string(match.Scheme), string(match.Form)).Inc()
		return match, nil
	}
	reason := "no_secret"
	var refusal *signature.Refusal
	if errors.As(err, &refusal) && h.Signatures != nil {
		reason = string(refusal.Reason)
	}
	h.metrics.forged.WithLabelValues(reason).Inc()
	if wait, ok := h.addresses.allow(network(middleware.GetClientIPAddr(r.Context()))); !ok {
		return match, rateLimited(wait)
	}
	h.Logger.InfoContext(r.Context(), "webhook refused", "requestId", requestID(r.Context()), "reason", reason)
	return match, err
}

// network is what one sender can send from: an IPv4 address, or the /64 that anybody
// with IPv6 has to himself.
func network(a netip.Addr) string {
	a = a.Unmap()
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.String()
		}
	}
	return a.String()
}

func (h *handler) verified(r *http.Request, body []byte) (signature.Match, error) {
	if h.Signatures == nil {
		return signature.Match{}, &signature.Refusal{Reason: signature.Mismatch}
	}
	return h.Signatures.Verify(r.Header, body, h.Now())
}

func (h *handler) heard(r *http.Request, n hint.Notice, match signature.Match, body []byte) (event.Event, error) {
	at := h.acceptedAt()
	id, err := newID(at)
	if err != nil {
		return event.Event{}, err
	}
	if n.ID == "" {
		n.ID = match.ID // signed, unlike a webhook-id beside the legacy scheme
	}
	return event.Event{
		ID: id, Source: event.Webhook, Origin: event.Webhook, Kind: n.Kind, FileID: n.FileID,
		AcceptedAt: at, UpdatedAt: n.UpdatedAt, WebhookID: n.ID,
		Headers: kept(r, webhookHeaders), Body: body,
	}, nil
}
