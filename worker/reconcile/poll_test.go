package reconcile

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/run"
)

func TestPollBegins(t *testing.T) {
	t.Run("WithTheNewestFileAndFeedsNothing", func(t *testing.T) {
		inPoll(t, func(t *testing.T, d *pollDoors) {
			d.files["old"], d.files["new"] = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
			defer d.start()()
			if d.wantFed(0); !d.position.Equal(d.files["new"]) {
				t.Errorf("position %v", d.position)
			}
			d.polls(1)
			d.wantFed(1) // the newest lies within the overlap
			d.update("a", 1, 0)
			d.polls(1)
			d.wantFed(2)
		})
	})
	t.Run("WithImageKitsClockWhereTheLibraryIsEmpty", func(t *testing.T) {
		inPoll(t, func(t *testing.T, d *pollDoors) {
			defer d.start()()
			if !d.position.Equal(d.date()) {
				t.Errorf("position %v", d.position)
			}
			d.update("a", 3, time.Second)
			d.polls(1)
			d.wantFed(3)
		})
	})
	t.Run("WhereTheTurnBeforeHasStopped", func(t *testing.T) {
		inPoll(t, func(t *testing.T, d *pollDoors) {
			d.position = time.Now().Add(-24 * time.Hour)
			d.files["before"] = d.position.Add(-time.Hour)
			d.files["since"] = d.position.Add(time.Hour)
			defer d.start()()
			d.wantFed(1)
			if d.calls["PollPosition"] != 1 || !d.position.Equal(d.files["since"]) {
				t.Errorf("position %v, %v", d.position, d.calls)
			}
		})
	})
	t.Run("AtTheNextPollWhereNobodyAnswers", func(t *testing.T) {
		inPoll(t, func(t *testing.T, d *pollDoors) {
			d.before["PollPosition"] = event.ErrOutage
			d.files["a"] = time.Now()
			defer d.start()()
			d.polls(1)
			if d.position.IsZero() || d.calls["PollPosition"] != 2 {
				t.Errorf("position %v, %v", d.position, d.calls)
			}
		})
	})
}

// Nothing new: one call of ImageKit a poll, and none of the database.
func TestQuietPollAsksTheDatabaseNothing(t *testing.T) {
	inPoll(t, func(t *testing.T, d *pollDoors) {
		d.update("a", 5, time.Second)
		d.position = time.Now().Add(-time.Hour)
		defer d.start()()
		d.polls(1)
		d.wantFed(5)
		queries, lists := d.queries(), d.lists
		d.polls(200)
		if n := d.queries() - queries; n != 0 {
			t.Errorf("%d queries over nothing: %v", n, d.calls)
		}
		if n := d.lists - lists; n != 200 {
			t.Errorf("%d list calls in 200 polls", n)
		}
	})
}

func TestPollFeedsEachVersionOnce(t *testing.T) {
	for name, tt := range map[string]struct {
		n    int
		step time.Duration
		cap  int
	}{
		"One": {1, 0, 0}, "500": {500, 10 * time.Millisecond, 0}, "2500": {2500, 30 * time.Millisecond, 0},
		"ExactlyAPage": {1000, 50 * time.Millisecond, 0}, "3000InOneSecond": {3000, 0, 0}, "1000InOneSecond": {1000, 0, 0},
		"ShorterPagesThanAskedFor": {1700, 10 * time.Millisecond, 300},
	} {
		t.Run(name, func(t *testing.T) {
			inPoll(t, func(t *testing.T, d *pollDoors) {
				d.cap = tt.cap
				d.files["first"] = time.Now().Add(-time.Hour)
				d.position = time.Now().Add(-30 * time.Minute)
				defer d.start()()
				d.update("a", tt.n, tt.step)
				d.polls(1)
				d.wantFed(tt.n)
				d.update("b", tt.n, tt.step) // beside them, all within the overlap
				d.polls(1)
				d.wantFed(2 * tt.n)
				lists := d.lists
				d.update("a", tt.n, tt.step)
				d.polls(1)
				d.wantFed(3 * tt.n)
				if most := 3 + 3*tt.n/(min(1000, max(tt.cap, 1000))-skipOverlap); tt.cap == 0 && d.lists-lists > most {
					t.Errorf("%d list calls for %d files of %d, want at most %d", d.lists-lists, tt.n, 3*tt.n, most)
				}
				if want := time.Now(); d.position.After(want) || d.position.Before(want.Add(-time.Minute-time.Second)) {
					t.Errorf("position %v, now %v", d.position, want)
				}
				for _, n := range d.slices {
					if n > 500 {
						t.Errorf("%d hits written at once", n)
					}
				}
			})
		})
	}
}

