package queue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// dedupWindow is how long the server recognises a repeated envelope. We repeat
// within AckTimeout only; the rest is for a server that was away meanwhile.
const dedupWindow = 5 * time.Minute

// errUnfit marks what no waiting mends: a stream that is missing or would lose
// events, a server too old. Its text says what to do.
var errUnfit = errors.New("queue")

func (c Config) streamConfig(replicas int) jetstream.StreamConfig {
	n := c.names()
	maxMsgs := c.MaxEnvelopes
	if maxMsgs == 0 {
		maxMsgs = -1
	}
	return jetstream.StreamConfig{
		Name: n.stream, Subjects: []string{n.subject},
		Description: "trueup: events accepted and not yet settled",
		Retention:   jetstream.WorkQueuePolicy, Storage: jetstream.FileStorage, Replicas: replicas,
		// Full means refused, never forgotten; and nothing expires.
		Discard: jetstream.DiscardNew, MaxBytes: c.MaxBytes, MaxMsgs: maxMsgs, MaxAge: 0,
		Duplicates: dedupWindow, PersistMode: jetstream.DefaultPersistMode,
	}
}

func (c Config) consumerConfig() jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable: c.names().consumer, AckPolicy: jetstream.AckExplicitPolicy,
		// Giving up is ours to decide, with a dead letter, and never the server's.
		MaxDeliver: -1, AckWait: c.AckWait, MaxAckPending: c.MaxUnacked,
	}
}

// bucketConfig is the bucket of the turn. It lives by the bucket's TTL, which every
// update renews: a key's own TTL is lost by the first update and then a dead holder
// would block everyone. The embedded one is kept in memory: the directory's lock
// proves that the former holder is dead, so a restart need not wait for it.
func (c Config) bucketConfig(replicas int) jetstream.KeyValueConfig {
	storage := jetstream.FileStorage
	if c.embedded() {
		storage = jetstream.MemoryStorage
	}
	return jetstream.KeyValueConfig{
		Bucket: c.names().bucket, Description: "trueup: which worker is active",
		TTL: c.TurnTTL, History: 1, Storage: storage, Replicas: replicas,
	}
}

// Migrate creates on an external server what Open expects there, or updates it.
// It can be repeated at any time. On an embedded queue it does nothing: Open does
// the same at every start.
func Migrate(ctx context.Context, c Config) error {
	c, err := c.withDefaults()
	if err != nil || c.embedded() {
		return err
	}
	nc, err := nats.Connect(c.URL, c.connectOptions()...)
	if err != nil {
		return fmt.Errorf("queue: connect to NATS: %w", err)
	}
	defer nc.Close()
	if err := checkVersion(nc.ConnectedServerVersion()); err != nil {
		return err
	}
	js, err := newJetStream(nc)
	if err != nil {
		return err
	}
	if c.Replicas > 0 {
		return c.provision(ctx, js, c.Replicas)
	}
	return c.provisionBest(ctx, nc, js)
}

// provisionBest keeps three replicas wherever there are three servers. It falls
// back to one only when fewer servers are known: in a cluster of three with one
// down it rather fails than makes a queue that one disk can lose.
func (c Config) provisionBest(ctx context.Context, nc *nats.Conn, js jetstream.JetStream) error {
	if nc.ConnectedClusterName() == "" {
		return c.provision(ctx, js, 1)
	}
	err := c.provision(ctx, js, 3)
	var api *jetstream.APIError
	noPeers := errors.As(err, &api) && (api.ErrorCode == codeNoPeers || api.ErrorCode == codeNotClustered)
	if noPeers && len(nc.Servers()) < 3 {
		return c.provision(ctx, js, 1)
	}
	return err
}

func (c Config) provision(ctx context.Context, js jetstream.JetStream, replicas int) error {
	n := c.names()
	if _, err := js.CreateOrUpdateStream(ctx, c.streamConfig(replicas)); err != nil {
		return fmt.Errorf("queue: create stream %s: %w", n.stream, err)
	}
	if _, err := js.CreateOrUpdateConsumer(ctx, n.stream, c.consumerConfig()); err != nil {
		return fmt.Errorf("queue: create consumer %s of %s: %w", n.consumer, n.stream, err)
	}
	if _, err := js.CreateOrUpdateKeyValue(ctx, c.bucketConfig(replicas)); err != nil {
		return fmt.Errorf("queue: create bucket %s: %w", n.bucket, err)
	}
	return nil
}

// reclaim makes an embedded server deliver at once what a process before us had
// fetched and not settled, instead of an AckWait later: the directory's lock proves
// that process dead. It lets AckWait pass for a moment, because that keeps the
// delivery counts, which making the consumer anew would forget. A server too busy to
// notice in that moment costs the wait, no more.
func (c Config) reclaim(ctx context.Context, js jetstream.JetStream) error {
	n := c.names()
	consumer, err := js.Consumer(ctx, n.stream, n.consumer)
	if err != nil {
		return fmt.Errorf("queue: look up consumer %s of %s: %w", n.consumer, n.stream, err)
	}
	if consumer.CachedInfo().NumAckPending == 0 {
		return nil
	}
	brief := c.consumerConfig()
	brief.AckWait = time.Millisecond
	if _, err := js.UpdateConsumer(ctx, n.stream, brief); err != nil {
		return fmt.Errorf("queue: reclaim what was fetched: %w", err)
	}
	pause(ctx, reclaimPause)
	if _, err := js.UpdateConsumer(ctx, n.stream, c.consumerConfig()); err != nil {
		return fmt.Errorf("queue: reclaim what was fetched: %w", err)
	}
	return nil
}

