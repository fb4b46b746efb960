package emulator

import (
	"net/http"

	"github.com/go-chi/chi/v5"
)

// control is /_emulator/: for tests and people, without a key, never limited,
// never faulted and in no statistics.
func (e *Emulator) control() http.Handler {
	m := chi.NewRouter()
	on := func(method, path string, handle func(*http.Request) answer) {
		m.MethodFunc(method, path, func(w http.ResponseWriter, r *http.Request) {
			r.Body = http.MaxBytesReader(w, r.Body, 1<<20)
			e.write(w, r, nil, handle(r))
		})
	}
	on("GET", "/settings", func(*http.Request) answer { return ok(e.settings.Load()) })
	on("PATCH", "/settings", func(r *http.Request) answer { return e.patchSettings(r.Body) })
	on("GET", "/faults", e.showFaults)
	on("POST", "/faults", e.addFaults)
	on("DELETE", "/faults", e.dropFaults)
	on("DELETE", "/faults/{id}", e.dropFaults)
	on("GET", "/stats", e.showStats)
	on("GET", "/requests", e.showRequests)
	on("GET", "/deliveries", e.showDeliveries)
	on("GET", "/history", e.showHistory)
	on("GET", "/files", e.showFiles)
	on("POST", "/files/generate", e.generateFiles)
	on("POST", "/reset", e.reset)
	return m
}

// reset empties the account: files, folders, fields, tokens, faults, pending
// webhooks and statistics; settings return to their defaults.
func (e *Emulator) reset(*http.Request) answer {
	return e.change(func() ([]change, answer) {
		e.sender.forget()
		e.rates.forget()
		e.stats.reset()
		e.dice.seed(0)
		return []change{{Reset: true}}, answer{status: http.StatusNoContent}
	})
}
