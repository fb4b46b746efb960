package operator

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
)

// ClientConfig says which process to talk to.
type ClientConfig struct {
	// URL of its operator listener. Required.
	URL string
	// Token that opens it; a "name:" before it is taken off. Empty: none is sent.
	Token string
	// Timeout of one request. Zero: 60 s.
	Timeout time.Duration
	// Again is the first wait before a change is asked for again whose answer was lost,
	// doubled each time. Zero: 250 ms.
	Again time.Duration
}

// Client is the operator API as Go methods; the commands are made of it.
type Client struct {
	base  string
	token string
	http  *http.Client
	// patient is the same without a limit on the whole exchange, for exports and imports.
	patient *http.Client
	again   time.Duration
}

// NewClient makes no connection yet.
func NewClient(c ClientConfig) (*Client, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, errors.New("the operator address is not one such as http://127.0.0.1:3001")
	}
	token := c.Token
	if _, value, named := strings.Cut(token, ":"); named {
		token = value
	}
	if c.Timeout == 0 {
		c.Timeout = time.Minute
	}
	patient := &http.Client{
		// A token never follows a redirect to somewhere else, nor goes to a proxy.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     &http.Transport{DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext, DisableKeepAlives: true},
	}
	timed := *patient
	timed.Timeout = c.Timeout
	return &Client{base: strings.TrimRight(c.URL, "/"), token: token, http: &timed, patient: patient, again: cmp.Or(c.Again, 250*time.Millisecond)}, nil
}

// Status asks for the state of the whole.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return call[Status](ctx, c, http.MethodGet, "/api/status", nil)
}

// Passport asks for all that is known of one file.
func (c *Client) Passport(ctx context.Context, fileID string) (Passport, error) {
	return call[Passport](ctx, c, http.MethodGet, "/api/files/"+url.PathEscape(fileID), nil)
}

// Pause stops the worker, Resume lets it go on.
func (c *Client) Pause(ctx context.Context, note string) (Paused, error) {
	return call[Paused](ctx, c, http.MethodPost, "/api/pause", actBody{note})
}

func (c *Client) Resume(ctx context.Context, note string) (Paused, error) {
	return call[Paused](ctx, c, http.MethodPost, "/api/resume", actBody{note})
}

// call is one wish: one request, or several under one Idempotency-Key where it is not
// known whether the one before was carried out.
func call[Out any](ctx context.Context, c *Client, method, path string, in any) (out Out, err error) {
	var raw []byte
	media := ""
	if in != nil {
		if raw, err = json.Marshal(in); err != nil {
			return out, err
		}
		media = "application/json"
	}
	q := request{method: method, path: path, media: media, key: newKey(method)}
	once := func(ctx context.Context) (Out, error) {
		q := q
		if in != nil {
			q.body = bytes.NewReader(raw)
		}
		res, err := c.send(ctx, c.http, q)
		if err != nil {
			var none Out
			return none, err
		}
		defer res.Body.Close()
		return read[Out](c, res)
	}
	if q.key == "" {
		return once(ctx)
	}
	return persist(ctx, c.again, once)
}

// request is one exchange to be.
type request struct {
	method, path, media string
	body                io.Reader
	key                 string // Idempotency-Key
}

// newKey is for a POST: each call of a method is a new wish.
func newKey(method string) string {
	if method != http.MethodPost {
		return ""
	}
	return ulid.Make().String()
}

func (c *Client) send(ctx context.Context, by *http.Client, q request) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, q.method, c.base+q.path, q.body)
	if err != nil {
		return nil, err
	}
	if q.media != "" {
		req.Header.Set("Content-Type", q.media)
	}
	if q.key != "" {
		req.Header.Set("Idempotency-Key", q.key)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	res, err := by.Do(req)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	return res, nil
}

func read[Out any](c *Client, res *http.Response) (out Out, err error) {
	raw, err := io.ReadAll(io.LimitReader(res.Body, 64<<20))
	if err != nil {
		return out, &brokenOff{fmt.Errorf("the answer of %s broke off: %w", c.base, err)}
	}
	if res.StatusCode != http.StatusOK {
		return out, c.problem(res, raw)
	}
	if err := json.Unmarshal(raw, &out); err != nil {
		return out, fmt.Errorf("%s does not answer as trueup does: is it another program's port?", c.base)
	}
	return out, nil
}

// problem is the answer's own problem, or a sentence where it is nobody of ours that
// answered.
func (c *Client) problem(res *http.Response, raw []byte) error {
	var p problemBody
	if json.Unmarshal(raw, &p) != nil || p.Code == "" {
		err := fmt.Errorf("%s answered %s, and not as trueup does: is it another program's port?", c.base, res.Status)
		if res.StatusCode == http.StatusBadGateway || res.StatusCode == http.StatusGatewayTimeout {
			return &brokenOff{err} // a proxy that knows no more than we
		}
		return err
	}
	return &Problem{Status: res.StatusCode, Code: p.Code,
		Text: fmt.Sprintf("%s (%s, request %s)", p.Error, p.Code, res.Header.Get("X-Request-Id"))}
}

func (c *Client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return &brokenOff{fmt.Errorf("no trueup answers at %s: is it running? (%w)", c.base, err)}
}
