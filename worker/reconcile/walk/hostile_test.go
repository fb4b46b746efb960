package walk

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/file"
)

// answering is a hostile way to answer the nth call.
type answering func(n int, q query, honest []file.Snapshot) (file.Answer, error)

// only spoils the nth call.
func only(nth int, spoil func(q query, honest []file.Snapshot) file.Answer) answering {
	return func(n int, q query, honest []file.Snapshot) (file.Answer, error) {
		if n == nth {
			return spoil(q, honest), nil
		}
		return rows(honest...), nil
	}
}

// always spoils every call.
func always(spoil func(q query, honest []file.Snapshot) file.Answer) answering {
	return func(_ int, q query, honest []file.Snapshot) (file.Answer, error) { return spoil(q, honest), nil }
}

func cutTo(n int) func(query, []file.Snapshot) file.Answer {
	return func(_ query, honest []file.Snapshot) file.Answer { return rows(honest[:min(n, len(honest))]...) }
}

func shuffled(_ query, honest []file.Snapshot) file.Answer {
	r := rand.New(rand.NewPCG(1, 2))
	r.Shuffle(len(honest), func(i, j int) { honest[i], honest[j] = honest[j], honest[i] })
	return rows(honest...)
}

// TestHostileListings: what a listing may do to us, one thing at a time.
func TestHostileListings(t *testing.T) {
	tests := []struct {
		name    string
		library *library
		answer  func(l *library) answering
		// complete: all files come. whole: and the walk says so. broken: it says it cannot
		// go on.
		complete, whole, broken bool
		notes                   []string
	}{
		{"EmptyAtFirst", spread(2500, year), func(*library) answering { return only(0, cutTo(0)) },
			true, true, false, nil},
		{"EmptyTwiceLooksLikeAnEmptyLibrary", spread(2500, year), func(*library) answering {
			return always(cutTo(0))
		}, false, true, false, nil},
		{"EmptyInTheMiddle", spread(2500, year), func(*library) answering { return only(1, cutTo(0)) },
			true, true, false, []string{noteShrank}},
		{"EmptyFromTheMiddleOn", spread(2500, year), func(*library) answering {
			return func(n int, _ query, honest []file.Snapshot) (file.Answer, error) {
				if n >= 2 {
					honest = nil
				}
				return rows(honest...), nil
			}
		}, false, false, true, []string{noteShrank}},
		{"TruncatedPage", spread(2500, year), func(*library) answering { return only(0, cutTo(400)) },
			true, true, false, nil},
		{"TruncatedToTheOverlap", spread(2500, year), func(*library) answering { return only(1, cutTo(1)) },
			true, true, false, []string{noteShort}},
		{"EveryPageTruncated", spread(2500, year), func(*library) answering { return always(cutTo(37)) },
			true, true, false, nil},
		{"EveryPageOfOneRow", spread(300, year), func(*library) answering { return always(cutTo(1)) },
			true, true, false, []string{noteShort}},
		{"EveryPageOfOneRowInOneSecond", spread(300, 0), func(*library) answering { return always(cutTo(1)) },
			true, true, false, []string{noteShort}},
		{"EveryPageOfSevenRowsInOneSecond", spread(300, 0), func(*library) answering { return always(cutTo(7)) },
			true, true, false, nil},
		{"RepeatedPage", spread(3500, year), func(l *library) answering {
			return only(2, func(query, []file.Snapshot) file.Answer { return rows(l.page(l.asked[1])...) })
		}, true, true, false, nil},
		{"RepeatedShortPage", spread(350, year), func(l *library) answering {
			return func(n int, q query, honest []file.Snapshot) (file.Answer, error) {
				if n == 2 {
					honest = l.page(l.asked[1])
				}
				return rows(honest[:min(len(honest), 100)]...), nil
			}
		}, true, true, false, []string{noteEarlier, noteShrank}},
		{"RepeatedOlderPage", spread(4500, year), func(l *library) answering {
			return only(3, func(query, []file.Snapshot) file.Answer { return rows(l.page(l.asked[0])...) })
		}, true, true, false, []string{noteOlder}},
		{"PageRepeatedForEver", spread(4500, year), func(l *library) answering {
			return func(n int, _ query, honest []file.Snapshot) (file.Answer, error) {
				if n >= 2 {
					honest = l.page(l.asked[0])
				}
				return rows(honest...), nil
			}
		}, false, false, true, nil},
		{"OutOfOrderPage", spread(3500, year), func(*library) answering { return only(1, shuffled) },
			true, true, false, []string{noteOrder}},
		{"EveryPageOutOfOrder", spread(3500, year), func(*library) answering { return always(shuffled) },
			true, true, false, []string{noteOrder, noteBySkip}},
		{"NewestFirst", spread(3500, year), func(l *library) answering {
			files := slices.Clone(l.files)
			slices.Reverse(files)
			return func(_ int, q query, _ []file.Snapshot) (file.Answer, error) {
				at := slices.DeleteFunc(slices.Clone(files), func(f file.Snapshot) bool { return f.CreatedAt.Before(q.from) })
				return rows(at[min(q.skip, len(at)):min(q.skip+1000, len(at))]...), nil
			}
		}, true, true, false, []string{noteOrder, noteBySkip}},
		{"OrderedBySecondOnly", spread(3500, 7*time.Second), func(l *library) answering {
			slices.SortStableFunc(l.files, func(a, b file.Snapshot) int {
				if d := a.CreatedAt.Unix() - b.CreatedAt.Unix(); d != 0 {
					return int(d)
				}
				return b.CreatedAt.Compare(a.CreatedAt)
			})
			return func(_ int, q query, _ []file.Snapshot) (file.Answer, error) {
				at := slices.IndexFunc(l.files, func(f file.Snapshot) bool { return !f.CreatedAt.Before(q.from) })
				at = min(at+q.skip, len(l.files))
				return rows(l.files[at:min(at+1000, len(l.files))]...), nil
			}
		}, true, true, false, nil},
		{"AFileTwiceOnAPage", spread(2500, year), func(*library) answering {
			return always(func(_ query, honest []file.Snapshot) file.Answer {
				if len(honest) > 5 {
					honest = slices.Insert(honest, 5, honest[5])
				}
				return rows(honest...)
			})
		}, true, true, false, []string{noteTwice}},
		{"EveryFileTwice", spread(2500, year), func(*library) answering {
			return always(func(_ query, honest []file.Snapshot) file.Answer { return rows(append(honest, honest...)...) })
		}, true, true, false, []string{noteTwice, noteOrder}},
		{"AnAnchorIsLeftOut", spread(2500, year), func(*library) answering {
			return only(1, func(_ query, honest []file.Snapshot) file.Answer { return rows(honest[1:]...) })
		}, true, true, false, []string{noteShrank}},
		{"AnchorsAreAlwaysLeftOut", spread(3500, year), func(*library) answering {
			return always(func(q query, honest []file.Snapshot) file.Answer {
				if !q.from.IsZero() && q.skip == 0 && len(honest) > 0 {
					honest = honest[1:]
				}
				return rows(honest...)
			})
		}, true, true, false, []string{noteShrank}},
		{"AClockAnHourOff", spread(3500, 24*time.Hour), func(l *library) answering {
			return func(_ int, q query, _ []file.Snapshot) (file.Answer, error) {
				if !q.from.IsZero() {
					q.from = q.from.Add(time.Hour)
				}
				return rows(l.page(q)...), nil
			}
		}, true, true, false, []string{noteShrank}},
		{"DaysInsteadOfSeconds", spread(3500, 240*time.Hour), func(l *library) answering {
			return func(_ int, q query, _ []file.Snapshot) (file.Answer, error) {
				return rows(l.page(query{q.from.Truncate(24 * time.Hour), q.skip})...), nil
			}
		}, true, true, false, []string{noteEarlier}},
		{"DaysWithMoreThanAPage", spread(9000, 72*time.Hour), func(l *library) answering {
			return func(_ int, q query, _ []file.Snapshot) (file.Answer, error) {
				return rows(l.page(query{q.from.Truncate(24 * time.Hour), q.skip})...), nil
			}
		}, true, true, false, []string{noteEarlier}},
		{"FromIgnored", spread(3500, year), func(l *library) answering {
			return func(_ int, q query, _ []file.Snapshot) (file.Answer, error) {
				return rows(l.page(query{skip: q.skip})...), nil
			}
		}, true, true, false, []string{noteEarlier}},
		{"SkipIgnored", spread(2500, 0), func(l *library) answering {
			return func(_ int, q query, _ []file.Snapshot) (file.Answer, error) {
				return rows(l.page(query{from: q.from})...), nil
			}
		}, false, false, true, []string{noteSame}},
		{"SkipIgnoredWhereNoneIsNeeded", spread(2500, year), func(l *library) answering {
			return func(_ int, q query, _ []file.Snapshot) (file.Answer, error) {
				return rows(l.page(query{from: q.from})...), nil
			}
		}, true, false, true, []string{noteSame}},
		{"LimitIgnored", spread(12_000, year), func(l *library) answering {
			return func(_ int, q query, _ []file.Snapshot) (file.Answer, error) {
				at := slices.IndexFunc(l.files, func(f file.Snapshot) bool { return !f.CreatedAt.Before(q.from) })
				return rows(l.files[min(at+q.skip, len(l.files)):]...), nil
			}
		}, true, true, false, nil},
		{"SkipCapped", spread(2500, 0), func(*library) answering {
			return func(_ int, q query, honest []file.Snapshot) (file.Answer, error) {
				if q.skip > 1000 {
					return file.Answer{}, &file.Fault{Kind: file.BadRequest, Status: 400}
				}
				return rows(honest...), nil
			}
		}, false, false, true, nil},
		{"FoldersInBetween", spread(2500, year), func(*library) answering {
			return always(func(q query, honest []file.Snapshot) file.Answer {
				a := rows(honest...)
				if len(honest) > 0 && q.skip == 0 {
					a.Rows += 20
				}
				return a
			})
		}, true, true, false, []string{noteForeign}},
		{"OnlyFoldersFirst", spread(1500, year), func(l *library) answering {
			return func(_ int, q query, _ []file.Snapshot) (file.Answer, error) {
				if !q.from.IsZero() || q.skip >= 3000 {
					if q.from.IsZero() {
						q.skip -= 3000
					}
					return rows(l.page(q)...), nil
				}
				a := rows(l.page(query{})[:max(0, q.skip+1000-3000)]...)
				a.Rows = 1000
				return a, nil
			}
		}, true, true, false, []string{noteForeign}},
		{"ANamelessRow", spread(2500, year), func(*library) answering {
			return only(1, func(_ query, honest []file.Snapshot) file.Answer {
				a := rows(honest...)
				a.Rows, a.Nameless = a.Rows+1, 1
				return a
			})
		}, true, false, false, []string{noteNameless}},
		{"UnreadableRows", spread(2500, year), func(*library) answering {
			return always(func(_ query, honest []file.Snapshot) file.Answer {
				var a file.Answer
				for _, f := range honest {
					if f.ID[len(f.ID)-1] == '7' {
						a.Unreadable = append(a.Unreadable, f.ID)
					} else {
						a.Snapshots = append(a.Snapshots, f)
					}
				}
				a.Rows = len(honest)
				return a
			})
		}, true, true, false, nil},
		{"NothingReadable", spread(300, year), func(*library) answering {
			return always(func(_ query, honest []file.Snapshot) file.Answer {
				a := file.Answer{Rows: len(honest)}
				for _, f := range honest {
					a.Unreadable = append(a.Unreadable, f.ID)
				}
				return a
			})
		}, true, true, false, nil},
		{"NothingReadableOnManyPages", spread(2500, year), func(*library) answering {
			return always(func(_ query, honest []file.Snapshot) file.Answer {
				a := file.Answer{Rows: len(honest)}
				for _, f := range honest {
					a.Unreadable = append(a.Unreadable, f.ID)
				}
				return a
			})
		}, true, true, false, nil},
		{"OneFileFromTheFuture", spread(2500, year), func(*library) answering {
			return only(0, func(_ query, honest []file.Snapshot) file.Answer {
				honest[len(honest)-1].CreatedAt = epoch.Add(100 * year)
				return rows(honest...)
			})
		}, true, true, false, []string{noteShrank}},
		{"OneFileOfThePastInEachPage", spread(3500, year), func(*library) answering {
			return always(func(_ query, honest []file.Snapshot) file.Answer {
				if len(honest) > 500 {
					honest[500].CreatedAt = epoch.Add(-year)
				}
				return rows(honest...)
			})
		}, true, true, false, []string{noteOrder, noteBySkip}},
		{"ACreationTimeThatMovesOn", spread(200, year), func(*library) answering {
			return always(func(q query, honest []file.Snapshot) file.Answer {
				if len(honest) > 0 && !q.from.IsZero() {
					honest[0].CreatedAt = q.from.Add(5 * time.Second)
					honest = honest[:1]
				} else if q.from.Year() > 2025 {
					honest = rows(made(199, q.from.Add(5*time.Second))).Snapshots
				}
				return rows(honest...)
			})
		}, true, false, true, nil},
		{"OrderOfEqualsChanges", spread(2500, 0), func(l *library) answering {
			r := rand.New(rand.NewPCG(3, 4))
			return func(_ int, q query, _ []file.Snapshot) (file.Answer, error) {
				r.Shuffle(len(l.files), func(i, j int) { l.files[i], l.files[j] = l.files[j], l.files[i] })
				return rows(l.page(q)...), nil
			}
		}, false, false, false, []string{noteMoved, noteDisplaced}},
		{"OrderOfEqualsChangesOnce", spread(2500, 0), func(l *library) answering {
			return func(n int, q query, honest []file.Snapshot) (file.Answer, error) {
				if n == 3 {
					// A hundred have come from behind the cursor to the front, others from the
					// front to behind it; the overlap does not show that.
					l.files = slices.Concat(l.files[1950:2050], l.files[100:1950], l.files[:100], l.files[2050:])
					honest = l.page(q)
				}
				return rows(honest...), nil
			}
		}, true, true, false, []string{noteMoved}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			all := slices.Clone(tt.library.files)
			tt.library.answer = tt.answer(tt.library)
			o := walked(t, tt.library, 3*len(all)+100)
			if (o.broken != nil) != tt.broken || o.Whole() != tt.whole {
				t.Fatalf("broken %v, whole %v after %d calls with notes %v", o.broken, o.Whole(), o.Calls(), o.Notes())
			}
			for id := range set(o.ids) {
				if !tt.library.shown[id] {
					t.Errorf("%s was never shown", id)
				}
			}
			if complete := len(set(o.ids)) == len(all); complete != tt.complete {
				t.Errorf("%d of %d files", len(set(o.ids)), len(all))
			}
			for _, n := range tt.notes {
				if o.Notes()[n] == 0 {
					t.Errorf("nothing said of %q, only %v", n, o.Notes())
				}
			}
			t.Logf("%d calls, %d files (%d given out), notes %v", o.Calls(), len(set(o.ids)), len(o.ids), o.Notes())
		})
	}
}

