package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/jackc/pgx/v5" //nolint:depguard // makes databases and speaks for the ceilings, which are SQL without a store

	"github.com/trueup/trueup/internal/config"
	"github.com/trueup/trueup/internal/localpg"
	"github.com/trueup/trueup/internal/service"
	"github.com/trueup/trueup/internal/telemetry"
	"github.com/trueup/trueup/migrations"
)

// stage is what a run of the bench has started. Everything lies below dir.
type stage struct {
	Config
	dir    string
	report *Report
	pg     *localpg.Server // nil until somebody needs it
	log    *slog.Logger
	closes []func() error
	names  int
}

func newStage(c Config) (*stage, error) {
	dir, err := os.MkdirTemp(c.Dir, "trueup-bench-*")
	if err != nil {
		return nil, err
	}
	s := &stage{Config: c, dir: dir, report: &Report{
		Machine: thisMachine(), Version: c.Version, Began: time.Now().UTC(), Pairs: c.Pairs, Short: c.Short, Seed: c.Seed,
		Figures: []Figure{}, NotRun: []NotRun{}, Notes: []string{},
	}}
	s.closes = append(s.closes, func() error { return os.RemoveAll(dir) })
	// PostgreSQL's own user has to come through.
	if err := os.Chmod(dir, 0o711); err != nil {
		return nil, errors.Join(err, s.close())
	}
	out, err := os.Create(filepath.Join(dir, "trueup.log"))
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	s.closes = append(s.closes, out.Close)
	// As serve logs: what a line per event costs is part of the figure.
	s.log = telemetry.NewLogger(telemetry.LogConfig{Out: out, Format: "json", Level: "info"})
	return s, nil
}

// close stops what was started, last first, and removes the folders.
func (s *stage) close() error {
	var errs []error
	for i := len(s.closes) - 1; i >= 0; i-- {
		errs = append(errs, s.closes[i]())
	}
	return errors.Join(errs...)
}

// folder is a new one below dir.
func (s *stage) folder(name string) (string, error) {
	s.names++
	dir := filepath.Join(s.dir, fmt.Sprintf("%s-%d", name, s.names))
	return dir, os.Mkdir(dir, 0o711)
}

// postgres starts the server the first time. Durability stays on; memory and log are
// large enough that no checkpoint falls into a slice.
func (s *stage) postgres(ctx context.Context) (*localpg.Server, error) {
	if s.pg != nil {
		return s.pg, nil
	}
	programs, err := localpg.Obtain(ctx, localpg.ObtainOptions{
		Find: localpg.FindOptions{Bin: s.PostgresBin, Path: os.Getenv("PATH")}, NoDownload: s.NoDownload, Progress: s.Progress,
	})
	if err != nil {
		return nil, err
	}
	dir, err := s.folder("postgres")
	if err != nil {
		return nil, err
	}
	server, err := localpg.Start(ctx, localpg.Config{Dir: dir, Programs: programs, Logger: s.log, Parameters: map[string]string{
		"max_connections": "200", "shared_buffers": "256MB", "max_wal_size": "8GB", "checkpoint_timeout": "1h",
	}})
	if err != nil {
		return nil, err
	}
	s.pg, s.report.Machine.PostgreSQL = server, programs.Version
	s.closes = append(s.closes, func() error { return s.stopPostgres(dir) })
	return server, nil
}

func (s *stage) stopPostgres(dir string) error {
	err := s.pg.Stop()
	// Where PostgreSQL's user cannot enter dir its data lies elsewhere.
	if root := filepath.Dir(s.pg.Data()); root != dir {
		err = errors.Join(err, os.RemoveAll(root))
	}
	return err
}

// database is a new one with trueup's schema.
func (s *stage) database(ctx context.Context) (address string, err error) {
	server, err := s.postgres(ctx)
	if err != nil {
		return "", err
	}
	s.names++
	name := fmt.Sprintf("bench_%d", s.names)
	if err := execute(ctx, server.URL("postgres"), "CREATE DATABASE "+name); err != nil {
		return "", err
	}
	address = server.URL(name)
	return address, migrations.Up(ctx, address, migrations.Options{})
}

