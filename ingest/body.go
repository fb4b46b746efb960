package ingest

import (
	"io"
	"mime"
	"net/http"
	"strings"
)

// What a body may weigh, and how deep it may nest.
const (
	maxReportBody  = 256 << 10
	maxWebhookBody = 1 << 20
	maxDepth       = 32
)

// readBody returns the body exactly as sent. It refuses, before reading anything,
// what is not plain JSON text, and stops reading at limit.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	if err := plainJSON(r.Header); err != nil {
		return nil, err
	}
	if r.ContentLength > limit {
		w.Header().Set("Connection", "close")
		return nil, &http.MaxBytesError{Limit: limit}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		return nil, bodyProblem(err)
	}
	return body, nil
}

func bodyProblem(err error) error {
	if _, ok := err.(*http.MaxBytesError); ok { //nolint:errorlint // MaxBytesReader returns it bare
		return err
	}
	return badRequest("bad_body", "The body could not be read to its end.")
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

// tooDeep reports whether JSON text nests deeper than maxDepth, without building
// anything from it, so that a body of brackets costs its own size and no more.
func tooDeep(body []byte) bool {
	depth, inString, escaped := 0, false, false
	for _, c := range body {
		switch {
		case escaped:
			escaped = false
		case inString:
			escaped, inString = c == '\\', c != '"'
		case c == '"':
			inString = true
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}
