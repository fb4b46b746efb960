package ingest

import (
	"io"
	"mime"
	"net/http"
	"strings"
)

// What a body may weigh.
const (
	maxReportBody  = 256 << 10
	maxWebhookBody = 1 << 20
	// maxDiscard is how much of a body that is too large is read and thrown away, so
	// that a sender who is still writing gets to read the answer rather than a broken
	// connection.
	maxDiscard = 8 << 20
)

// readBody returns the body exactly as sent. It refuses, before reading anything,
// what is not plain JSON text, and stops reading at limit.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	if err := plainJSON(r.Header); err != nil {
		return nil, err
	}
	if r.ContentLength > limit {
		return nil, discarded(w, r, limit)
	}
	// One byte more than allowed tells a body that is too large from one that fits.
	body, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	if err != nil {
		return nil, badRequest("bad_body", "The body could not be read to its end.")
	}
	if int64(len(body)) > limit {
		return nil, discarded(w, r, limit)
	}
	return body, nil
}

// discarded throws away what still comes, up to a bound, and gives the connection up.
// The server's read timeout bounds the time.
func discarded(w http.ResponseWriter, r *http.Request, limit int64) error {
	w.Header().Set("Connection", "close")
	_, _ = io.CopyN(io.Discard, r.Body, maxDiscard)
	return &http.MaxBytesError{Limit: limit}
}

func plainJSON(h http.Header) error {
	if encoding := h.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return unsupported("bad_content_encoding", "Send the body without Content-Encoding.")
	}
	lines := h["Content-Type"]
	if len(lines) != 1 {
		return unsupported("bad_content_type", "Send the body as Content-Type: application/json.")
	}
	kind, params, err := mime.ParseMediaType(lines[0])
	if charset := params["charset"]; err != nil || kind != "application/json" || charset != "" && !strings.EqualFold(charset, "utf-8") {
		return unsupported("bad_content_type", "Send the body as Content-Type: application/json, in UTF-8.")
	}
	return nil
}
