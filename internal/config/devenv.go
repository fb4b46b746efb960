package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// DevEnvName is the file in the data directory that dev writes when everything is
// ready: its appearance is the signal, and the operator commands find dev by it.
const DevEnvName = "dev.env"

// WriteDevEnv writes values to dir's dev.env, readable by its owner only, whole or
// not at all. A value that no shell could take over from a KEY=value line is an
// error.
func WriteDevEnv(dir string, values map[string]string) error {
	text, err := devEnvText(values)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, DevEnvName)
	f, err := os.CreateTemp(dir, ".dev.env-") // 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// RemoveDevEnv removes what an earlier dev left, the first thing that dev does.
func RemoveDevEnv(dir string) error {
	err := os.Remove(filepath.Join(dir, DevEnvName))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the dev.env of an earlier start: %w", err)
	}
	return nil
}

// ReadDevEnv reads what WriteDevEnv wrote.
func ReadDevEnv(dir string) (map[string]string, error) {
	raw, err := os.ReadFile(filepath.Join(dir, DevEnvName))
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for line := range strings.Lines(string(raw)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			return nil, fmt.Errorf("read dev.env: %q is not KEY=value", name)
		}
		out[name] = unquote(value)
	}
	return out, nil
}

var (
	envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	// bareValue needs no quotes on the right of an assignment in a shell, so that
	// readers that know no quotes (docker's --env-file) mostly agree with it.
	bareValue = regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./?-]*$`)
)

func devEnvText(values map[string]string) (string, error) {
	var lines []string
	for name, value := range values {
		if !envName.MatchString(name) || strings.ContainsAny(value, "\n\r\x00") {
			return "", fmt.Errorf("write dev.env: %q cannot be a KEY=value line", name)
		}
		lines = append(lines, name+"="+quote(value)+"\n")
	}
	slices.Sort(lines)
	return strings.Join(lines, ""), nil
}

func quote(value string) string {
	if bareValue.MatchString(value) {
		return value
	}
	return "'" + strings.ReplaceAll(value, "'", `'\''`) + "'"
}

func unquote(value string) string {
	inner, ok := strings.CutPrefix(value, "'")
	if !ok {
		return value
	}
	return strings.ReplaceAll(strings.TrimSuffix(inner, "'"), `'\''`, "'")
}
