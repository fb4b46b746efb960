package queue_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trueup/trueup/internal/simulate/fault"
	"github.com/trueup/trueup/internal/simulate/queue"
	"github.com/trueup/trueup/internal/testenv/conform"
)

func TestItConforms(t *testing.T) {
	for name, shared := range map[string]bool{"Embedded": false, "Shared": true} {
		t.Run(name, func(t *testing.T) {
			conform.Queue(t, conform.Queues{
				Shared: shared,
				Run:    func(t *testing.T, f func(*testing.T)) { synctest.Test(t, f) },
				Server: func(t testing.TB, c conform.QueueConfig) func() conform.QueueDoor {
					s := queue.NewStream(queue.Server{Shared: shared, AckWait: c.AckWait, TurnTTL: c.TurnTTL, MaxBytes: int(c.MaxBytes)})
					return func() conform.QueueDoor {
						d, err := queue.Open(s, queue.Config{Hook: takesTime})
						if err != nil {
							t.Fatal(err)
						}
						t.Cleanup(func() { _ = d.Close() })
						return d
					}
				},
			})
		})
	}
}

// takesTime is a server that is not infinitely quick.
func takesTime(ctx context.Context, _ fault.Call, do func() error) error {
	timer := time.NewTimer(time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
		return do()
	case <-ctx.Done():
		return ctx.Err()
	}
}
