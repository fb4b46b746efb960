package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/trueup/trueup/internal/operator"
)

func pauseCommand(p *program) *cobra.Command {
	return holdCommand(p, "pause", "Stop the worker; ingest goes on accepting", (*operator.Client).Pause)
}

func resumeCommand(p *program) *cobra.Command {
	return holdCommand(p, "resume", "Let the worker go on", (*operator.Client).Resume)
}

func holdCommand(p *program, name, short string, call func(*operator.Client, context.Context, string) (operator.Paused, error)) *cobra.Command {
	var note string
	cmd := &cobra.Command{
		Use:   name,
		Short: short,
		Args:  cobra.NoArgs,
		RunE: verb(p, func(ctx context.Context, c *operator.Client, _ []string) (operator.Paused, error) {
			return call(c, ctx, note)
		},
			func(now operator.Paused) error {
				if now.Paused {
					p.line("The worker is paused. Nothing is lost meanwhile: ingest goes on accepting.")
				} else {
					p.line("The worker is running.")
				}
				return nil
			}),
	}
	cmd.Flags().StringVar(&note, "note", "", "why, for the audit")
	return cmd
}
