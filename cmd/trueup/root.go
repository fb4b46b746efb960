package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/trueup/trueup/internal/config"
)

// program is what every command has at hand.
type program struct {
	env            map[string]string
	stdin          io.Reader
	stdout, stderr io.Writer
	json           bool
	// began is set when a command starts to work: an error before that is one of
	// usage.
	began bool
}

func newRoot(p *program) *cobra.Command {
	root := &cobra.Command{
		Use:           "trueup",
		Short:         "Keep a Postgres table true to an ImageKit media library",
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRun: func(*cobra.Command, []string) {
			p.began = true
		},
	}
	root.SetIn(p.stdin)
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	root.PersistentFlags().BoolVar(&p.json, "json", false, "write JSON on standard output")
	root.SetHelpCommand(helpCommand(p))
	for _, command := range commands {
		root.AddCommand(command(p))
	}
	return root
}

// commands are all of them, in the order of the help.
var commands = []func(*program) *cobra.Command{
	devCommand,
	serveCommand,
	ingestCommand,
	workerCommand,
	migrateCommand,
	auditCommand,
	statusCommand,
	whyCommand,
	reconcileCommand,
	deadCommand,
	recheckCommand,
	assignCommand,
	pauseCommand,
	resumeCommand,
	triggerCommand,
	emulatorCommand,
	benchCommand,
	benchPartCommand,
	versionCommand,
}

// load reads the configuration of role, with ./.env for every role but dev. Its
// warnings go to the person who started it.
func (p *program) load(role config.Role) (*config.Config, error) {
	env := p.env
	if role != config.Dev {
		var err error
		if env, err = config.WithDotEnv(env, "."); err != nil {
			return nil, &config.Mistakes{Role: role, Lines: []string{err.Error()}}
		}
	}
	return config.Load(role, env)
}
