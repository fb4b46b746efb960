package emulator

import (
	"cmp"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
)

// class says which limit an endpoint stands under and who may call it.
type class int

const (
	read   class = iota // private key, settings.rateLimit
	write               // private key, settings.writeRateLimit
	upload              // has its own ways to say who calls; no limit
	public              // delivery: anybody; no limit
)

type endpoint struct {
	method, path, name string
	class              class
	handle             func(*http.Request) answer
}

// endpoints are ImageKit's, with the names that stats and limits go by.
func (e *Emulator) endpoints() []endpoint {
	return []endpoint{
		{"POST", "/api/v1/files/upload", "upload", upload, e.uploadV1},
		{"POST", "/api/v2/files/upload", "upload", upload, e.uploadV2},
		{"OPTIONS", "/api/{v}/files/upload", "preflight", upload, e.preflight},
		{"GET", "/v1/files", "list", read, e.list},
		{"GET", "/v1/files/{fileId}/details", "details", read, e.details},
		{"PATCH", "/v1/files/{fileId}/details", "update", write, e.update},
		{"DELETE", "/v1/files/{fileId}", "delete", write, e.deleteFile},
		{"GET", "/v1/files/{fileId}/metadata", "metadata", read, e.fileMetadata},
		{"GET", "/v1/metadata", "metadata", read, e.urlMetadata},
		{"GET", "/v1/files/{fileId}/versions", "versions", read, e.listVersions},
		{"GET", "/v1/files/{fileId}/versions/{versionId}", "version", read, e.oneVersion},
		{"DELETE", "/v1/files/{fileId}/versions/{versionId}", "deleteVersion", write, e.deleteVersion},
		{"PUT", "/v1/files/{fileId}/versions/{versionId}/restore", "restore", write, e.restore},
		{"POST", "/v1/files/batch/deleteByFileIds", "bulkDelete", write, e.bulkDelete},
		{"POST", "/v1/files/addTags", "addTags", write, e.addTags},
		{"POST", "/v1/files/removeTags", "removeTags", write, e.removeTags},
		{"POST", "/v1/files/removeAITags", "removeAITags", write, e.removeAITags},
		{"POST", "/v1/files/copy", "copy", write, e.copyFile},
		{"POST", "/v1/files/move", "move", write, e.moveFile},
		{"PUT", "/v1/files/rename", "rename", write, e.rename},
		{"POST", "/v1/files/purge", "purge", write, e.purgeCache},
		{"GET", "/v1/files/purge/{requestId}", "purgeStatus", read, e.showPurge},
		{"POST", "/v1/folder", "createFolder", write, e.createFolder},
		{"DELETE", "/v1/folder", "deleteFolder", write, e.deleteFolder},
		{"POST", "/v1/bulkJobs/copyFolder", "copyFolder", write, e.copyFolder},
		{"POST", "/v1/bulkJobs/moveFolder", "moveFolder", write, e.moveFolder},
		{"POST", "/v1/bulkJobs/renameFolder", "renameFolder", write, e.renameFolder},
		{"GET", "/v1/bulkJobs/{jobId}", "job", read, e.showJob},
		{"GET", "/v1/customMetadataFields", "fields", read, e.listFields},
		{"POST", "/v1/customMetadataFields", "createField", write, e.createField},
		{"PATCH", "/v1/customMetadataFields/{id}", "updateField", write, e.changeField},
		{"DELETE", "/v1/customMetadataFields/{id}", "deleteField", write, e.deleteField},
		{"GET", "/v1/accounts/usage", "usage", read, e.usage},
		{"GET", "/" + e.AccountID + "/*", "delivery", public, e.deliver},
		{"HEAD", "/" + e.AccountID + "/*", "delivery", public, e.deliver},
	}
}

func (e *Emulator) routes() http.Handler {
	m := chi.NewRouter()
	for _, ep := range e.endpoints() {
		m.Method(ep.method, ep.path, e.serve(ep))
	}
	m.Mount("/_emulator", e.control())
	nowhere := e.serve(endpoint{name: "unknown", class: public, handle: func(r *http.Request) answer {
		return refuse(http.StatusNotFound, "There is no "+r.Method+" "+r.URL.Path+" here.")
	}})
	m.NotFound(nowhere.ServeHTTP)
	m.MethodNotAllowed(nowhere.ServeHTTP)
	return m
}

