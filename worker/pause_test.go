package worker

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/worker/verify"
)

// TestWorkerAsksAtGrowingIntervals: a door that answers its probe while the work goes
// on failing (a schema that is missing, a full disk) is not asked in a loop.
func TestWorkerAsksAtGrowingIntervals(t *testing.T) {
	for name, fault := range map[string]func(d *doors, broken *bool){
		"DatabaseRefusesEverything": func(d *doors, broken *bool) {
			d.onSettle = func([]event.Pending) error {
				if *broken {
					return fmt.Errorf("disk full: %w", event.ErrOutage)
				}
				return nil
			}
		},
		"ImageKitRefusesAllButTheProbe": func(d *doors, broken *bool) {
			d.onLook = func([]verify.Ask) error {
				if *broken {
					return verify.ErrLibraryOutage
				}
				return nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, broken, looked := newDoors(t), true, 0
				fault(d, &broken)
				inner := d.onLook
				d.onLook = func(asks []verify.Ask) error {
					looked++
					if inner != nil {
						return inner(asks)
					}
					return nil
				}
				d.envelope("env1", 1, "a")
				_, stop := d.run(t.Context())
				defer stop()
				time.Sleep(10 * time.Minute) //nolint:forbidigo // synctest's clock, not the wall's
				d.mu.Lock()
				if looked < 20 || looked > 100 {
					t.Errorf("asked %d times in ten minutes, want once in some seconds", looked)
				}
				broken = false
				d.mu.Unlock()
				time.Sleep(time.Minute) //nolint:forbidigo // synctest's clock, not the wall's
				d.wantEnds(t, map[string]event.EndKind{"a": event.Done})
				d.wantAcked(t, "env1")
			})
		})
	}
}
