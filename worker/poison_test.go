package worker

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/worker/verify"
)

// What poison costs the others is counted here, against the bound in isolate.go: 1,000
// poisonous events of one kind, and a healthy one behind them.

// asked counts the questions by file.
func (d *doors) asked() map[string]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := map[string]int{}
	for _, id := range d.looks {
		n[id]++
	}
	return n
}

func TestI15PoisonAsksNothingTwice(t *testing.T) {
	const poisonous = 1000
	poison := make([]string, poisonous)
	for i := range poison {
		poison[i] = fmt.Sprintf("p%04d", i)
	}
	isPoison := func(id string) bool { return strings.HasPrefix(id, "p") }
	for name, c := range map[string]struct {
		spoil func(d *doors)
		// looks is how many questions there may be in all, transactions how many tries to
		// settle.
		looks, transactions int
		reason              string
		class               event.Class
	}{
		"OurCodePanicsOverTheFile": {func(d *doors) {
			d.onAnswer = func(a verify.Ask, answer *verify.Answer) {
				if strings.HasPrefix(a.FileID, "file-p") {
					*answer = verify.Answer{Fault: &file.Fault{Kind: file.Panicked, Stack: "stack of it", Err: fmt.Errorf("panic: boom")}}
				}
			}
		}, poisonous + 1, 5, "panic", event.ClassTrueup},
		"TheTablePanics": {func(d *doors) {
			d.tableNow = func() time.Time { panic("boom in the table") }
			d.onAnswer = func(a verify.Ask, answer *verify.Answer) {
				if strings.HasPrefix(a.FileID, "file-p") {
					*answer = verify.Answer{Fault: &file.Fault{Kind: file.Unavailable}}
				}
			}
		}, poisonous + 1, 5, "panic", event.ClassTrueup},
		"FormingTheQuestionPanics": {func(d *doors) {
			d.step = func(id string) {
				if isPoison(id) {
					panic("boom in the step")
				}
			}
		}, 1, 5, "panic", event.ClassTrueup},
		"TheDatabaseRefusesItsData": {func(d *doors) {
			d.onSettle = func(pending []event.Pending) error {
				for _, p := range pending {
					if isPoison(p.ID) && d.withObservation[p.FileID] {
						return event.ErrUnstorable
					}
				}
				return nil
			}
		}, poisonous + 1, 2*poisonous + poisonous + 10, "unstorable", event.ClassDatabase},
		"WritingPanics": {func(d *doors) {
			d.onSettle = func(pending []event.Pending) error {
				for _, p := range pending {
					if isPoison(p.ID) && d.withObservation[p.FileID] {
						panic("boom in the write")
					}
				}
				return nil
			}
		}, poisonous + 1, 2*poisonous + poisonous + 10, "panic", event.ClassTrueup},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(d *doors) {
				c.spoil(d)
				for i, some := range slices.Collect(slices.Chunk(poison, 250)) {
					d.envelope(fmt.Sprintf("env%d", i), 1, some...)
				}
				d.envelope("env9", 1, "healthy")
			}, func(t *testing.T, d *doors, _ *Worker) {
				d.wantAcked(t, "env0", "env1", "env2", "env3", "env9")
				if len(d.ends) != poisonous+1 || d.ends["healthy"].Kind != event.Done {
					t.Fatalf("%d ends, the healthy one %q", len(d.ends), d.ends["healthy"].Kind)
				}
				for _, id := range poison {
					if end := d.ends[id]; end.Kind != event.Dead || end.Class != c.class || end.Reason != c.reason || end.Attempt == nil {
						t.Fatalf("%s ended as %+v", id, end)
					}
				}
				for id, n := range d.asked() {
					if n > 1 {
						t.Errorf("%s was asked about %d times", id, n)
					}
				}
				if len(d.looks) > c.looks || d.settles > c.transactions {
					t.Errorf("%d questions and %d transactions, want at most %d and %d", len(d.looks), d.settles, c.looks, c.transactions)
				}
				t.Logf("%d questions, %d transactions", len(d.looks), d.settles)
			})
		})
	}
}

// TestI15APanickingFileKeepsItsStack: what the operator needs to find the cause.
func TestI15APanickingFileKeepsItsStack(t *testing.T) {
	end := testTable().End(pending("file.created", 0, 0), verify.Answer{Fault: &file.Fault{Kind: file.Panicked, Stack: "main.go:7", Err: fmt.Errorf("panic: boom")}}, file.Result{})
	if end.Kind != event.Dead || end.Class != event.ClassTrueup || end.Reason != "panic" || !strings.Contains(end.Attempt.Excerpt, "main.go:7") {
		t.Errorf("end %+v, attempt %+v", end, end.Attempt)
	}
}

