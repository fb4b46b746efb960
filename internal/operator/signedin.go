package operator

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"
	"time"
)

// hashedToken is compared by hash, so that neither length nor beginning of a token
// shows in the time it takes.
type hashedToken struct {
	name string
	hash [sha256.Size]byte
}

func hashTokens(tokens []Token) []hashedToken {
	out := make([]hashedToken, len(tokens))
	for i, t := range tokens {
		out[i] = hashedToken{t.Name, sha256.Sum256([]byte(t.Value))}
	}
	return out
}

type callerKey struct{}

// callerOf is the name of the token that opened the request.
func callerOf(r *http.Request) string {
	name, _ := r.Context().Value(callerKey{}).(string)
	return name
}

// signedIn lets requests with a token pass and tells the handlers whose it is.
func (h *Handler) signedIn(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(h.tokens) == 0 {
			fail(w, errNoTokens)
			return
		}
		name, ok := h.recognise(r.Header.Values("Authorization"))
		if !ok {
			h.refuse(w, r)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, name)))
	})
}

// recognise compares with every token, always with all of them.
func (h *Handler) recognise(authorization []string) (name string, ok bool) {
	if len(authorization) != 1 {
		return "", false
	}
	scheme, value, _ := strings.Cut(authorization[0], " ")
	if !strings.EqualFold(scheme, "bearer") {
		return "", false
	}
	hash := sha256.Sum256([]byte(strings.TrimSpace(value)))
	for _, t := range h.tokens {
		if subtle.ConstantTimeCompare(hash[:], t.hash[:]) == 1 {
			name, ok = t.name, true
		}
	}
	return name, ok
}

// refuse answers a wrong token late, and at once when too many wait already.
func (h *Handler) refuse(w http.ResponseWriter, r *http.Request) {
	select {
	case h.waiting <- struct{}{}:
		defer func() { <-h.waiting }()
	default:
		fail(w, errTooMany)
		return
	}
	h.Logger.WarnContext(r.Context(), "operator token refused", "path", r.URL.Path, "from", r.RemoteAddr, "request_id", idOf(r))
	late := time.NewTimer(h.FailDelay)
	defer late.Stop()
	select {
	case <-late.C:
	case <-r.Context().Done():
	}
	fail(w, errUnauthorized)
}
