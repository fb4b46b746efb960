package collect

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/trueup/trueup/internal/check"
)

// Stream is every message that the stream of the prefix holds, oldest first. It asks for
// each by its sequence, so that no consumer is made and nothing acknowledged.
func Stream(ctx context.Context, url, prefix string) ([]check.Message, error) {
	nc, err := nats.Connect(url, nats.Name("trueup-check"))
	if err != nil {
		return nil, fmt.Errorf("collect from the stream: %w", err)
	}
	defer nc.Close()
	return messages(ctx, nc, prefix)
}

func messages(ctx context.Context, nc *nats.Conn, prefix string) ([]check.Message, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("collect from the stream: %w", err)
	}
	name := strings.ToUpper(prefix) + "_EVENTS"
	s, err := js.Stream(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("collect from stream %s: %w", name, err)
	}
	state := s.CachedInfo().State
	out := []check.Message{}
	for seq := state.FirstSeq; seq <= state.LastSeq && state.Msgs > 0; {
		// The next one of any subject at or after seq: gaps cost nothing.
		m, err := s.GetMsg(ctx, seq, jetstream.WithGetMsgSubject(">"))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("collect message %d of %s: %w", seq, name, err)
		}
		if m.Sequence > state.LastSeq {
			break // came later
		}
		out = append(out, check.Message{Sequence: m.Sequence, Subject: m.Subject, ID: m.Header.Get(nats.MsgIdHdr), StoredAt: m.Time.UTC(), Data: m.Data})
		seq = m.Sequence + 1
	}
	return out, nil
}

// StoppedStream is the same for an embedded queue whose process does not run: dir is its
// directory. A copy of it is read, by a server of its own that listens nowhere.
func StoppedStream(ctx context.Context, dir, prefix string) ([]check.Message, error) {
	copied, err := os.MkdirTemp("", "trueup-check-")
	if err != nil {
		return nil, fmt.Errorf("collect from a stopped queue: %w", err)
	}
	defer func() { _ = os.RemoveAll(copied) }()
	// The directory of the queue is the store's; a server makes "jetstream" under it.
	if err := os.CopyFS(filepath.Join(copied, "store"), os.DirFS(dir)); err != nil {
		return nil, fmt.Errorf("collect from a stopped queue: copy %s: %w", dir, err)
	}
	ns, err := server.NewServer(&server.Options{
		ServerName: prefix, DontListen: true, NoSigs: true, NoLog: true, JetStream: true, StoreDir: filepath.Join(copied, "store"),
		JetStreamMaxStore: 1 << 50, JetStreamMaxMemory: 64 << 20, MaxPayload: 8 << 20,
	})
	if err != nil {
		return nil, fmt.Errorf("collect from a stopped queue: %w", err)
	}
	defer ns.WaitForShutdown()
	defer ns.Shutdown()
	ns.Start()
	if !ns.ReadyForConnections(30 * time.Second) {
		return nil, errors.New("collect from a stopped queue: the server over its copy did not come up")
	}
	nc, err := nats.Connect("", nats.InProcessServer(ns))
	if err != nil {
		return nil, fmt.Errorf("collect from a stopped queue: %w", err)
	}
	defer nc.Close()
	return messages(ctx, nc, prefix)
}
