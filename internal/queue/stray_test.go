package queue

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/trueup/trueup/internal/event"
)

// TestStrays makes them as a crash does: the store's part of the consumer is of now, and
// that of the stream of before.
func TestStrays(t *testing.T) {
	// After it the consumer has acked a, b and c.
	begin := func(t *testing.T) (c Config, msgs, older string) {
		t.Helper()
		c = Config{Dir: t.TempDir(), StrayEvery: 20 * time.Millisecond, Logger: testLog(t)}
		msgs = filepath.Join(c.Dir, "jetstream", "$G", "streams", "TRUEUP_EVENTS", "msgs")
		older = filepath.Join(t.TempDir(), "msgs")
		q := open(t, c)
		for _, id := range []string{"a", "b", "c"} {
			publish(t, q, ev(id))
		}
		closeQueue(t, q)
		if err := os.CopyFS(older, os.DirFS(msgs)); err != nil {
			t.Fatal(err)
		}
		q = open(t, c)
		if got := ids(drain(t, q)); !slices.Equal(got, []string{"a", "b", "c"}) {
			t.Fatalf("got %v", got)
		}
		closeQueue(t, q)
		if err := os.RemoveAll(msgs); err != nil {
			t.Fatal(err)
		}
		return c, msgs, older
	}
	// The server alone never delivers it.
	settles := func(t *testing.T, q *Queue, want ...string) {
		t.Helper()
		if d, err := q.Depth(testContext(t)); err != nil || d.Stored != uint64(len(want)) || d.Unacked != 0 {
			t.Fatalf("%+v (%v)", d, err)
		}
		var got []string
		for range want {
			d := next(t, q)
			got = append(got, d.Envelope.Events[0].ID)
			if d.Delivered < 2 || d.StoredAt.IsZero() {
				t.Errorf("%s: delivered %d, stored at %s", got[0], d.Delivered, d.StoredAt)
			}
			if err := d.Extend(); err != nil {
				t.Error(err)
			}
			ack(t, d)
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		eventually(t, "they are gone", func() bool { d, err := q.Depth(testContext(t)); return err == nil && d.Stored == 0 })
	}

	t.Run("RemovalsForgotten", func(t *testing.T) {
		c, msgs, older := begin(t)
		if err := os.CopyFS(msgs, os.DirFS(older)); err != nil {
			t.Fatal(err)
		}
		settles(t, open(t, c), "a", "b", "c")
	})

	t.Run("ReleasedAndFoundAgain", func(t *testing.T) {
		c, msgs, older := begin(t)
		if err := os.CopyFS(msgs, os.DirFS(older)); err != nil {
			t.Fatal(err)
		}
		q := open(t, c)
		for range 3 {
			if err := next(t, q).Release(0); err != nil {
				t.Fatal(err)
			}
		}
		q.reader.rest() // as when the turn is lost
		settles(t, q, "a", "b", "c")
	})

	t.Run("OneThatIsGoneIsSettled", func(t *testing.T) {
		c, msgs, older := begin(t)
		if err := os.CopyFS(msgs, os.DirFS(older)); err != nil {
			t.Fatal(err)
		}
		q := open(t, c)
		d := next(t, q)
		s, err := q.js.Stream(testContext(t), q.names.stream)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.DeleteMsg(testContext(t), d.Sequence); err != nil {
			t.Fatal(err)
		}
		ack(t, d)
		if err := d.Ack(); err != nil {
			t.Errorf("once more: %v", err)
		}
	})
}

// TestWhatIsOnItsWayIsNoStray: between an ack and the removal an envelope looks like one.
func TestWhatIsOnItsWayIsNoStray(t *testing.T) {
	passing := func(seq uint64) *stray { return &stray{raw: &jetstream.RawStreamMsg{Sequence: seq}} }
	looks := [][]*stray{{passing(1), passing(2)}, {passing(2), passing(3)}, {passing(2), passing(3)}, nil}
	s := &strays{inHand: map[uint64]bool{}}
	s.find = func(context.Context, int) ([]*stray, error) {
		now := looks[0]
		looks = looks[1:]
		return now, nil
	}
	for i, want := range [][]uint64{nil, {2}, {3}, nil} {
		found, err := s.look(testContext(t), 10)
		var got []uint64
		for _, one := range found {
			got = append(got, one.raw.Sequence)
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("look %d: got %v (%v), want %v", i, got, err, want)
		}
	}
}

func ids(all []event.Envelope) (out []string) {
	for _, env := range all {
		for _, e := range env.Events {
			out = append(out, e.ID)
		}
	}
	slices.Sort(out)
	return out
}
