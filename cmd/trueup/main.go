// Command trueup keeps a Postgres table true to an ImageKit media library.
//
// This package is the outermost shell: flags, environment, signals, output and exit
// codes, one file per command. It decides nothing about files; what a command does
// is in the package it calls. Its invariant: the exit code is decided in one place,
// exit.go, and everything a script may want is on standard output, everything said
// to people about the run on standard error.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/trueup/trueup/internal/config"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// After the first signal the default is back, so that a second one ends a process
	// that takes too long to drain.
	context.AfterFunc(ctx, stop)
	os.Exit(execute(ctx, os.Args[1:], config.Environ(os.Environ()), os.Stdin, os.Stdout, os.Stderr))
}

// execute is the whole program; main only gives it the process's own parts.
func execute(ctx context.Context, args []string, env map[string]string, stdin io.Reader, stdout, stderr io.Writer) int {
	p := &program{env: env, stdin: stdin, stdout: stdout, stderr: stderr}
	root := newRoot(p)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	// A mistake in the arguments comes before the flags are read.
	p.json = p.json || !p.began && slices.Contains(args, "--json")
	return p.exit(err)
}
