package queue

import (
	"context"
	"fmt"
	"time"
)

// Depth says how much is accepted and not yet settled, in envelopes: what is in
// them the server does not know.
type Depth struct {
	// Stored envelopes are Waiting or Unacked: never delivered yet, or delivered and
	// neither acked nor given up. The two are exact together; an envelope may count as
	// waiting for a moment after it was delivered or acked.
	Stored, Waiting, Unacked uint64
	// Redelivered are those of Unacked that were delivered more than once.
	Redelivered uint64
	// Bytes stored, of at most MaxBytes; MaxBytes is zero when there is no bound.
	Bytes, MaxBytes uint64
	// Oldest is when the oldest one was stored, by the queue's clock; zero when there
	// is none.
	Oldest time.Time
}

// Depth asks the server.
func (q *Queue) Depth(ctx context.Context) (Depth, error) {
	s, err := q.js.Stream(ctx, q.names.stream)
	if err != nil {
		return Depth{}, fmt.Errorf("queue: depth: %w", err)
	}
	c, err := q.js.Consumer(ctx, q.names.stream, q.names.consumer)
	if err != nil {
		return Depth{}, fmt.Errorf("queue: depth: %w", err)
	}
	info, worker := s.CachedInfo(), c.CachedInfo()
	d := Depth{
		Stored: info.State.Msgs, Unacked: min(uint64(max(worker.NumAckPending, 0)), info.State.Msgs), Redelivered: uint64(max(worker.NumRedelivered, 0)),
		Bytes: info.State.Bytes, MaxBytes: uint64(max(info.Config.MaxBytes, 0)),
	}
	// Not the consumer's own count of pending ones: it lags behind what is stored, and
	// a queue that is not empty would look so for a moment.
	d.Waiting = d.Stored - d.Unacked
	if d.Stored > 0 {
		d.Oldest = info.State.FirstTime.UTC()
	}
	return d, nil
}
