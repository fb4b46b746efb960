package config

import (
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"strings"
	"text/tabwriter"
)

// Resolved is what is in force, for one line at start. Secrets show only that they
// are there.
func (c *Config) Resolved() []slog.Attr {
	out := []slog.Attr{slog.String("role", string(c.Role))}
	values := reflect.ValueOf(c).Elem()
	for _, v := range Table() {
		field := values.FieldByIndex(v.index)
		if !v.UsedBy(c.Role) || field.IsZero() && v.Default == "" {
			continue
		}
		out = append(out, slog.String(v.Name, show(field)))
	}
	return out
}

func show(v reflect.Value) string {
	if list, ok := v.Interface().([]string); ok {
		return strings.Join(list, ",")
	}
	return fmt.Sprint(v.Interface())
}

// Help writes the table for a terminal.
func Help(w io.Writer) error {
	var out strings.Builder // takes every write
	out.WriteString(helpIntro)
	tw := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	group := ""
	for _, v := range Table() {
		if v.Group != group {
			group = v.Group
			_ = tw.Flush()
			out.WriteString("\n" + group + "\n")
		}
		_, _ = fmt.Fprintf(tw, "  %s\t%s\t%s\n", v.Name, v.defaults(), v.Doc+v.needed())
	}
	_ = tw.Flush()
	_, err := io.WriteString(w, out.String())
	return err
}

const helpIntro = `trueup is configured by the environment, and by a file .env in the directory it is
started in (the environment wins; dev reads no .env). An empty variable counts as unset.
A variable marked * is a secret: NAME_FILE may name a file that holds it.
`

func (v *Variable) defaults() string {
	s := v.Default
	if s == "" {
		s = "-"
	}
	if v.Dev != "" {
		s += " (dev: " + v.Dev + ")"
	}
	if v.Secret {
		s += " *"
	}
	return s
}

func (v *Variable) needed() string {
	if len(v.Required) == 0 {
		return ""
	}
	return " [needed by " + joinRoles(v.Required) + "]"
}

func joinRoles(roles []Role) string {
	words := make([]string, len(roles))
	for i, r := range roles {
		words[i] = string(r)
	}
	return strings.Join(words, ", ")
}

// Markdown writes the table for the README.
func Markdown(w io.Writer) error {
	var b strings.Builder
	b.WriteString("| variable | default | needed by | what for |\n| --- | --- | --- | --- |\n")
	for _, v := range Table() {
		needed := joinRoles(v.Required)
		if needed == "" {
			needed = "–"
		}
		def := "–"
		if v.Default != "" {
			def = "`" + v.Default + "`"
		}
		if v.Dev != "" {
			def += " (dev: `" + v.Dev + "`)"
		}
		name := "`" + v.Name + "`"
		if v.Secret {
			name += " \\*"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", name, def, needed, v.Doc)
	}
	b.WriteString("\n\\* a secret: `NAME_FILE` may name a file that holds it.\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// EnvExample writes deploy/env.example: every variable, those with a default or
// without need commented out.
func EnvExample(w io.Writer) error {
	var b strings.Builder
	b.WriteString("# Copy to .env and fill in. Made by `trueup help config --env`; do not edit by hand.\n")
	group := ""
	for _, v := range Table() {
		if v.Group != group {
			group = v.Group
			b.WriteString("\n# " + strings.Repeat("-", 8) + " " + group + "\n")
		}
		fmt.Fprintf(&b, "\n# %s%s\n", v.Doc, v.needed())
		if v.NeededBy(Serve) {
			fmt.Fprintf(&b, "%s=\n", v.Name)
		} else {
			fmt.Fprintf(&b, "#%s=%s\n", v.Name, v.Default)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