// What the index shows late is not lost within the overlap.
func TestPollSeesWhatTheIndexShowsLate(t *testing.T) {
	inPoll(t, func(t *testing.T, d *pollDoors) {
		d.position = time.Now()
		defer d.start()()
		late := time.Now()
		d.polls(1)
		d.update("a", 10, time.Second)
		d.polls(1)
		d.files["late"] = late.Add(time.Second)
		d.polls(1)
		d.wantFed(11)
	})
}

// What a hit may not decide becomes one event.
func TestPollHasDoubtfulFilesLookedUp(t *testing.T) {
	inPoll(t, func(t *testing.T, d *pollDoors) {
		d.position = time.Now()
		defer d.start()()
		d.update("a", 600, time.Millisecond)
		for id := range d.files {
			d.ask[id] = true
		}
		d.polls(3)
		d.wantFed(600)
		if len(d.published) != 600 {
			t.Fatalf("%d events", len(d.published))
		}
		ids := map[string]bool{}
		for _, e := range d.published {
			ids[e.ID] = true
			if e.Source != event.Reconcile || e.Origin != event.Reconcile || e.Kind != event.KindRecheck || !d.ask[e.FileID] || len(e.ID) != 26 || e.AcceptedAt.IsZero() {
				t.Errorf("%+v", e)
			}
		}
		if len(ids) != 600 {
			t.Errorf("%d ids of 600 events", len(ids))
		}
	})
}

// Each call of the database and the queue fails once, with nothing done and with
// everything done: the next poll sees to it, and what is in the rows comes right.
func TestPollAfterAFault(t *testing.T) {
	for _, method := range []string{"PollPosition", "SavePollPosition", "Account", "KnownFiles", "Repair", "Publish"} {
		for name, after := range map[string]bool{"Failed": false, "FailedAndHappened": true} {
			for _, fault := range []error{event.ErrOutage, event.ErrPaused, event.ErrNotAccepted} {
				t.Run(method+name+fault.Error(), func(t *testing.T) {
					inPoll(t, func(t *testing.T, d *pollDoors) {
						d.position = time.Now().Add(-time.Hour)
						d.known = []run.KnownFile{{FileID: "k"}}
						d.update("a", 600, time.Millisecond)
						d.ask["a-00000"] = true
						if after {
							d.after[method] = fault
						} else {
							d.before[method] = fault
						}
						defer d.start()()
						d.polls(2)
						d.update("b", 1, 0)
						d.polls(1)
						if len(d.fed) != 601 || len(d.published) == 0 {
							t.Errorf("%d versions fed, %d events", len(d.fed), len(d.published))
						}
						if !d.position.Equal(d.files["b-00000"]) {
							t.Errorf("position %v", d.position)
						}
						queries := d.queries()
						d.polls(5)
						if n := d.queries() - queries; n != 0 {
							t.Errorf("%d queries over nothing: %v", n, d.calls)
						}
					})
				})
			}
		}
	}
}

func TestPollEndsWithItsTurn(t *testing.T) {
	inPoll(t, func(t *testing.T, d *pollDoors) {
		d.position = time.Now()
		p, ended := d.poller(), make(chan error)
		go func() { ended <- p.Run(t.Context(), d.turn) }()
		synctest.Wait()
		d.turn++ // somebody else's
		d.update("a", 1, 0)
		d.hand()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		d.wantFed(0)
	})
}

func TestPollNever(t *testing.T) {
	inPoll(t, func(t *testing.T, d *pollDoors) {
		stop := d.start(func(c *PollConfig) { c.Every = 0 })
		d.polls(3)
		stop()
		if d.lists != 0 || d.queries() != 0 {
			t.Errorf("%d list calls, %v", d.lists, d.calls)
		}
	})
}

