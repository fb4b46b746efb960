package operator

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/trueup/trueup/internal/event"
)

// Problem is an error answer: the same shape as on the public listener.
type Problem struct {
	Status int
	Code   string // stable word
	Text   string // sentence for people
}

func (p *Problem) Error() string { return p.Text }

var (
	errNoSuchPath   = &Problem{http.StatusNotFound, "not_found", "there is nothing at this path; /openapi.json lists what there is"}
	errBadID        = &Problem{http.StatusBadRequest, "invalid_file_id", "a fileId has 1 to 64 of the characters A-Z a-z 0-9 _ and -"}
	errNoKey        = &Problem{http.StatusBadRequest, "idempotency_key_missing", "every POST needs an Idempotency-Key header of 1 to 128 printable characters"}
	errKeyReused    = &Problem{http.StatusUnprocessableEntity, "idempotency_key_reused", "this Idempotency-Key was used for another request"}
	errNoFilter     = &Problem{http.StatusBadRequest, "no_filter", "say which dead letters: ids, a filter, or all"}
	errNoUser       = &Problem{http.StatusBadRequest, "no_user", "say who the file shall belong to"}
	errNoNote       = &Problem{http.StatusBadRequest, "no_note", "say why, in note: it is kept with the act"}
	errBadKind      = &Problem{http.StatusBadRequest, "invalid_kind", "kind is plan (find, and change nothing) or run (find and repair)"}
	errBadCount     = &Problem{http.StatusBadRequest, "invalid_count", "expectDeletions is a number, and none is below 0"}
	errNotJSON      = &Problem{http.StatusBadRequest, "invalid_body", "the body must be one JSON object with the fields that /openapi.json names"}
	errMediaType    = &Problem{http.StatusUnsupportedMediaType, "unsupported_media_type", "the body must be application/json"}
	errTooLarge     = &Problem{http.StatusRequestEntityTooLarge, "body_too_large", "the body is larger than 1 MiB"}
	errOutage       = &Problem{http.StatusServiceUnavailable, "database_unavailable", "the database does not answer; try again"}
	errCutShort     = &Problem{http.StatusServiceUnavailable, "cut_short", "the request ended before its answer was there"}
	errInternal     = &Problem{http.StatusInternalServerError, "internal", "something is wrong in trueup; its log says more under this request id"}
	errUnauthorized = &Problem{http.StatusUnauthorized, "unauthorized", "this needs a bearer token of TRUEUP_OPS_TOKEN"}
	errNoTokens     = &Problem{http.StatusUnauthorized, "no_token_configured", "this process was started without TRUEUP_OPS_TOKEN, so nobody can sign in"}
	errTooMany      = &Problem{http.StatusTooManyRequests, "too_many_failures", "too many wrong tokens at once; try again"}
)

func errNotHere(role string) *Problem {
	return &Problem{http.StatusNotFound, "not_here", "the " + role + " role has no operator API; ask a worker or serve"}
}

// problemOf is the one place where an error becomes a status.
func (h *Handler) problemOf(r *http.Request, err error) *Problem {
	var p *Problem
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, event.ErrUnknown):
		return unknown(err)
	case errors.Is(err, event.ErrOutage):
		return errOutage
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return errCutShort
	}
	h.Logger.ErrorContext(r.Context(), "operator request failed", "path", r.URL.Path, "request_id", idOf(r), "error", err)
	return errInternal
}

// ErrKeyReused is what a Service answers when the caller used the act's key for another
// request.
var ErrKeyReused error = errKeyReused

// unknown names what there is none of; the error says it before its last colon.
func unknown(err error) *Problem {
	text := strings.TrimSuffix(err.Error(), ": "+event.ErrUnknown.Error())
	return &Problem{http.StatusNotFound, "unknown_id", "there is no " + strings.TrimSpace(text[strings.LastIndex(text, ": ")+1:])}
}

type problemBody struct {
	Success bool   `json:"success"`
	Error   string `json:"error"`
	Code    string `json:"code"`
}

func fail(w http.ResponseWriter, p *Problem) {
	switch p.Status {
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		w.Header().Set("Retry-After", "5")
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", `Bearer realm="trueup operator"`)
	}
	answer(w, p.Status, problemBody{Error: p.Text, Code: p.Code})
}

func answer(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil { // only a type of ours that cannot be marshalled: a bug
		status, body = http.StatusInternalServerError, []byte(`{"success":false,"error":"the answer could not be written","code":"internal"}`)
	}
	write(w, status, body)
}

func write(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // whoever asked has gone
}

func methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	fail(w, &Problem{http.StatusMethodNotAllowed, "method_not_allowed",
		r.Method + " is not for this path; it takes " + strings.Join(w.Header().Values("Allow"), ", ")})
}
