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

// TestWorkerNoticesAPauseByItself: a notice may be lost. The durable pause stops the
// next batch, its end is noticed, and while nobody has paused anything the rows are
// not asked.
func TestWorkerNoticesAPauseByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoors(t)
		w, stop := d.run(t.Context())
		defer stop()
		time.Sleep(time.Minute) //nolint:forbidigo // synctest's clock, not the wall's
		d.mu.Lock()
		if d.reads != 0 {
			t.Errorf("the lease was read %d times while nobody had paused anything", d.reads)
		}
		d.lease = true
		d.mu.Unlock()
		d.envelope("env1", 1, "a")
		time.Sleep(time.Minute) //nolint:forbidigo // synctest's clock, not the wall's
		d.wantEnds(t, nil)
		d.wantAcked(t)
		if p := w.State().Paused; p.Why != "operator" {
			t.Errorf("paused = %+v, want by the operator", p)
		}
		d.mu.Lock()
		if d.settles != 1 {
			t.Errorf("tried to settle %d times while paused, want once", d.settles)
		}
		d.lease = false
		d.mu.Unlock()
		time.Sleep(10 * time.Second) //nolint:forbidigo // synctest's clock, not the wall's
		d.wantEnds(t, map[string]event.EndKind{"a": event.Done})
		d.wantAcked(t, "env1")
	})
}
