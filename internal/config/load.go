package config

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/joho/godotenv"
	"github.com/sethvargo/go-envconfig"
)

// Mistakes is everything wrong with the configuration, one line each. A process
// that gets it exits 2.
type Mistakes struct {
	Role  Role
	Lines []string
}

func (m *Mistakes) Error() string {
	return fmt.Sprintf("trueup %s cannot start, %s in its configuration:\n  - %s",
		m.Role, counted(len(m.Lines), "mistake"), strings.Join(m.Lines, "\n  - "))
}

func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// Environ turns os.Environ's form into the map that Load reads.
func Environ(pairs []string) map[string]string {
	env := make(map[string]string, len(pairs))
	for _, pair := range pairs {
		if name, value, ok := strings.Cut(pair, "="); ok && name != "" {
			env[name] = value
		}
	}
	return env
}

// WithDotEnv is env with what dir's .env adds; what is set already wins. A missing
// file adds nothing. It is not for dev, which reads no .env.
func WithDotEnv(env map[string]string, dir string) (map[string]string, error) {
	path := filepath.Join(dir, ".env")
	added, err := godotenv.Read(path)
	if errors.Is(err, os.ErrNotExist) {
		return env, nil
	}
	if err != nil {
		// The parser's own words may quote the line, and the line may be a secret.
		return nil, fmt.Errorf("read %s: it is not a list of KEY=value lines, or cannot be read", path)
	}
	merged := make(map[string]string, len(env)+len(added))
	for name, value := range added {
		merged[name] = value
	}
	for name, value := range env {
		if value != "" {
			merged[name] = value
		}
	}
	return merged, nil
}

// Load reads and checks what role needs. Its error is always *Mistakes. It creates
// DataDir where role keeps files, to learn whether it can.
func Load(role Role, env map[string]string) (*Config, error) {
	c := &Config{Role: role}
	if role == Dev {
		env, c.Ignored = withoutForeign(env)
	}
	l := loader{role: role, env: env, config: c, mistakes: &Mistakes{Role: role}}
	for _, v := range Table() {
		if v.UsedBy(role) {
			l.read(&v)
		}
	}
	c.checkTogether(l.mistake)
	c.Warnings = append(c.Warnings, unknownNames(env)...)
	if len(l.mistakes.Lines) > 0 {
		return nil, l.mistakes
	}
	return c, nil
}

// loader is the work of one Load.
type loader struct {
	role     Role
	env      map[string]string
	config   *Config
	mistakes *Mistakes
}

func (l *loader) mistake(format string, args ...any) {
	l.mistakes.Lines = append(l.mistakes.Lines, fmt.Sprintf(format, args...))
}

// read decodes one variable into its field and checks it.
func (l *loader) read(v *Variable) {
	text, err := l.text(v)
	if err != nil {
		l.mistake("%v", err)
		return
	}
	if text == "" {
		if v.NeededBy(l.role) {
			l.mistake("%s is not set: %s", v.Name, v.Doc)
		}
		return
	}
	field := reflect.ValueOf(l.config).Elem().FieldByIndex(v.index)
	if err := decode(v.Name, text, field); err != nil {
		l.mistake("%s: %v", v.Name, err)
		return
	}
	for _, name := range v.checks {
		if err := checks[name](field.Interface()); err != nil {
			l.mistake("%s: %v", v.Name, err)
			return
		}
	}
}

// text is the variable's value, or its file's, or its default.
func (l *loader) text(v *Variable) (string, error) {
	value := strings.TrimSpace(l.env[v.Name])
	path := ""
	if v.Secret {
		path = l.env[v.Name+"_FILE"]
	}
	switch {
	case value != "" && path != "":
		return "", fmt.Errorf("%s and %s_FILE are both set: keep one", v.Name, v.Name)
	case value != "":
		return value, nil
	case path != "":
		return fromFile(v, path)
	}
	return v.DefaultFor(l.role), nil
}

func fromFile(v *Variable, path string) (string, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		// Not the path: it may be the secret, given in the place of its file.
		var cause *os.PathError
		if errors.As(err, &cause) {
			err = cause.Err
		}
		return "", fmt.Errorf("%s_FILE names a file that cannot be read: %w", v.Name, err)
	}
	text := strings.TrimSpace(string(raw))
	if text == "" {
		return "", fmt.Errorf("%s_FILE names a file that is empty", v.Name)
	}
	if v.List {
		return strings.Join(strings.Fields(strings.ReplaceAll(text, ",", " ")), ","), nil
	}
	return text, nil
}

// decode lets go-envconfig decode one field by itself: it stops at its first error,
// and we want every one.
func decode(name, text string, field reflect.Value) error {
	alone := reflect.New(reflect.StructOf([]reflect.StructField{{
		Name: "Value", Type: field.Type(), Tag: reflect.StructTag(`env:"` + name + `"`),
	}}))
	err := envconfig.ProcessWith(context.Background(), &envconfig.Config{
		Target: alone.Interface(), Lookuper: envconfig.MapLookuper(map[string]string{name: text}),
	})
	if err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "Value: "))
	}
	field.Set(withoutEmpty(alone.Elem().Field(0)))
	return nil
}

// withoutEmpty drops the empty elements that a trailing comma makes.
func withoutEmpty(v reflect.Value) reflect.Value {
	if v.Kind() != reflect.Slice {
		return v
	}
	kept := reflect.MakeSlice(v.Type(), 0, v.Len())
	for i := range v.Len() {
		if !v.Index(i).IsZero() {
			kept = reflect.Append(kept, v.Index(i))
		}
	}
	return kept
}

// known are our names that are no configuration: dev.env has them, and the tests.
var known = []string{"TRUEUP_URL", "TRUEUP_DEV_TOKEN", "TRUEUP_EMULATOR_URL"}

// unknownNames warns of TRUEUP_ names that mean nothing. They are no mistake: a
// newer version beside this one may know them.
func unknownNames(env map[string]string) []string {
	names := map[string]bool{}
	for _, v := range Table() {
		names[v.Name] = true
		if v.Secret {
			names[v.Name+"_FILE"] = true
		}
	}
	var out []string
	for name := range env {
		if strings.HasPrefix(name, "TRUEUP_") && !strings.HasPrefix(name, "TRUEUP_TEST_") &&
			!names[name] && !slices.Contains(known, name) {
			out = append(out, name+" is set, and this version knows no such variable (see trueup help config)")
		}
	}
	slices.Sort(out)
	return out
}
