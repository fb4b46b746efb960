package imagekit

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/trueup/trueup/internal/file"
)

// reply is one answer as it came, before anything in it is believed.
type reply struct {
	answer file.Answer // without snapshots
	header http.Header
	body   []byte
	fault  *file.Fault // set when no whole answer came
}

// get sends one request and reads the whole answer, up to limit bytes of it.
func (c *Client) get(ctx context.Context, pathAndQuery string, timeout time.Duration, limit int64) reply {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+pathAndQuery, nil)
	if err != nil {
		return reply{fault: &file.Fault{Kind: file.BadRequest, Err: errors.New("the request could not be built")}}
	}
	request.SetBasicAuth(c.config.PrivateKey, "")
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", c.config.UserAgent)
	response, err := c.http.Do(request)
	if err != nil {
		return reply{fault: &file.Fault{Kind: unansweredKind(ctx, err), Err: cause(ctx, err)}}
	}
	defer response.Body.Close()
	return c.read(ctx, response, limit)
}

func (c *Client) read(ctx context.Context, response *http.Response, limit int64) reply {
	r := reply{header: response.Header}
	r.answer.Status = response.StatusCode
	r.answer.RequestID = c.printable(requestID(response.Header), 100)
	r.answer.Rate = rateOf(response.Header, c.config.MaxWait)
	r.answer.Date, _ = http.ParseTime(response.Header.Get("Date"))
	body, err := io.ReadAll(io.LimitReader(response.Body, limit+1))
	r.body = body
	switch {
	case response.StatusCode >= 300 && response.StatusCode < 400:
		r.fault = c.garbled(r, errors.New("a redirect, which the API does not use"))
	case err != nil && response.StatusCode >= 400 && response.StatusCode != http.StatusNotFound:
		// The status alone says enough; only a 404 must be whole to be believed.
	case err != nil:
		r.fault = c.fault(r, unansweredKind(ctx, err), cause(ctx, err))
	case int64(len(body)) > limit:
		r.fault = c.garbled(r, fmt.Errorf("a body of more than %d bytes", limit))
	case response.StatusCode == http.StatusOK && !isJSON(response.Header):
		r.fault = c.garbled(r, errors.New("a Content-Type that is not JSON"))
	case response.StatusCode > 200 && response.StatusCode < 300:
		r.fault = c.garbled(r, errors.New("a success that the API does not use"))
	}
	return r
}

// fault describes what went wrong with an answer.
func (c *Client) fault(r reply, kind file.FaultKind, err error) *file.Fault {
	return &file.Fault{
		Kind:      kind,
		Status:    r.answer.Status,
		RequestID: r.answer.RequestID,
		Excerpt:   c.excerpt(r.body),
		Err:       err,
	}
}

func (c *Client) garbled(r reply, err error) *file.Fault {
	return c.fault(r, file.Garbled, err)
}

// excerpt is the first bytes of a body, fit to be shown and stored.
func (c *Client) excerpt(body []byte) string {
	return c.printable(string(body[:min(len(body), 4096)]), 200)
}

// printable makes what ImageKit, or whoever answered in its place, said fit for a
// log: no control characters, at most limit bytes, and never our key, which some
// proxies echo. The key is looked for before anything is cut.
func (c *Client) printable(s string, limit int) string {
	key := c.config.PrivateKey
	for _, secret := range []string{
		base64.StdEncoding.EncodeToString([]byte(key + ":")),
		strings.TrimRight(base64.StdEncoding.EncodeToString([]byte(key)), "="),
		key,
	} {
		s = strings.ReplaceAll(s, secret, "[redacted]")
	}
	var out strings.Builder
	for _, r := range strings.ToValidUTF8(s, "?") {
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) || r == '\u2028' || r == '\u2029' {
			r = ' '
		}
		if out.Len()+len(string(r)) > limit {
			break
		}
		out.WriteRune(r)
	}
	return strings.TrimSpace(out.String())
}

func requestID(h http.Header) string {
	if id := h.Get("X-Ik-Requestid"); id != "" {
		return id
	}
	return h.Get("X-Request-Id")
}

func isJSON(h http.Header) bool {
	kind, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	return err == nil && (kind == "application/json" || strings.HasSuffix(kind, "+json"))
}

// unansweredKind tells no answer in time from no answer at all. A caller that
// gives up counts as time, too; it asks its own context which it was.
func unansweredKind(ctx context.Context, err error) file.FaultKind {
	var timeout net.Error
	switch {
	case ctx.Err() != nil, errors.As(err, &timeout) && timeout.Timeout():
		return file.TimedOut
	case isProtocol(err):
		return file.Garbled
	}
	return file.Unreachable
}

// isProtocol reports whether somebody answered who does not speak what we speak.
func isProtocol(err error) bool {
	var record tls.RecordHeaderError
	return errors.As(err, &record) || strings.Contains(err.Error(), "malformed HTTP")
}

// cause drops the URL that net/http puts before every error: it is long, and says
// nothing that the event does not say.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("no whole answer in time: %w", ctx.Err())
	}
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}

// clampWait reads a wait in milliseconds; zero when it says nothing usable.
func clampWait(ms float64, limit time.Duration) time.Duration {
	if !(ms > 0) { // also not a number
		return 0
	}
	if ms >= float64(limit.Milliseconds()) {
		return limit
	}
	return time.Duration(ms * float64(time.Millisecond))
}