// TestTheFurthestSkip: position is followed only so far.
func TestTheFurthestSkip(t *testing.T) {
	t.Run("InOneSecond", func(t *testing.T) {
		l := spread(1500, 0)
		l.size = 10
		o := walked(t, l, 1000, small)
		if o.broken == nil || o.broken.Fault != nil || len(o.ids) < 1000 || len(o.ids) > 1020 || o.Whole() {
			t.Errorf("broken %v after %d files, whole %v", o.broken, len(o.ids), o.Whole())
		}
	})
	// Where a page was out of order and others are not, the rest is read, and not vouched for.
	t.Run("OfAListingOutOfOrder", func(t *testing.T) {
		l := spread(1500, year)
		l.size = 10
		l.answer = always(func(q query, honest []file.Snapshot) file.Answer {
			if q.from.IsZero() && q.skip < 20 {
				honest[3], honest[7] = honest[7], honest[3]
			}
			return rows(honest...)
		})
		o := walked(t, l, 1000, small)
		o.shows(t, l.files)
		if o.broken != nil || o.Whole() || o.Notes()[noteUnordered] != 1 {
			t.Errorf("broken %v, whole %v, notes %v", o.broken, o.Whole(), o.Notes())
		}
	})
	t.Run("OfOneThatStaysOutOfOrder", func(t *testing.T) {
		l := spread(1500, year)
		l.size = 10
		l.answer = always(shuffled)
		o := walked(t, l, 1000, small)
		if o.broken == nil || o.Whole() || len(set(o.ids)) < 1000 {
			t.Errorf("broken %v after %d files, whole %v", o.broken, len(o.ids), o.Whole())
		}
	})
}
