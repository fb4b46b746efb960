package bench

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/trueup/trueup/internal/bench/load"
)

// guideFiles are the server that the Neon guide has its reader write.
//
//go:embed guide/package.json guide/package-lock.json guide/server.mjs
var guideFiles embed.FS

// guideTable is the guide's own.
const guideTable = `CREATE TABLE imagekit_files (
	id SERIAL PRIMARY KEY,
	file_id TEXT NOT NULL UNIQUE,
	file_url TEXT NOT NULL,
	user_id TEXT NOT NULL,
	upload_timestamp TIMESTAMPTZ DEFAULT NOW()
)`

// guide measures reports against the guide's own server: the same client, the same
// PostgreSQL, the same minutes.
func (s *stage) guide(ctx context.Context) error {
	theirs, stop, err := s.guideServer(ctx)
	if err != nil {
		return err
	}
	defer stop()
	ours, q, err := s.ingestOn(ctx, nil)
	if err != nil {
		return err
	}
	defer q.Close()
	defer ours.stop()
	bearer, err := token()
	if err != nil {
		return err
	}
	reports := func(address string) func(context.Context, int) (sample, error) {
		return func(ctx context.Context, round int) (sample, error) {
			if err := s.settleDown(ctx); err != nil {
				return sample{}, err
			}
			return s.closedLoop(ctx, load.Job{Kind: load.Report, Address: address, Token: bearer, Seed: s.Seed<<16 + uint64(round)})
		}
	}
	got, err := s.rounds(ctx, contender{"report, JWT, fsync", reports(ours.public)}, contender{"the guide's server", reports(theirs)})
	if err != nil {
		return err
	}
	s.add(compared("report to 202, JWT, fsync, against the guide's server", "requests/s", got.values(0), got.values(1), ratioAtLeast(4)))
	s.add(compared("report p99, 64 connections, against the guide's server", "ms", got.quantiles(0, 0.99), got.quantiles(1, 0.99), ratioAtMost(1)))
	s.note("the guide's server does not check a token and asks nobody about the file; its driver here is node-postgres with its default pool of 10, one process, one INSERT per report")
	return nil
}

// guideServer starts the guide's server on a database of its own and returns its
// host:port.
func (s *stage) guideServer(ctx context.Context) (address string, stop func(), err error) {
	dir, err := s.guideFolder(ctx)
	if err != nil {
		return "", nil, err
	}
	server, err := s.postgres(ctx)
	if err != nil {
		return "", nil, err
	}
	if err := execute(ctx, server.URL("postgres"), "CREATE DATABASE guide"); err != nil {
		return "", nil, err
	}
	if err := execute(ctx, server.URL("guide"), guideTable); err != nil {
		return "", nil, err
	}
	p, err := s.start(ctx, map[string]string{"DATABASE_URL": server.URL("guide"), "NODE_ENV": "production"}, "node", filepath.Join(dir, "server.mjs"))
	if err != nil {
		return "", nil, err
	}
	line, err := p.stdout.ReadString('\n')
	if err != nil {
		return "", nil, errors.Join(err, p.end())
	}
	address, err = hostOf(strings.TrimSpace(line))
	return address, func() { s.check(p.end()) }, err
}

// guideFolder holds the server with its packages as the lock file names them. They are
// kept in the user's cache.
func (s *stage) guideFolder(ctx context.Context) (string, error) {
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			return "", absentf("%s is not installed", program)
		}
	}
	if out, err := exec.CommandContext(ctx, "node", "--version").Output(); err == nil {
		s.report.Machine.Node = strings.TrimSpace(string(out))
	}
	modules, err := s.guidePackages(ctx)
	if err != nil {
		return "", err
	}
	dir, err := s.folder("guide")
	if err != nil {
		return "", err
	}
	files, err := fs.Sub(guideFiles, "guide")
	if err != nil {
		return "", err
	}
	if err := os.CopyFS(dir, files); err != nil {
		return "", err
	}
	return dir, os.Symlink(modules, filepath.Join(dir, "node_modules"))
}

// guidePackages installs what the lock file names, once; an installation that was cut
// short never gets the folder's name.
func (s *stage) guidePackages(ctx context.Context) (string, error) {
	lock, err := guideFiles.ReadFile("guide/package-lock.json")
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(lock)
	kept := filepath.Join(cache, "trueup", "bench-guide-"+hex.EncodeToString(sum[:6]))
	modules := filepath.Join(kept, "node_modules")
	if _, err := os.Stat(modules); err == nil {
		return modules, nil
	}
	if s.NoDownload {
		return "", absentf("the guide's packages are not in %s, and fetching is forbidden", kept)
	}
	s.say("  fetching the guide's packages with npm")
	return modules, s.fetchPackages(ctx, kept)
}

func (s *stage) fetchPackages(ctx context.Context, kept string) error {
	if err := os.MkdirAll(filepath.Dir(kept), 0o755); err != nil {
		return err
	}
	next, err := os.MkdirTemp(filepath.Dir(kept), "bench-guide-next-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(next) //nolint:errcheck // what stays behind harms nobody
	files, err := fs.Sub(guideFiles, "guide")
	if err != nil {
		return err
	}
	if err := os.CopyFS(next, files); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	cmd.Dir = next
	if out, err := cmd.CombinedOutput(); err != nil {
		return absentf("npm cannot fetch the guide's packages: %v: %.300s", err, strings.TrimSpace(string(out)))
	}
	if err := os.Rename(next, kept); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("keep the guide's packages: %w", err)
	}
	return nil
}
