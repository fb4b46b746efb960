package operator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/trueup/trueup/internal/event"
)

// DeadLetters is one page of what f matches. A filter without a state means dead ones,
// here and below.
func (c *Client) DeadLetters(ctx context.Context, f event.Filter, after string, limit int) (Page[event.DeadLetter], error) {
	q := queryOf(f)
	q.Set("limit", strconv.Itoa(limit))
	q.Set("after", after)
	return call[Page[event.DeadLetter]](ctx, c, http.MethodGet, "/api/dead?"+q.Encode(), nil)
}

// DeadLetter is one, whole.
func (c *Client) DeadLetter(ctx context.Context, id string) (event.DeadLetter, error) {
	return call[event.DeadLetter](ctx, c, http.MethodGet, "/api/dead/"+url.PathEscape(id), nil)
}

// CountDead counts what f matches.
func (c *Client) CountDead(ctx context.Context, f event.Filter) (event.DeadCount, error) {
	return call[event.DeadCount](ctx, c, http.MethodGet, "/api/dead/count?"+queryOf(f).Encode(), nil)
}

// Replay starts a job that sends through again what f matches; an empty f means all.
func (c *Client) Replay(ctx context.Context, f event.Filter, note string) (event.Job, error) {
	return call[event.Job](ctx, c, http.MethodPost, "/api/dead/replay", jobBody{Filter: f, All: f.Empty(), Note: note})
}

// Discard starts a job that discards what f matches; an empty f means all.
func (c *Client) Discard(ctx context.Context, f event.Filter, note string) (event.Job, error) {
	return call[event.Job](ctx, c, http.MethodPost, "/api/dead/discard", jobBody{Filter: f, All: f.Empty(), Note: note})
}

// Preview says what replaying one page of what f matches would do now.
func (c *Client) Preview(ctx context.Context, f event.Filter, after string) (Page[Previewed], error) {
	return call[Page[Previewed]](ctx, c, http.MethodPost, "/api/dead/preview", previewBody{Filter: f, All: f.Empty(), After: after})
}

// Recheck starts a job that looks the files up again.
func (c *Client) Recheck(ctx context.Context, files []string, note string) (event.Job, error) {
	return call[event.Job](ctx, c, http.MethodPost, "/api/recheck", recheckBody{Files: files, Note: note})
}

// Assign gives a file to a user.
func (c *Client) Assign(ctx context.Context, fileID, user, note string) (Assigned, error) {
	return call[Assigned](ctx, c, http.MethodPost, "/api/files/"+url.PathEscape(fileID)+"/assign", assignBody{User: user, Note: note})
}

// Jobs is one page, the youngest first.
func (c *Client) Jobs(ctx context.Context, after string, limit int) (Page[event.Job], error) {
	q := url.Values{"limit": {strconv.Itoa(limit)}, "after": {after}}
	return call[Page[event.Job]](ctx, c, http.MethodGet, "/api/jobs?"+q.Encode(), nil)
}

// Job is one job, as far as it has come.
func (c *Client) Job(ctx context.Context, id string) (event.Job, error) {
	return call[event.Job](ctx, c, http.MethodGet, "/api/jobs/"+url.PathEscape(id), nil)
}

// CancelJob ends a job where it stands.
func (c *Client) CancelJob(ctx context.Context, id, note string) (event.Job, error) {
	return call[event.Job](ctx, c, http.MethodPost, "/api/jobs/"+url.PathEscape(id)+"/cancel", actBody{note})
}

// Import hands over what Export wrote, here or elsewhere.
func (c *Client) Import(ctx context.Context, from io.Reader, note string) (Imported, error) {
	path := "/api/dead/import?" + url.Values{"note": {note}}.Encode()
	res, err := c.send(ctx, c.patient, request{method: http.MethodPost, path: path, media: archiveMedia, body: from, key: newKey(http.MethodPost)})
	if err != nil {
		return Imported{}, err
	}
	defer res.Body.Close()
	return read[Imported](c, res)
}

// Export writes what f matches and says how many letters that are. What it has written
// counts only when the error is nil: it has checked every line by then.
func (c *Client) Export(ctx context.Context, f event.Filter, to io.Writer) (int64, error) {
	res, err := c.send(ctx, c.patient, request{method: http.MethodGet, path: "/api/dead/export?" + queryOf(f).Encode()})
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		_, err := read[struct{}](c, res)
		return 0, err
	}
	a := newArchiveReader(io.TeeReader(res.Body, to))
	if err := drain(a); err != nil {
		var line *badLine
		if errors.As(err, &line) {
			return a.count, fmt.Errorf("the export of %s broke off at %w", c.base, err)
		}
		return a.count, fmt.Errorf("the export of %s broke off: %w", c.base, err)
	}
	return a.count, nil
}
