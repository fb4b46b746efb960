// Package contract holds requests and answers against an OpenAPI document. It is
// apart, and imported by tests alone, so that the validator is in no binary.
//
// Its one invariant: an exchange that a Recorder let through is one the document
// describes. Requests that were meant to be wrong, those answered 4xx, are held
// against it for their answer only.
package contract

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
)

// Document is an OpenAPI document that is itself valid.
type Document struct {
	doc    *openapi3.T
	router routers.Router
}

// Load reads and validates an OpenAPI 3.0 document in JSON.
func Load(raw []byte) (*Document, error) {
	doc, err := openapi3.NewLoader().LoadFromData(raw)
	if err != nil {
		return nil, fmt.Errorf("read OpenAPI document: %w", err)
	}
	if err := doc.Validate(context.Background()); err != nil {
		return nil, fmt.Errorf("validate OpenAPI document: %w", err)
	}
	doc.Servers = nil // the address under test is whatever it is
	router, err := gorillamux.NewRouter(doc)
	if err != nil {
		return nil, fmt.Errorf("route OpenAPI document: %w", err)
	}
	return &Document{doc: doc, router: router}, nil
}

// Operations returns "METHOD /path" of everything the document describes.
func (d *Document) Operations() []string {
	var all []string
	for path, item := range d.doc.Paths.Map() {
		for method := range item.Operations() {
			all = append(all, method+" "+path)
		}
	}
	return all
}

// Check holds one exchange against the document and names its operation. Addresses
// that the document does not know must be answered 404, methods it does not know 405.
func (d *Document) Check(r *http.Request, body []byte, status int, header http.Header, answer []byte) (operation string, err error) {
	ctx := r.Context()
	r = r.Clone(ctx)
	r.Body = io.NopCloser(bytes.NewReader(body))
	if r.Method == http.MethodHead {
		r.Method = http.MethodGet
	}
	route, params, err := d.router.FindRoute(r)
	if err != nil {
		if status == http.StatusNotFound || status == http.StatusMethodNotAllowed || r.Method == http.MethodOptions {
			return "", nil
		}
		return "", fmt.Errorf("%s %s is not in the document, but was answered %d: %w", r.Method, r.URL.Path, status, err)
	}
	operation = route.Method + " " + route.Path
	input := &openapi3filter.RequestValidationInput{
		Request: r, PathParams: params, Route: route,
		Options: &openapi3filter.Options{
			AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true, MultiError: true,
		},
	}
	if status < 400 || status >= 500 {
		if err := openapi3filter.ValidateRequest(ctx, input); err != nil {
			return operation, fmt.Errorf("%s, answered %d, has a request that the document refuses: %w", operation, status, err)
		}
	}
	output := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: input, Status: status, Header: header, Options: input.Options,
	}
	output.SetBodyBytes(answer)
	if err := openapi3filter.ValidateResponse(ctx, output); err != nil {
		return operation, fmt.Errorf("%s has an answer (%d) that the document refuses: %w", operation, status, err)
	}
	return operation, nil
}

// Recorder is an http.RoundTripper that checks everything that passes through it.
// Put it into the client of a journey, and read Errors and Seen at the end.
type Recorder struct {
	// Next sends the requests; nil means http.DefaultTransport.
	Next http.RoundTripper
	// Document is what they are held against.
	Document *Document
	// Only selects requests by their URL's host ("127.0.0.1:3000"); empty means all.
	Only string

	mu     sync.Mutex
	seen   map[string]int
	errors []error
}

// RoundTrip sends r and records the exchange. It changes neither of both.
func (c *Recorder) RoundTrip(r *http.Request) (*http.Response, error) {
	next := c.Next
	if next == nil {
		next = http.DefaultTransport
	}
	if c.Only != "" && r.URL.Host != c.Only {
		return next.RoundTrip(r) //nolint:wrapcheck // a transport hands errors through
	}
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, fmt.Errorf("record request body: %w", err)
		}
		_ = r.Body.Close()
		r = r.Clone(r.Context())
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	res, err := next.RoundTrip(r)
	if err != nil {
		return nil, err //nolint:wrapcheck // as above
	}
	answer, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if err != nil {
		return nil, fmt.Errorf("record answer: %w", err)
	}
	res.Body = io.NopCloser(bytes.NewReader(answer))
	c.note(c.Document.Check(r, body, res.StatusCode, res.Header, answer))
	return res, nil
}

func (c *Recorder) note(operation string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen == nil {
		c.seen = map[string]int{}
	}
	if operation != "" {
		c.seen[operation]++
	}
	if err != nil {
		c.errors = append(c.errors, err)
	}
}

// Seen returns how many exchanges were recorded of each operation.
func (c *Recorder) Seen() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := map[string]int{}
	for operation, n := range c.seen {
		seen[operation] = n
	}
	return seen
}

// Errors returns what did not agree with the document.
func (c *Recorder) Errors() []error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]error(nil), c.errors...)
}
