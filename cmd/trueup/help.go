package main

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/trueup/trueup/internal/config"
)

// helpCommand is cobra's help with pages that belong to no command.
func helpCommand(p *program) *cobra.Command {
	help := &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Explain a command, or the configuration: help config",
		RunE: func(cmd *cobra.Command, args []string) error {
			target, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return usagef("there is no command %q to explain", strings.Join(args, " "))
			}
			target.InitDefaultHelpFlag()
			return target.Help()
		},
	}
	help.AddCommand(helpConfigCommand(p))
	return help
}

func helpConfigCommand(p *program) *cobra.Command {
	var markdown, env bool
	cmd := &cobra.Command{
		Use:   "config",
		Short: "List every variable, its default and what it is for",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			switch {
			case markdown && env:
				return coded{errors.New("--markdown and --env are two forms: choose one"), exitUsage}
			case markdown:
				return config.Markdown(p.stdout)
			case env:
				return config.EnvExample(p.stdout)
			}
			return p.result(config.Table(), func() error { return config.Help(p.stdout) })
		},
	}
	cmd.Flags().BoolVar(&markdown, "markdown", false, "as the table in the README")
	cmd.Flags().BoolVar(&env, "env", false, "as deploy/env.example")
	return cmd
}
