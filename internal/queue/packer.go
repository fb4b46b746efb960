package queue

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/oklog/ulid/v2"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/queue/envelope"
)

// Headers of an envelope, for people who look at the stream with other tools.
const (
	headerID    = "X-Env-Id"
	headerCount = "X-Env-Count"
	headerRoom  = 1 << 10 // what all headers together take at most
)

// Publish stores the events of one call durably, in one envelope, together with
// those of other calls that wait at the same time. It returns nil only after the
// server confirmed that envelope.
//
// Otherwise the error is event.ErrTooLarge, when the events do not fit one
// envelope (MaxEvents, or the server's largest message), or event.ErrNotAccepted.
// The latter leaves open whether they are stored: the caller repeats, and a second
// copy costs a look-up at most. When ctx ends first, events already packed go on.
//
// A first publish that the server answers as a duplicate is not accepted: it was
// not these events that it has.
func (q *Queue) Publish(ctx context.Context, events []event.Event) error {
	if len(events) == 0 {
		return nil
	}
	if why := q.refusal(); why != "" {
		return fmt.Errorf("%w: %s", event.ErrNotAccepted, why)
	}
	if len(events) > MaxEvents {
		return fmt.Errorf("%w: %d events in one call, at most %d", event.ErrTooLarge, len(events), MaxEvents)
	}
	c := q.packer.call(ctx)
	if err := c.encode(events); err != nil {
		return err
	}
	if limit := q.payloadLimit(); len(c.wire) > limit {
		return fmt.Errorf("%w: %d bytes, at most %d", event.ErrTooLarge, len(c.wire), limit)
	}
	if err := q.packer.add(c); err != nil {
		return err
	}
	select {
	case err := <-c.done:
		q.packer.spare(c)
		return err
	case <-ctx.Done(): // the packer may still hold c
		return fmt.Errorf("%w: %w", event.ErrNotAccepted, context.Cause(ctx))
	}
}

// payloadLimit is what the events of one envelope may take on the wire.
func (q *Queue) payloadLimit() int {
	s := q.state.Load()
	if s.found == nil {
		return 0
	}
	return s.payload - headerRoom - envelope.MaxPreamble
}

// call is one call of Publish on its way through the packer.
type call struct {
	ctx    context.Context //nolint:containedctx // of the caller who waits for done
	wire   []byte          // its events, encoded by the caller's own goroutine
	events int
	done   chan error // buffered: the packer never waits for a caller
}

func (c *call) encode(events []event.Event) error {
	size := 0
	for i := range events {
		size += len(events[i].Body) + 320
	}
	c.events, c.wire = len(events), slices.Grow(c.wire[:0], size)
	for i := range events {
		var err error
		if c.wire, err = envelope.AppendEvent(c.wire, &events[i]); err != nil {
			return err
		}
	}
	return nil
}

// packer gathers calls into envelopes. There is no timer: it takes whatever waits,
// so a lone call goes at once, and under load the envelope grows for as long as the
// one before it is being synced. It only lets callers that could run at once do so
// first. One envelope is in flight at a time; two were measured slower, because they
// only make each other smaller.
type packer struct {
	maxEvents, maxBytes int
	// share is how many bytes of calls an envelope takes; a single larger call
	// travels alone.
	share func() int
	store func(id string, payload []byte, events int) error

	mu      sync.Mutex // guards the rest
	waiting []*call
	events  int
	bytes   int
	closed  bool
	wake    chan struct{} // buffered: one is enough

	calls sync.Pool // of *call, each answered and read
}

func newPacker(c Config, share func() int, store func(string, []byte, int) error) *packer {
	return &packer{
		maxEvents: c.MaxWaitingEvents, maxBytes: c.MaxWaitingBytes,
		share: share, store: store, wake: make(chan struct{}, 1),
	}
}

// maxSpare bounds the bytes that a call keeps for the next one.
const maxSpare = 64 << 10

// call is one to fill: a new one, or one that was answered.
func (p *packer) call(ctx context.Context) *call {
	c, ok := p.calls.Get().(*call)
	if !ok {
		c = &call{done: make(chan error, 1)}
	}
	c.ctx = ctx
	return c
}

// spare keeps a call whose answer was read: by then the packer is done with it.
func (p *packer) spare(c *call) {
	if cap(c.wire) <= maxSpare {
		c.ctx = nil
		p.calls.Put(c)
	}
}

