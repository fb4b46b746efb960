package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/operator"
)

func whyCommand(p *program) *cobra.Command {
	return &cobra.Command{
		Use:   "why FILE_ID",
		Short: "Tell a file's story: why its row is as it is, or why there is none",
		Long: `Tell everything that touched one file, in order: events, look-ups, writes, retries, dead
letters and what reconciliation found. The last sentence says why the row is as it is,
why there is none, or why a claim was refused. --json gives the whole passport.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := cobra.ExactArgs(1)(cmd, args); err != nil {
				return err
			}
			if !file.ValidID(args[0]) {
				return usagef("%q is no fileId: it has 1 to 64 of the characters A-Z a-z 0-9 _ and -", args[0])
			}
			return nil
		},
		RunE: verb(p, func(ctx context.Context, c *operator.Client, args []string) (operator.Passport, error) {
			return c.Passport(ctx, args[0])
		}, p.tell),
	}
}

func (p *program) tell(passport operator.Passport) error {
	for _, sentence := range passport.Why {
		p.line("%s", sentence)
	}
	return nil
}
