package queue_test

import (
	"cmp"
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/trueup/trueup/internal/queue"
	"github.com/trueup/trueup/internal/testenv"
	"github.com/trueup/trueup/internal/testenv/conform"
)

// TestItConforms holds both ways in which the queue works to what a simulated one
// promises, too.
func TestItConforms(t *testing.T) {
	t.Run("Embedded", func(t *testing.T) {
		conform.Queue(t, conform.Queues{Server: func(t testing.TB, c conform.QueueConfig) func() conform.QueueDoor {
			dir := t.TempDir()
			return func() conform.QueueDoor {
				return opened(t, queue.Config{Dir: dir, AckWait: c.AckWait, TurnTTL: c.TurnTTL, MaxBytes: c.MaxBytes, Buffer: 8})
			}
		}})
	})
	t.Run("External", func(t *testing.T) {
		server := testenv.NATSServer(t, testenv.NATSOptions{})
		var cases atomic.Int64
		conform.Queue(t, conform.Queues{Shared: true, Server: func(t testing.TB, c conform.QueueConfig) func() conform.QueueDoor {
			q := queue.Config{URL: server.URL(), Prefix: fmt.Sprintf("case%d", cases.Add(1)), AckWait: c.AckWait, TurnTTL: c.TurnTTL,
				MaxBytes: cmp.Or(c.MaxBytes, 64<<20), Buffer: 8} // one server reserves for all cases together
			if err := queue.Migrate(context.Background(), q); err != nil {
				t.Fatal(err)
			}
			return func() conform.QueueDoor { return opened(t, q) }
		}})
	})
}

func opened(t testing.TB, c queue.Config) *queue.Queue {
	t.Helper()
	q, err := queue.Open(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	})
	return q
}
