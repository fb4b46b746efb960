package emulator

import (
	"net/http"
	"slices"

	"github.com/go-chi/chi/v5"
)

// listVersions is GET /v1/files/{fileId}/versions: the current one first, then the
// earlier ones, newest first.
func (e *Emulator) listVersions(r *http.Request) answer {
	f, a, refused := e.known(r)
	if refused {
		return a
	}
	out := []fileView{e.current(f)}
	for _, v := range slices.Backward(f.Earlier) {
		out = append(out, e.view(f, &v, "file-version"))
	}
	return ok(out)
}

func (e *Emulator) oneVersion(r *http.Request) answer {
	id := chi.URLParam(r, "versionId")
	if !validID(id) {
		return refuse(http.StatusBadRequest, sayInvalidVersion)
	}
	f, a, refused := e.known(r)
	if refused {
		return a
	}
	if f.version.ID == id {
		return ok(e.current(f))
	}
	if i := f.earlier(id); i >= 0 {
		return ok(e.view(f, &f.Earlier[i], "file-version"))
	}
	return refuse(http.StatusNotFound, sayNoVersion)
}

// earlier is the place of a version that is not current, or -1.
func (r *record) earlier(id string) int {
	return slices.IndexFunc(r.Earlier, func(v version) bool { return v.ID == id })
}

func (e *Emulator) deleteVersion(r *http.Request) answer {
	return e.withVersion(r, sayNoAsset, func(f *record, id string, i int) ([]change, answer) {
		if i < 0 {
			return nil, refuse(http.StatusBadRequest, sayCurrentVersion)
		}
		next := *f
		next.Earlier = slices.Delete(slices.Clone(f.Earlier), i, i+1)
		return append([]change{{Put: &next}}, e.announceVersionDeleted(&next, id)...), e.empty()
	})
}

// restore is PUT …/restore: an earlier version becomes the current one, and the
// one that was current an earlier one.
func (e *Emulator) restore(r *http.Request) answer {
	return e.withVersion(r, sayNoVersion, func(f *record, _ string, i int) ([]change, answer) {
		if i < 0 {
			return nil, ok(e.current(f))
		}
		next := e.next(f)
		next.version = f.Earlier[i]
		next.Earlier = append(slices.Delete(slices.Clone(f.Earlier), i, i+1), f.version)
		slices.SortFunc(next.Earlier, func(a, b version) int { return a.Number - b.Number })
		if !e.settings.Load().RegressOnRestore {
			next.Updated = max(e.Now().UnixMilli(), f.Updated+1)
		}
		return append([]change{{Put: next}}, e.announceUpdated(next)...), ok(e.current(next))
	})
}

// withVersion finds file and version for a change; i is -1 for the current one.
func (e *Emulator) withVersion(r *http.Request, sayUnknown string, decide func(f *record, id string, i int) ([]change, answer)) answer {
	fileID, id := chi.URLParam(r, "fileId"), chi.URLParam(r, "versionId")
	if !validID(fileID) {
		return refuse(http.StatusBadRequest, sayInvalidID)
	}
	if !validID(id) {
		return refuse(http.StatusBadRequest, sayInvalidVersion)
	}
	return e.change(func() ([]change, answer) {
		f := e.lib.file(fileID)
		if f == nil || e.hiding(f) {
			return nil, refuse(http.StatusNotFound, sayNoFile)
		}
		i := f.earlier(id)
		if i < 0 && f.version.ID != id {
			return nil, refuse(http.StatusNotFound, sayUnknown)
		}
		return decide(f, id, i)
	})
}
