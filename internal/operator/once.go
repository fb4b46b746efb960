package operator

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"net/http"
	"regexp"
)

// remembered is the answer to one Idempotency-Key.
type remembered struct {
	request [sha256.Size]byte
	// turn is held while the request is worked on, so that its repeat waits for the
	// answer instead of working too. It guards answer.
	turn   chan struct{}
	answer []byte // nil: none yet, or a failure, which is not kept
}

var saneKey = regexp.MustCompile(`^[\x21-\x7e]{1,128}$`)

// once gives a repeat of a POST the answer of the first, as long as this process
// remembers it; the Service keeps the key of what it committed. Failures are not
// remembered: the caller may try again with the same key.
func (h *Handler) once(f func(r *http.Request, key string, body []byte) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		key := r.Header.Get("Idempotency-Key")
		if !saneKey.MatchString(key) {
			fail(w, errNoKey)
			return
		}
		body, err := readBody(w, r)
		if err != nil {
			fail(w, h.problemOf(r, err))
			return
		}
		m := h.remember(r, key, body)
		if m == nil {
			fail(w, errKeyReused)
			return
		}
		out, err := m.work(r.Context(), func() (any, error) { return f(r, key, body) })
		if err != nil {
			fail(w, h.problemOf(r, err))
			return
		}
		write(w, http.StatusOK, bytes.Clone(out))
	}
}

// remember is what stands under the caller's key; nil when another request does.
func (h *Handler) remember(r *http.Request, key string, body []byte) *remembered {
	m := &remembered{request: sha256.Sum256(append([]byte(r.URL.Path+"\x00"), body...)), turn: make(chan struct{}, 1)}
	there, found, _ := h.done.PeekOrAdd(callerOf(r)+"\x00"+key, m)
	switch {
	case !found:
		return m
	case there.request != m.request:
		return nil
	}
	return there
}

// work is the answer: the one that is there, else what f says.
func (m *remembered) work(ctx context.Context, f func() (any, error)) ([]byte, error) {
	select {
	case m.turn <- struct{}{}:
		defer func() { <-m.turn }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if m.answer != nil {
		return m.answer, nil
	}
	out, err := f()
	if err != nil {
		return nil, err
	}
	m.answer, err = json.Marshal(out)
	return m.answer, err
}
