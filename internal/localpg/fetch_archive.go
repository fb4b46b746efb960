package localpg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"

	embedded "github.com/fergusstrange/embedded-postgres"
)

// archives is what embedded-postgres downloads, for machines without npm. Only its
// fetching and unpacking are of use: its start cannot switch users and so fails
// for root.
type archives struct{}

func (archives) version() string { return string(embedded.V18) }

// lay has the library fetch, check and unpack its archive, and stops it there. It
// offers no such step by itself; but it unpacks before it touches the data
// directory, and one that cannot be made (below a plain file) ends it. What counts
// is what then lies in dir.
//
// The library listens to no context. When ctx ends first, its download is left to
// itself in the scratch folder, which the next fetch removes.
func (a archives) lay(ctx context.Context, f *fetcher, scratch, dir string) error {
	wall := filepath.Join(scratch, "no-data-here")
	if err := os.WriteFile(wall, nil, 0o600); err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	port, err := freePort(ctx)
	if err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	c := embedded.DefaultConfig().Version(embedded.V18).Port(port).Logger(io.Discard).
		CachePath(filepath.Join(scratch, "archive")).RuntimePath(filepath.Join(scratch, "runtime")).
		BinariesPath(dir).DataPath(filepath.Join(wall, "data"))
	if f.repository != "" {
		c = c.BinaryRepositoryURL(f.repository)
	}
	say(f.progress, "fetching PostgreSQL %s for %s into %s (this source shows no progress)\n", a.version(), f.platform, f.cache)
	ended := make(chan error, 1)
	go func() { ended <- embedded.NewDatabase(c).Start() }()
	select {
	case <-ctx.Done():
		return fmt.Errorf("archive: %w", ctx.Err())
	case err = <-ended:
	}
	for _, name := range []string{"postgres", "initdb"} {
		if _, missing := os.Stat(filepath.Join(dir, "bin", executable(name))); missing != nil {
			return fmt.Errorf("archive: fetch PostgreSQL %s: %w", a.version(), errors.Join(err, missing))
		}
	}
	return nil
}

func freePort(ctx context.Context) (uint32, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "localhost:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer func() { _ = l.Close() }()
	return uint32(l.Addr().(*net.TCPAddr).Port), nil
}
