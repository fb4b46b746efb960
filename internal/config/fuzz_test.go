package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/trueup/trueup/internal/testenv/seed"
)

// canary is in every secret of the seeds, and nowhere else.
const canary = "SECRETSECRET"

// FuzzLoad reads a .env with whatever in it, as every role. It holds that Load says of
// each variable what is wrong with it, all at once, that a Config it returns is whole,
// and that no secret shows in a mistake, a warning or the line at start.
func FuzzLoad(f *testing.F) {
	for _, s := range seed.Files(f, "testdata/env/*.env", 8) {
		for i := range Roles() {
			f.Add(byte(i), s.Data)
		}
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, role byte, dotenv []byte) {
		env, err := readDotEnv(dir, dotenv)
		if err != nil {
			if strings.Contains(err.Error(), canary) {
				t.Fatalf("reading shows a secret: %v", err)
			}
			return
		}
		r := Roles()[int(role)%len(Roles())]
		c, err := Load(r, env)
		var m *Mistakes
		if err != nil && (!errors.As(err, &m) || len(m.Lines) == 0 || c != nil) || err == nil && c == nil {
			t.Fatalf("%v beside %v", c, err)
		}
		if err != nil {
			saysAll(t, r, env, m.Lines)
		}
		if hides(env) {
			showsNothing(t, c, err)
		}
	})
}

// readDotEnv is the file as a process reads it, less what would have it read and write
// elsewhere on this machine.
func readDotEnv(dir string, dotenv []byte) (map[string]string, error) {
	if err := os.WriteFile(filepath.Join(dir, ".env"), dotenv, 0o600); err != nil {
		return nil, err
	}
	env, err := WithDotEnv(map[string]string{}, dir)
	for name := range env {
		if strings.HasSuffix(name, "_FILE") || name == "NATS_CREDS" {
			delete(env, name)
		}
	}
	if err == nil {
		env["TRUEUP_DATA_DIR"] = filepath.Join(dir, "data")
	}
	return env, err
}

// saysAll fails unless what is wrong with each variable by itself is among the lines.
func saysAll(t *testing.T, r Role, env map[string]string, lines []string) {
	if r == Dev {
		env, _ = withoutForeign(env)
	}
	for _, v := range Table() {
		if !v.UsedBy(r) {
			continue
		}
		alone := loader{role: r, env: env, config: &Config{Role: r}, mistakes: &Mistakes{Role: r}}
		alone.read(&v)
		for _, line := range alone.mistakes.Lines {
			if !slices.Contains(lines, line) {
				t.Fatalf("%q is not said; said is %q", line, lines)
			}
		}
	}
}

// hides reports whether the canary stands where a secret stands, and only there: the
// fuzzer moves it about, and the host of an address, say, is no secret.
func hides(env map[string]string) bool {
	kinds := map[string]func(string) bool{}
	for _, v := range Table() {
		switch {
		case v.Name == "TRUEUP_OPS_TOKEN":
			kinds[v.Name] = hiddenInTokens
		case strings.Contains(v.Name, "URL"):
			kinds[v.Name] = hiddenInAddress
		case v.Secret:
			kinds[v.Name] = func(string) bool { return true }
		}
	}
	for name, value := range env {
		if strings.Contains(name, canary) {
			return false
		}
		if hidden := kinds[name]; strings.Contains(value, canary) && (hidden == nil || !hidden(value)) {
			return false
		}
	}
	return true
}

// hiddenInAddress: a secret is what comes before the @, or after password=.
func hiddenInAddress(value string) bool {
	if rest := strings.ReplaceAll(value, "password="+canary, ""); !strings.Contains(value, "://") {
		return !strings.Contains(rest, canary)
	}
	for part := range strings.SplitSeq(value, ",") {
		scheme, rest, _ := strings.Cut(part, "://")
		end := strings.IndexAny(rest, "/?#")
		if end < 0 {
			end = len(rest)
		}
		user := strings.LastIndex(rest[:end], "@")
		if strings.Contains(scheme+rest[user+1:], canary) {
			return false
		}
	}
	return true
}

// hiddenInTokens: the names of tokens are no secrets.
func hiddenInTokens(value string) bool {
	for part := range strings.SplitSeq(value, ",") {
		if label, _, ok := strings.Cut(part, ":"); ok && strings.Contains(label, canary) {
			return false
		}
	}
	return true
}

func showsNothing(t *testing.T, c *Config, err error) {
	if err != nil {
		if strings.Contains(err.Error(), canary) {
			t.Fatalf("a mistake shows a secret: %v", err)
		}
		return
	}
	for _, shown := range []any{*c, c.Resolved(), c.Warnings, c.OperatorTokens()} {
		if seed.Exposes(shown, canary) {
			t.Fatalf("a secret shows in %+v", shown)
		}
	}
}

// TestSeedsHideTheirSecrets: the seeds reach the check that they are there for.
func TestSeedsHideTheirSecrets(t *testing.T) {
	reached := 0
	for _, s := range seed.Files(t, "testdata/env/*.env", 8) {
		env, err := readDotEnv(t.TempDir(), s.Data)
		if err == nil && hides(env) && strings.Contains(fmt.Sprint(env), canary) {
			reached++
		}
	}
	if reached < 5 {
		t.Errorf("the secrets of %d seeds are looked for, want 5", reached)
	}
}
