package check

import (
	"slices"
	"testing"
	"time"
)

// Watched as it happens, a campaign gets the verdict that it gets afterwards.
func TestAWatchSeesWhatRunSees(t *testing.T) {
	for _, d := range slices.Concat([]doctored{{name: "Honest", doctor: func(*Evidence) {}}}, doctoredOrders(), doctoredRemovals(), doctoredFuses(), doctoredLetters()) {
		t.Run(d.name, func(t *testing.T) {
			e := honest()
			d.doctor(e)
			want := Run(e, Safety)

			late := honest()
			d.doctor(late)
			now, series := late.Dump, late.Series
			late.Series = nil
			w := NewWatch()
			var steps []Violation
			for _, dump := range append(series, now) {
				late.Dump = dump
				steps = append(steps, w.Step(late)...)
			}
			if len(series) == 0 {
				late.Series = []Dump{}
			}
			got := w.Verdict(late, Safety)
			if !slices.Equal(got.Violations, want.Violations) {
				t.Errorf("watched  %v\nafterwards %v", got.Violations, want.Violations)
			}
			for _, v := range steps {
				if !slices.Contains(got.Violations, v) {
					t.Errorf("a step says %s, the verdict does not", v)
				}
			}
		})
	}
}

// What two runs of the same events must share, and what they need not.
func TestSameTable(t *testing.T) {
	other := honest()
	for i := range other.Rows {
		other.Rows[i].ID, other.Rows[i].Xmin, other.Rows[i].SyncedAt = int64(90+i), "other", p(at(999))
	}
	slices.Reverse(other.Rows)
	if v := SameTable(honest(), other); !v.OK() || v.Counts["I4.rows"] != 2 {
		t.Errorf("%v %v", v.Violations, v.Counts)
	}
	for name, doctor := range map[string]func(*Evidence){
		"AnotherOwner":  func(e *Evidence) { e.row("claimed").UserID = "late" },
		"AnotherColumn": func(e *Evidence) { e.row("claimed").Tags = []string{"x"} },
		"ARowLess":      func(e *Evidence) { e.Rows = e.Rows[1:] },
		"ARowMore":      func(e *Evidence) { e.Rows = append(e.Rows, rowOf("more", "m", "", at(0), at(0), 1)) },
		"NoEvidence":    func(e *Evidence) { e.Rows = nil },
	} {
		t.Run(name, func(t *testing.T) {
			e := honest()
			doctor(e)
			if v := SameTable(honest(), e); v.OK() {
				t.Error("not noticed")
			}
		})
	}
}

func TestUnmoved(t *testing.T) {
	if v := Unmoved(honest(), honest()); !v.OK() {
		t.Error(v.Violations)
	}
	for name, doctor := range map[string]func(*Evidence){
		"WrittenAgain":   func(e *Evidence) { e.row("claimed").Xmin = "99" },
		"InsertedAgain":  func(e *Evidence) { e.row("claimed").ID = 99 },
		"Changed":        func(e *Evidence) { e.row("claimed").MIME = nil },
		"Removed":        func(e *Evidence) { e.Rows = e.Rows[1:] },
		"ALetterDeleted": func(e *Evidence) { e.DeadLetters = []DeadLetter{} },
		"NoEvidence":     func(e *Evidence) { e.DeadLetters = nil },
	} {
		t.Run(name, func(t *testing.T) {
			e := honest()
			doctor(e)
			if v := Unmoved(honest(), e); v.OK() {
				t.Error("not noticed")
			}
		})
	}
}

// A 429 binds only those who can know of it, and only until its reset.
func TestRateAllowsWhatItAllows(t *testing.T) {
	for name, doctor := range map[string]func(*Evidence){
		"AtTheReset": func(e *Evidence) { e.Requests = append(e.Requests, look("proven", at(22.001), 200)) },
		"AnotherEndpoint": func(e *Evidence) {
			e.Requests = append(e.Requests, Request{At: at(21), Endpoint: "list", Status: 200, Who: "trueup/test"})
		},
		"AnotherProcess": func(e *Evidence) {
			r := look("proven", at(21), 200)
			r.Who = "trueup/standby"
			e.Requests = append(e.Requests, r)
		},
		"UnderWayAlready": func(e *Evidence) { e.Requests = append(e.Requests, look("proven", at(20.0005), 200)) },
		"AfterAStart": func(e *Evidence) {
			e.Starts = []time.Time{at(20.5)}
			e.Requests = append(e.Requests, look("proven", at(21), 200))
		},
		"SomebodyElse": func(e *Evidence) {
			r := look("proven", at(21), 200)
			r.Who = "curl"
			e.Requests = append(e.Requests, r)
		},
		"TheAnswerWasLost": func(e *Evidence) {
			e.Requests[5].Cut = true
			e.Requests = append(e.Requests, look("proven", at(21), 200))
		},
		"TheLongestWaitIs1": func(e *Evidence) {
			e.Settings.MaxWait = time.Second
			e.Requests = append(e.Requests, look("proven", at(21.5), 200))
		},
		"InFlight": func(e *Evidence) {
			e.Settings.Flight = time.Second
			e.Requests = append(e.Requests, look("proven", at(20.9), 200))
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := honest()
			doctor(e)
			for _, v := range Run(e, Safety).Violations {
				t.Error(v)
			}
		})
	}
}

