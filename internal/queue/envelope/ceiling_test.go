package envelope

import (
	"bytes"
	"testing"

	"github.com/trueup/trueup/internal/event"
)

// TestEnvelopesAllocateWithinTheirCeilings guards what carrying an event costs,
// independent of the clock. Ceilings are what it takes today, and a little for other
// versions of Go; whoever lowers the cost lowers them, too.
func TestEnvelopesAllocateWithinTheirCeilings(t *testing.T) {
	const events = 100
	e := ev("01JZ0000000000000000000000")
	e.Body, e.Headers = bytes.Repeat([]byte("x"), 900), map[string]string{"content-type": "application/json", "user-agent": "ImageKit.io", "x-request-id": "r"}
	env := event.Envelope{ID: "01JZ0000000000000000000000"}
	for range events {
		env.Events = append(env.Events, e)
	}
	wire, err := Encode(&env)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 0, 4096)
	for name, c := range map[string]struct {
		work    func() error
		ceiling float64
	}{
		"EncodeOneEvent":      {func() error { _, err := AppendEvent(buf, &e); return err }, 0},
		"EncodeAFullEnvelope": {func() error { _, err := Encode(&env); return err }, 30},
		"DecodeAFullEnvelope": {func() error { _, err := Decode(wire); return err }, 1000},
	} {
		t.Run(name, func(t *testing.T) {
			got := testing.AllocsPerRun(50, func() {
				if err := c.work(); err != nil {
					t.Fatal(err)
				}
			})
			if got > c.ceiling {
				t.Errorf("%v allocations, at most %v", got, c.ceiling)
			}
		})
	}
}
