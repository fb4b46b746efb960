package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"time"

	"github.com/nats-io/nats-server/v2/server" //nolint:depguard // the ceiling is JetStream without our queue
	"github.com/nats-io/nats.go"               //nolint:depguard // as above
	"github.com/nats-io/nats.go/jetstream"     //nolint:depguard // as above

	"github.com/trueup/trueup/internal/bench/load"
	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/queue"
)

// connections of the closed loops, as in the reference's own measurements.
const connections = 64

// nowhere is a queue that takes everything and keeps nothing: what remains is the
// handler.
type nowhere struct{ *queue.Queue }

func (nowhere) Publish(context.Context, []event.Event) error { return nil }

// oneEach is what most would write: each event is a JetStream message, synced by
// itself, and its confirmation is awaited.
type oneEach struct {
	*queue.Queue
	js jetstream.JetStream
}

const oneEachSubject = "bench.events"

func (o oneEach) Publish(ctx context.Context, events []event.Event) error {
	for i := range events {
		_, err := o.js.PublishMsg(ctx, &nats.Msg{Subject: oneEachSubject, Data: events[i].Body}, jetstream.WithMsgID(events[i].ID))
		if err != nil {
			return fmt.Errorf("%w: %w", event.ErrNotAccepted, err)
		}
	}
	return nil
}

// ingest measures webhooks against a bare handler and against one message per request.
func (s *stage) ingest(ctx context.Context) error {
	trueup, q, err := s.ingestOn(ctx, nil)
	if err != nil {
		return err
	}
	defer q.Close()
	defer trueup.stop()
	bare, err := s.receive(ctx, nowhere{q})
	if err != nil {
		return err
	}
	defer bare.stop()
	js, stop, err := s.jetStream(ctx)
	if err != nil {
		return err
	}
	defer stop()
	each, err := s.receive(ctx, oneEach{q, js})
	if err != nil {
		return err
	}
	defer each.stop()

	got, err := s.rounds(ctx,
		contender{"webhook, fsync", s.webhooks(trueup.public)},
		contender{"bare handler", s.webhooks(bare.public)},
		contender{"one message per request", s.webhooks(each.public)},
		contender{"disk, fsync", func(ctx context.Context, _ int) (sample, error) {
			n, err := fsyncs(ctx, s.dir, s.Slice/4)
			return sample{value: n}, err
		}})
	if err != nil {
		return err
	}
	s.add(compared("webhook to 200, fsync, against a bare handler", "requests/s", got.values(0), got.values(1), ratioAtLeast(0.65)))
	s.add(compared("webhook to 200, fsync, against one message per request", "requests/s", got.values(0), got.values(2), ratioAtLeast(5)))
	s.add(compared("webhook p99, 64 connections, against a bare handler", "ms", got.quantiles(0, 0.99), got.quantiles(1, 0.99), target{}))
	s.add(alone("fsync of the disk, one writer", "1/s", got.values(3), target{}))
	return nil
}

// ingestOn opens an embedded queue and runs ingest on it, or on what wrap makes of it.
func (s *stage) ingestOn(ctx context.Context, configure func(*queue.Config)) (*running, *queue.Queue, error) {
	dir, err := s.folder("queue")
	if err != nil {
		return nil, nil, err
	}
	c := queue.Config{Dir: dir, MaxBytes: 16 << 30, Logger: s.log}
	if configure != nil {
		configure(&c)
	}
	q, err := queue.Open(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	if ready := q.Ready(); ready.Durability != queue.DurabilityFsync {
		return nil, nil, errors.Join(fmt.Errorf("the queue does not sync: %s", ready.Durability), q.Close())
	}
	r, err := s.receive(ctx, q)
	if err != nil {
		return nil, nil, errors.Join(err, q.Close())
	}
	return r, q, nil
}

// webhooks is a slice of signed webhooks in a closed loop.
func (s *stage) webhooks(address string) func(context.Context, int) (sample, error) {
	return func(ctx context.Context, round int) (sample, error) {
		return s.closedLoop(ctx, load.Job{Kind: load.Webhook, Address: address, Secret: benchSecret, Seed: s.Seed + uint64(round)})
	}
}

func (s *stage) closedLoop(ctx context.Context, j load.Job) (sample, error) {
	j.Connections, j.Warm, j.For = connections, s.Slice/4, s.Slice
	r, err := s.load(ctx, j)
	if err != nil {
		return sample{}, err
	}
	return sample{value: r.PerSecond(), latency: &r.Took}, r.Only(http.StatusOK, http.StatusAccepted)
}

// jetStream is an embedded server of its own, as durable as ours.
func (s *stage) jetStream(ctx context.Context) (_ jetstream.JetStream, stop func(), err error) {
	dir, err := s.folder("one-each")
	if err != nil {
		return nil, nil, err
	}
	ns, err := server.NewServer(&server.Options{
		ServerName: "bench", DontListen: true, NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: filepath.Join(dir, "store"), SyncAlways: true, JetStreamMaxStore: 16 << 30, JetStreamMaxMemory: 16 << 20,
	})
	if err != nil {
		return nil, nil, err
	}
	ns.Start()
	halt := func() { ns.Shutdown(); ns.WaitForShutdown() }
	if !ns.ReadyForConnections(30 * time.Second) {
		halt()
		return nil, nil, errors.New("the embedded server of the ceiling did not come up")
	}
	nc, err := nats.Connect("", nats.InProcessServer(ns))
	if err != nil {
		halt()
		return nil, nil, err
	}
	end := func() { nc.Close(); halt() }
	js, err := jetstream.New(nc)
	if err == nil {
		_, err = js.CreateStream(ctx, jetstream.StreamConfig{
			Name: "EACH", Subjects: []string{oneEachSubject}, Storage: jetstream.FileStorage, Retention: jetstream.WorkQueuePolicy,
			Discard: jetstream.DiscardNew, MaxBytes: 8 << 30, Duplicates: 2 * time.Minute,
		})
	}
	if err != nil {
		end()
		return nil, nil, err
	}
	return js, end, nil
}