// add puts a call into the waiting room, or refuses it at once: an answer now is
// worth more to a sender than a place at the end of a long line.
func (p *packer) add(c *call) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return fmt.Errorf("%w: the queue is closed", event.ErrNotAccepted)
	case len(p.waiting) > 0 && (p.events+c.events > p.maxEvents || p.bytes+len(c.wire) > p.maxBytes):
		return fmt.Errorf("%w: too many events are waiting to be stored", event.ErrNotAccepted)
	}
	p.waiting = append(p.waiting, c)
	p.events += c.events
	p.bytes += len(c.wire)
	signal(p.wake)
	return nil
}

// close refuses new calls and lets run finish with those that wait.
func (p *packer) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	signal(p.wake)
}

// run stores envelopes until close, and then what still waits.
func (p *packer) run() {
	var buf []byte
	for {
		runtime.Gosched()
		calls, closed := p.take()
		if len(calls) == 0 {
			if closed {
				return
			}
			<-p.wake
			continue
		}
		buf = p.pack(buf[:0], calls)
	}
}

// take removes from the waiting room what fits the next envelope, oldest first.
// Callers who have gone away are left out: they got their answer already.
func (p *packer) take() (calls []*call, closed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	share, events, bytes, n := p.share(), 0, 0, 0
	for _, c := range p.waiting {
		gone := c.ctx.Err() != nil
		if !gone && len(calls) > 0 && (events+c.events > MaxEvents || bytes+len(c.wire) > share) {
			break
		}
		n++
		p.events -= c.events
		p.bytes -= len(c.wire)
		if gone {
			continue
		}
		calls = append(calls, c)
		events += c.events
		bytes += len(c.wire)
	}
	rest := copy(p.waiting, p.waiting[n:])
	clear(p.waiting[rest:])
	p.waiting = p.waiting[:rest]
	return calls, p.closed
}

// pack stores one envelope and answers its calls. It returns buf for the next one:
// the connection has copied it by then.
func (p *packer) pack(buf []byte, calls []*call) []byte {
	events := 0
	for _, c := range calls {
		events += c.events
	}
	id := newID()
	buf = envelope.AppendPreamble(buf, id, events)
	for _, c := range calls {
		buf = append(buf, c.wire...)
	}
	err := p.store(id, buf, events)
	for _, c := range calls {
		c.done <- err
	}
	return buf
}

// newID draws an envelope's id. It must never repeat, for a repeated one would be
// taken for a copy and dropped; so its random part is drawn afresh each time.
func newID() string { return ulid.MustNew(ulid.Now(), rand.Reader).String() }

// storeEnvelope publishes one envelope and waits for its confirmation. When none
// comes in half the time, it asks once more under the same id: either the first
// copy is there, then the server says "duplicate" and the events are safe, or it
// got lost, then this one is stored. A refusal is not repeated: the sender will.
//
// BUG: an external server that is killed between writing the first copy and
// syncing it, and is up again within the time left, says "duplicate" for a copy
// that only the page cache holds.
func (q *Queue) storeEnvelope(id string, payload []byte, events int) error {
	ctx, cancel := context.WithTimeout(context.Background(), q.cfg.AckTimeout)
	defer cancel()
	ack, err := q.send(ctx, q.cfg.AckTimeout/2, id, payload, events)
	switch {
	case err == nil && ack.Duplicate:
		err = errors.New("the server has an envelope of this id already, and it is not this one")
	case unknown(err):
		_, err = q.send(ctx, q.cfg.AckTimeout, id, payload, events)
	}
	q.note(err)
	if err != nil {
		return fmt.Errorf("%w: envelope %s: %w", event.ErrNotAccepted, id, err)
	}
	return nil
}

func (q *Queue) send(ctx context.Context, wait time.Duration, id string, payload []byte, events int) (*jetstream.PubAck, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	msg := &nats.Msg{Subject: q.names.subject, Data: payload, Header: nats.Header{
		headerID: {id}, headerCount: {strconv.Itoa(events)},
	}}
	return q.js.PublishMsg(ctx, msg, jetstream.WithMsgID(id),
		jetstream.WithExpectStream(q.names.stream), jetstream.WithRetryAttempts(0))
}

// unknown says whether the envelope may be stored although there was an error.
func unknown(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) ||
		errors.Is(err, jetstream.ErrInvalidJSAck)
}

// note keeps what a publish taught about the server.
func (q *Queue) note(err error) {
	q.silent.Store(unknown(err))
	if err == nil {
		q.full.Store(false)
		return
	}
	var api *jetstream.APIError
	if errors.As(err, &api) && (api.ErrorCode == codeStoreFailed || api.ErrorCode == codeNoStorage) {
		q.full.Store(true)
	}
	q.cfg.Logger.Warn("queue.refused", "error", err)
	q.lookAgain()
}
