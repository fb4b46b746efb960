package operator

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/trueup/trueup/internal/run"
)

// StartRun starts a reconciliation run.
func (c *Client) StartRun(ctx context.Context, kind run.Kind, note string) (run.Run, error) {
	return call[run.Run](ctx, c, http.MethodPost, "/api/runs", runBody{Kind: kind, Note: note})
}

// Run is one run, as far as it has come.
func (c *Client) Run(ctx context.Context, id string) (run.Run, error) {
	return call[run.Run](ctx, c, http.MethodGet, runPath(id, ""), nil)
}

// Runs is one page, the youngest first.
func (c *Client) Runs(ctx context.Context, after string, limit int) (Page[run.Run], error) {
	q := url.Values{"limit": {strconv.Itoa(limit)}, "after": {after}}
	return call[Page[run.Run]](ctx, c, http.MethodGet, "/api/runs?"+q.Encode(), nil)
}

// Findings is one page of what f matches, by fileId.
func (c *Client) Findings(ctx context.Context, runID string, f run.FindingFilter, after string, limit int) (Page[run.Finding], error) {
	q := url.Values{"limit": {strconv.Itoa(limit)}, "after": {after}, "kind": {string(f.Kind)}, "status": {string(f.Status)}}
	return call[Page[run.Finding]](ctx, c, http.MethodGet, runPath(runID, "/findings?")+q.Encode(), nil)
}

// ApplyRun carries out what a run has found; Who and Key of a are the server's to say.
func (c *Client) ApplyRun(ctx context.Context, id string, a run.Apply) (run.Run, error) {
	in := applyBody{ExpectDeletions: a.ExpectDeletions, AcceptAccount: a.AcceptAccount, Note: a.Note}
	return call[run.Run](ctx, c, http.MethodPost, runPath(id, "/apply"), in)
}

// CancelRun ends a run where it stands.
func (c *Client) CancelRun(ctx context.Context, id, note string) (run.Run, error) {
	return call[run.Run](ctx, c, http.MethodPost, runPath(id, "/cancel"), actBody{note})
}

func runPath(id, more string) string { return "/api/runs/" + url.PathEscape(id) + more }
