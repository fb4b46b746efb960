package queue

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/testenv"
)

// TestMain runs the tests, or, when the binary was started again by one of them,
// the part named in TRUEUP_TEST_PART: a publisher, a holder of the turn or a whole
// nats-server that can be killed.
func TestMain(m *testing.M) {
	if part := os.Getenv("TRUEUP_TEST_PART"); part != "" {
		if err := runPart(part); err != nil {
			fmt.Fprintln(os.Stderr, part+":", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	testenv.Main(m)
}

const patience = 20 * time.Second

// testContext ends a test that hangs, with a reason.
func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(context.Background(), 2*patience, fmt.Errorf("%s hangs", t.Name()))
	t.Cleanup(cancel)
	return ctx
}

// eventually polls until ok, for conditions that nobody signals.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func open(t testing.TB, c Config) *Queue {
	t.Helper()
	if c.Dir == "" && c.URL == "" {
		c.Dir = t.TempDir()
	}
	if c.Logger == nil {
		c.Logger = testLog(t)
	}
	q, err := Open(testContext(t), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeQueue(t, q) })
	return q
}

func closeQueue(t testing.TB, q *Queue) {
	t.Helper()
	if err := q.Close(); err != nil {
		t.Error(err)
	}
}

func testLog(t testing.TB) *slog.Logger {
	if !testing.Verbose() {
		return nil
	}
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

// ev makes an event that is recognised by its id.
func ev(id string) event.Event {
	return event.Event{
		ID: id, Source: event.Client, Origin: event.Client, Kind: event.KindReport, FileID: "f_" + id, User: "user_123",
		AcceptedAt: time.UnixMicro(1_790_000_000_123_456).UTC(), Body: []byte(`{"fileId":"f_` + id + `"}`),
	}
}

func publish(t testing.TB, q *Queue, events ...event.Event) {
	t.Helper()
	if err := q.Publish(testContext(t), events); err != nil {
		t.Fatal(err)
	}
}

func next(t testing.TB, q *Queue) *event.Delivery {
	t.Helper()
	d, err := q.Next(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func ack(t testing.TB, d *event.Delivery) {
	t.Helper()
	if err := d.Ack(); err != nil {
		t.Fatal(err)
	}
}

// drain takes and acks everything that is stored, and returns the envelopes.
func drain(t testing.TB, q *Queue) []event.Envelope {
	t.Helper()
	var all []event.Envelope
	for {
		d, err := q.Depth(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		if d.Stored == 0 {
			return all
		}
		for range d.Waiting + d.Unacked {
			ctx, cancel := context.WithTimeout(testContext(t), time.Second)
			d, err := q.Next(ctx)
			cancel()
			if err != nil {
				break // the rest was acked meanwhile
			}
			ack(t, d)
			all = append(all, d.Envelope)
		}
	}
}
