package ingest

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/go-chi/chi/v5"
)

// reply is what an endpoint answers when all went well; a zero status means 200.
type reply struct {
	status int
	header map[string]string
	body   any // json.RawMessage is sent as it is
}

// endpoint answers one route. Errors become an answer in problemOf and nowhere else.
type endpoint func(w http.ResponseWriter, r *http.Request) (reply, error)

func (h *handler) serve(e endpoint) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		answer, err := e(w, r)
		if err != nil {
			h.refuse(w, r, err)
			return
		}
		for name, value := range answer.header {
			w.Header().Set(name, value)
		}
		write(w, max(answer.status, http.StatusOK), answer.body)
	}
}

func write(w http.ResponseWriter, status int, body any) {
	raw, ok := body.(json.RawMessage)
	if !ok {
		raw, _ = json.Marshal(body) // of our own types, which always marshal
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(raw)))
	w.WriteHeader(status)
	_, _ = w.Write(raw) // the client is gone, or it is not
}

// spreadRetries is what those who are to come again are spread over.
const spreadRetries = 5 * time.Second

// complaints a second that are logged. While a queue is down or overrun there are thousands
// of one kind, and writing them would be the next overload.
const complaints = 10

// complain logs that a request was not served, and how many of those before were not
// logged.
func (h *handler) complain(r *http.Request, p *problem, err error) {
	if !h.complaints.AllowN(h.Now(), 1) {
		h.unlogged.Add(1)
		return
	}
	h.Logger.WarnContext(r.Context(), "request not served",
		"requestId", requestID(r.Context()), "path", route(r), "code", p.code, "error", err, "unlogged", h.unlogged.Swap(0))
}

func (h *handler) refuse(w http.ResponseWriter, r *http.Request, err error) {
	p := problemOf(err)
	if p.status >= http.StatusInternalServerError {
		h.complain(r, p, err)
	}
	if p.status == http.StatusServiceUnavailable {
		p.header = retryAfter(1 + h.Random.Below(spreadRetries))
	}
	for name, value := range p.header {
		w.Header().Set(name, value)
	}
	write(w, p.status, map[string]any{"success": false, "error": p.sentence, "code": p.code})
}

func notFound(http.ResponseWriter, *http.Request) (reply, error) {
	return reply{}, errNotFound("There is nothing at this address.")
}

func methodNotAllowed(routes chi.Routes) endpoint {
	return func(w http.ResponseWriter, r *http.Request) (reply, error) {
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost} {
			if routes.Match(chi.NewRouteContext(), method, r.URL.Path) {
				w.Header().Add("Allow", method)
			}
		}
		return reply{}, &problem{status: http.StatusMethodNotAllowed, code: "method_not_allowed",
			sentence: "This address does not answer to " + methodName(r.Method) + "."}
	}
}

// methodName keeps whatever a client calls a method out of our sentence.
func methodName(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return method
	}
	return "this method"
}
