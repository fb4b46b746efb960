package queue

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	carrier "github.com/trueup/trueup/internal/queue"
)

// Server says what a Stream is. The zero value is the embedded one of `serve`.
type Server struct {
	// Shared: several processes use it, and none of them can know that another is dead.
	// Otherwise whoever opens a Door takes over at once what its predecessor had.
	Shared bool
	// Durability is what Ready says; zero means "fsync", or "unknown" where it is Shared.
	Durability string
	// MaxBytes bounds what is stored and not acked; zero means 2 GiB.
	MaxBytes int
	// Payload is the largest message; zero means 8 MiB.
	Payload int
	// AckWait is how long a delivery may stay silent; zero means 20 s, as service has it.
	AckWait time.Duration
	// MaxUnacked bounds the envelopes delivered and not acked; zero means 2000.
	MaxUnacked int
	// TurnTTL is how long a silent holder keeps the turn; zero means 15 s.
	TurnTTL time.Duration
	// Shuffle hands out what is there in random order, by these numbers; nil: in the
	// order in which it was stored, what comes again first.
	Shuffle interface{ Uint64() uint64 }
}

// dedupWindow is how long a repeated envelope is recognised.
const dedupWindow = 5 * time.Minute

// Headers of an envelope, as internal/queue writes them.
const (
	headerDedup = "Nats-Msg-Id"
	headerID    = "X-Env-Id"
	headerCount = "X-Env-Count"
)

// Message is one envelope as the stream holds it, or held it.
type Message struct {
	Sequence uint64
	StoredAt time.Time
	Header   map[string]string
	Data     []byte
	// AckedAt is when it was acked; zero while it is held.
	AckedAt time.Time
	// Delivered counts its deliveries.
	Delivered uint64
}

// message is a Message and where it is.
type message struct {
	Message
	out       bool      // delivered, and neither acked nor given back
	due       time.Time // while out: when it comes again; else: not before
	redeliver bool      // it comes again
}

// Stream is the server.
type Stream struct {
	Server

	mu       sync.Mutex // guards the rest
	held     []*message // not acked, by sequence
	ever     []*message
	seen     map[string]time.Time // envelope ids, for dedupWindow
	bytes    int
	away     string // why it cannot be reached; empty: it can
	turn     turnEntry
	doors    []*Door
	changed  chan struct{} // closed, and replaced, when something may be had that could not
	sequence uint64
}

// NewStream is an empty one.
func NewStream(s Server) *Stream {
	s.MaxBytes = cmp.Or(s.MaxBytes, 2<<30)
	s.Payload = cmp.Or(s.Payload, 8<<20)
	s.AckWait = cmp.Or(s.AckWait, 20*time.Second)
	s.MaxUnacked = cmp.Or(s.MaxUnacked, 2000)
	s.TurnTTL = cmp.Or(s.TurnTTL, 15*time.Second)
	if s.Durability == "" {
		s.Durability = carrier.DurabilityFsync
		if s.Shared {
			s.Durability = carrier.DurabilityUnknown
		}
	}
	return &Stream{Server: s, seen: map[string]time.Time{}, changed: make(chan struct{})}
}

// Away cuts every process off the server, until it is called with an empty why.
func (s *Stream) Away(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = why
	s.tell()
}

// Resize bounds what is stored and not acked anew; what is stored stays.
func (s *Stream) Resize(maxBytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.MaxBytes = maxBytes
}

// Held is what the stream holds now, by sequence.
func (s *Stream) Held() []Message { return s.dump(func() []*message { return s.held }) }

// Ever is all that it ever stored, by sequence.
func (s *Stream) Ever() []Message { return s.dump(func() []*message { return s.ever }) }

func (s *Stream) dump(which func() []*message) []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Message
	for _, m := range which() {
		c := m.Message
		c.Header, c.Data = maps.Clone(m.Header), slices.Clone(m.Data)
		out = append(out, c)
	}
	return out
}

// Holder names the role of the process that has the turn; empty when nobody does.
func (s *Stream) Holder() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.turn.holder == "" || !time.Now().Before(s.turn.until) {
		return ""
	}
	return s.turn.role
}

// tell wakes whoever waits for the stream; mu is held.
func (s *Stream) tell() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// errAway is what a process meets that cannot reach the server.
var errAway = errors.New("the server cannot be reached")

// errFull is the server's refusal.
var errFull = errors.New("the stream is full")

func (s *Stream) reach() error {
	if s.away != "" {
		return fmt.Errorf("%w: %s", errAway, s.away)
	}
	return nil
}

