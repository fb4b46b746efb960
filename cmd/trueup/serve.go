package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/trueup/trueup/internal/config"
	"github.com/trueup/trueup/internal/service"
	"github.com/trueup/trueup/internal/telemetry"
)

func serveCommand(p *program) *cobra.Command {
	return p.roleCommand(config.Serve, "Run everything in one process against ImageKit and DATABASE_URL",
		`Run ingest, worker and the operator API in one process, against the real ImageKit
and the database of DATABASE_URL. The queue is embedded in TRUEUP_DATA_DIR unless
NATS_URL is set. Run "trueup migrate up" first.`)
}

func ingestCommand(p *program) *cobra.Command {
	return p.roleCommand(config.Ingest, "Run only the public listener (needs NATS_URL)",
		`Accept reports and webhooks onto the queue of NATS_URL. It scales out freely and goes
on while the database sleeps. DATABASE_URL serves GET /reports alone; its role needs
no right to any table (trueup_ingest).`)
}

func workerCommand(p *program) *cobra.Command {
	return p.roleCommand(config.Worker, "Run only the worker (needs NATS_URL)",
		`Verify what was accepted and settle it. Of several workers one is active and the
others stand by; correctness does not depend on their clocks.`)
}

// roleCommand runs one role until it is told to stop.
func (p *program) roleCommand(role config.Role, short, long string) *cobra.Command {
	return &cobra.Command{
		Use: string(role), Short: short, Long: long, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.runRole(cmd.Context(), role) },
	}
}

func (p *program) runRole(ctx context.Context, role config.Role) (err error) {
	c, err := p.load(role)
	if err != nil {
		return err
	}
	version := thisBuild().Version
	log := telemetry.NewLogger(telemetry.LogConfig{Out: p.stderr, Format: c.Log.Format, Level: c.Log.Level})
	log.LogAttrs(ctx, 0, "configuration", c.Resolved()...)
	for _, w := range c.Warnings {
		log.WarnContext(ctx, "configuration.warning", "what", w)
	}
	began := time.Now()
	doors, err := service.Open(ctx, c, version, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, doors.Close()) }()
	svc, err := service.New(service.Config{Config: c, Version: version, Logger: log, Restart: restart}, doors.Doors)
	if err != nil {
		return err
	}
	public, ops, err := svc.Listen(ctx)
	if err != nil {
		return err
	}
	log.InfoContext(ctx, "ready", "role", string(role), "version", version, "public", public, "ops", ops, "after", time.Since(began).Round(time.Millisecond).String())
	if err := svc.Run(ctx); err != nil {
		return err
	}
	log.InfoContext(ctx, "stopped", "role", string(role))
	return nil
}
