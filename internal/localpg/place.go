package localpg

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// place is where one server's things lie. home is the folder the caller named; it
// keeps the lock. root holds the data, password, port and log; it is home, unless
// the server's user cannot enter home (somewhere below /root, say): then it is a
// folder elsewhere, chosen by home's path and written down in home/elsewhere.
type place struct {
	home, root string
	who        account
}

func (p place) data() string     { return filepath.Join(p.root, "data") }
func (p place) password() string { return filepath.Join(p.root, "password") }
func (p place) port() string     { return filepath.Join(p.root, "port") }
func (p place) log() string      { return filepath.Join(p.root, "server.log") }

// settle decides the place for dir and makes its folders.
func settle(dir string) (place, error) {
	home, err := filepath.Abs(dir)
	if err != nil {
		return place{}, fmt.Errorf("find %s: %w", dir, err)
	}
	if err := os.MkdirAll(home, 0o711); err != nil {
		return place{}, fmt.Errorf("make the folder for PostgreSQL: %w", err)
	}
	if home, err = filepath.EvalSymlinks(home); err != nil {
		return place{}, fmt.Errorf("find %s: %w", dir, err)
	}
	p := place{home: home, root: noted(home)}
	if p.who, err = accountFor(p.data(), p.root); err != nil {
		return place{}, err
	}
	if p.root == home && !p.who.canEnter(filepath.Dir(home)) {
		p.root = elsewhere(home)
	}
	return p, p.make()
}

// noted is where home's data lies, as an earlier run wrote it down.
func noted(home string) string {
	if text, err := os.ReadFile(filepath.Join(home, "elsewhere")); err == nil {
		return strings.TrimSpace(string(text))
	}
	return home
}

// dataMajor is the version that made the data in dir; 0 when there is none yet.
func dataMajor(dir string) int {
	if dir == "" {
		return 0
	}
	text, err := os.ReadFile(filepath.Join(noted(dir), "data", "PG_VERSION"))
	if err != nil {
		return 0
	}
	major, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return major
}

func (p place) make() error {
	if err := os.Mkdir(p.root, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make the folder for PostgreSQL: %w", err)
	}
	if p.root != p.home {
		if !p.who.owns(p.root) {
			return fmt.Errorf("%s is not ours: somebody else made it; remove it or choose another data directory", p.root)
		}
		if err := os.WriteFile(filepath.Join(p.home, "elsewhere"), []byte(p.root+"\n"), 0o600); err != nil {
			return fmt.Errorf("note where PostgreSQL's data lies: %w", err)
		}
	}
	if err := p.who.give(p.root); err != nil {
		return fmt.Errorf("give %s to user %s: %w", p.root, p.who.name, err)
	}
	return nil
}

// elsewhere is the stand-in for a folder the server's user cannot enter. It
// survives a reboot, which /tmp often does not.
func elsewhere(home string) string {
	base := "/var/tmp"
	if st, err := os.Stat(base); err != nil || !st.IsDir() {
		base = os.TempDir()
	}
	sum := sha256.Sum256([]byte(home))
	return filepath.Join(base, "trueup-postgres-"+hex.EncodeToString(sum[:8]))
}

// secret returns the superuser's password, making it the first time. Data without
// its password is of no use to us, and making a new one would not open it.
func (p place) secret() (string, error) {
	have, err := os.ReadFile(p.password())
	if err == nil && len(have) > 0 {
		return strings.TrimSpace(string(have)), nil
	}
	if _, err := os.Stat(p.data()); err == nil {
		return "", fmt.Errorf("%s holds data but %s, its password, is gone; put it back, or move the data away to start afresh", p.data(), p.password())
	}
	random := make([]byte, 20)
	if _, err := rand.Read(random); err != nil {
		return "", fmt.Errorf("make a password: %w", err)
	}
	word := hex.EncodeToString(random)
	return word, p.keep(p.password(), word)
}

// keep writes a small private file whole or not at all, so that a power cut takes
// neither it nor what it said before; initdb, running as the server's user, must be able
// to read it.
func (p place) keep(path, text string) error {
	draft := path + ".new"
	if err := p.write(draft, text); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(draft, path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	flushNames(filepath.Dir(path))
	return nil
}

func (p place) write(path, text string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text + "\n")
	return errors.Join(err, f.Sync(), f.Close(), p.who.give(path))
}

// flushNames puts a folder's own entries on disk. Not every system lets a folder be
// flushed, or needs it.
func flushNames(dir string) {
	if d, err := os.Open(dir); err == nil {
		_ = d.Sync()
		_ = d.Close()
	}
}

// keptPort is the port of the run before, or a new one.
func (p place) keptPort(ctx context.Context) (int, error) {
	have, err := os.ReadFile(p.port())
	if err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(have))); err == nil && n > 0 && n < 65536 {
			return n, nil
		}
	}
	return p.newPort(ctx)
}

// newPort asks the system for a free loopback port and keeps it.
func (p place) newPort(ctx context.Context) (int, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	return port, p.keep(p.port(), strconv.Itoa(port))
}
