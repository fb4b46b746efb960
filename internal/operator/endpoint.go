package operator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"

	"github.com/go-chi/chi/v5"

	"github.com/trueup/trueup/internal/file"
)

// maxBody leaves room for a recheck of recheckMost files.
const maxBody = 1 << 20

// ask makes an endpoint of a question.
func ask[Out any](h *Handler, f func(*http.Request) (Out, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		out, err := f(r)
		if err != nil {
			fail(w, h.problemOf(r, err))
			return
		}
		answer(w, http.StatusOK, out)
	}
}

func (h *Handler) passport(r *http.Request) (Passport, error) {
	id := chi.URLParam(r, "id")
	if !file.ValidID(id) {
		return Passport{}, errBadID
	}
	p, err := h.Service.Passport(r.Context(), id)
	if err != nil {
		return Passport{}, err
	}
	p.FileID = id
	p.Why = Explain(p)
	p.Lines, p.Retries, p.DeadLetters = listed(p.Lines), listed(p.Retries), listed(p.DeadLetters)
	p.Jobs, p.Acts, p.Findings = listed(p.Jobs), listed(p.Acts), listed(p.Findings)
	return p, nil
}

// listed is list, or an empty one: an answer has [] rather than null.
func listed[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// actBody is what a POST may say.
type actBody struct {
	Note string `json:"note"`
}

// act makes an endpoint of a verb that changes something.
func act[Out any](h *Handler, verb string, f func(Service, context.Context, Act) (Out, error)) http.HandlerFunc {
	return h.once(func(r *http.Request, key string, body []byte) (any, error) {
		var in actBody
		if err := decode(body, &in); err != nil {
			return nil, err
		}
		out, err := f(h.Service, r.Context(), Act{Who: callerOf(r), Note: in.Note, Key: key})
		if err == nil {
			h.Logger.InfoContext(r.Context(), "operator act", "verb", verb, "who", callerOf(r), "note", in.Note, "request_id", idOf(r))
		}
		return out, err
	})
}

// keyed makes an endpoint of a question that needs a body. Like every POST it wants a
// key; its answer is not kept, since asking again may be answered otherwise.
func keyed[Out any](h *Handler, f func(*http.Request, []byte) (Out, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !saneKey.MatchString(r.Header.Get("Idempotency-Key")) {
			fail(w, errNoKey)
			return
		}
		body, err := readBody(w, r)
		if err != nil {
			fail(w, h.problemOf(r, err))
			return
		}
		out, err := f(r, body)
		if err != nil {
			fail(w, h.problemOf(r, err))
			return
		}
		answer(w, http.StatusOK, out)
	}
}

// readBody is the whole body, which must be JSON where there is one.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return nil, errTooLarge
	}
	if err != nil {
		return nil, errNotJSON
	}
	media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if len(body) > 0 && media != "application/json" {
		return nil, errMediaType
	}
	return body, nil
}

// decode takes one JSON object with known fields; no body is an empty object.
func decode(body []byte, in any) error {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(in); err != nil {
		return errNotJSON
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errNotJSON
	}
	return nil
}
