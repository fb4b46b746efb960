package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// checks are the rules that a field's tag can name. Each gets the decoded value and
// says in one clause what is wrong, without quoting a secret.
var checks = map[string]func(any) error{
	"positive":    func(v any) error { return sign(v, 1, "must be more than 0") },
	"notnegative": func(v any) error { return sign(v, 0, "must not be negative") },
	"interval":    checkInterval,
	"addr":        text(checkAddr),
	"origins":     each(checkOrigin),
	"prefixes":    each(checkNetwork),
	"drain":       checkDrain,
	"secret32":    func(v any) error { return longEnough(v.(Secret), 32) },
	"secrets16":   func(v any) error { return everySecret(v.(Secrets), 16) },
	"secrets32":   func(v any) error { return everySecret(v.(Secrets), 32) },
	"jwks":        text(func(s string) error { return webAddress(s, true) }),
	"urls":        each(func(s string) error { return webAddress(s, false) }),
	"baseurl":     text(func(s string) error { return webAddress(s, true) }),
	"opsurl":      text(func(s string) error { return webAddress(s, false) }),
	"word":        checkWord,
	"postgres":    func(v any) error { return checkPostgres(v.(URL)) },
	"nats":        func(v any) error { return checkNATS(v.(URL)) },
	"file":        text(checkFile),
	"dir":         text(checkDir),
	"prefix":      matches(`^[a-z][a-z0-9_-]{0,31}$`, "lower-case letters, digits, _ and -, beginning with a letter, at most 32"),
	"field":       matches(`^[A-Za-z0-9_-]{1,64}$`, "the name of a custom metadata field: letters, digits, _ and -"),
	"account":     matches(`^[A-Za-z0-9_.-]{1,64}$`, "letters, digits, dot, _ and - only, at most 64"),
	"folder":      text(checkFolder),
	"ownership":   oneOf("claim", "signed"),
	"logformat":   oneOf("auto", "text", "json"),
	"loglevel":    oneOf("debug", "info", "warn", "error"),
	"replicas":    checkReplicas,
	"optokens":    func(v any) error { _, err := namedTokens(v.(Secrets)); return err },
}

// checkInterval lets 0 stand for never, and keeps a typing error from asking without end.
func checkInterval(v any) error {
	if d := v.(time.Duration); d != 0 && d < time.Second {
		return errors.New("must be 0 or at least 1s")
	}
	return nil
}

func text(f func(string) error) func(any) error {
	return func(v any) error { return f(v.(string)) }
}

func each(f func(string) error) func(any) error {
	return func(v any) error {
		for _, s := range v.([]string) {
			if err := f(s); err != nil {
				return err
			}
		}
		return nil
	}
}

func matches(pattern, sentence string) func(any) error {
	re := regexp.MustCompile(pattern)
	return text(func(s string) error {
		if !re.MatchString(s) {
			return fmt.Errorf("%q is not allowed: %s", s, sentence)
		}
		return nil
	})
}

func oneOf(words ...string) func(any) error {
	return text(func(s string) error {
		if !slices.Contains(words, s) {
			return fmt.Errorf("%q is none of %s", s, strings.Join(words, ", "))
		}
		return nil
	})
}

func sign(v any, least int, sentence string) error {
	r := reflect.ValueOf(v)
	bad := false
	switch {
	case r.CanInt():
		bad = r.Int() < int64(least)
	case r.CanFloat():
		// Written so that NaN fails too.
		bad = !(r.Float() >= 0) || (least > 0 && r.Float() == 0)
	}
	if bad {
		return fmt.Errorf("%v %s", v, sentence)
	}
	return nil
}

func checkReplicas(v any) error {
	if n := v.(int); n < 0 || n > 5 {
		return fmt.Errorf("%d is not a number of copies from 1 to 5 (0: chosen)", n)
	}
	return nil
}

func checkDrain(v any) error {
	if d := v.(time.Duration); d <= 0 || d > 30*time.Second {
		return fmt.Errorf("%v must be more than 0 and at most 30s", d)
	}
	return nil
}

func checkAddr(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("%q is not host:port", s)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q has no usable port", s)
	}
	if strings.ContainsAny(host, " /") {
		return fmt.Errorf("%q has no usable host", s)
	}
	return nil
}

func checkOrigin(s string) error {
	u, err := url.Parse(s)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.Scheme+"://"+u.Host != s {
		return fmt.Errorf("%q is not an origin such as https://app.example.com (no path, no *)", s)
	}
	return nil
}

func checkNetwork(s string) error {
	if _, err := netip.ParsePrefix(s); err != nil {
		return fmt.Errorf("%q is not a network such as 10.0.0.0/8", s)
	}
	return nil
}

func longEnough(s Secret, least int) error {
	if len(s) < least {
		return fmt.Errorf("has %d bytes, and needs at least %d", len(s), least)
	}
	return nil
}

func everySecret(all Secrets, least int) error {
	for i, s := range all {
		if err := longEnough(s, least); err != nil {
			return fmt.Errorf("entry %d %w", i+1, err)
		}
		if err := checkWord(s); err != nil {
			return fmt.Errorf("entry %d %w", i+1, err)
		}
	}
	return nil
}

// checkWord refuses blanks and control characters inside a key: always a slip of
// copying. It never quotes the value.
func checkWord(v any) error {
	s := reflect.ValueOf(v).String()
	if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return errors.New("contains a blank or a control character")
	}
	return nil
}

// webAddress checks an http address; secure demands https except on loopback.
func webAddress(s string, secure bool) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https"):
		return errors.New("is not an address such as https://host/path")
	case u.User != nil:
		return errors.New("must not carry a user name or password")
	case secure && u.Scheme == "http" && !loopbackHost(u.Hostname()):
		return fmt.Errorf("%s must be https (http only on loopback)", u.Host)
	case u.Fragment != "":
		return errors.New("must not have a #fragment")
	}
	return nil
}

func loopbackHost(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

func checkNATS(v URL) error {
	for _, part := range strings.Split(v.Reveal(), ",") {
		u, err := url.Parse(strings.TrimSpace(part))
		if err != nil || u.Host == "" || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) {
			return errors.New("is not an address such as nats://host:4222 (several: comma-separated)")
		}
	}
	return nil
}

func checkFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("cannot be read: %w", err)
	}
	return f.Close()
}

// checkDir makes the directory and a file in it, since permission bits alone do not
// tell whether that works.
func checkDir(path string) error {
	// Others may pass through, not look around: started by root, dev's PostgreSQL runs
	// as another user. Everything secret in it is readable by its owner alone.
	if err := os.MkdirAll(path, 0o711); err != nil {
		return fmt.Errorf("cannot be made: %w", err)
	}
	f, err := os.CreateTemp(path, ".writable-")
	if err != nil {
		return fmt.Errorf("cannot be written to: %w", err)
	}
	_ = f.Close()
	return os.Remove(f.Name())
}

func checkFolder(s string) error {
	rest := strings.ReplaceAll(s, "{sub}", "x")
	switch {
	case !strings.HasPrefix(s, "/"):
		return fmt.Errorf("%q must begin with /", s)
	case strings.ContainsAny(rest, "{}\\%?#"):
		return fmt.Errorf("%q: only {sub} can stand in braces, and none of \\ %% ? # is allowed", s)
	case filepath.ToSlash(filepath.Clean(rest)) != strings.TrimSuffix(rest, "/") && s != "/":
		return fmt.Errorf("%q is not a clean path", s)
	}
	return nil
}
