package emulator

import (
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"
)

// details is GET /v1/files/{fileId}/details.
func (e *Emulator) details(r *http.Request) answer {
	f, a, refused := e.known(r)
	if refused {
		return a
	}
	return ok(e.current(f))
}

// known is the file a request names by id, or ImageKit's refusal. A file younger
// than visibilityDelay is not there yet.
func (e *Emulator) known(r *http.Request) (*record, answer, bool) {
	id := chi.URLParam(r, "fileId")
	if !validID(id) {
		return nil, refuse(http.StatusBadRequest, sayInvalidID), true
	}
	e.mu.RLock()
	f := e.lib.file(id)
	e.mu.RUnlock()
	if f == nil || e.hiding(f) {
		return nil, refuse(http.StatusNotFound, sayNoFile), true
	}
	return f, answer{}, false
}

func (e *Emulator) hiding(f *record) bool {
	delay := time.Duration(e.settings.Load().VisibilityDelay)
	return delay > 0 && e.Now().Before(time.UnixMilli(f.Created).Add(delay))
}

// deleteFile is DELETE /v1/files/{fileId}: the file with all its versions.
func (e *Emulator) deleteFile(r *http.Request) answer {
	id := chi.URLParam(r, "fileId")
	if !validID(id) {
		return refuse(http.StatusBadRequest, sayInvalidID)
	}
	return e.change(func() ([]change, answer) {
		f := e.lib.file(id)
		if f == nil || e.hiding(f) {
			return nil, refuse(http.StatusNotFound, sayNoFile)
		}
		return append([]change{{Drop: id}}, e.announceDeleted(f)...), e.empty()
	})
}

// next is a copy of r to be changed, with a later updatedAt: it only ever grows.
func (e *Emulator) next(r *record) *record {
	c := *r
	c.Updated = max(e.Now().UnixMilli(), r.Updated+1)
	return &c
}
