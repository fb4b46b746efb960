package worker

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trueup/trueup/internal/event"
)

func envelopeOf(events int) *event.Delivery {
	return &event.Delivery{Envelope: event.Envelope{Events: make([]event.Event, events)}}
}

// What waits for a slot is bounded in envelopes and in events, and comes out as one batch
// in the order it came in.
func TestInboxHoldsABatchAndNoMore(t *testing.T) {
	for name, c := range map[string]struct {
		sizes []int // the last one has to wait
	}{
		"Events":                 {[]int{60, 40, 1}},
		"Envelopes":              {[]int{1, 1, 1, 1, 1}},
		"ALargeOneBehindOthers":  {[]int{1, 100}},
		"AnotherBehindALargeOne": {[]int{1000, 1}},
		"UnreadableOnesCountToo": {[]int{0, 0, 0, 0, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i, put := newInbox(4, 100), 0
				var sent []*event.Delivery
				go func() {
					for _, n := range c.sizes {
						d := envelopeOf(n)
						sent = append(sent, d)
						if err := i.put(t.Context(), d); err != nil {
							t.Error(err)
						}
						put++
					}
				}()
				synctest.Wait()
				if put != len(c.sizes)-1 {
					t.Fatalf("%d of %d were taken in, want all but the last", put, len(c.sizes))
				}
				first, err := i.take(t.Context())
				if err != nil || len(first) != len(c.sizes)-1 {
					t.Fatalf("took %d envelopes and %v", len(first), err)
				}
				synctest.Wait()
				rest, err := i.take(t.Context())
				if err != nil || len(rest) != 1 {
					t.Fatalf("then took %d envelopes and %v", len(rest), err)
				}
				for n, d := range append(first, rest...) {
					if d != sent[n] {
						t.Errorf("envelope %d is another one", n)
					}
				}
			})
		})
	}
}

// A batch goes at once where the queue has no more, when it is full, and otherwise when the
// rest has come, which is not waited for longer than gatherWithin.
func TestInboxWaitsForWhatTheQueueHas(t *testing.T) {
	for name, c := range map[string]struct {
		first  []bool // one envelope each: are more behind it?
		then   []bool // come a millisecond later
		want   int
		waited time.Duration
	}{
		"OneAlone":             {first: []bool{false}, want: 1},
		"ThoseBehindIt":        {first: []bool{true, true}, then: []bool{false}, want: 3, waited: time.Millisecond},
		"UntilThereIsNoRoom":   {first: []bool{true, true, true, true, true}, want: 4},
		"NotForEver":           {first: []bool{true}, want: 1, waited: gatherWithin},
		"NotForEverAfterSome":  {first: []bool{true}, then: []bool{true}, want: 2, waited: gatherWithin},
		"NoMoreWhileItWaited":  {first: []bool{true}, then: []bool{true, false}, want: 3, waited: time.Millisecond},
		"OnlyTheNewestMatters": {first: []bool{true, false}, want: 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, end := context.WithCancel(t.Context())
				var putting sync.WaitGroup
				defer putting.Wait()
				defer end()
				i, began := newInbox(4, 100), time.Now()
				put := func(all []bool) {
					for _, more := range all {
						d := envelopeOf(1)
						d.More = more
						_ = i.put(ctx, d) // the one that does not fit ends with the test
					}
				}
				putting.Go(func() {
					put(c.first)
					<-time.After(time.Millisecond)
					put(c.then)
				})
				synctest.Wait()
				batch, err := i.take(ctx)
				if err != nil || len(batch) != c.want || time.Since(began) != c.waited {
					t.Errorf("took %d envelopes after %s and %v, want %d after %s", len(batch), time.Since(began), err, c.want, c.waited)
				}
			})
		})
	}
}

func TestInboxEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		stopped := errors.New("stopped")
		i, errs := newInbox(1, 1), make(chan error, 1)
		go func() {
			_, err := i.take(ctx)
			errs <- err
		}()
		synctest.Wait()
		cancel(stopped)
		if err := <-errs; !errors.Is(err, stopped) {
			t.Errorf("take: %v", err)
		}
		if err := i.put(ctx, envelopeOf(1)); err != nil {
			t.Errorf("put where there is room: %v", err)
		}
		if err := i.put(ctx, envelopeOf(1)); !errors.Is(err, stopped) {
			t.Errorf("put: %v", err)
		}
	})
}