// TestI15HangingRetriesHoldNoOtherBack: three batches of retries hang; what becomes due
// later is settled all the same, and no event is under way twice.
func TestI15HangingRetriesHoldNoOtherBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoors(t)
		release := make(chan struct{})
		d.hang = func(id string) {
			if strings.HasPrefix(id, "file-hang") {
				<-release
			}
		}
		add := func(id string, due time.Time) {
			d.retries[id] = event.Pending{Event: event.Event{ID: id, FileID: "file-" + id}, Retried: true}
			d.dueAt[id] = due
		}
		begin := time.Now()
		for i := range 3 {
			add(fmt.Sprintf("hang%d", i), begin.Add(time.Duration(i)*time.Second))
		}
		add("healthy", begin.Add(10*time.Second))
		d.nextDue = begin
		_, stop := d.run(t.Context())
		defer stop()
		time.Sleep(time.Minute) //nolint:forbidigo // synctest's clock, not the wall's
		d.wantEnds(t, map[string]event.EndKind{"healthy": event.Done})
		close(release)
		synctest.Wait()
		for id, n := range d.asked() {
			if n != 1 {
				t.Errorf("%s was under way %d times", id, n)
			}
		}
		d.wantEnds(t, map[string]event.EndKind{"healthy": event.Done, "hang0": event.Done, "hang1": event.Done, "hang2": event.Done})
	})
}

// TestI15ARetryThatKillsTheProcessIsFound: nobody counts deliveries of a retry, so its
// mark must be written before it is tried.
func TestI15ARetryThatKillsTheProcessIsFound(t *testing.T) {
	for marks, want := range map[int]string{0: "tried", 1: "tried", 2: "parked"} {
		t.Run(fmt.Sprintf("After%dCrashes", marks), func(t *testing.T) {
			var before int
			inBubble(t, func(d *doors) {
				d.marks["r"], d.stacks["r"] = marks, "where it was"
				d.retries["r"] = event.Pending{Event: event.Event{ID: "r", FileID: "file-r"}, Retried: true}
				d.dueAt["r"], d.nextDue = time.Now(), time.Now()
				d.onLook = func([]verify.Ask) error { before = d.marks["r"]; return nil }
			}, func(t *testing.T, d *doors, _ *Worker) {
				switch end := d.ends["r"]; want {
				case "tried":
					if end.Kind != event.Done || before != marks+1 {
						t.Errorf("ended as %q with %d marks while it was tried", end.Kind, before)
					}
				default:
					if end.Kind != event.Dead || len(d.looks) != 0 || !strings.Contains(end.Attempt.Excerpt, "where it was") {
						t.Errorf("ended as %+v after %d questions", end, len(d.looks))
					}
				}
			})
		})
	}
}

// TestI15SecondTrialsAreOneByOne: while an event that has survived a crash is tried, no
// other such event is; whichever of two ended the process, both would be parked. One
// without a mark waits for nobody.
func TestI15SecondTrialsAreOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoors(t)
		release := make(chan struct{})
		d.hang = func(string) { <-release }
		d.marks["x"], d.marks["y"] = 1, 1
		_, stop := d.run(t.Context())
		defer stop()
		d.envelope("env-x", 2, "x")
		synctest.Wait() // each is a batch of its own
		d.envelope("env-y", 2, "y")
		synctest.Wait()
		if n := len(d.asked()); n != 1 {
			t.Errorf("%d events are on their second trial at once", n)
		}
		d.envelope("env-z", 2, "z")
		synctest.Wait()
		if d.asked()["file-z"] != 1 {
			t.Error("an event without a mark waits for the trial of another")
		}
		close(release)
		synctest.Wait()
		d.wantEnds(t, map[string]event.EndKind{"x": event.Done, "y": event.Done, "z": event.Done})
	})
}

// TestI15LastTrialsAreWithoutCompany: while an event that has survived two crashes is tried,
// nobody else is at work: should the process end, it was this event. Others wait for one
// event, and no longer.
func TestI15LastTrialsAreWithoutCompany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoors(t)
		release := make(chan struct{})
		d.hang = func(string) { <-release }
		d.marks["x"] = 2
		_, stop := d.run(t.Context())
		defer stop()
		d.envelope("env-a", 1, "a")
		synctest.Wait()
		d.envelope("env-x", 2, "x")
		synctest.Wait()
		if d.asked()["file-x"] != 0 || d.marks["x"] != 2 {
			t.Errorf("its last trial began beside others: asked %d times, %d marks", d.asked()["file-x"], d.marks["x"])
		}
		release <- struct{}{}
		synctest.Wait()
		d.envelope("env-b", 1, "b")
		synctest.Wait()
		if d.asked()["file-x"] != 1 || d.asked()["file-b"] != 0 {
			t.Errorf("others began beside its last trial: asked %v", d.asked())
		}
		close(release)
		synctest.Wait()
		d.wantEnds(t, map[string]event.EndKind{"x": event.Done, "a": event.Done, "b": event.Done})
	})
}

