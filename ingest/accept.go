package ingest

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/trueup/trueup/internal/event"
)

// The headers that events keep. No signature, no token and no cookie is among them.
var (
	reportHeaders  = []string{"Content-Type", "User-Agent"}
	webhookHeaders = []string{"Content-Type", "User-Agent", "Webhook-Id", "Webhook-Timestamp", "X-Ik-Requestid"}
)

// maxHeader bounds a kept header value, in bytes.
const maxHeader = 256

// accept publishes events; nil means that they are durably stored.
func (h *handler) accept(ctx context.Context, events []event.Event) error {
	ctx, cancel := context.WithTimeout(ctx, h.PublishTimeout)
	defer cancel()
	if err := h.Queue.Publish(ctx, events); err != nil {
		return fmt.Errorf("publish %d events: %w", len(events), err)
	}
	h.metrics.accepted.WithLabelValues(string(events[0].Source)).Add(float64(len(events)))
	return nil
}

// instant of acceptance, as precise as PostgreSQL keeps it.
func (h *handler) acceptedAt() time.Time { return h.Now().UTC().Truncate(time.Microsecond) }

// newID draws the id of an event accepted at.
func newID(at time.Time) (string, error) {
	id, err := ulid.New(ulid.Timestamp(at), rand.Reader)
	if err != nil {
		return "", fmt.Errorf("draw event id: %w", err)
	}
	return id.String(), nil
}

func kept(r *http.Request, names []string) map[string]string {
	headers := map[string]string{"x-request-id": requestID(r.Context())}
	for _, name := range names {
		if v := r.Header.Get(name); v != "" {
			headers[strings.ToLower(name)] = printable(v)
		}
	}
	return headers
}

// printable cuts a header value down to what any store and page can hold.
func printable(s string) string {
	if len(s) > maxHeader {
		s = s[:maxHeader]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}