// reclaimPause: the server looks 100 ms after AckWait has changed.
const reclaimPause = 250 * time.Millisecond

// found is what was found on the server and proved fit.
type found struct {
	consumer jetstream.Consumer
	turn     jetstream.KeyValue
	turnTTL  time.Duration
	// payload is the largest message that the connection and the stream take.
	payload int
}

// inspect looks up what Open needs, creating nothing, and refuses what would lose
// events. An error that is errUnfit stays until somebody acts.
func (c Config) inspect(ctx context.Context, nc *nats.Conn, js jetstream.JetStream) (*found, error) {
	if err := checkVersion(nc.ConnectedServerVersion()); err != nil {
		return nil, err
	}
	n := c.names()
	stream, err := js.Stream(ctx, n.stream)
	if err != nil {
		return nil, lookupError("stream "+n.stream, err, jetstream.ErrStreamNotFound)
	}
	cfg := stream.CachedInfo().Config
	if why := lossyStream(cfg, n.subject); why != "" {
		return nil, fmt.Errorf("%w: stream %s %s; run: trueup migrate up", errUnfit, n.stream, why)
	}
	consumer, err := js.Consumer(ctx, n.stream, n.consumer)
	if err != nil {
		return nil, lookupError("consumer "+n.consumer+" of "+n.stream, err, jetstream.ErrConsumerNotFound)
	}
	if why := lossyConsumer(consumer.CachedInfo().Config); why != "" {
		return nil, fmt.Errorf("%w: consumer %s of %s %s; run: trueup migrate up", errUnfit, n.consumer, n.stream, why)
	}
	f := &found{consumer: consumer, payload: int(nc.MaxPayload())}
	if cfg.MaxMsgSize > 0 {
		f.payload = min(f.payload, int(cfg.MaxMsgSize))
	}
	return f, c.findTurn(ctx, js, f)
}

func (c Config) findTurn(ctx context.Context, js jetstream.JetStream, f *found) error {
	bucket := c.names().bucket
	kv, err := js.KeyValue(ctx, bucket)
	if err != nil {
		return lookupError("bucket "+bucket, err, jetstream.ErrBucketNotFound)
	}
	status, err := kv.Status(ctx)
	if err != nil {
		return lookupError("bucket "+bucket, err, jetstream.ErrBucketNotFound)
	}
	if status.TTL() <= 0 {
		return fmt.Errorf("%w: bucket %s has no TTL, so a dead worker would keep its turn for ever; run: trueup migrate up", errUnfit, bucket)
	}
	f.turn, f.turnTTL = kv, status.TTL()
	return nil
}

func lookupError(what string, err, missing error) error {
	if errors.Is(err, missing) {
		return fmt.Errorf("%w: %s is missing; run: trueup migrate up", errUnfit, what)
	}
	return fmt.Errorf("look up %s: %w", what, err)
}

// lossyStream says in which way a stream would lose accepted events; "" if in none.
func lossyStream(c jetstream.StreamConfig, subject string) string {
	switch {
	case len(c.Subjects) != 1 || c.Subjects[0] != subject:
		return "does not listen to " + subject + " alone"
	case c.Retention != jetstream.WorkQueuePolicy:
		return "is not a work queue"
	case c.Storage != jetstream.FileStorage:
		return "is kept in memory"
	case c.Discard != jetstream.DiscardNew:
		return "discards old events when it is full"
	case c.MaxMsgsPerSubject > 0:
		return "discards old events beyond max_msgs_per_subject"
	case c.MaxAge > 0:
		return "lets events expire (max_age)"
	case c.PersistMode == jetstream.AsyncPersistMode:
		return "confirms events before they are written (persist_mode async)"
	case c.NoAck:
		return "confirms nothing (no_ack)"
	}
	return ""
}

func lossyConsumer(c jetstream.ConsumerConfig) string {
	switch {
	case c.MaxDeliver > 0:
		return "gives up on events by itself (max_deliver)"
	case c.AckPolicy != jetstream.AckExplicitPolicy:
		return "does not wait for each ack"
	case c.FilterSubject != "" || len(c.FilterSubjects) > 0:
		return "leaves some events out (filter_subject)"
	}
	return ""
}

// checkVersion refuses servers before 2.12: their file store had holes that were
// closed later, and their stream info does not tell persist_mode.
func checkVersion(v string) error {
	major, rest, _ := strings.Cut(strings.TrimPrefix(v, "v"), ".")
	minor, _, _ := strings.Cut(rest, ".")
	a, errA := strconv.Atoi(major)
	b, errB := strconv.Atoi(minor)
	if errA != nil || errB != nil || a < 2 || a == 2 && b < 12 {
		return fmt.Errorf("%w: NATS server %q is too old: trueup needs 2.12 or later", errUnfit, v)
	}
	return nil
}

func newJetStream(nc *nats.Conn) (jetstream.JetStream, error) {
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(10*time.Second))
	if err != nil {
		return nil, fmt.Errorf("queue: %w", err)
	}
	return js, nil
}

// Server error codes that nats.go has no name for.
const (
	codeNoPeers      jetstream.ErrorCode = 10005
	codeNotClustered jetstream.ErrorCode = 10074
	codeStoreFailed  jetstream.ErrorCode = 10077 // full, or the write failed
	codeNoStorage    jetstream.ErrorCode = 10047
)
