package queue

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A stray is an envelope that stands in the stream below the consumer's ack floor: for
// the server it is acked, so it will never be delivered again, and it is still there. A
// nats-server that is killed leaves some where the state of its consumer reached the disk
// and the removal of what was acked did not; on its way up it looks for them in interest
// streams and not in work queues.
//
// They are settled like all others. Those that are settled already end so, too; and
// should one of them never have been, by whatever way it came there, nothing is lost.

// findStrays reads up to limit strays, the oldest first. Those in passing are not told
// apart from those that stay: the server removes an envelope a moment after its ack.
func (q *Queue) findStrays(ctx context.Context, limit int) ([]*stray, error) {
	if q.state.Load().found == nil {
		return nil, nil
	}
	s, err := q.js.Stream(ctx, q.names.stream)
	if err != nil {
		return nil, fmt.Errorf("look for strays: %w", err)
	}
	c, err := s.Consumer(ctx, q.names.consumer)
	if err != nil {
		return nil, fmt.Errorf("look for strays: %w", err)
	}
	stored, floor := s.CachedInfo().State, c.CachedInfo().AckFloor.Stream
	var out []*stray
	for seq := stored.FirstSeq; stored.Msgs > 0 && seq <= floor && len(out) < limit; {
		m, err := s.GetMsg(ctx, seq, jetstream.WithGetMsgSubject(q.names.subject)) // it, or the next there is
		switch {
		case errors.Is(err, jetstream.ErrMsgNotFound):
			return out, nil
		case err != nil:
			return out, fmt.Errorf("look for strays: read envelope %d: %w", seq, err)
		case m.Sequence > floor:
			return out, nil
		}
		out = append(out, &stray{stream: s, raw: m})
		seq = m.Sequence + 1
	}
	return out, nil
}

// stray is a message that was read and not delivered: its ack is its removal, and it
// needs no keeping.
type stray struct {
	jetstream.Msg // nil; what of it the reader and its deliveries use is below
	stream        jetstream.Stream
	raw           *jetstream.RawStreamMsg
	over          func() // it is nobody's any more
}

// Metadata says delivered twice: it may have been tried, and to what end nobody knows.
func (s *stray) Metadata() (*jetstream.MsgMetadata, error) {
	return &jetstream.MsgMetadata{Sequence: jetstream.SequencePair{Stream: s.raw.Sequence}, NumDelivered: 2, Timestamp: s.raw.Time}, nil
}

func (s *stray) Data() []byte                     { return s.raw.Data }
func (s *stray) InProgress() error                { return nil }
func (s *stray) Nak() error                       { s.over(); return nil }
func (s *stray) NakWithDelay(time.Duration) error { return s.Nak() }

// Ack removes it. One that is gone already is as good as removed.
func (s *stray) Ack() error {
	defer s.over()
	ctx, cancel := context.WithTimeout(context.Background(), lookTimeout)
	defer cancel()
	err := s.stream.DeleteMsg(ctx, s.raw.Sequence)
	if err == nil {
		return nil
	}
	if _, gone := s.stream.GetMsg(ctx, s.raw.Sequence); errors.Is(gone, jetstream.ErrMsgNotFound) {
		return nil
	}
	return fmt.Errorf("remove stray %d: %w", s.raw.Sequence, err)
}

// strays remembers between two looks which ones there were, and which are in hand.
type strays struct {
	find  func(ctx context.Context, limit int) ([]*stray, error)
	every time.Duration

	mu     sync.Mutex // guards the rest
	before map[uint64]bool
	inHand map[uint64]bool
}

// look returns the strays that the look before this one saw, too, and that nobody has in
// hand: by then no ack of theirs is on its way any more.
func (s *strays) look(ctx context.Context, limit int) ([]*stray, error) {
	found, err := s.find(ctx, limit)
	s.mu.Lock()
	defer s.mu.Unlock()
	now, out := map[uint64]bool{}, found[:0]
	for _, one := range found {
		seq := one.raw.Sequence
		now[seq] = true
		if !s.before[seq] || s.inHand[seq] {
			continue
		}
		s.inHand[seq] = true
		one.over = func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.inHand, seq)
		}
		out = append(out, one)
	}
	s.before = now
	return out, err
}