// store keeps an envelope, or says that it has one of this id already.
func (s *Stream) store(id string, data []byte, events int) (duplicate bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.reach(); err != nil {
		return false, err
	}
	now := time.Now()
	if at, known := s.seen[id]; known && now.Sub(at) < dedupWindow {
		return true, nil
	}
	m := &message{Message: Message{
		StoredAt: now.UTC(), Data: data,
		Header: map[string]string{headerDedup: id, headerID: id, headerCount: fmt.Sprint(events)},
	}}
	if s.bytes+m.size() > s.MaxBytes {
		return false, errFull
	}
	s.sequence++
	m.Sequence = s.sequence
	s.seen[id] = now
	s.bytes += m.size()
	s.held, s.ever = append(s.held, m), append(s.ever, m)
	s.tell()
	return false, nil
}

// overhead is about what a message takes beside its data.
const overhead = 150

func (m *message) size() int { return len(m.Data) + overhead }

// nearlyFull: less than a twentieth of the room is free.
func (s *Stream) nearlyFull() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes > s.MaxBytes-s.MaxBytes/20
}

// ready is what can be delivered now; else when to look again at the latest. What was
// silent for too long is taken back. mu is held.
func (s *Stream) ready() (ready []*message, wait time.Duration) {
	if s.away != "" {
		return nil, time.Hour
	}
	now := time.Now()
	wait = time.Hour
	unacked := 0
	for _, m := range s.held {
		left := m.due.Sub(now)
		if m.out && left <= 0 {
			m.out, m.redeliver = false, true
		}
		switch {
		case m.out:
			unacked++
			wait = min(wait, left)
		case left > 0:
			wait = min(wait, left)
		default:
			ready = append(ready, m)
		}
	}
	if unacked >= s.MaxUnacked {
		return nil, wait
	}
	return ready, wait
}

// outlook says whether something can be delivered now; else how long to wait at most, and
// for what.
func (s *Stream) outlook() (now bool, wait time.Duration, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ready, wait := s.ready()
	return len(ready) > 0, wait, s.changed
}

// take delivers one message; nil where another was quicker.
func (s *Stream) take() *fetched {
	s.mu.Lock()
	defer s.mu.Unlock()
	ready, _ := s.ready()
	if len(ready) == 0 {
		return nil
	}
	m := s.choose(ready)
	m.out, m.redeliver, m.due = true, false, time.Now().Add(s.AckWait)
	m.Delivered++
	more := slices.ContainsFunc(s.held, func(m *message) bool { return m.Delivered == 0 })
	return &fetched{m, m.Delivered, more}
}

func (s *Stream) choose(ready []*message) *message {
	if s.Shuffle != nil {
		return ready[s.Shuffle.Uint64()%uint64(len(ready))]
	}
	for _, m := range ready {
		if m.redeliver {
			return m
		}
	}
	return ready[0]
}

// ack forgets a message; whoever was given it at any time may.
func (s *Stream) ack(m *message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.reach(); err != nil {
		return err
	}
	i, found := slices.BinarySearchFunc(s.held, m.Sequence, func(m *message, n uint64) int { return cmp.Compare(m.Sequence, n) })
	if !found {
		return nil
	}
	s.held = slices.Delete(s.held, i, i+1)
	m.AckedAt, m.out = time.Now().UTC(), false
	s.bytes -= m.size()
	s.tell()
	return nil
}

func (s *Stream) extend(m *message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.reach(); err != nil {
		return err
	}
	if m.out {
		m.due = time.Now().Add(s.AckWait)
	}
	return nil
}

func (s *Stream) release(m *message, after time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.reach(); err != nil {
		return err
	}
	if m.out {
		m.out, m.redeliver, m.due = false, true, time.Now().Add(after)
		s.tell()
	}
	return nil
}

// reclaim takes back all that is out; mu is held.
func (s *Stream) reclaim() {
	for _, m := range s.held {
		if m.out {
			m.out, m.redeliver, m.due = false, true, time.Time{}
		}
	}
	s.tell()
}

func (s *Stream) depth() (carrier.Depth, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.reach(); err != nil {
		return carrier.Depth{}, fmt.Errorf("queue: depth: %w", err)
	}
	d := carrier.Depth{Stored: uint64(len(s.held)), Bytes: uint64(s.bytes), MaxBytes: uint64(s.MaxBytes)}
	for _, m := range s.held {
		if m.out {
			d.Unacked++
			if m.Delivered > 1 {
				d.Redelivered++
			}
		}
	}
	d.Waiting = d.Stored - d.Unacked
	if len(s.held) > 0 {
		d.Oldest = s.held[0].StoredAt
	}
	return d, nil
}