// Another account's hits are not fed, and that is said once; ours are again as soon as a
// known file answers.
func TestPollFeedsNothingOfADoubtedAccount(t *testing.T) {
	absent := func(string) error { return &file.Fault{Kind: file.NotFound, Status: 404, Err: errAway} }
	inPoll(t, func(t *testing.T, d *pollDoors) {
		d.position = time.Now()
		d.known = []run.KnownFile{{FileID: "k1", CreatedAt: knownSince}, {FileID: "k2"}}
		d.answers = absent
		defer d.start()()
		d.update("a", 3, time.Second)
		at := d.position
		d.polls(5)
		if d.wantFed(0); !d.position.Equal(at) || len(d.published) != 0 {
			t.Errorf("position %v, %d events", d.position, len(d.published))
		}
		if n := strings.Count(d.log.String(), "poll.doubted"); n != 1 {
			t.Errorf("said %d times:\n%s", n, d.log)
		}
		d.answers = nil
		d.polls(1)
		d.wantFed(3)
		asked := d.details
		d.update("b", 1, 0)
		d.polls(1)
		if d.wantFed(4); d.details != asked {
			t.Errorf("asked %d known files though nobody doubts", d.details-asked)
		}
		// A run doubts it: asked again, before every feed, until the doubt is over.
		d.doubt, d.answers = "a run says so", absent
		d.update("c", 1, 0)
		d.polls(2)
		d.wantFed(4)
		d.answers = nil
		d.polls(1)
		d.wantFed(5)
	})
}

// A fault of ImageKit is the next poll's to get over, and is said once.
func TestPollWhileImageKitFails(t *testing.T) {
	for _, kind := range []file.FaultKind{file.Limited, file.Unauthorized, file.Unreachable, file.Garbled} {
		t.Run(string(kind), func(t *testing.T) {
			inPoll(t, func(t *testing.T, d *pollDoors) {
				d.position = time.Now()
				d.listFail = func() error { return &file.Fault{Kind: kind, Err: errAway} }
				defer d.start()()
				d.update("a", 3, time.Second)
				d.polls(5)
				d.wantFed(0)
				if n := strings.Count(d.log.String(), "poll.failed"); n != 1 || d.queries() != 1 {
					t.Errorf("said %d times, %v", n, d.calls)
				}
				d.listFail = nil
				d.polls(1)
				d.wantFed(3)
			})
		})
	}
	t.Run("InTheMiddle", func(t *testing.T) {
		inPoll(t, func(t *testing.T, d *pollDoors) {
			d.position = time.Now()
			defer d.start()()
			d.update("a", 3500, time.Millisecond)
			pages := 0
			d.listFail = func() error {
				if pages++; pages == 3 {
					return &file.Fault{Kind: file.Unreachable, Err: errAway}
				}
				return nil
			}
			d.polls(1)
			if n := len(d.fed); n < 1000 || n >= 3500 {
				t.Errorf("%d fed before the fault", n)
			}
			d.polls(1)
			d.wantFed(3500)
		})
	})
}

// Times that cannot be, and clocks that disagree, freeze nothing.
func TestPollAgainstImpossibleTimes(t *testing.T) {
	inFuture := func(n int) func(*pollDoors) {
		return func(d *pollDoors) {
			for i := range n {
				d.files[fmt.Sprintf("future-%05d", i)] = time.Now().Add(1000 * time.Hour)
			}
		}
	}
	for name, spoil := range map[string]func(*pollDoors){
		"AFileOfTheFuture":     inFuture(1),
		"APageOfTheFuture":     inFuture(1000),
		"ThreeOfTheFuture":     inFuture(3300),
		"APositionOfTheFuture": func(d *pollDoors) { d.position = time.Now().Add(1000 * time.Hour) },
		"OurClockAhead":        func(d *pollDoors) { d.skew = -time.Hour },
		"OurClockBehind":       func(d *pollDoors) { d.skew = time.Hour },
		"NoDate":               func(d *pollDoors) { d.noDate = true },
		"APositionOfTheFutureWithoutDate": func(d *pollDoors) {
			d.noDate, d.position = true, time.Now().Add(1000*time.Hour)
		},
	} {
		t.Run(name, func(t *testing.T) {
			inPoll(t, func(t *testing.T, d *pollDoors) {
				d.position = time.Now()
				spoil(d)
				defer d.start()()
				d.polls(1)
				before := len(d.fed)
				for i := range 20 {
					d.update(fmt.Sprintf("a%d", i), 10, time.Second)
					for id, at := range d.files {
						if strings.HasPrefix(id, "a") {
							d.files[id] = at.Add(d.skew)
							if d.skew != 0 && !strings.HasPrefix(id, fmt.Sprintf("a%d-", i)) {
								d.files[id] = at
							}
						}
					}
					d.polls(1)
				}
				d.wantFed(before + 200)
				if limit := time.Now().Add(d.skew); d.position.After(limit) {
					t.Errorf("position %v is after ImageKit's %v", d.position, limit)
				}
				queries := d.queries()
				d.polls(20)
				if n := d.queries() - queries; n != 0 {
					t.Errorf("%d queries over nothing: %v", n, d.calls)
				}
			})
		})
	}
}

