package emulator

import (
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
)

// fileMetadata is GET /v1/files/{fileId}/metadata.
func (e *Emulator) fileMetadata(r *http.Request) answer {
	f, a, refused := e.known(r)
	if refused {
		if a.status == http.StatusNotFound {
			return refuse(a.status, "The requested file does not exist or is inaccessible at this time.")
		}
		return a
	}
	return ok(f.metadata())
}

// urlMetadata is GET /v1/metadata?url=…
func (e *Emulator) urlMetadata(r *http.Request) answer {
	u, err := url.Parse(r.URL.Query().Get("url"))
	if err != nil {
		return refuse(http.StatusBadRequest, "The url should be accessible using your ImageKit.io account.")
	}
	path, ours := strings.CutPrefix(u.Scheme+"://"+u.Host+u.Path, e.Endpoint())
	if !ours {
		return refuse(http.StatusBadRequest, "The url should be accessible using your ImageKit.io account.")
	}
	e.mu.RLock()
	f := e.lib.at(withoutTransformations(path))
	e.mu.RUnlock()
	if f == nil {
		return refuse(http.StatusNotFound, "The requested file does not exist or is inaccessible at this time.")
	}
	return ok(f.metadata())
}

// purge remembers a cache purge: there is no cache, so it is complete at once.
func (e *Emulator) purge() string {
	id := newID(e.Now())
	e.purges.Store(id, true)
	return id
}

func (e *Emulator) purged(asked bool) map[string]string {
	if !asked {
		return map[string]string{}
	}
	return map[string]string{"purgeRequestId": e.purge()}
}

func (e *Emulator) purgeCache(r *http.Request) answer {
	var ask struct {
		URL string `json:"url"`
	}
	if err := decodeBody(r, &ask); err != nil || !strings.HasPrefix(ask.URL, e.Endpoint()+"/") {
		return refuse(http.StatusBadRequest, "The URL is not valid for cache purging.")
	}
	return answer{status: http.StatusCreated, body: map[string]string{"requestId": e.purge()}}
}

func (e *Emulator) showPurge(r *http.Request) answer {
	if _, known := e.purges.Load(chi.URLParam(r, "requestId")); !known {
		return refuse(http.StatusBadRequest, "No request found for this requestId.")
	}
	return ok(map[string]string{"status": "Completed"})
}

// usage is GET /v1/accounts/usage: only the storage is counted here.
func (e *Emulator) usage(r *http.Request) answer {
	p := r.URL.Query()
	if p.Get("startDate") == "" || p.Get("endDate") == "" {
		return refuse(http.StatusBadRequest, "startDate and endDate are required in query parameters.")
	}
	from, err := time.Parse(time.DateOnly, p.Get("startDate"))
	to, err2 := time.Parse(time.DateOnly, p.Get("endDate"))
	switch {
	case err != nil || err2 != nil:
		return refuse(http.StatusBadRequest, "startDate and endDate should be in format YYYY-MM-DD.")
	case !from.Before(to):
		return refuse(http.StatusBadRequest, "startDate should be before endDate.")
	case to.Sub(from) >= 90*24*time.Hour:
		return refuse(http.StatusBadRequest, "startDate and endDate should be within 90 days.")
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	var stored int64
	for _, f := range e.lib.created.items {
		stored += f.Size
		for _, v := range f.Earlier {
			stored += v.Size
		}
	}
	return ok(map[string]int64{
		"bandwidthBytes": 0, "mediaLibraryStorageBytes": stored, "videoProcessingUnitsCount": 0,
		"extensionUnitsCount": 0, "originalCacheStorageBytes": 0,
	})
}
