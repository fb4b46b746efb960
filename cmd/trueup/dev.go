package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/trueup/trueup/internal/config"
	"github.com/trueup/trueup/internal/emulator"
	"github.com/trueup/trueup/internal/localpg"
	"github.com/trueup/trueup/internal/service"
	"github.com/trueup/trueup/internal/telemetry"
	"github.com/trueup/trueup/migrations"
)

// devFlags are what only dev can be asked for.
type devFlags struct {
	dataDir     string
	noSample    bool
	noDownload  bool
	postgresBin string
}

func devCommand(p *program) *cobra.Command {
	var f devFlags
	c := &cobra.Command{
		Use:   "dev",
		Short: "Run everything on this machine: PostgreSQL, queue, ImageKit's stand-in, trueup",
		Long: `Run everything in one process on loopback, with nothing installed but Go:
a local PostgreSQL (its programs are found, or fetched into a cache), the embedded
queue, the stand-in for ImageKit, ingest, worker and the operator API. One sample
upload goes the whole way at start.

dev reads no .env and ignores DATABASE_URL*, NATS_*, IMAGEKIT_* and IMAGE_KIT_* from
the environment, so it can never touch production. Everything in force is written to
<data-dir>/dev.env when all is ready. Keys, library, rows and ports are kept.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.dev(cmd.Context(), f) },
	}
	c.Flags().StringVar(&f.dataDir, "data-dir", "", "where everything is kept (default .trueup, or TRUEUP_DATA_DIR)")
	c.Flags().BoolVar(&f.noSample, "no-sample", false, "send no sample upload")
	c.Flags().BoolVar(&f.noDownload, "no-download", false, "never fetch PostgreSQL; fail where none is found")
	c.Flags().StringVar(&f.postgresBin, "postgres-bin", "", "folder with PostgreSQL's server programs")
	return c
}

// stage is a running dev: the parts that its own role brings along.
type stage struct {
	*program
	flags   devFlags
	config  *config.Config
	keys    *devKeys
	log     *slog.Logger
	started time.Time
}

func (p *program) dev(ctx context.Context, f devFlags) error {
	if f.dataDir != "" {
		p.env["TRUEUP_DATA_DIR"] = f.dataDir
	}
	c, err := p.load(config.Dev)
	if err != nil {
		return err
	}
	if c.Queue.DataDir, err = filepath.Abs(c.Queue.DataDir); err != nil {
		return err
	}
	s := &stage{program: p, flags: f, config: c, started: time.Now(), log: telemetry.NewLogger(telemetry.LogConfig{Out: p.stderr, Format: c.Log.Format, Level: quiet(c.Log.Level, p.env)})}
	if err := config.RemoveDevEnv(c.Queue.DataDir); err != nil {
		return err
	}
	if len(c.Ignored) > 0 {
		p.remark("dev ignores %s from the environment: it uses only what it starts itself.", strings.Join(c.Ignored, ", "))
	}
	if s.keys, err = loadDevKeys(c.Queue.DataDir); err != nil {
		return err
	}
	err = s.run(ctx)
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		return nil
	}
	return err
}

// quiet keeps dev's terminal readable: the ordinary lines are for who asks for them.
func quiet(level string, env map[string]string) string {
	if env["TRUEUP_LOG_LEVEL"] == "" {
		return "warn"
	}
	return level
}

// run starts the parts in the order in which they need each other and stops them the
// other way round.
func (s *stage) run(ctx context.Context) (err error) {
	postgres, err := s.postgres(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, postgres.Stop()) }()

	if err := s.addresses(); err != nil {
		return err
	}
	imagekit, err := s.emulator()
	if err != nil {
		return err
	}
	s.fill(postgres.URL("postgres"), imagekit.URL())
	if err := s.schema(ctx); err != nil {
		return errors.Join(err, imagekit.Close())
	}
	doors, err := service.Open(ctx, s.config, thisBuild().Version, s.log)
	if err != nil {
		return errors.Join(err, imagekit.Close())
	}
	defer func() { err = errors.Join(err, doors.Close()) }()
	return s.serve(ctx, doors, imagekit, postgres)
}

// serve runs what is started until ctx is done or one part fails.
func (s *stage) serve(ctx context.Context, doors *service.Opened, imagekit *emulator.Emulator, postgres *localpg.Server) error {
	svc, err := service.New(service.Config{Config: s.config, Version: thisBuild().Version, Logger: s.log, Restart: restart}, doors.Doors)
	if err != nil {
		return errors.Join(err, imagekit.Close())
	}
	public, ops, err := svc.Listen(ctx)
	if err != nil {
		return errors.Join(fmt.Errorf("%w (another trueup dev? choose others with TRUEUP_ADDR and TRUEUP_OPS_ADDR)", err), imagekit.Close())
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return imagekit.Run(gctx) })
	g.Go(func() error { return svc.Run(gctx) })
	g.Go(func() error {
		select {
		case <-postgres.Done():
			return fmt.Errorf("the local PostgreSQL ended: %w", postgres.Err())
		case <-gctx.Done():
			return nil
		}
	})
	g.Go(func() error { return s.introduce(gctx, public, ops, imagekit.URL()) })
	return g.Wait()
}

// introduce says what runs where, sends the sample, and then writes dev.env: its
// appearance means that everything is ready.
func (s *stage) introduce(ctx context.Context, public, ops, imagekit string) error {
	env, err := s.environment(public, ops)
	if err != nil {
		return err
	}
	s.banner(public, ops, imagekit)
	if !s.flags.noSample {
		if err := (&sample{env: env, out: s.stdout, json: s.json}).send(ctx); err != nil {
			return fmt.Errorf("the sample upload did not arrive: %w", err)
		}
	}
	if err := config.WriteDevEnv(s.config.Queue.DataDir, env); err != nil {
		return err
	}
	if !s.json {
		s.line("\nReady. All values in force: %s   Stop with Ctrl-C.", filepath.Join(s.config.Queue.DataDir, config.DevEnvName))
	}
	return nil
}

func (s *stage) banner(public, ops, imagekit string) {
	if s.json {
		return
	}
	s.line("trueup dev, ready after %s", time.Since(s.started).Round(time.Millisecond))
	s.line("  reports and webhooks   http://%s", public)
	s.line("  operator API           http://%s", ops)
	s.line("  ImageKit's stand-in    %s", imagekit)
	s.line("  rows                   %s", s.config.Database.URL.Reveal())
	s.line("\nA request without Authorization is user_123 here; every other command answers 401.")
	if s.config.Ownership.Mode == "claim" {
		s.line("Ownership is by claim: whoever first reports a fresh file without a ticket gets it.")
	}
}

// postgres finds or fetches the server's programs and starts the server.
func (s *stage) postgres(ctx context.Context) (*localpg.Server, error) {
	dir := filepath.Join(s.config.Queue.DataDir, "postgres")
	programs, err := localpg.Obtain(ctx, localpg.ObtainOptions{
		Find:       localpg.FindOptions{Bin: s.flags.postgresBin, Path: s.env["PATH"], ForData: dir},
		NoDownload: s.flags.noDownload, Progress: s.stderr,
	})
	if err != nil {
		return nil, err
	}
	return localpg.Start(ctx, localpg.Config{Dir: dir, Programs: programs, Logger: s.log})
}

func (s *stage) schema(ctx context.Context) error {
	return migrations.Up(ctx, s.config.Database.URL.Reveal(), migrations.Options{Notes: io.Discard})
}

func (s *stage) emulator() (*emulator.Emulator, error) {
	e, err := emulator.New(emulator.Config{
		Addr: s.config.Listen.EmulatorAddr, Dir: filepath.Join(s.config.Queue.DataDir, "emulator"),
		PublicKey: s.keys.PublicKey, PrivateKey: s.keys.PrivateKey, AccountID: devAccount,
		WebhookSecret: s.keys.WebhookSecret, WebhookURL: "http://" + s.config.Listen.Addr + "/webhooks/imagekit", Logger: s.log,
	})
	if err != nil {
		return nil, fmt.Errorf("ImageKit's stand-in: %w", err)
	}
	if err := e.Listen(); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

// addresses settles which addresses are taken: the parts must know each other's
// before any of them runs. Ports that the system chose once are kept.
func (s *stage) addresses() error {
	l, k := &s.config.Listen, s.keys
	for _, a := range []struct {
		addr *string
		kept *string
	}{{&l.Addr, &k.Ports.Public}, {&l.OpsAddr, &k.Ports.Ops}, {&l.EmulatorAddr, &k.Ports.Emulator}} {
		host, port, err := net.SplitHostPort(*a.addr)
		if err != nil {
			return err
		}
		if port != "0" {
			continue
		}
		if *a.kept, err = freePort(host, *a.kept); err != nil {
			return err
		}
		*a.addr = net.JoinHostPort(host, *a.kept)
	}
	return k.save()
}

// fill completes the configuration with what this dev started.
func (s *stage) fill(databaseURL, imagekitURL string) {
	c := s.config
	c.Database.URL = config.URL(databaseURL)
	c.ImageKit.PublicKey = s.keys.PublicKey
	c.ImageKit.PrivateKey = config.Secret(s.keys.PrivateKey)
	c.ImageKit.URLEndpoints = []string{imagekitURL + "/" + devAccount}
	c.ImageKit.WebhookSecrets = config.Secrets{config.Secret(s.keys.WebhookSecret)}
	c.ImageKit.BaseURL = imagekitURL
	if c.Callers.Secret == "" && c.Callers.JWKSURL == "" {
		c.Callers = config.Callers{Secret: config.Secret(s.keys.JWTSecret), Issuer: devIssuer, Audience: devAudience}
	}
	c.Ownership.Account = devAccount
	if len(c.Ownership.Keys) == 0 {
		c.Ownership.Keys = config.Secrets{config.Secret(s.keys.TicketKey)}
	}
	if len(c.Operator.Tokens) == 0 {
		c.Operator.Tokens = config.Secrets{config.Secret(s.keys.OpsToken)}
	}
}

// environment is dev.env: every value in force, and a token to call with.
func (s *stage) environment(public, ops string) (map[string]string, error) {
	c := s.config
	env := map[string]string{
		"TRUEUP_URL": "http://" + public, "TRUEUP_OPS_URL": "http://" + ops,
		"TRUEUP_ADDR": public, "TRUEUP_OPS_ADDR": ops, "TRUEUP_DATA_DIR": c.Queue.DataDir,
		"TRUEUP_OPS_TOKEN":     c.OperatorTokens()[0].Value.Reveal(),
		"TRUEUP_EMULATOR_ADDR": strings.TrimPrefix(c.ImageKit.BaseURL, "http://"),
		"DATABASE_URL":         c.Database.URL.Reveal(), "IMAGE_KIT_BASE_URL": c.ImageKit.BaseURL,
		"IMAGEKIT_PUBLIC_KEY": c.ImageKit.PublicKey, "IMAGEKIT_PRIVATE_KEY": c.ImageKit.PrivateKey.Reveal(),
		"IMAGEKIT_URL_ENDPOINT": c.ImageKit.URLEndpoints[0], "IMAGEKIT_WEBHOOK_SECRET": c.ImageKit.WebhookSecrets[0].Reveal(),
		"TRUEUP_OWNERSHIP": c.Ownership.Mode, "TRUEUP_KEYS": strings.Join(c.Ownership.Keys.Reveal(), ","), "TRUEUP_ACCOUNT": devAccount,
		"TRUEUP_NOT_FOUND_GRACE": c.Timing.NotFoundGrace.String(), "TRUEUP_ABSENT_CONFIRM": c.Timing.AbsentConfirm.String(),
	}
	if secret := c.Callers.Secret.Reveal(); secret != "" {
		token, err := devToken(secret, c.Callers.Issuer, c.Callers.Audience)
		if err != nil {
			return nil, err
		}
		env["TRUEUP_JWT_SECRET"], env["TRUEUP_JWT_ISSUER"], env["TRUEUP_JWT_AUDIENCE"] = secret, c.Callers.Issuer, c.Callers.Audience
		env["TRUEUP_DEV_TOKEN"] = token
	}
	return env, nil
}