// Pages that are not what was asked for cost calls and nothing else.
func TestPollAgainstHostilePages(t *testing.T) {
	reverse := func(a *file.Answer) {
		for i, j := 0, len(a.Snapshots)-1; i < j; i, j = i+1, j-1 {
			a.Snapshots[i], a.Snapshots[j] = a.Snapshots[j], a.Snapshots[i]
		}
	}
	chance := rand.New(rand.NewPCG(1, 2))
	for name, tt := range map[string]struct {
		page func(d *pollDoors, a *file.Answer)
		fed  int
	}{
		"OutOfOrder": {func(_ *pollDoors, a *file.Answer) { reverse(a) }, 2500},
		"Twice": {func(_ *pollDoors, a *file.Answer) {
			a.Snapshots = append(a.Snapshots, a.Snapshots...)
		}, 2500},
		"TruncatedNowAndThen": {func(_ *pollDoors, a *file.Answer) {
			if chance.IntN(4) == 0 {
				a.Snapshots = a.Snapshots[:len(a.Snapshots)/2]
				a.Rows = len(a.Snapshots)
			}
		}, 2500},
		"EmptyNowAndThen": {func(_ *pollDoors, a *file.Answer) {
			if chance.IntN(4) == 0 {
				a.Snapshots, a.Rows = nil, 0
			}
		}, 2500},
		"OlderThanAskedFor": {func(_ *pollDoors, a *file.Answer) {
			old := file.Snapshot{ID: "ancient", UpdatedAt: knownSince}
			a.Snapshots, a.Rows = append([]file.Snapshot{old}, a.Snapshots...), a.Rows+1
		}, 2500},
		"Folders":         {func(_ *pollDoors, a *file.Answer) { a.Rows += 7 }, 2500},
		"NothingReadable": {func(_ *pollDoors, a *file.Answer) { a.Snapshots = nil }, 0},
		"AlwaysTheFirst": {func(d *pollDoors, a *file.Answer) {
			all := d.sorted(time.Time{})
			a.Snapshots = all[:min(1000, len(all))]
			a.Rows = len(a.Snapshots)
		}, 1000},
	} {
		t.Run(name, func(t *testing.T) {
			inPoll(t, func(t *testing.T, d *pollDoors) {
				d.position = time.Now()
				defer d.start()()
				d.update("a", 2500, time.Millisecond)
				d.page = func(a *file.Answer) { tt.page(d, a) }
				lists := d.lists
				d.polls(15)
				d.wantFed(tt.fed)
				if n := d.lists - lists; n > 150 {
					t.Errorf("%d list calls in fifteen polls", n)
				}
				d.page = nil
				d.update("b", 5, time.Second)
				d.polls(1)
				if d.fed["b-00004 "+d.files["b-00004"].String()] != 1 {
					t.Error("it has stopped")
				}
			})
		})
	}
}

// Whatever changes, what is remembered stays bounded, and a poll too.
func TestPollIsBounded(t *testing.T) {
	inPoll(t, func(t *testing.T, d *pollDoors) {
		d.position = time.Now()
		p := d.poller(func(c *PollConfig) { c.Keep, c.Pages = 300, 4 })
		w := &polling{Poller: p, turn: d.turn, seen: memory{}}
		if err := w.poll(t.Context()); err != nil {
			t.Fatal(err)
		}
		for i := range 30 {
			d.update(fmt.Sprintf("a%d", i), 900, 50*time.Millisecond)
			lists := d.lists
			if err := w.poll(t.Context()); err != nil {
				t.Fatal(err)
			}
			if len(w.seen) > 300 || d.lists-lists > 4 {
				t.Fatalf("%d remembered, %d list calls", len(w.seen), d.lists-lists)
			}
			d.polls(1)
		}
		for k, n := range d.fed {
			if n != 1 {
				t.Errorf("%s was fed %d times", k, n)
			}
		}
		if n := len(d.fed); n != 30*900 {
			t.Errorf("%d of %d versions fed", n, 30*900)
		}
	})
}

func TestPollerNeedsItsDoors(t *testing.T) {
	if _, err := NewPoller(PollConfig{}); err == nil || !strings.Contains(err.Error(), "needs") {
		t.Error(err)
	}
}