// TestACrashMarksOnlyWhatWasTried: an event that waited for its own trial while another
// one ended the process is not one crash nearer to being parked.
func TestACrashMarksOnlyWhatWasTried(t *testing.T) {
	inBubble(t, func(d *doors) {
		d.marks["a"], d.marks["b"] = 1, 1
		d.onLook = func(asks []verify.Ask) error {
			if asks[0].FileID == "file-a" && d.marks["b"] != 1 {
				t.Errorf("b has %d marks while a is tried", d.marks["b"])
			}
			return nil
		}
		d.envelope("env1", 2, "a", "b")
	}, func(t *testing.T, d *doors, _ *Worker) {
		d.wantEnds(t, map[string]event.EndKind{"a": event.Done, "b": event.Done})
	})
}

// TestAnEndedTurnIsNoCrash: a trial that the turn's end cuts short takes its mark back;
// nothing ended over the event but the turn.
func TestAnEndedTurnIsNoCrash(t *testing.T) {
	for name, end := range map[string]func(d *doors, stop func()) error{
		"TheTurnMoved":                func(d *doors, _ func()) error { d.turn++; return event.ErrTurnMoved },
		"AStopWhileTheDatabaseIsAway": func(_ *doors, stop func()) error { stop(); return event.ErrOutage },
		"TheDatabaseGoesWithTheTurn":  func(d *doors, _ func()) error { d.turn++; d.acquitFails = 5; return event.ErrTurnMoved },
	} {
		for _, before := range []int{0, 1} {
			t.Run(fmt.Sprintf("%sAfter%dCrashes", name, before), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					d := newDoors(t)
					ctx, stop := context.WithCancel(t.Context())
					tried := 0
					d.onSettle = func([]event.Pending) error {
						tried = max(tried, d.marks["a"])
						return end(d, stop)
					}
					d.marks["a"] = before
					d.envelope("env1", 2, "a")
					_, wait := d.run(ctx)
					time.Sleep(10 * time.Second) //nolint:forbidigo // synctest's clock, not the wall's
					stop()
					wait()
					if tried != before+1 || d.marks["a"] != before {
						t.Errorf("it was tried with %d marks and has %d now, want %d and %d", tried, d.marks["a"], before+1, before)
					}
				})
			})
		}
	}
}

// TestI15AParkedEventIsNotTriedAgain: its envelope comes again when another event of it
// ended the process, and its mark went with its settling.
func TestI15AParkedEventIsNotTriedAgain(t *testing.T) {
	inBubble(t, func(d *doors) {
		d.ends["parked"] = event.End{Kind: event.Dead}
		d.step = func(id string) {
			if id == "parked" {
				t.Error("a parked event did its work again")
			}
		}
		d.envelope("env1", 4, "parked", "a")
	}, func(t *testing.T, d *doors, _ *Worker) {
		d.wantEnds(t, map[string]event.EndKind{"parked": event.Dead, "a": event.Done})
		d.wantAcked(t, "env1")
		if !slices.Equal(d.looks, []string{"file-a"}) {
			t.Errorf("asked about %v", d.looks)
		}
	})
}

// TestI15WatchdogFindsTheEvent: a step that does not end restarts the process once,
// after the event's mark is written with the stack of that very goroutine.
func TestI15WatchdogFindsTheEvent(t *testing.T) {
	for name, c := range map[string]struct {
		memory uint64
		want   string
	}{
		"Spinning": {0, "took longer than 5s"},
		"Eating":   {2 << 30, "holds more than 1024 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDoors(t)
				release := make(chan struct{})
				d.step = func(id string) {
					if id == "b" {
						turnsForEver(release)
					}
				}
				var mu sync.Mutex
				var reasons []string
				d.watchdog = NewWatchdog(WatchdogConfig{
					Restart: func(reason string) {
						mu.Lock()
						defer mu.Unlock()
						reasons = append(reasons, reason)
						close(release)
					},
					MemoryLimit: 1 << 30, Memory: func() uint64 { return c.memory },
				})
				d.envelope("env1", 1, "a", "b", "c")
				_, stop := d.run(t.Context())
				defer stop()
				time.Sleep(time.Minute) //nolint:forbidigo // synctest's clock, not the wall's
				mu.Lock()
				defer mu.Unlock()
				if len(reasons) != 1 || !strings.Contains(reasons[0], c.want) {
					t.Fatalf("restarted because of %q, want once because it %s", reasons, c.want)
				}
				if blamed := d.blamed; !slices.Equal(blamed, []string{"b"}) || !strings.Contains(d.stacks["b"], "turnsForEver") {
					t.Errorf("blamed %v, stack %q", blamed, d.stacks["b"])
				}
			})
		})
	}
}

