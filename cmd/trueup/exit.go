package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/trueup/trueup/internal/config"
	"github.com/trueup/trueup/internal/telemetry"
)

// Exit codes, the same for every command.
const (
	exitDone    = 0
	exitFailed  = 1
	exitUsage   = 2 // wrong flags, arguments or configuration: nothing was tried
	exitFuse    = 3 // stopped by the fuse
	exitPartial = 4 // a run that is not complete, a replay where some were parked again
	exitDiffers = 5 // differences found, where the command was asked to say so
)

// coded is an error whose exit code is not 1.
type coded struct {
	error
	code int
}

func (c coded) Unwrap() error { return c.error }

// usagef is a mistake in how the command was called.
func usagef(format string, args ...any) error {
	return coded{fmt.Errorf(format, args...), exitUsage}
}

// exit says what went wrong and returns the code of the process.
func (p *program) exit(err error) int {
	if err == nil {
		return exitDone
	}
	code := p.code(err)
	// Errors may carry the words of libraries and servers.
	text := telemetry.Redact(err.Error())
	if p.json {
		p.sayJSON(text, code)
		return code
	}
	p.remark("trueup: %s", text)
	if code == exitUsage && !p.began {
		p.remark("trueup: see trueup help")
	}
	return code
}

func (p *program) code(err error) int {
	var own coded
	var mistakes *config.Mistakes
	switch {
	case errors.As(err, &own):
		return own.code
	case errors.As(err, &mistakes), !p.began:
		return exitUsage
	}
	return exitFailed
}

// sayJSON has the shape of the error answers of both listeners.
func (p *program) sayJSON(text string, code int) {
	word := map[int]string{exitFailed: "failed", exitUsage: "usage", exitFuse: "fuse", exitPartial: "partial", exitDiffers: "differs"}[code]
	// A broken standard error leaves nobody to tell.
	_ = json.NewEncoder(p.stderr).Encode(struct {
		Success bool   `json:"success"`
		Error   string `json:"error"`
		Code    string `json:"code"`
	}{false, text, word})
}
