package queue

import (
	"reflect"
	"testing"

	"github.com/trueup/trueup/internal/event"
)

func TestDeliversWhatWasPublished(t *testing.T) {
	q := open(t, Config{})
	want := []event.Event{ev("a"), ev("b")}
	want[1].Body = []byte("\x00\xff not JSON, not UTF-8 \r\n")
	publish(t, q, want...)

	d := next(t, q)
	if !reflect.DeepEqual(d.Envelope.Events, want) {
		t.Errorf("got %+v\nwant %+v", d.Envelope.Events, want)
	}
	if d.Sequence != 1 || d.Delivered != 1 || d.StoredAt.IsZero() || d.Err != nil {
		t.Errorf("delivery %+v", d)
	}
	ack(t, d)
	eventually(t, "the acked envelope is gone", func() bool {
		depth, err := q.Depth(testContext(t))
		return err == nil && depth.Stored == 0
	})
}