// TestI15WatchdogAcquitsTheOthers: while one event's step does not end, others are on
// trial beside it. The restart is not theirs: their marks are those of before.
func TestI15WatchdogAcquitsTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoors(t)
		release := make(chan struct{})
		d.step = func(id string) {
			if id == "guilty" {
				turnsForEver(release)
			}
		}
		d.hang = func(fileID string) {
			if fileID == "file-beside" || fileID == "file-new" {
				<-release
			}
		}
		d.marks["beside"] = 1
		tried, left := map[string]int{}, map[string]int{}
		d.watchdog = NewWatchdog(WatchdogConfig{Restart: func(string) {
			d.mu.Lock()
			maps.Copy(left, d.marks)
			d.mu.Unlock()
			close(release)
		}})
		for _, id := range []string{"guilty", "beside", "new"} {
			d.retries[id] = event.Pending{Event: event.Event{ID: id, FileID: "file-" + id}, Retried: true}
		}
		d.dueAt["guilty"], d.dueAt["beside"], d.dueAt["new"] = time.Now(), time.Now().Add(time.Second), time.Now().Add(2*time.Second)
		d.nextDue = time.Now()
		_, stop := d.run(t.Context())
		defer stop()
		time.Sleep(4 * time.Second) //nolint:forbidigo // synctest's clock, not the wall's
		d.mu.Lock()
		maps.Copy(tried, d.marks)
		d.mu.Unlock()
		time.Sleep(time.Minute) //nolint:forbidigo // synctest's clock, not the wall's
		if want := map[string]int{"guilty": 1, "beside": 2, "new": 1}; !maps.Equal(tried, want) {
			t.Fatalf("marks on trial %v, want %v", tried, want)
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		if want := map[string]int{"guilty": 1, "beside": 1}; !maps.Equal(left, want) {
			t.Errorf("marks at the restart %v, want %v", left, want)
		}
	})
}

// turnsForEver stands for the loop that the stack has to show. Time only passes in a
// bubble while everybody waits.
func turnsForEver(release <-chan struct{}) { <-release }

// TestWatchdogLeavesTheRestAlone: waiting for ImageKit is no work, much memory while
// nobody works is nobody's fault, and an idle process is not woken.
func TestWatchdogLeavesTheRestAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoors(t)
		d.hang = func(string) {
			time.Sleep(time.Hour) //nolint:forbidigo // synctest's clock, not the wall's
		}
		reads := 0
		d.watchdog = NewWatchdog(WatchdogConfig{
			Restart:     func(reason string) { t.Errorf("restarted because %s", reason) },
			MemoryLimit: 1, Memory: func() uint64 { reads++; return 2 },
		})
		d.envelope("env1", 1, "a")
		_, stop := d.run(t.Context())
		defer stop()
		time.Sleep(2 * time.Hour) //nolint:forbidigo // synctest's clock, not the wall's
		d.wantEnds(t, map[string]event.EndKind{"a": event.Done})
		if reads != 0 {
			t.Errorf("memory was read %d times although no event was at work", reads)
		}
	})
}

// TestWatchdogWatchesVerify: pure work on an answer counts for the file's events.
func TestWatchdogWatchesVerify(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var blamed []string
		restarted := make(chan struct{})
		d := NewWatchdog(WatchdogConfig{Restart: func(string) { close(restarted) }})
		d.log, d.blame = slog.New(slog.DiscardHandler), func(_ context.Context, ids []string, _ string) error {
			blamed = ids
			return event.ErrOutage // it restarts all the same
		}
		go func() { _ = d.run(t.Context()) }()
		d.Step("nobody's")()
		forget := d.know(byFile([]event.Pending{{Event: event.Event{ID: "e1", FileID: "f"}}, {Event: event.Event{ID: "e2", FileID: "f"}}}))
		defer forget()
		end := d.Step("f")
		<-restarted
		end()
		if !slices.Equal(blamed, []string{"e1", "e2"}) {
			t.Errorf("blamed %v", blamed)
		}
	})
}
