package imagekit

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/trueup/trueup/internal/file"
)

// pageSize is the most files that ImageKit puts on one page.
const pageSize = 1000

// queryTime is how a searchQuery writes a moment: UTC, to the second. A fraction is
// not documented.
const queryTime = "2006-01-02T15:04:05"

// ListCreated asks for one page of the library: up to 1,000 files with createdAt at or
// after from (cut to the second; zero means all), oldest first, less the first skip. A
// page of fewer does not say that there are no more, nor does an empty one.
func (c *Client) ListCreated(ctx context.Context, from time.Time, skip int) (file.Answer, error) {
	return c.page(ctx, pagePath("createdAt", "ASC_CREATED", from, skip))
}

// ListUpdated is ListCreated by updatedAt.
func (c *Client) ListUpdated(ctx context.Context, from time.Time, skip int) (file.Answer, error) {
	return c.page(ctx, pagePath("updatedAt", "ASC_UPDATED", from, skip))
}

// Newest asks for the file that was updated last. No snapshot means that there is none,
// or that it cannot be believed.
func (c *Client) Newest(ctx context.Context) (file.Answer, error) {
	return c.page(ctx, "/v1/files?type=file&sort=DESC_UPDATED&limit=1")
}

// page asks for an array of files that may be long in coming and large.
func (c *Client) page(ctx context.Context, pathAndQuery string) (file.Answer, error) {
	return c.list(ctx, pathAndQuery, c.config.PageTimeout, c.config.MaxPage)
}

// list asks for an array of files.
func (c *Client) list(ctx context.Context, pathAndQuery string, timeout time.Duration, limit int64) (file.Answer, error) {
	r := c.get(ctx, pathAndQuery, timeout, limit)
	if r.fault == nil && r.answer.Status != http.StatusOK {
		r.fault = c.refusal(r, false)
	}
	if r.fault != nil {
		return r.answer, r.fault
	}
	if err := c.answers.Many(r.body, &r.answer); err != nil {
		return r.answer, c.garbled(r, err)
	}
	return r.answer, nil
}

// pagePath writes the query of one page. The type clause keeps folders and file
// versions out.
func pagePath(field, sort string, from time.Time, skip int) string {
	expression := `type = "file"`
	if !from.IsZero() {
		expression += ` AND ` + field + ` >= "` + from.UTC().Format(queryTime) + `"`
	}
	path := "/v1/files?searchQuery=" + escaped(expression) + "&sort=" + sort + "&limit=" + strconv.Itoa(pageSize)
	if skip > 0 {
		path += "&skip=" + strconv.Itoa(skip)
	}
	return path
}

// escaped writes an expression into a query. ImageKit's own SDKs disagree on + and
// %20; %20 means a space everywhere.
func escaped(expression string) string {
	return strings.ReplaceAll(url.QueryEscape(expression), "+", "%20")
}
