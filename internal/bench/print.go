package bench

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// Report is what a run of the bench says.
type Report struct {
	Figures []Figure  `json:"figures"`
	Machine Machine   `json:"machine"`
	NotRun  []NotRun  `json:"notRun"`
	Notes   []string  `json:"notes"`
	Version string    `json:"version"`
	Began   time.Time `json:"began"`
	Seconds float64   `json:"seconds"`
	Pairs   int       `json:"pairs"`
	Short   bool      `json:"short"`
	Seed    uint64    `json:"seed"`
}

// Unmet counts the figures that missed their target.
func (r *Report) Unmet() (n int) {
	for _, f := range r.Figures {
		if f.Met != nil && !*f.Met {
			n++
		}
	}
	return n
}

// Failed is what should have been measured and was not.
func (r *Report) Failed() error {
	var errs []error
	for _, n := range r.NotRun {
		if n.Failed {
			errs = append(errs, fmt.Errorf("%s: not run: %s", n.Name, n.Why))
		}
	}
	return errors.Join(errs...)
}

// Print writes the report for people: one table, then what was not run and what to
// know.
func (r *Report) Print(w io.Writer) error {
	rows := [][]string{{"FIGURE", "VALUE", "CEILING", "RATIO", "UNIT", "TARGET", "MET", "SPREAD"}}
	for _, f := range r.Figures {
		rows = append(rows, f.cells())
	}
	var b strings.Builder
	if len(r.Figures) > 0 {
		align(&b, rows)
	}
	for _, n := range r.NotRun {
		fmt.Fprintf(&b, "%s: not run: %s\n", n.Name, n.Why)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "note: %s\n", n)
	}
	if r.Machine.Processors > 0 {
		fmt.Fprintf(&b, "machine: %s\n", r.Machine)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (f *Figure) cells() []string {
	met := ""
	switch {
	case f.Met != nil && *f.Met:
		met = "yes"
	case f.Met != nil:
		met = "NO"
	}
	spread := ""
	if f.Spread != nil && f.Spread[0] != f.Spread[1] {
		spread = number(f.Spread[0]) + " .. " + number(f.Spread[1])
	}
	return []string{f.Name, shown(f.Value), shown(f.Ceiling), shown(f.Ratio), f.Unit, f.Target, met, spread}
}

func shown(v *float64) string {
	if v == nil {
		return ""
	}
	return number(*v)
}

// align writes rows in columns; those of numbers end in line.
func align(b *strings.Builder, rows [][]string) {
	const firstNumber, lastNumber = 1, 3
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i >= firstNumber && i <= lastNumber {
				cell = pad + cell
			} else {
				cell += pad
			}
			line.WriteString(cell + "  ")
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
}
