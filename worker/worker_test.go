package worker

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/worker/verify"
)

// These tests are about what the worker does when its doors fail, each fault twice:
// it failed and nothing happened, it failed and it happened anyway. The doors are
// doubles with the contract of the interfaces in worker.go; that the real ones keep
// it is shown where they live, and that all of it works together in
// internal/service. Time is synctest's. Never asserted here: what a row contains.

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestWorkerSettlesThenAcks(t *testing.T) {
	inBubble(t, func(d *doors) {
		d.envelope("env1", 1, "a", "b")
		d.envelope("env2", 1, "c")
	}, func(t *testing.T, d *doors, _ *Worker) {
		d.wantEnds(t, map[string]event.EndKind{"a": event.Done, "b": event.Done, "c": event.Done})
		d.wantAcked(t, "env1", "env2")
	})
}

func TestWorkerWaitsOutAnOutage(t *testing.T) {
	for name, fault := range map[string]func(d *doors){
		"DatabaseRefusesAndNothingHappened": func(d *doors) {
			left := 7
			d.onSettle = func([]event.Pending) error {
				if left--; left >= 0 {
					return fmt.Errorf("cut: %w", event.ErrOutage)
				}
				return nil
			}
		},
		"CommitReplyIsLostAndItHappened": func(d *doors) {
			left := 7
			d.onCommit = func([]event.Pending) error {
				if left--; left >= 0 {
					return fmt.Errorf("cut: %w", event.ErrOutage)
				}
				return nil
			}
		},
		"ImageKitIsAway": func(d *doors) {
			left := 3
			d.onLook = func([]verify.Ask) error {
				if left--; left >= 0 {
					return verify.ErrLibraryOutage
				}
				return nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(d *doors) {
				fault(d)
				d.envelope("env1", 1, "a", "b")
			}, func(t *testing.T, d *doors, w *Worker) {
				time.Sleep(time.Minute) //nolint:forbidigo // synctest's clock, not the wall's
				d.wantEnds(t, map[string]event.EndKind{"a": event.Done, "b": event.Done})
				d.wantAcked(t, "env1")
				if len(d.retries) != 0 {
					t.Errorf("an outage parked %d events as retries", len(d.retries))
				}
				if p := w.State().Paused; p.Why != "" {
					t.Errorf("still paused: %+v", p)
				}
				// Answers grow old: what was said before the pause settles nothing after it.
				if asked := len(d.looks); name != "ImageKitIsAway" && asked < 4 {
					t.Errorf("two files were asked about %d times, want once more after the pause", asked)
				}
			})
		})
	}
}

func TestWorkerIsolatesPoison(t *testing.T) {
	t.Run("PanicParksOneEventAndSettlesTheOthers", func(t *testing.T) {
		inBubble(t, func(d *doors) {
			d.onLook = func(asks []verify.Ask) error {
				for _, a := range asks {
					if a.FileID == "file-c" {
						panic("poison")
					}
				}
				return nil
			}
			d.envelope("env1", 1, "a", "b", "c", "d", "e")
		}, func(t *testing.T, d *doors, _ *Worker) {
			d.wantEnds(t, map[string]event.EndKind{"a": event.Done, "b": event.Done, "c": event.Dead, "d": event.Done, "e": event.Done})
			d.wantAcked(t, "env1")
			if end := d.ends["c"]; end.Reason != "panic" || end.Class != event.ClassTrueup || end.Attempt == nil {
				t.Errorf("parked as %+v, want a panic of class trueup with its attempt", end)
			}
		})
	})

	t.Run("DataTheDatabaseRefusesIsParkedAlone", func(t *testing.T) {
		inBubble(t, func(d *doors) {
			d.onSettle = func(pending []event.Pending) error {
				for _, p := range pending {
					if p.ID == "b" && p.User == "" && p.Headers != nil {
						return fmt.Errorf("22021: %w", event.ErrUnstorable)
					}
				}
				return nil
			}
			env := event.Envelope{ID: "env1", Events: []event.Event{{ID: "a", FileID: "f1"}, {ID: "b", FileID: "f2", Headers: map[string]string{"x": "\x00"}}}}
			d.deliver(&event.Delivery{Envelope: env, Delivered: 1})
		}, func(t *testing.T, d *doors, _ *Worker) {
			d.wantEnds(t, map[string]event.EndKind{"a": event.Done, "b": event.Dead})
			d.wantAcked(t, "env1")
			if end := d.ends["b"]; end.Class != event.ClassDatabase {
				t.Errorf("class %q, want database", end.Class)
			}
		})
	})

	t.Run("RedeliveryAloneCondemnsNobody", func(t *testing.T) {
		inBubble(t, func(d *doors) { d.envelope("env1", 40, "a", "b") }, func(t *testing.T, d *doors, _ *Worker) {
			d.wantEnds(t, map[string]event.EndKind{"a": event.Done, "b": event.Done})
			d.wantAcked(t, "env1")
			if len(d.marks) != 0 {
				t.Errorf("marks left behind: %v", d.marks)
			}
		})
	})

	t.Run("MarkThatSurvivedOneCrashRunsAlone", func(t *testing.T) {
		var batches [][]string
		inBubble(t, func(d *doors) {
			d.marks["b"] = 1
			d.onLook = func(asks []verify.Ask) error {
				var files []string
				for _, a := range asks {
					files = append(files, a.FileID)
				}
				batches = append(batches, files)
				return nil
			}
			d.envelope("env1", 2, "a", "b", "c")
		}, func(t *testing.T, d *doors, _ *Worker) {
			d.wantEnds(t, map[string]event.EndKind{"a": event.Done, "b": event.Done, "c": event.Done})
			if len(batches) != 2 || !slices.Equal(batches[0], []string{"file-a", "file-c"}) || !slices.Equal(batches[1], []string{"file-b"}) {
				t.Errorf("looked up in %v, want the unmarked together and the marked one alone, last", batches)
			}
		})
	})

	t.Run("PoisonHasSurvivedThreeCrashes_OrTwoWithAWitness", func(t *testing.T) {
		inBubble(t, func(d *doors) {
			d.marks["b"], d.marks["c"], d.stacks["c"], d.marks["d"] = 3, 2, "seen at work", 2
			d.envelope("env1", 3, "a", "b", "c", "d")
		}, func(t *testing.T, d *doors, _ *Worker) {
			d.wantEnds(t, map[string]event.EndKind{"a": event.Done, "b": event.Dead, "c": event.Dead, "d": event.Done})
			if slices.Contains(d.looks, "file-b") || slices.Contains(d.looks, "file-c") {
				t.Errorf("a poisonous event was looked up once more: %v", d.looks)
			}
			d.wantAcked(t, "env1")
		})
	})

	t.Run("BytesThatAreNoEnvelopeBecomeADeadLetter", func(t *testing.T) {
		inBubble(t, func(d *doors) {
			d.deliver(&event.Delivery{Envelope: event.Envelope{ID: "env1"}, Raw: []byte("garbage"), Err: errors.New("bad magic"), Sequence: 7, Delivered: 1, StoredAt: time.Unix(1767323045, 0)})
		}, func(t *testing.T, d *doors, _ *Worker) {
			if len(d.ends) != 1 {
				t.Fatalf("%d ends, want one dead letter", len(d.ends))
			}
			for _, end := range d.ends {
				if end.Kind != event.Dead || end.Reason != "undecodable" {
					t.Errorf("ended as %+v", end)
				}
			}
			d.wantAcked(t, "env1")
		})
	})
}

