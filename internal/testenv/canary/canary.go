// Package canary looks for secrets where none may be: in what processes log, in
// metrics, in every page of both listeners, in dead letters, in a dump of the database,
// in the stream, and in files. It is I18 as a search that any campaign can make with
// one call, Check.
//
// It is apart because it trusts nothing: it knows no type of ours, only texts, and
// what they look like when they were encoded on the way.
//
// Its one invariant: a place that cannot be searched is an error, never a clean place.
package canary

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Secret is one text that may appear nowhere.
type Secret struct {
	Name  string // said in a leak, in the secret's place
	Value string
}

// minSecret is the shortest text that is looked for: a shorter one would be met by chance.
const minSecret = 8

// secretNames are the variables whose values are secrets, or hold some.
func secretNames() []string {
	return []string{"IMAGEKIT_PRIVATE_KEY", "IMAGEKIT_WEBHOOK_SECRET", "TRUEUP_JWT_SECRET", "TRUEUP_OPS_TOKEN", "TRUEUP_KEYS", "TRUEUP_DEV_TOKEN",
		"DATABASE_URL", "DATABASE_URL_UNPOOLED", "NATS_URL"}
}

// FromEnv takes the secrets out of an environment: each part of a list, the password of
// an address and not its host, the value of a named token and not its name. A database
// or queue of tests may have a password too short to look for, which is left out; any
// other secret that short is an error.
func FromEnv(env map[string]string) ([]Secret, error) {
	var out []Secret
	for _, name := range secretNames() {
		address := strings.Contains(name, "URL")
		for part := range strings.SplitSeq(env[name], ",") {
			part = strings.TrimSpace(part)
			switch {
			case address:
				part = password(part)
			case name == "TRUEUP_OPS_TOKEN":
				if _, value, ok := strings.Cut(part, ":"); ok {
					part = value
				}
			}
			switch {
			case part == "" || address && len(part) < minSecret:
			case len(part) < minSecret:
				return nil, fmt.Errorf("%s is too short to be looked for", name)
			case !slices.ContainsFunc(out, func(s Secret) bool { return s.Value == part }):
				out = append(out, Secret{name, part})
			}
		}
	}
	return out, nil
}

func password(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.User == nil {
		return ""
	}
	word, ok := u.User.Password()
	if !ok {
		return u.User.Username() // a NATS token stands alone before the @
	}
	return word
}

// Finder looks for secrets in texts. It is safe for concurrent use.
type Finder struct {
	forms []form
}

type form struct {
	secret, how, text string
}

// NewFinder prepares every form that a secret takes on its way into a log or a page.
func NewFinder(secrets []Secret) (*Finder, error) {
	if len(secrets) == 0 {
		return nil, fmt.Errorf("no secrets to look for")
	}
	f := &Finder{}
	for _, s := range secrets {
		if len(s.Value) < minSecret {
			return nil, fmt.Errorf("%s is too short to be looked for", s.Name)
		}
		for _, how := range formsOf(s.Value) {
			how.secret = s.Name
			if !slices.ContainsFunc(f.forms, func(have form) bool { return have.text == how.text }) {
				f.forms = append(f.forms, how)
			}
		}
	}
	return f, nil
}

func formsOf(value string) []form {
	forms := []form{
		{how: "as it is", text: value},
		{how: "as Go", text: inside(strconv.Quote(value))},
		{how: "as JSON", text: asJSON(value, true)},
		{how: "as plain JSON", text: asJSON(value, false)},
		{how: "as JSON in JSON", text: asJSON(asJSON(value, true), true)},
		{how: "as plain JSON in JSON", text: asJSON(asJSON(value, false), false)},
		{how: "in a URL", text: url.QueryEscape(value)},
		{how: "in a path", text: url.PathEscape(value)},
		{how: "in hex", text: hex.EncodeToString([]byte(value))},
		{how: "in capital hex", text: strings.ToUpper(hex.EncodeToString([]byte(value)))},
		{how: "reversed", text: reversed(value)},
	}
	for _, e := range []struct {
		name     string
		encoding *base64.Encoding
	}{{"base64", base64.RawStdEncoding}, {"base64url", base64.RawURLEncoding}} {
		for shift := range 3 {
			forms = append(forms, form{how: fmt.Sprintf("in %s, %d bytes in", e.name, shift), text: shifted(e.encoding, value, shift)})
		}
	}
	return slices.DeleteFunc(forms, func(f form) bool { return len(f.text) < minSecret })
}

func inside(quoted string) string { return quoted[1 : len(quoted)-1] }

// asJSON is value inside a JSON string, with < > & as escapes or as they are.
func asJSON(value string, html bool) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(html)
	_ = e.Encode(value) // a string cannot fail
	return inside(strings.TrimSuffix(b.String(), "\n"))
}

// shifted is what base64 shows of value when so many bytes stand before it (a user name
// of HTTP Basic, say): its characters that depend on nothing else.
func shifted(e *base64.Encoding, value string, shift int) string {
	text := e.EncodeToString([]byte(strings.Repeat("\x00", shift) + value))
	first := []int{0, 2, 3}[shift]
	whole := (shift + len(value)) / 3 * 4
	return text[min(first, whole):whole]
}

func reversed(s string) string {
	b := []byte(s)
	slices.Reverse(b)
	return string(b)
}

// In names the secrets that stand in text, each once, with the form it was found in.
func (f *Finder) In(text string) (found []string) {
	for _, form := range f.forms {
		if strings.Contains(text, form.text) {
			found = append(found, form.secret+" "+form.how)
		}
	}
	return found
}

// Excerpt is what stands around the first secret in text, without the secret.
func (f *Finder) Excerpt(text string) string {
	for _, form := range f.forms {
		before, after, ok := strings.Cut(text, form.text)
		if ok {
			return "…" + tailOf(before, 100) + "«" + form.secret + "»" + headOf(after, 60) + "…"
		}
	}
	return ""
}

func tailOf(s string, n int) string { return s[max(0, len(s)-n):] }
func headOf(s string, n int) string { return s[:min(len(s), n)] }
