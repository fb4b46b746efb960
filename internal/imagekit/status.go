package imagekit

import (
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/trueup/trueup/internal/file"
)

// refusal turns a status that is no success into a fault. byID says that the
// question was about one file by id; only then can the answer be an absence.
//
//	status                 by id          search, list
//	400 naming the id      invalid_id     bad_request
//	400, 414, other 4xx    bad_request    bad_request
//	401                    unauthorized   unauthorized
//	403, 402               forbidden      forbidden
//	404                    not_found      garbled: there is no such route, so this is not ImageKit
//	404 with HTML or cut   garbled        garbled
//	408, 423, 425, 5xx     unavailable    unavailable
//	429                    limited        limited
func (c *Client) refusal(r reply, byID bool) *file.Fault {
	kind := kindOf(r.answer.Status)
	said, isObject := message(r.body)
	var err error
	switch {
	case kind == file.NotFound && !byID:
		kind, err = file.Garbled, errors.New("a 404 for a listing: the base URL is not ImageKit's")
	case kind == file.NotFound && !isObject:
		kind, err = file.Garbled, errors.New("a 404 that ImageKit did not write")
	case kind == file.BadRequest && byID && namesTheID(r.answer.Status, said):
		kind = file.InvalidID
	}
	f := c.fault(r, kind, err)
	if kind == file.Limited {
		f.Wait = r.answer.Rate.Reset
	}
	return f
}

func kindOf(status int) file.FaultKind {
	switch status {
	case http.StatusUnauthorized:
		return file.Unauthorized
	case http.StatusForbidden, http.StatusPaymentRequired:
		return file.Forbidden
	case http.StatusNotFound:
		return file.NotFound
	case http.StatusTooManyRequests:
		return file.Limited
	case http.StatusRequestTimeout, http.StatusLocked, http.StatusTooEarly:
		return file.Unavailable
	}
	switch {
	case status >= 400 && status < 500:
		return file.BadRequest
	case status >= 500 && status < 600:
		return file.Unavailable
	}
	return file.Garbled
}

// namesTheID recognises "Your request contains invalid fileId parameter.", the one
// 400 that says something about the file rather than about us.
func namesTheID(status int, said string) bool {
	return status == http.StatusBadRequest && strings.Contains(strings.ToLower(said), "invalid fileid parameter")
}

// message reads the text of an error's body, and whether the body can be one of
// ImageKit's at all: a JSON object, or nothing. A page of HTML with status 404
// comes from somebody else and must not remove a row.
func message(body []byte) (said string, ok bool) {
	if len(strings.TrimSpace(string(body))) == 0 {
		return "", true
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(body, &fields) != nil || fields == nil {
		return "", false
	}
	// A message that is no text leaves said empty, which is all it deserves.
	_ = json.Unmarshal(fields["message"], &said)
	return said, true
}

// rateOf reads the rate limit's headers. Reset and Interval are milliseconds.
// Where Reset is missing or unreadable, Retry-After stands in: ImageKit does not
// document it, but whoever answers in its place may send it.
func rateOf(h http.Header, maxWait time.Duration) file.Rate {
	rate := file.Rate{
		Interval: clampWait(number(h.Get("X-Ratelimit-Interval")), 24*time.Hour),
		Reset:    clampWait(math.Ceil(number(h.Get("X-Ratelimit-Reset"))), maxWait),
	}
	if limit := number(h.Get("X-Ratelimit-Limit")); limit >= 1 && limit <= math.MaxInt32 {
		rate.Limit = int(limit)
	}
	if h.Get("X-Ratelimit-Reset") == "" {
		rate.Reset = clampWait(1000*number(h.Get("Retry-After")), maxWait)
	}
	return rate
}

// number is NaN for what is no number.
func number(s string) float64 {
	f, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	// A value out of range comes back as an infinity, which is what was meant.
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return math.NaN()
	}
	return f
}