func TestWorkerRetries(t *testing.T) {
	inBubble(t, func(d *doors) {
		left := 3
		d.onLook = func([]verify.Ask) error { left--; return nil }
		d.envelope("env1", 1, "a")
		// A file.deleted that keeps being answered 200 is asked again until the grace.
		d.mu.Lock()
		x := <-d.queue
		x.Envelope.Events[0].Kind = event.KindDeleted
		d.queue <- x
		d.mu.Unlock()
	}, func(t *testing.T, d *doors, _ *Worker) {
		d.wantAcked(t, "env1")
		d.mu.Lock()
		waiting := len(d.retries)
		d.mu.Unlock()
		if waiting != 1 {
			t.Fatalf("%d retries wait, want 1", waiting)
		}
		time.Sleep(time.Minute) //nolint:forbidigo // synctest's clock, not the wall's
		d.wantEnds(t, map[string]event.EndKind{"a": event.Superseded})
		if n := len(d.looks); n < 4 || n > 8 {
			t.Errorf("asked %d times within a grace of 10 s, want a backed-off handful", n)
		}
	})
}

func TestWorkerStopsAndPauses(t *testing.T) {
	t.Run("MovedTurnWritesAndAcksNothing", func(t *testing.T) {
		inBubble(t, func(d *doors) {
			moved := false
			d.onLook = func([]verify.Ask) error {
				if !moved {
					moved = true
					d.turn += 10
				}
				return nil
			}
			d.envelope("env1", 1, "a")
		}, func(t *testing.T, d *doors, _ *Worker) {
			d.wantAcked(t)
			d.wantEnds(t, nil)
			if !slices.Equal(d.released, []string{"env1"}) {
				t.Errorf("released %v, want the envelope given back", d.released)
			}
		})
	})

	t.Run("OperatorsPauseHoldsEverythingAndLosesNothing", func(t *testing.T) {
		inBubble(t, func(d *doors) {
			d.paused = true
			d.envelope("env1", 1, "a")
		}, func(t *testing.T, d *doors, w *Worker) {
			if p := w.State().Paused; p.Why != "operator" {
				t.Errorf("paused = %+v", p)
			}
			d.wantEnds(t, nil)
			w.SetPaused(false, "")
			synctest.Wait()
			d.wantEnds(t, map[string]event.EndKind{"a": event.Done})
			d.wantAcked(t, "env1")
		})
	})

	t.Run("StopGivesBackWhatIsHeld", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := newDoors(t)
			d.onSettle = func([]event.Pending) error { return event.ErrOutage }
			d.envelope("env1", 1, "a")
			_, stop := d.run(t.Context())
			synctest.Wait()
			stop()
			d.wantAcked(t)
			if !slices.Equal(d.released, []string{"env1"}) {
				t.Errorf("released %v, want [env1]", d.released)
			}
		})
	})
}
