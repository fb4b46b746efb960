package queue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/trueup/trueup/internal/queue/envelope"
)

// Queue is an open queue. All its methods may be called at once.
type Queue struct {
	cfg    Config
	names  names
	server *embedded // nil when external
	nc     *nats.Conn
	js     jetstream.JetStream
	packer *packer
	reader *reader

	// state is what the last look at the server gave. Only watch replaces it after
	// Open; everybody reads it.
	state atomic.Pointer[state]
	full  atomic.Bool // the last publish was refused for want of room
	// silent: the last publish was not answered in time. Until one is, others are
	// refused at once instead of waiting for the same.
	silent atomic.Bool

	poke   chan struct{} // asks watch to look again
	stop   context.CancelFunc
	done   sync.WaitGroup
	closed atomic.Bool
}

// state is either found or why not.
type state struct {
	*found
	why string
}

// Readiness says whether the queue takes events now and what its yes is worth.
type Readiness struct {
	Accepting bool
	// Durability is "fsync" when each event is synced before it is confirmed,
	// "none" when it provably is not, "unknown" when the server is not ours: no
	// client can see whether it syncs.
	Durability string
	// Why is one sentence when it does not accept; it may also explain the
	// durability when it does.
	Why string
}

// What Readiness.Durability can be.
const (
	DurabilityFsync   = "fsync"
	DurabilityUnknown = "unknown"
	DurabilityNone    = "none"
)

// Open opens the queue. Embedded, it starts the server and creates what is missing.
// External, it creates nothing, and refuses a server or a stream that would lose
// events; a server that does not answer yet is no error, the queue then refuses
// events until it does.
func Open(ctx context.Context, c Config) (*Queue, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	q := &Queue{cfg: c, names: c.names(), poke: make(chan struct{}, 1)}
	if err := q.open(ctx); err != nil {
		return nil, errors.Join(err, q.shut())
	}
	q.packer = newPacker(c, func() int { return q.payloadLimit() / 2 }, q.storeEnvelope)
	q.reader = newReader(q.consumer, c.Buffer, c.AckWait/3, &strays{find: q.findStrays, every: c.StrayEvery, inHand: map[uint64]bool{}}, c.Logger)
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	q.stop = stop
	q.done.Go(func() { q.watch(run) })
	q.done.Go(q.packer.run)
	return q, nil
}

func (q *Queue) open(ctx context.Context) error {
	if err := q.connect(); err != nil {
		return err
	}
	js, err := newJetStream(q.nc)
	if err != nil {
		return err
	}
	q.js = js
	if q.server != nil {
		if err := q.cfg.provision(ctx, js, 1); err != nil {
			return err
		}
		if err := q.cfg.reclaim(ctx, js); err != nil {
			return err
		}
	}
	q.state.Store(&state{why: "NATS has not answered yet"})
	if !q.nc.IsConnected() {
		q.cfg.Logger.WarnContext(ctx, "queue.waiting", "why", "NATS does not answer; events are refused until it does")
		return nil
	}
	if err := q.look(ctx); errors.Is(err, errUnfit) {
		return err
	}
	return nil
}

func (q *Queue) connect() error {
	opts := q.cfg.connectOptions()
	url := q.cfg.URL
	if q.cfg.embedded() {
		e, err := startEmbedded(q.cfg)
		if err != nil {
			return err
		}
		q.server = e
		opts = append(opts, nats.InProcessServer(e))
	} else {
		opts = append(opts, nats.RetryOnFailedConnect(true))
	}
	opts = append(opts,
		nats.ConnectHandler(func(*nats.Conn) { q.lookAgain() }),
		nats.ReconnectHandler(func(*nats.Conn) { q.lookAgain() }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				q.cfg.Logger.Warn("queue.disconnected", "error", err)
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			q.cfg.Logger.Warn("queue.connection", "error", err)
		}))
	nc, err := nats.Connect(url, opts...)
	if err != nil {
		return fmt.Errorf("queue: connect to NATS: %w", err)
	}
	q.nc = nc
	return nil
}

func (c Config) connectOptions() []nats.Option {
	opts := []nats.Option{
		nats.Name(strings.Trim("trueup "+c.Role, " ")),
		nats.CustomInboxPrefix(c.names().inbox),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectJitter(250*time.Millisecond, 250*time.Millisecond),
		// Credentials may be rotated under us; keep trying.
		nats.IgnoreAuthErrorAbort(),
		// A publish without a connection fails; it does not pile up in memory.
		nats.ReconnectBufSize(-1),
		nats.PingInterval(10 * time.Second), nats.MaxPingsOutstanding(2),
	}
	if c.CredsFile != "" {
		opts = append(opts, nats.UserCredentials(c.CredsFile))
	}
	return opts
}

// lookTimeout is short because a look is repeated, and because its request dies with
// a connection that is cut.
const lookTimeout = 3 * time.Second

// look asks the server for what we need and keeps the answer. An answer that does not
// come says nothing: what was found before still counts, and publishing will tell.
func (q *Queue) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	f, err := q.cfg.inspect(ctx, q.nc, q.js)
	switch {
	case err == nil:
		q.state.Store(&state{found: f})
	case errors.Is(err, errUnfit) || q.state.Load().found == nil:
		q.state.Store(&state{why: err.Error()})
	}
	return err
}

func (q *Queue) lookAgain() { signal(q.poke) }