// serve is the way of every request: count, fault, limit, key, handler, answer, log.
func (e *Emulator) serve(ep endpoint) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start, id := e.Now(), newUUID()
		w.Header().Set("x-ik-requestId", id)
		w.Header().Set("x-request-id", id)
		if ep.class == upload {
			w.Header().Set("Access-Control-Allow-Origin", "*")
		}
		e.stats.count(ep.name)
		f := e.fire(r)
		a := e.answer(ep, f, w.Header(), r)
		line := logged{
			At: start, Method: r.Method, Path: r.URL.EscapedPath(), Query: r.URL.RawQuery, Endpoint: ep.name,
			Status: a.status, Fault: f.number(), RequestID: id, Took: Duration(e.Now().Sub(start)), Agent: r.UserAgent(),
			Body: a.shape(), Cut: f.closes() || r.Context().Err() != nil,
		}
		if a.status == http.StatusTooManyRequests {
			line.Reset = cmp.Or(a.header.Get("X-RateLimit-Reset"), w.Header().Get("X-RateLimit-Reset"))
		}
		e.stats.recent.add(line) // before it is answered: whoever has an answer finds it in the log
		e.write(w, r, f, a)
	})
}

// answer decides; nothing is written yet.
func (e *Emulator) answer(ep endpoint, f *Fault, h http.Header, r *http.Request) answer {
	f.wait(r.Context())
	if f.replaces() && !f.After {
		return f.answer()
	}
	if a, limited := e.limit(ep, h); limited {
		return a
	}
	if ep.class == read || ep.class == write {
		if a, refused := e.checkKey(r); refused {
			return a
		}
	}
	a := ep.handle(r)
	if f.replaces() {
		return f.answer()
	}
	return a
}

// write sends an answer, whole or, for a fault that closes, only the first half.
func (e *Emulator) write(w http.ResponseWriter, r *http.Request, f *Fault, a answer) {
	for k, v := range a.header {
		w.Header()[k] = v
	}
	if a.serve != nil && !f.closes() {
		a.serve(w, r)
		return
	}
	body, err := a.render()
	if err != nil {
		e.Logger.Error("emulator: answer not rendered", "error", err)
		a.status, body = http.StatusInternalServerError, nil
	}
	if a.body != nil {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
	}
	if f.closes() {
		cut(w, a.status, body)
	}
	if a.status != http.StatusNoContent {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(body)
}

// cut promises more than it sends and ends the connection there. It does not
// return.
func cut(w http.ResponseWriter, status int, body []byte) {
	if status != http.StatusNoContent {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)+1))
		w.WriteHeader(status)
		_, _ = w.Write(body[:len(body)/2])
		_ = http.NewResponseController(w).Flush()
	}
	panic(http.ErrAbortHandler)
}

// checkKey is Basic auth with the private key as the user; the password is
// whatever the SDK puts there. The key alone, not encoded, is accepted too.
func (e *Emulator) checkKey(r *http.Request) (answer, bool) {
	key, sent := basicKey(r)
	switch {
	case !sent:
		return refuse(http.StatusUnauthorized, sayNoKey), true
	case subtle.ConstantTimeCompare([]byte(key), []byte(e.PrivateKey)) != 1:
		return refuse(http.StatusForbidden, sayUnknownKey), true
	}
	return answer{}, false
}

func basicKey(r *http.Request) (key string, sent bool) {
	kind, rest, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(kind, "Basic") || rest == "" {
		return "", false
	}
	if user, _, ok := r.BasicAuth(); ok {
		return user, true
	}
	if b, err := base64.StdEncoding.DecodeString(rest); err == nil {
		return string(b), true
	}
	return rest, true
}

func (e *Emulator) preflight(*http.Request) answer {
	return answer{status: http.StatusNoContent, header: http.Header{
		"Access-Control-Allow-Methods": {"POST, OPTIONS"},
		"Access-Control-Allow-Headers": {"*, Authorization"},
		"Access-Control-Max-Age":       {"600"},
	}}
}

// newID is like an ObjectId: seconds, then chance.
func newID(now time.Time) string {
	var b [8]byte
	_, _ = rand.Read(b[:])
	return fmt.Sprintf("%08x", uint32(now.Unix())) + hex.EncodeToString(b[:])
}

func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// validID is the shape of every id here; the real one is not documented.
func validID(id string) bool {
	if len(id) != 24 {
		return false
	}
	for _, c := range []byte(id) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