// settleDown writes out what the slice before left behind, so that the next one does
// not pay for it.
func (s *stage) settleDown(ctx context.Context) error {
	return execute(ctx, s.pg.URL("postgres"), "CHECKPOINT")
}

// execute runs statements on a connection of their own.
func execute(ctx context.Context, address string, statements ...string) error {
	c, err := pgx.Connect(ctx, address)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	for _, sql := range statements {
		if _, err := c.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%.60s: %w", sql, err)
		}
	}
	return nil
}

// ask reads one row on a connection of its own.
func ask(ctx context.Context, address, sql string, into ...any) error {
	c, err := pgx.Connect(ctx, address)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	return c.QueryRow(ctx, sql).Scan(into...)
}

// Secrets of the bench's own installation, good for nothing else.
const (
	benchUser     = "user_123"
	benchSecret   = "whsec_YmVuY2gtYmVuY2gtYmVuY2gtYmVuY2g="
	benchJWT      = "bench-bench-bench-bench-bench-bench-bench"
	benchPublic   = "public_bench0123456789abcdef="
	benchPrivate  = "private_bench0123456789abcdef="
	benchOperator = "bench-operator-token"
)

// environment of a service, as its process would have it. Limits per user are off, for
// the load comes as one.
func (s *stage) environment(database, imagekit, dir string) map[string]string {
	return map[string]string{
		"TRUEUP_ADDR": "127.0.0.1:0", "TRUEUP_OPS_ADDR": "127.0.0.1:0", "TRUEUP_OPS_TOKEN": benchOperator, "TRUEUP_DATA_DIR": dir,
		"IMAGEKIT_PUBLIC_KEY": benchPublic, "IMAGEKIT_PRIVATE_KEY": benchPrivate, "IMAGEKIT_WEBHOOK_SECRET": benchSecret,
		"IMAGEKIT_URL_ENDPOINT": "https://ik.imagekit.io/demo_id", "IMAGE_KIT_BASE_URL": cmp.Or(imagekit, "http://127.0.0.1:9"),
		"DATABASE_URL": database, "TRUEUP_JWT_SECRET": benchJWT, "TRUEUP_JWT_ISSUER": "bench", "TRUEUP_JWT_AUDIENCE": "trueup",
		"TRUEUP_KEYS": benchJWT, "TRUEUP_RATE_PER_USER": "0", "TRUEUP_QUEUE_MAX_BYTES": "8GiB",
		"TRUEUP_RECONCILE_EVERY": "0s", "TRUEUP_POLL_EVERY": "0s",
	}
}

// token is the one caller's.
func token() (string, error) {
	now := time.Now()
	return jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"sub": benchUser, "iss": "bench", "aud": "trueup", "iat": now.Unix(), "exp": now.Add(24 * time.Hour).Unix(),
	}).SignedString([]byte(benchJWT))
}

// running is a service in this process.
type running struct {
	public string // host:port
	ops    string
	stop   func()
}

// run joins doors to a service, as serve does, and runs it.
func (s *stage) run(ctx context.Context, c *config.Config, doors service.Doors) (*running, error) {
	svc, err := service.New(service.Config{Config: c, Version: s.Version, Logger: s.log}, doors)
	if err != nil {
		return nil, err
	}
	public, ops, err := svc.Listen(ctx)
	if err != nil {
		return nil, err
	}
	living, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- svc.Run(living) }()
	return &running{public: public, ops: ops, stop: func() { cancel(); s.check(<-done) }}, nil
}

// check notes what went wrong after the figures were taken.
func (s *stage) check(err error) {
	if err != nil && !errors.Is(err, context.Canceled) {
		s.note("while stopping: %v", err)
	}
}

// receive runs ingest alone, on a queue of the caller's.
func (s *stage) receive(ctx context.Context, q service.Queue) (*running, error) {
	env := s.environment("", "", "")
	env["NATS_URL"] = "nats://127.0.0.1:4222" // asked for by the role; the doors are ours
	c, err := config.Load(config.Ingest, env)
	if err != nil {
		return nil, err
	}
	return s.run(ctx, c, service.Doors{Queue: q, Now: time.Now})
}

// hostOf is the host:port of an address.
func hostOf(address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", err
	}
	return u.Host, nil
}
