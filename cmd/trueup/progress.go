package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/trueup/trueup/internal/operator"
)

// progress shows how far long work has come: a bar that is drawn over on a terminal,
// else a line whenever a tenth more is done or something new is done or waited for.
type progress struct {
	*program
	name     string   // of the work, in lines
	terminal *os.File // nil: there is none
	shown    string   // what the last line was about
	drawn    bool
}

// point is how far it is.
type point struct {
	// done of total; a total of 0 is unknown.
	done, total int64
	// phase changes when the work goes over to something else.
	phase string
	// what says it in words; waiting what is waited for.
	what, waiting string
}

// barWidth is that of the bar, in characters.
const barWidth = 20

// filled is how much of n is done; all of it where there is nothing to do.
func (at point) filled(n int64) int64 {
	if at.total <= 0 {
		return n
	}
	return max(0, min(n, at.done*n/at.total))
}

// columnsUnknown is taken where the terminal does not tell.
const columnsUnknown = 80

func (p *program) newProgress(name string) *progress {
	s := &progress{program: p, name: name}
	if f, ok := p.stderr.(*os.File); ok && p.env["TERM"] != "dumb" {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			s.terminal = f
		}
	}
	return s
}

// bar is the line that is drawn over; longer ones would break and stay.
func bar(at point, what string, columns int) string {
	full := int(at.filled(barWidth))
	line := []rune("[" + strings.Repeat("#", full) + strings.Repeat("-", barWidth-full) + "] " + what)
	if most := columns - 1; len(line) > most {
		line = append(line[:max(0, most-1)], '…')
	}
	return string(line)
}

func (s *progress) at(at point) {
	what := at.what
	if at.waiting != "" {
		what += "; waits: " + at.waiting
	}
	if s.terminal != nil {
		_, _ = fmt.Fprint(s.stderr, "\r\x1b[K", bar(at, what, columns(s.terminal)))
		s.drawn = true
		return
	}
	if about := fmt.Sprint(at.filled(10), " ", at.phase, " ", at.waiting); about != s.shown {
		s.shown = about
		s.remark("%s: %s", s.name, what)
	}
}

// trouble says once that the server does not answer now.
func (s *progress) trouble(err error) {
	if text := err.Error(); text != s.shown {
		s.shown = text
		s.end()
		s.remark("trueup: %s; asking again, %s goes on", text, s.name)
	}
}

func (s *progress) end() {
	if s.drawn {
		s.remark("")
	}
	s.drawn = false
}

// errLeft is the end of a command that leaves before the work has ended.
var errLeft = errors.New("the command ended before the work")

// How often it is asked: soon at first, since most work is short.
const (
	askSoon = 300 * time.Millisecond
	askLate = 2 * time.Second
)

// watch shows progress until the work has ended, and returns how it ended. A server that
// restarts is waited for.
func watch[T any](ctx context.Context, show *progress, now T, ask func(context.Context) (T, error), look func(T) (point, bool)) (T, error) {
	defer show.end()
	for wait := askSoon; ; wait = min(askLate, wait+wait/20) {
		at, ended := look(now)
		show.at(at)
		if ended {
			return now, nil
		}
		again := time.NewTimer(wait)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return now, errLeft
		}
		next, err := ask(ctx)
		switch {
		case err == nil:
			now = next
		case lasting(err) && ctx.Err() == nil:
			return now, err
		default:
			show.trouble(err)
		}
	}
}

// lasting is an error that asking again does not cure: an answer of trueup other than
// "not now".
func lasting(err error) bool {
	var problem *operator.Problem
	return errors.As(err, &problem) && problem.Status < 500 && problem.Status != 429
}
