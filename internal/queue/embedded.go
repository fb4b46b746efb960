package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// embedded is a nats-server inside this process. It listens nowhere: the only way
// in is a connection from this process.
type embedded struct {
	cfg  Config
	dir  string
	lock *os.File
	ns   atomic.Pointer[server.Server] // another one after restart
}

const startTimeout = 30 * time.Second

func startEmbedded(c Config) (*embedded, error) {
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return nil, fmt.Errorf("queue: directory %s: %w", c.Dir, err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	e := &embedded{cfg: c, dir: dir, lock: lock}
	ns, err := startServer(c, dir)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	e.ns.Store(ns)
	// A stream that cannot be read back would be made anew, empty, a moment later.
	if why := e.broken(); why != "" {
		return nil, errors.Join(fmt.Errorf("queue: the store in %s is damaged and was left as it is: %s", dir, why), e.stop())
	}
	return e, nil
}

func startServer(c Config, dir string) (*server.Server, error) {
	ns, err := server.NewServer(&server.Options{
		ServerName: c.Prefix, DontListen: true, NoSigs: true,
		JetStream: true, StoreDir: dir, SyncAlways: !c.forgetful,
		// Both are set because the defaults are shares of the machine. The store's is
		// out of the way: what the stream reserves counts against it, the old MaxBytes
		// too while a smaller one is being taken over, and the stream's is the bound.
		JetStreamMaxStore: 1<<40 + c.MaxBytes, JetStreamMaxMemory: 16 << 20,
		// A webhook of 1 MiB fits half of this, and the packer's share is half.
		MaxPayload: c.payload,
	})
	if err != nil {
		return nil, fmt.Errorf("queue: embedded server in %s: %w", dir, err)
	}
	ns.SetLoggerV2(serverLog{c.Logger.With("part", "nats-server")}, false, false, false)
	ns.Start()
	if !ns.ReadyForConnections(startTimeout) || !ns.JetStreamEnabled() {
		ns.Shutdown()
		ns.WaitForShutdown()
		return nil, fmt.Errorf("queue: embedded server in %s did not come up; its log says why", dir)
	}
	return ns, nil
}

// InProcessConn is how nats.go connects, and reconnects after a restart.
func (e *embedded) InProcessConn() (net.Conn, error) {
	return e.ns.Load().InProcessConn() //nolint:wrapcheck // nats.go wants it as it is
}

// fsyncs reads back whether the running server syncs each message before it
// confirms it. It is what the server goes by, not what we asked for.
func (e *embedded) fsyncs() bool {
	js := e.ns.Load().JetStreamConfig()
	return js != nil && js.SyncAlways
}

// broken says why the server has stopped storing, "" while it has not. After one
// failed write, be it for a full disk, a stream confirms nothing for as long as its
// server runs.
//
// Before it looks at anything, the server's own check wants connections to be possible
// within a millisecond, which a busy machine does not always leave it; here they are
// possible from the start on, since it listens nowhere. So that answer is none, and it
// is asked again.
func (e *embedded) broken() string {
	for {
		h := e.ns.Load().Healthz(&server.HealthzOptions{Details: true})
		if h.Status == "ok" {
			return ""
		}
		if why := h.Errors[0]; why.Type != server.HealthzErrorConn {
			return why.Error
		}
	}
}

// restart replaces a broken server as soon as its directory can be written again.
// What was stored is stored; the connection finds the new server by itself.
func (e *embedded) restart() error {
	if err := tryWriting(e.dir); err != nil {
		return err
	}
	old := e.ns.Load()
	old.Shutdown()
	old.WaitForShutdown()
	ns, err := startServer(e.cfg, e.dir)
	if err != nil {
		return err
	}
	e.ns.Store(ns)
	return nil
}

// tryWriting writes and syncs a mebibyte, so that a server is not restarted for the
// few bytes that something else has just freed.
func tryWriting(dir string) error {
	f, err := os.CreateTemp(dir, "room-*")
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, 1<<20))
	return errors.Join(err, f.Sync(), f.Close(), os.Remove(f.Name()))
}

func (e *embedded) stop() error {
	ns := e.ns.Load()
	ns.Shutdown()
	ns.WaitForShutdown()
	return e.lock.Close()
}

// serverLog hands the server's lines to slog. Its notices are about its own start
// and stop, so they are for debugging here.
type serverLog struct{ log *slog.Logger }

func (l serverLog) say(level slog.Level, format string, v ...any) {
	ctx := context.Background()
	if l.log.Enabled(ctx, level) {
		l.log.Log(ctx, level, fmt.Sprintf(format, v...))
	}
}

func (l serverLog) Noticef(format string, v ...any) { l.say(slog.LevelDebug, format, v...) }
func (l serverLog) Warnf(format string, v ...any)   { l.say(slog.LevelWarn, format, v...) }
func (l serverLog) Fatalf(format string, v ...any)  { l.say(slog.LevelError, format, v...) }
func (l serverLog) Errorf(format string, v ...any)  { l.say(slog.LevelError, format, v...) }
func (l serverLog) Debugf(format string, v ...any)  { l.say(slog.LevelDebug, format, v...) }
func (l serverLog) Tracef(format string, v ...any)  { l.say(slog.LevelDebug, format, v...) }
