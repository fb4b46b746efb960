package ingest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/trueup/trueup/ingest/caller"
	"github.com/trueup/trueup/ingest/grant"
	"github.com/trueup/trueup/ingest/hint"
	"github.com/trueup/trueup/ingest/signature"
	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/ticket"
)

// problem is an answer that is no success: a status, one stable word for programs
// and one sentence for people. Neither ever holds what the request said.
type problem struct {
	status   int
	code     string
	sentence string
	header   map[string]string
}

func (p *problem) Error() string { return p.code + ": " + p.sentence }

func badRequest(code, sentence string) *problem {
	return &problem{status: http.StatusBadRequest, code: code, sentence: sentence}
}

func errNotFound(sentence string) *problem {
	return &problem{status: http.StatusNotFound, code: "not_found", sentence: sentence}
}

func unsupported(code, sentence string) *problem {
	return &problem{status: http.StatusUnsupportedMediaType, code: code, sentence: sentence}
}

func tooLarge(sentence string) *problem {
	return &problem{status: http.StatusRequestEntityTooLarge, code: "too_large", sentence: sentence}
}

func unavailable(code, sentence string) *problem {
	return &problem{status: http.StatusServiceUnavailable, code: code, sentence: sentence}
}

func rateLimited(wait time.Duration) *problem {
	return &problem{status: http.StatusTooManyRequests, code: "rate_limited", header: retryAfter(wait),
		sentence: "Too many requests; try again in a moment."}
}

// retryAfter rounds up to whole seconds, at least one.
func retryAfter(wait time.Duration) map[string]string {
	seconds := int64((wait + time.Second - 1) / time.Second)
	return map[string]string{"Retry-After": strconv.FormatInt(max(seconds, 1), 10)}
}

// problemOf is the one place where an error becomes a status.
func problemOf(err error) *problem {
	var (
		p       *problem
		size    *http.MaxBytesError
		nobody  *caller.Refusal
		forged  *signature.Refusal
		refused *grant.Refusal
		unread  *hint.Refusal
	)
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &size):
		return tooLarge(fmt.Sprintf("The body is larger than %d bytes.", size.Limit))
	case errors.As(err, &nobody):
		return noUser(nobody)
	case errors.As(err, &forged):
		return &problem{status: http.StatusUnauthorized, code: "bad_signature",
			sentence: "The request is not signed by ImageKit, or not lately."}
	case errors.As(err, &refused):
		return ofGrant(refused)
	case errors.As(err, &unread):
		return badRequest(unread.Code, unread.Sentence)
	case errors.Is(err, ticket.ErrNoReport):
		return errNotFound("There is no such report of yours.")
	case errors.Is(err, event.ErrTooLarge):
		return tooLarge("The request is too large for the queue; send fewer reports at once.")
	case errors.Is(err, event.ErrNotAccepted), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return unavailable("not_accepted", "The request could not be stored durably; send it again.")
	}
	return unavailable("unavailable", "The request could not be served now; send it again.")
}

func noUser(r *caller.Refusal) *problem {
	if r.Reason == caller.KeysUnavailable {
		return unavailable(string(r.Reason), "The keys that sign tokens cannot be fetched now; send the request again.")
	}
	return &problem{status: http.StatusUnauthorized, code: string(r.Reason), sentence: signIn(r.Reason),
		header: map[string]string{"WWW-Authenticate": `Bearer realm="trueup"`}}
}

func signIn(reason caller.Reason) string {
	switch reason {
	case caller.MissingToken:
		return "Sign in: the Authorization header with a bearer token is missing."
	case caller.ExpiredToken:
		return "The bearer token has expired."
	case caller.NoExpiry:
		return "The bearer token has no expiry (exp)."
	case caller.NotYetValid:
		return "The bearer token is not valid yet."
	case caller.WrongIssuer:
		return "The bearer token is from another issuer (iss)."
	case caller.WrongAudience:
		return "The bearer token is for another audience (aud)."
	case caller.BadSubject:
		return "The bearer token names no usable user (sub)."
	case caller.WrongAlgorithm:
		return "The bearer token is signed with an algorithm that is not accepted here."
	case caller.UnknownKey:
		return "The bearer token is signed with a key that is not known here."
	}
	return "The bearer token cannot be verified."
}

func ofGrant(r *grant.Refusal) *problem {
	status := http.StatusBadRequest
	if r.Code == grant.CodeSignedMode {
		status = http.StatusGone
	}
	return &problem{status: status, code: r.Code, sentence: r.Sentence}
}
