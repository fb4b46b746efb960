// Package imagekit speaks to ImageKit's management API, and is the only package
// that does. It asks about one file by id, about many by search, for the library page
// by page, and whether it answers at all; every way in which that can go wrong becomes a
// *file.Fault with one of its closed kinds.
//
// It stands apart so that what ImageKit is known, assumed or feared to do is
// written down in one place. Its one invariant: what it cannot fully believe it
// does not return. A 200 that is not JSON, is cut, names another file or lacks a
// required field is a fault, never a snapshot, and never an absence.
//
// It does not retry, wait or remember: that is for whoever owns the budget.
package imagekit

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/trueup/trueup/internal/imagekit/answer"
)

// DefaultBaseURL is where ImageKit's management API lives.
const DefaultBaseURL = "https://api.imagekit.io"

// Config says which library to ask, and how much of an answer to believe.
type Config struct {
	// BaseURL is the API's origin, with a path prefix where a proxy needs one; zero
	// means DefaultBaseURL. Only http and https, without user, query or fragment.
	BaseURL string
	// PrivateKey is required. It is sent as the user of HTTP Basic with an empty
	// password, and never shows in an error or an excerpt.
	PrivateKey string
	// TicketField is the custom metadata field that holds ownership tickets; it is
	// always stripped from a snapshot. Zero means that only tags can hold them.
	TicketField string
	// LooksLikeTicket reports whether a tag or value is shaped like an ownership
	// ticket. Zero means that nothing is.
	LooksLikeTicket func(string) bool
	// Timeout is for one whole answer, connecting and body included; zero means 10 s.
	Timeout time.Duration
	// MaxDetails and MaxSearch cap the bodies believed, after decompression; zero
	// means 1 MiB and 16 MiB.
	MaxDetails, MaxSearch int64
	// PageTimeout and MaxPage are the same for one page of a listing, 1,000 files with
	// all their metadata: zero means 45 s, or Timeout where that is longer, and 64 MiB.
	PageTimeout time.Duration
	MaxPage     int64
	// MaxWait caps what a 429 may ask us to wait; zero means 15 minutes, the longest
	// window that ImageKit's texts mention. Up to the cap the wait is never shortened.
	MaxWait time.Duration
	// UserAgent of every request; zero means "trueup".
	UserAgent string
	// Transport sends the requests; zero means our own: HTTP/1.1 with keep-alive, and
	// no proxy from the environment.
	Transport http.RoundTripper
}

// Client asks ImageKit. It is safe for concurrent use.
type Client struct {
	config  Config
	base    string // without a trailing slash
	http    *http.Client
	answers answer.Reader
}

// New checks the configuration and returns a client. It makes no connection.
func New(c Config) (*Client, error) {
	c = withDefaults(c)
	base, err := checkBase(c.BaseURL)
	if err != nil {
		return nil, err
	}
	if err := checkKey(c.PrivateKey); err != nil {
		return nil, err
	}
	return &Client{
		config: c, base: base,
		http: &http.Client{
			Transport:     c.Transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		answers: answer.Reader{TicketField: c.TicketField, LooksLikeTicket: c.LooksLikeTicket, MaxFile: c.MaxDetails},
	}, nil
}

// Close drops the idle connections. The client may be used again.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func withDefaults(c Config) Config {
	c.BaseURL = cmp.Or(c.BaseURL, DefaultBaseURL)
	c.Timeout = cmp.Or(c.Timeout, 10*time.Second)
	c.MaxDetails = cmp.Or(c.MaxDetails, 1<<20)
	c.MaxSearch = cmp.Or(c.MaxSearch, 16<<20)
	c.PageTimeout = cmp.Or(c.PageTimeout, max(45*time.Second, c.Timeout))
	c.MaxPage = cmp.Or(c.MaxPage, 64<<20)
	c.MaxWait = cmp.Or(c.MaxWait, 15*time.Minute)
	c.UserAgent = cmp.Or(c.UserAgent, "trueup")
	if c.LooksLikeTicket == nil {
		c.LooksLikeTicket = func(string) bool { return false }
	}
	if c.Transport == nil {
		c.Transport = newTransport()
	}
	return c
}

func checkBase(raw string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil {
		// url.Error repeats its input, which may hold a password.
		return "", errors.New("imagekit: the base URL is not a URL")
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return "", errors.New("imagekit: the base URL must begin with http:// or https:// and name a host")
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("imagekit: the base URL of %s must have no user, query or fragment", u.Host)
	}
	return strings.TrimRight(u.String(), "/"), nil
}

func checkKey(key string) error {
	if key == "" {
		return errors.New("imagekit: the private key is missing")
	}
	for _, r := range key {
		// A colon would end the user name early; the rest never occurs in a key and
		// mostly comes from a line break at the end of a secret's file.
		if r <= ' ' || r == ':' || r > '~' {
			return errors.New("imagekit: the private key holds a space, a line break, a colon or a character outside ASCII")
		}
	}
	return nil
}

// newTransport keeps to HTTP/1.1: the gate of worker/verify stops a request that
// must not leave by closing its connection, which nobody else may be using.
func newTransport() *http.Transport {
	dialer := &net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}
	return &http.Transport{
		Proxy:                  nil,
		DialContext:            dialer.DialContext,
		TLSHandshakeTimeout:    5 * time.Second,
		MaxIdleConns:           64,
		MaxIdleConnsPerHost:    64,
		IdleConnTimeout:        60 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}
}
