package reconcile

import (
	"context"
	"slices"
	"time"

	"github.com/trueup/trueup/internal/event"
)

// oneEnvelope is how many events go into one call of Publish.
const oneEnvelope = 256

// recheck has files looked up by id, at being the time now.
func recheck(ctx context.Context, queue Publisher, at time.Time, ids []string) error {
	at = at.UTC().Truncate(time.Microsecond)
	for some := range slices.Chunk(ids, oneEnvelope) {
		events := make([]event.Event, len(some))
		for i, id := range some {
			events[i] = event.Event{ID: newID(), Source: event.Reconcile, Origin: event.Reconcile, Kind: event.KindRecheck, FileID: id, AcceptedAt: at}
		}
		if err := queue.Publish(ctx, events); err != nil {
			return err
		}
	}
	return nil
}
