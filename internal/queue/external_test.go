package queue

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/trueup/trueup/internal/event"
)

func TestExternal(t *testing.T) {
	t.Run("RefusesAServerWithoutOurStream_UntilMigrated_Twice", func(t *testing.T) {
		s := startNATS(t)
		c := Config{URL: s.url()}
		if _, err := Open(testContext(t), c); err == nil || !strings.Contains(err.Error(), "stream TRUEUP_EVENTS is missing; run: trueup migrate up") {
			t.Errorf("got %v", err)
		}
		for range 2 {
			if err := Migrate(testContext(t), c); err != nil {
				t.Fatal(err)
			}
		}
		q := open(t, c)
		publish(t, q, ev("a"))
		if r := q.Ready(); !r.Accepting || r.Durability != DurabilityUnknown {
			t.Errorf("ready says %+v", r)
		}
	})

	t.Run("TwoPrefixesDoNotMeet", func(t *testing.T) {
		s := startNATS(t)
		var queues []*Queue
		for _, prefix := range []string{"one", "two"} {
			c := Config{URL: s.url(), Prefix: prefix, Role: "worker"}
			if err := Migrate(testContext(t), c); err != nil {
				t.Fatal(err)
			}
			q := open(t, c)
			publish(t, q, ev(prefix))
			queues = append(queues, q)
		}
		for i, q := range queues {
			if got := drain(t, q); len(got) != 1 || got[0].Events[0].ID != []string{"one", "two"}[i] {
				t.Errorf("queue %d holds %+v", i, got)
			}
		}
	})

	t.Run("StartsBeforeItsServer", func(t *testing.T) {
		s := startNATS(t)
		c := s.external(t)
		s.kill()
		q := open(t, c)
		if r := q.Ready(); r.Accepting || r.Why != "no connection to NATS" {
			t.Errorf("ready says %+v", r)
		}
		if err := q.Publish(testContext(t), []event.Event{ev("a")}); !errors.Is(err, event.ErrNotAccepted) {
			t.Errorf("got %v", err)
		}
		s.start(t)
		eventually(t, "it is ready", func() bool { return q.Ready().Accepting })
		publish(t, q, ev("a"))
	})

	t.Run("NextWaitsThroughAKilledServer_AndLosesNothing", func(t *testing.T) {
		s := startNATS(t)
		q := open(t, s.external(t))
		publish(t, q, ev("before"))
		ack(t, next(t, q))

		got := make(chan string, 100)
		ctx, cancel := context.WithCancel(testContext(t))
		var reading sync.WaitGroup
		reading.Go(func() {
			for {
				d, err := q.Next(ctx)
				if err != nil {
					return
				}
				got <- d.Envelope.Events[0].ID
				_ = d.Ack()
			}
		})
		s.kill()
		eventually(t, "it has noticed", func() bool { return !q.Ready().Accepting })
		s.start(t)
		for i := range 20 {
			id := fmt.Sprint(i)
			eventually(t, "it is accepted", func() bool { return q.Publish(ctx, []event.Event{ev(id)}) == nil })
		}
		seen := map[string]bool{}
		for len(seen) < 20 {
			seen[wait(t, "the rest", got)] = true
		}
		cancel()
		reading.Wait()
	})

	t.Run("AcknowledgedIsStored_ThroughKillsOfTheServer", func(t *testing.T) {
		s := startNATS(t)
		c := s.external(t)
		c.AckTimeout = 400 * time.Millisecond
		q := open(t, c)
		var mu sync.Mutex
		acked, failed := map[string]bool{}, 0
		ctx, cancel := context.WithCancel(testContext(t))
		var all sync.WaitGroup
		for g := range 8 {
			all.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					id := fmt.Sprintf("%d-%d", g, i)
					err := q.Publish(ctx, []event.Event{ev(id)})
					mu.Lock()
					if err == nil {
						acked[id] = true
					} else {
						failed++
					}
					mu.Unlock()
					if err != nil {
						pause(ctx, 10*time.Millisecond)
					}
				}
			})
		}
		count := func() int { mu.Lock(); defer mu.Unlock(); return len(acked) }
		for range 2 {
			was := count()
			eventually(t, "a few hundred are accepted", func() bool { return count() > was+300 })
			s.kill()
			s.start(t)
		}
		was := count()
		eventually(t, "it goes on", func() bool { return count() > was })
		cancel()
		all.Wait()
		if failed == 0 {
			t.Error("the fault did not fire: no publish failed")
		}
		stored := map[string]bool{}
		for _, env := range drain(t, q) {
			for _, e := range env.Events {
				stored[e.ID] = true
			}
		}
		for id := range acked {
			if !stored[id] {
				t.Errorf("%s was acknowledged and is not stored", id)
			}
		}
		t.Logf("%d acknowledged, %d refused, %d stored", len(acked), failed, len(stored))
	})
}

