package localpg

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// ObtainOptions is how far Obtain may go.
type ObtainOptions struct {
	Find FindOptions
	// CacheDir is as in Fetch.
	CacheDir string
	// NoDownload forbids fetching (--no-download); what an earlier run has fetched
	// is still used. False: fetch where nothing is found.
	NoDownload bool
	// Progress gets lines about finding and fetching. Nil: none.
	Progress io.Writer
}

// Obtain finds the server's programs or, where none are found, fetches them. A
// folder that somebody named is never replaced by a fetched one.
func Obtain(ctx context.Context, o ObtainOptions) (Programs, error) {
	p, err := find(ctx, o.Find)
	if major := dataMajor(o.Find.ForData); err == nil && o.Find.Bin == "" && major != 0 && p.Major != major {
		if own, ok := kept(ctx, o.CacheDir); ok && own.Major == major {
			return own, nil // the data was made by what an earlier run fetched
		}
	}
	var missing *NotFound
	if !errors.As(err, &missing) {
		return p, err
	}
	if p, ok := kept(ctx, o.CacheDir); ok {
		return p, nil
	}
	if o.NoDownload {
		return p, missing
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	say(o.Progress, "no PostgreSQL is installed here; fetching one\n")
	p, failed := Fetch(ctx, o.CacheDir, o.Progress)
	if failed != nil {
		return p, fmt.Errorf("%w\n%w", missing, failed)
	}
	return p, nil
}
