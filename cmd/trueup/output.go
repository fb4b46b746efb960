package main

import (
	"encoding/json"
	"fmt"
)

// Rules for all output: results go to standard output, once, when they are known;
// remarks, progress and errors go to standard error; with --json standard output is
// one JSON value and nothing else. A terminal or pipe that has gone is nobody to tell.

// result writes v as JSON where that was asked for, else calls plain.
func (p *program) result(v any, plain func() error) error {
	if !p.json {
		return plain()
	}
	enc := json.NewEncoder(p.stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// remark tells people something about the run that is not its result.
func (p *program) remark(format string, args ...any) {
	_, _ = fmt.Fprintf(p.stderr, format+"\n", args...)
}

// line writes one line of the result.
func (p *program) line(format string, args ...any) {
	_, _ = fmt.Fprintf(p.stdout, format+"\n", args...)
}