// TestRefusesWhatWouldLoseEvents changes one thing at a time on a good server.
func TestRefusesWhatWouldLoseEvents(t *testing.T) {
	s := startNATS(t)
	good := s.external(t)
	c, err := good.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	admin := open(t, good)
	n := c.names()
	for name, tt := range map[string]struct {
		stream   func(*jetstream.StreamConfig)
		consumer func(*jetstream.ConsumerConfig)
		want     string
	}{
		"MaxAge":           {func(s *jetstream.StreamConfig) { s.MaxAge = time.Hour }, nil, "lets events expire"},
		"DiscardOld":       {func(s *jetstream.StreamConfig) { s.Discard = jetstream.DiscardOld }, nil, "discards old events"},
		"MaxPerSubject":    {func(s *jetstream.StreamConfig) { s.MaxMsgsPerSubject = 9 }, nil, "max_msgs_per_subject"},
		"Memory":           {func(s *jetstream.StreamConfig) { s.Storage = jetstream.MemoryStorage }, nil, "is kept in memory"},
		"Limits":           {func(s *jetstream.StreamConfig) { s.Retention = jetstream.LimitsPolicy }, nil, "is not a work queue"},
		"AsyncPersist":     {func(s *jetstream.StreamConfig) { s.PersistMode = jetstream.AsyncPersistMode }, nil, "before they are written"},
		"NoAck":            {func(s *jetstream.StreamConfig) { s.NoAck = true }, nil, "confirms nothing"},
		"AnotherSubject":   {func(s *jetstream.StreamConfig) { s.Subjects = []string{"x"} }, nil, "does not listen to trueup.events alone"},
		"FiniteMaxDeliver": {nil, func(c *jetstream.ConsumerConfig) { c.MaxDeliver = 5 }, "gives up on events"},
		"Filter":           {nil, func(c *jetstream.ConsumerConfig) { c.FilterSubject = "trueup.events" }, "leaves some events out"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := testContext(t)
			sc, cc := c.streamConfig(1), c.consumerConfig()
			if tt.stream != nil {
				tt.stream(&sc)
			}
			if tt.consumer != nil {
				tt.consumer(&cc)
			}
			if err := admin.js.DeleteStream(ctx, n.stream); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
				t.Fatal(err)
			}
			if _, err := admin.js.CreateStream(ctx, sc); err != nil {
				t.Fatal(err)
			}
			if _, err := admin.js.CreateConsumer(ctx, n.stream, cc); err != nil {
				t.Fatal(err)
			}
			if q, err := Open(ctx, good); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
				if q != nil {
					closeQueue(t, q)
				}
			}
		})
	}
}

func TestRefusesOldServers(t *testing.T) {
	for v, ok := range map[string]bool{
		"2.15.2": true, "2.12.0": true, "2.12.0-RC.1": true, "v2.13.1": true, "3.0.0": true,
		"2.11.9": false, "2.9.25": false, "1.4.1": false, "": false, "dev": false,
	} {
		if err := checkVersion(v); (err == nil) != ok {
			t.Errorf("%q: %v", v, err)
		}
	}
}
