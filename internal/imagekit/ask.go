package imagekit

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/trueup/trueup/internal/file"
)

// maxURL is the longest URL that is sent. ImageKit states no limit; 8 kB is what
// ordinary servers take.
const maxURL = 8000

// noSuchFile is shaped like every fileId seen and names none; a search for it
// tells whether searching by id is understood at all.
const noSuchFile = "000000000000000000000000"

// Details looks one file up by id: the only oracle of existence. Exactly one
// snapshot comes back with a nil error; every error is a *file.Fault, and
// Fault.Absent means that ImageKit said there is no such file. The answer's
// Status, RequestID, Rate and Date are set beside a fault too.
func (c *Client) Details(ctx context.Context, id string) (file.Answer, error) {
	if !file.ValidID(id) {
		return file.Answer{}, &file.Fault{Kind: file.InvalidID, Err: errors.New("not asked: the id is outside the alphabet of file ids")}
	}
	r := c.get(ctx, "/v1/files/"+url.PathEscape(id)+"/details", c.config.Timeout, c.config.MaxDetails)
	if r.fault == nil && r.answer.Status != http.StatusOK {
		r.fault = c.refusal(r, true)
	}
	if r.fault != nil {
		return r.answer, r.fault
	}
	s, err := c.answers.One(r.body, id)
	if err != nil {
		return r.answer, c.garbled(r, err)
	}
	r.answer.Snapshots = []file.Snapshot{s}
	return r.answer, nil
}

// Search asks for many files at once. It returns those asked-for files that the
// search index shows: a file that is missing may exist all the same, and one that
// is there may be out of date. Rows that are not asked for, are no files, or
// cannot be believed are left out. The caller bounds the number of ids.
func (c *Client) Search(ctx context.Context, ids []string) (file.Answer, error) {
	if len(ids) == 0 {
		return file.Answer{}, nil
	}
	query, err := searchPath(ids)
	if err != nil {
		return file.Answer{}, &file.Fault{Kind: file.BadRequest, Err: err}
	}
	answer, err := c.list(ctx, query, c.config.Timeout, c.config.MaxSearch)
	if err == nil {
		answer.Snapshots = wanted(answer.Snapshots, ids)
	}
	return answer, err
}

// ListOne asks for any one file. That a JSON array comes back proves that the key
// sees a library; an empty one is an answer too.
func (c *Client) ListOne(ctx context.Context) (file.Answer, error) {
	return c.list(ctx, "/v1/files?limit=1", c.config.Timeout, c.config.MaxSearch)
}

// ProbeIDSearch reports whether the library understands a search by id, which only
// ImageKit's agent skills document. known is a file that exists, or empty. An
// error means that it could not be found out.
func (c *Client) ProbeIDSearch(ctx context.Context, known string) (bool, error) {
	if !file.ValidID(known) {
		known = noSuchFile
	}
	_, err := c.Search(ctx, []string{known})
	var fault *file.Fault
	if errors.As(err, &fault) && fault.Kind == file.BadRequest {
		return false, nil
	}
	return err == nil, err
}

// searchPath writes the search for ids. The type clause keeps file versions and
// folders out; the ids' alphabet keeps them from ending the string they stand in.
func searchPath(ids []string) (string, error) {
	quoted := make([]string, len(ids))
	for i, id := range ids {
		if !file.ValidID(id) {
			return "", errors.New("not asked: an id is outside the alphabet of file ids")
		}
		quoted[i] = `"` + id + `"`
	}
	expression := `type = "file" AND id IN [` + strings.Join(quoted, ",") + `]`
	path := "/v1/files?searchQuery=" + escaped(expression) + "&limit=" + strconv.Itoa(min(len(ids), pageSize))
	if len(path) > maxURL {
		return "", fmt.Errorf("not asked: %d ids make a URL of %d bytes", len(ids), len(path))
	}
	return path, nil
}

// wanted keeps the newest hit of each file that was asked for.
func wanted(hits []file.Snapshot, ids []string) []file.Snapshot {
	at := make(map[string]int, len(ids))
	for _, id := range ids {
		at[id] = -1
	}
	kept := hits[:0]
	for _, hit := range hits {
		switch i, asked := at[hit.ID]; {
		case !asked:
		case i < 0:
			at[hit.ID] = len(kept)
			kept = append(kept, hit)
		case hit.UpdatedAt.After(kept[i].UpdatedAt):
			kept[i] = hit
		}
	}
	return kept
}
