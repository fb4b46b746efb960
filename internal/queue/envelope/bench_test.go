package envelope

import (
	"bytes"
	"testing"

	"github.com/trueup/trueup/internal/event"
)

func BenchmarkEnvelope(b *testing.B) {
	env := event.Envelope{ID: "01JZ0000000000000000000000"}
	for range 100 {
		e := full()
		e.Body = bytes.Repeat([]byte("x"), 600)
		env.Events = append(env.Events, e)
	}
	wire, err := Encode(&env)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("EncodeOneEvent", func(b *testing.B) {
		b.ReportAllocs()
		e, buf := full(), []byte(nil)
		e.User, e.Body = "user_123", bytes.Repeat([]byte("x"), 600)
		for b.Loop() {
			buf, _ = AppendEvent(buf[:0], &e)
		}
	})
	b.Run("Decode100Events", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = Decode(wire)
		}
	})
}