// ImageKit may deny a file for two reasons, one after the other: a row that was removed
// for it is trueup's fault only where somebody was answered 200 between them.
func TestLiesWithNothingSeenBetweenAreOne(t *testing.T) {
	between := func(also func(*Evidence), lies ...Lie) []Violation {
		e := honest()
		e.Requests = append(e.Requests, look("claimed", at(300), 404))
		also(e)
		e.Requests = append(e.Requests, look("claimed", at(370), 404), look("proven", at(371), 200))
		e.Lies = lies
		e.Rows = slices.DeleteFunc(e.Rows, func(r Row) bool { return r.FileID == "claimed" })
		s := e.state("claimed")
		s.GoneAt, s.GoneWhy, s.Seen = p(at(372)), "confirmed", 100
		v := Run(e, Safety)
		return slices.DeleteFunc(v.Violations, func(w Violation) bool { return w.Invariant != I7 })
	}
	removed := func(seen bool, lies ...Lie) []Violation {
		return between(func(e *Evidence) {
			if seen {
				e.Requests = append(e.Requests, look("claimed", at(350), 200))
			}
		}, lies...)
	}
	apart := []Lie{{at(299), at(340), "claimed"}, {at(360), at(400), "claimed"}}
	for name, lies := range map[string][]Lie{
		"Touching": {{at(299), at(340), "claimed"}, {at(340), at(400), "claimed"}},
		"Apart":    apart,
	} {
		if got := removed(false, lies...); len(got) > 0 {
			t.Errorf("%s, and nobody was told otherwise: %v", name, got)
		}
	}
	if len(removed(true, apart...)) == 0 {
		t.Error("a 200 between two lies was ignored, and not noticed")
	}
	blank := func(e *Evidence) {
		r := look("claimed", at(350), 200)
		r.Blank = true
		e.Requests = append(e.Requests, r)
	}
	if got := between(blank, apart...); len(got) > 0 {
		t.Errorf("a 200 that holds nothing was taken for the file: %v", got)
	}

	// A lie about all files counts where another account's row vouches for it, and not
	// where somebody's invention stands.
	aboutAll := []Lie{{at(299), at(340), "claimed"}, {at(340), at(400), ""}}
	stranger := func(status int) func(*Evidence) {
		return func(e *Evidence) {
			row := e.Rows[0]
			row.FileID = "stranger"
			e.Rows = append(e.Rows, row)
			before := &e.Series[len(e.Series)-1]
			before.Rows = append(slices.Clone(before.Rows), row)
			e.Requests = append(e.Requests, look("stranger", at(351), status))
		}
	}
	if got := between(stranger(200), aboutAll...); len(got) > 0 {
		t.Errorf("another account's row stands: %v", got)
	}
	if len(between(stranger(404), aboutAll...)) == 0 {
		t.Error("a row of no file was taken for another account's")
	}
	for name, lies := range map[string][]Lie{
		"OfAnother":    {{at(299), at(340), "proven"}, {at(340), at(400), "claimed"}},
		"TheFirstOnly": {{at(299), at(340), "claimed"}},
		"AboutAll":     aboutAll,
	} {
		if len(removed(false, lies...)) == 0 {
			t.Errorf("%s: not noticed", name)
		}
	}
}

// What people did to the table is not held against trueup.
func TestHandsAreNotTrueups(t *testing.T) {
	lied := func(change func(*Evidence), hands ...Hand) []Violation {
		e := honest()
		e.Requests = append(e.Requests, look("claimed", at(300), 404), look("claimed", at(370), 404), look("proven", at(371), 200))
		e.Lies = []Lie{{at(299), at(400), ""}}
		e.Rows = slices.DeleteFunc(e.Rows, func(r Row) bool { return r.FileID == "claimed" })
		s := e.state("claimed")
		s.GoneAt, s.GoneWhy, s.Seen = p(at(372)), "confirmed", 100
		e.Hands = hands
		change(e)
		v := Run(e, Safety)
		return slices.DeleteFunc(v.Violations, func(w Violation) bool { return w.Invariant != I7 })
	}
	as := func(*Evidence) {}
	if got := lied(as); len(got) == 0 {
		t.Fatal("a row removed by a lie about all files was not noticed")
	}
	t.Run("AnotherAccountsRowsVouchForThat", func(t *testing.T) {
		foreign := func(e *Evidence) {
			for i := range e.Series {
				row := e.Series[i].Rows[0]
				row.FileID = "foreign"
				e.Series[i].Rows = append(slices.Clip(e.Series[i].Rows), row)
			}
		}
		if got := lied(foreign, Hand{At: at(350), FileID: "proven", Kind: HandDelete}, Hand{At: at(351), FileID: "untold", Kind: HandDelete}); len(got) > 0 {
			t.Error(got)
		}
	})
	for name, hands := range map[string][]Hand{
		"TheRowItselfWasGone":  {{At: at(350), FileID: "claimed", Kind: HandDelete}},
		"TheTableWasEmptied":   {{At: at(350), Kind: HandDelete}},
		"NoOtherRowWasLeft":    {{At: at(350), FileID: "proven", Kind: HandDelete}, {At: at(351), FileID: "untold", Kind: HandDelete}},
		"TheOthersWereRemoved": {{At: at(371.9), FileID: "proven", Kind: HandDelete}, {At: at(360), FileID: "untold", Kind: HandDelete}},
	} {
		if got := lied(as, hands...); len(got) > 0 {
			t.Errorf("%s: %v", name, got)
		}
	}
	for name, hands := range map[string][]Hand{
		"AnotherRowWasLeft":  {{At: at(350), FileID: "untold", Kind: HandDelete}},
		"RemovedTooLate":     {{At: at(373), Kind: HandDelete}},
		"AnUpdateIsNoDelete": {{At: at(350), FileID: "claimed", Kind: HandUpdate}},
	} {
		if got := lied(as, hands...); len(got) == 0 {
			t.Errorf("%s: not noticed", name)
		}
	}
}
