package conform

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/trueup/trueup/internal/event"
)

func (q *queues) full() {
	d := q.one(QueueConfig{MaxBytes: 64 << 10})
	var stored []string
	for i := range 1000 {
		e := hint(fmt.Sprintf("%03d", i))
		e.Body = make([]byte, 1<<9)
		err := d.Publish(q.context(), []event.Event{e})
		if err == nil {
			stored = append(stored, e.ID)
			continue
		}
		if !errors.Is(err, event.ErrNotAccepted) {
			q.Fatal(err)
		}
		break
	}
	if len(stored) < 32 || len(stored) > 128 {
		q.Fatalf("%d events of 512 bytes fit 64 KiB", len(stored))
	}
	if r := d.Ready(); r.Accepting || r.Why == "" {
		q.Errorf("full, it says %+v", r)
	}
	var got []string
	for range stored {
		one := q.next(d)
		got = append(got, idsOf(one)...)
		q.ack(one)
	}
	slices.Sort(got)
	if !slices.Equal(got, stored) {
		q.Errorf("stored %v, delivered %v", stored, got)
	}
	q.eventually("it accepts again", func() bool { return d.Ready().Accepting })
	q.publish(d, "again")
}

func (q *queues) depth() {
	d := q.one(QueueConfig{AckWait: time.Hour, MaxBytes: 1 << 20})
	began := time.Now()
	q.publish(d, "a")
	q.publish(d, "b")
	q.publish(d, "c")
	if depth := q.depthOf(d); depth.Stored != 3 || depth.Waiting+depth.Unacked != 3 || depth.Bytes == 0 || depth.MaxBytes != 1<<20 ||
		depth.Oldest.Before(began.Add(-time.Minute)) {
		q.Errorf("after three: %+v", depth)
	}
	a := q.expect(d, 1, "a")
	b := q.expect(d, 1, "b")
	q.eventually("all three are out", func() bool {
		depth := q.depthOf(d)
		return depth.Stored == 3 && depth.Unacked >= 2 && depth.Redelivered == 0
	})
	q.ack(a)
	if err := b.Release(0); err != nil {
		q.Fatal(err)
	}
	q.ack(q.expect(d, 1, "c"))
	q.expect(d, 2, "b")
	q.eventually("one is out again", func() bool {
		depth := q.depthOf(d)
		return depth.Stored == 1 && depth.Unacked == 1 && depth.Redelivered == 1
	})
}