// watch keeps state true: it looks after every reconnect and after every refusal,
// and goes on looking while something is wrong. While all is well it is silent.
func (q *Queue) watch(ctx context.Context) {
	for {
		var retry <-chan time.Time
		if q.state.Load().found == nil || q.full.Load() || q.silent.Load() {
			retry = time.After(jitter(time.Second))
		}
		again := false
		select {
		case <-ctx.Done():
			return
		case <-q.poke:
		case <-retry:
			again = true
		}
		if !q.mend(ctx) || !q.nc.IsConnected() {
			continue
		}
		q.lookAndTell(ctx)
		if q.full.Load() {
			q.checkRoom(ctx)
		}
		if again && q.silent.Load() && q.state.Load().found != nil {
			q.probe() //nolint:contextcheck // like every publish it has its own time
		}
	}
}

func (q *Queue) lookAndTell(ctx context.Context) {
	before := q.state.Load().why
	if err := q.look(ctx); err != nil && err.Error() != before && ctx.Err() == nil {
		q.cfg.Logger.ErrorContext(ctx, "queue.unfit", "error", err)
	}
}

// mend restarts an embedded server that has stopped storing, once that is possible,
// and says whether all is well with it. While it is not, the queue says why.
func (q *Queue) mend(ctx context.Context) bool {
	if q.server == nil {
		return true
	}
	why := q.server.broken()
	if why == "" {
		return true
	}
	if q.state.Load().found != nil {
		q.cfg.Logger.ErrorContext(ctx, "queue.broken", "why", why)
	}
	if err := q.server.restart(); err != nil {
		q.state.Store(&state{why: fmt.Sprintf("the embedded server cannot store in %s: %v", q.cfg.Dir, err)})
		return false
	}
	q.cfg.Logger.WarnContext(ctx, "queue.restarted", "why", why)
	for !q.nc.IsConnected() && ctx.Err() == nil {
		pause(ctx, 20*time.Millisecond)
	}
	// The bucket of the turn was in memory.
	if err := q.cfg.provision(ctx, q.js, 1); err != nil {
		q.state.Store(&state{why: err.Error()})
		return false
	}
	q.silent.Store(false)
	return true
}

// probe stores an envelope without events, which Next throws away: when the last
// envelope was not confirmed in time, only another one can tell that the server
// stores again, and a queue that is not ready gets none.
func (q *Queue) probe() {
	id := newID()
	_ = q.storeEnvelope(id, envelope.AppendPreamble(nil, id, 0), 0) // it has noted its error
}

// checkRoom ends "full" once a twentieth of the room is free again, so that a full
// queue without callers becomes ready by itself.
func (q *Queue) checkRoom(ctx context.Context) {
	s, err := q.js.Stream(ctx, q.names.stream)
	if err != nil {
		return
	}
	info := s.CachedInfo()
	if !nearly(int64(info.State.Bytes), info.Config.MaxBytes) && !nearly(int64(info.State.Msgs), info.Config.MaxMsgs) {
		q.full.Store(false)
	}
}

func nearly(used, limit int64) bool { return limit > 0 && used > limit-limit/20 }

func (q *Queue) durability() string {
	switch {
	case q.server == nil:
		return DurabilityUnknown
	case q.server.fsyncs():
		return DurabilityFsync // inspect has refused persist_mode async
	}
	return DurabilityNone
}

// Ready says whether events are taken. It asks nobody: it tells what is known, and
// what is known is renewed after every reconnect and refusal.
func (q *Queue) Ready() Readiness {
	r := Readiness{Durability: q.durability(), Why: q.refusal()}
	if r.Why == "" && q.full.Load() {
		r.Why = "the queue is full"
	}
	r.Accepting = r.Why == ""
	if r.Accepting && r.Durability == DurabilityNone {
		r.Why = "events are confirmed without fsync, as TRUEUP_ALLOW_NONDURABLE permits: a power cut loses some"
	}
	return r
}

// refusal says why nothing can be published now; "" when it can be tried.
func (q *Queue) refusal() string {
	switch s := q.state.Load(); {
	case q.closed.Load():
		return "the queue is closed"
	case q.server == nil && !q.nc.IsConnected():
		return "no connection to NATS"
	case s.found == nil:
		return s.why
	case !q.nc.IsConnected():
		return "the embedded server is being restarted"
	case q.silent.Load():
		return "the server did not confirm the last envelope in time"
	case q.durability() == DurabilityNone && !q.cfg.AllowNondurable:
		return "the embedded server does not sync each event to disk; set TRUEUP_ALLOW_NONDURABLE=1 to accept that"
	}
	return ""
}

func (q *Queue) consumer() (jetstream.Consumer, error) {
	s := q.state.Load()
	if s.found == nil {
		return nil, errors.New(s.why)
	}
	return s.consumer, nil
}

// Close stops taking events, publishes those that wait, hands back what was fetched
// and not delivered, and stops the embedded server. Deliveries not ended yet come
// again after the next Open.
func (q *Queue) Close() error {
	if q.closed.Swap(true) {
		return nil
	}
	q.packer.close()
	q.reader.close()
	q.stop()
	q.done.Wait()
	return q.shut()
}

func (q *Queue) shut() error {
	if q.nc != nil {
		_ = q.nc.FlushTimeout(time.Second) // acks and releases on their way; a lost one is only delivered again
		q.nc.Close()
	}
	if q.server != nil {
		return q.server.stop()
	}
	return nil
}

// jitter spreads d by a fifth both ways, so that replicas do not ask in step.
func jitter(d time.Duration) time.Duration {
	return d - d/5 + rand.N(2*d/5+1) //nolint:gosec // not a secret
}
