package config

import (
	"fmt"
	"log/slog"
	"net/url"
	"strings"
)

const hidden = "<secret>"

// Secret is text that does not print: not by fmt, not as JSON, not in a log. Reveal
// is the only way to it.
type Secret string

// Reveal is the secret itself. Each call of it is a place to review.
func (s Secret) Reveal() string { return string(s) }

// String is a word that says only whether there is one.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return hidden
}

func (s Secret) GoString() string             { return fmt.Sprintf("config.Secret(%q)", s.String()) }
func (s Secret) LogValue() slog.Value         { return slog.StringValue(s.String()) }
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Format keeps every verb from reaching the text below, %x and %q too.
func (s Secret) Format(f fmt.State, verb rune) { formatHidden(f, verb, s.String(), s.GoString()) }

// Secrets are several, in order.
type Secrets []Secret

// Reveal is the secrets themselves.
func (s Secrets) Reveal() []string {
	out := make([]string, len(s))
	for i := range s {
		out[i] = s[i].Reveal()
	}
	return out
}

func (s Secrets) String() string {
	switch len(s) {
	case 0:
		return ""
	case 1:
		return hidden
	}
	return fmt.Sprintf("%s (%d)", hidden, len(s))
}

func (s Secrets) LogValue() slog.Value { return slog.StringValue(s.String()) }

// URL is an address that may carry a password: it prints as the place alone.
type URL string

// Reveal is the whole address.
func (u URL) Reveal() string { return string(u) }

// String is scheme, host and path of each address in it; a connection string of
// another form is hidden whole.
func (u URL) String() string {
	if u == "" {
		return ""
	}
	parts := strings.Split(string(u), ",")
	if strings.Contains(parts[len(parts)-1], "://") {
		for i, p := range parts {
			parts[i] = place(p)
		}
		return strings.Join(parts, ",")
	}
	return place(string(u))
}

func place(raw string) string {
	p, err := url.Parse(strings.TrimSpace(raw))
	if err != nil || p.Scheme == "" || p.Host == "" {
		return hidden
	}
	return p.Scheme + "://" + p.Host + p.EscapedPath()
}

func (u URL) GoString() string              { return fmt.Sprintf("config.URL(%q)", u.String()) }
func (u URL) LogValue() slog.Value          { return slog.StringValue(u.String()) }
func (u URL) MarshalText() ([]byte, error)  { return []byte(u.String()), nil }
func (u URL) Format(f fmt.State, verb rune) { formatHidden(f, verb, u.String(), u.GoString()) }

func formatHidden(f fmt.State, verb rune, plain, goSyntax string) {
	switch {
	case verb == 'v' && f.Flag('#'):
		plain = goSyntax
	case verb == 'q':
		plain = fmt.Sprintf("%q", plain)
	}
	_, _ = fmt.Fprint(f, plain)
}
