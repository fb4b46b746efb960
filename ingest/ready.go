package ingest

import (
	_ "embed"
	"encoding/json"
	"net/http"
)

//go:embed openapi.json
var openAPIDocument []byte

// OpenAPI returns the OpenAPI 3.0.3 document of the public listener.
func OpenAPI() []byte { return append([]byte(nil), openAPIDocument...) }

func openAPI(http.ResponseWriter, *http.Request) (reply, error) {
	return reply{body: json.RawMessage(openAPIDocument)}, nil
}

type health struct {
	Success    bool   `json:"success"`
	Ready      *bool  `json:"ready,omitempty"`
	Durability string `json:"durability,omitempty"`
	Why        string `json:"why,omitempty"`
	Database   string `json:"database,omitempty"`
	ImageKit   string `json:"imagekit,omitempty"`
}

// healthz says that the process answers, and nothing more.
func (h *handler) healthz(http.ResponseWriter, *http.Request) (reply, error) {
	return reply{body: health{Success: true}}, nil
}

// readyz says whether the queue takes writes. A database or an ImageKit that is down
// is shown, not failed for: accepting goes on without both.
func (h *handler) readyz(http.ResponseWriter, *http.Request) (reply, error) {
	now := h.Ready()
	if h.draining() {
		now.Accepting, now.Why = false, "stopping"
	}
	answer := health{
		Success: now.Accepting, Ready: &now.Accepting, Durability: now.Durability,
		Why: now.Why, Database: now.Database, ImageKit: now.ImageKit,
	}
	if !now.Accepting {
		return reply{status: http.StatusServiceUnavailable, body: answer, header: retryAfter(0)}, nil
	}
	return reply{body: answer}, nil
}

func (h *handler) draining() bool {
	select {
	case <-h.Draining:
		return true
	default:
		return false
	}
}
