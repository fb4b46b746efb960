package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode"
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
	_, _ = fmt.Fprintln(p.stdout, visible(fmt.Sprintf(format, args...)))
}

// visible is text for a terminal: what strangers wrote may not move its cursor, colour
// it, or turn the direction of what follows. Line breaks and tabs stay.
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && !unicode.IsGraphic(r) {
			return ' '
		}
		return r
	}, s)
}
