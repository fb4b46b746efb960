package main

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/trueup/trueup/internal/config"
	"github.com/trueup/trueup/internal/operator"
)

// devEnv is what the dev of this directory wrote; missing says what else would do.
func (p *program) devEnv(missing string) (map[string]string, error) {
	dir := cmp.Or(p.env["TRUEUP_DATA_DIR"], ".trueup")
	dev, err := config.ReadDevEnv(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, usagef("%s, and there is no %s of a trueup dev: set it, or start trueup dev here", missing, shown(dir))
	}
	if err != nil {
		return nil, err
	}
	p.remark("trueup: using %s", shown(dir))
	return dev, nil
}

// shown is dir's dev.env as people would write it.
func shown(dir string) string {
	path := filepath.ToSlash(filepath.Join(dir, config.DevEnvName))
	if filepath.IsAbs(dir) {
		return path
	}
	return "./" + path
}

func first(all config.Secrets) config.Secret {
	if len(all) == 0 {
		return ""
	}
	return all[0]
}

// operatorClient talks to the process that the environment names, else to the dev of
// this directory, and then it says so.
func (p *program) operatorClient() (*operator.Client, error) {
	c, err := p.load(config.OperatorClient)
	if err != nil {
		return nil, err
	}
	if c.Operator.URL != "" {
		return operator.NewClient(operator.ClientConfig{URL: c.Operator.URL, Token: first(c.Operator.Tokens).Reveal()})
	}
	dev, err := p.devEnv("TRUEUP_OPS_URL is not set (with TRUEUP_OPS_TOKEN)")
	if err != nil {
		return nil, err
	}
	return operator.NewClient(operator.ClientConfig{URL: dev["TRUEUP_OPS_URL"], Token: dev["TRUEUP_OPS_TOKEN"]})
}

// verb makes a command of one call of the operator API.
func verb[Out any](p *program, call func(context.Context, *operator.Client, []string) (Out, error), show func(Out) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		client, err := p.operatorClient()
		if err != nil {
			return err
		}
		out, err := call(cmd.Context(), client, args)
		if err != nil {
			return err
		}
		return p.result(out, func() error { return show(out) })
	}
}
