package queue

import (
	"bytes"
	"context"
	"testing"

	"github.com/trueup/trueup/internal/event"
)

// BenchmarkPublish is one event of 600 bytes per call, synced, from 64 callers per
// processor, as webhooks come. envelopes/event says how well they were packed.
func BenchmarkPublish(b *testing.B) {
	q := open(b, Config{MaxBytes: 8 << 30})
	e := ev("01JZ0000000000000000000000")
	e.Body = bytes.Repeat([]byte("x"), 600)
	b.SetParallelism(64)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := q.Publish(context.Background(), []event.Event{e}); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.StopTimer()
	d, err := q.Depth(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(d.Stored)/float64(b.N), "envelopes/event")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkPublishAlone is the same from one caller: one sync per event, and the
// latency of an idle service.
func BenchmarkPublishAlone(b *testing.B) {
	q := open(b, Config{MaxBytes: 8 << 30})
	e := ev("01JZ0000000000000000000000")
	e.Body = bytes.Repeat([]byte("x"), 600)
	for b.Loop() {
		if err := q.Publish(context.Background(), []event.Event{e}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkNext is fetching and acking envelopes of one event.
func BenchmarkNext(b *testing.B) {
	q := open(b, Config{MaxBytes: 8 << 30, forgetful: true, AllowNondurable: true})
	for range b.N {
		if err := q.Publish(context.Background(), []event.Event{ev("a")}); err != nil {
			b.Fatal(err)
		}
	}
	b.ResetTimer()
	for range b.N {
		d, err := q.Next(context.Background())
		if err != nil {
			b.Fatal(err)
		}
		if err := d.Ack(); err != nil {
			b.Fatal(err)
		}
	}
}
