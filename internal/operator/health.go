package operator

import (
	_ "embed"
	"net/http"
)

type healthAnswer struct {
	Success bool   `json:"success"`
	Role    string `json:"role"`
	Version string `json:"version,omitempty"`
}

type readyAnswer struct {
	Success    bool              `json:"success"`
	Ready      bool              `json:"ready"`
	Durability string            `json:"durability,omitempty"`
	Why        string            `json:"why,omitempty"`
	Parts      map[string]string `json:"parts,omitempty"`
}

// healthz says that the process answers, and nothing more.
func (h *Handler) healthz(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, healthAnswer{Success: true, Role: h.Role, Version: h.Version})
}

func (h *Handler) readyz(w http.ResponseWriter, _ *http.Request) {
	r := h.Ready()
	status := http.StatusOK
	if !r.Ready {
		status = http.StatusServiceUnavailable
	}
	answer(w, status, readyAnswer{Success: r.Ready, Ready: r.Ready, Durability: r.Durability, Why: r.Why, Parts: r.Parts})
}

//go:embed openapi.json
var openAPI []byte

// OpenAPI is the description of this listener that /openapi.json serves.
func OpenAPI() []byte { return openAPI }

func serveOpenAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(openAPI) // whoever asked has gone
}
