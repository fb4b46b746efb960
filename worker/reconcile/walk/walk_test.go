package walk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/file"
)

// TestAFaithfulLibrary: every file once, whole, in no more calls than it takes.
func TestAFaithfulLibrary(t *testing.T) {
	second := func(n int) *library { return spread(n, 0) }
	// lump is some files over a day, many in one second, some over another day.
	lump := func(n int) *library {
		l := spread(1500, 24*time.Hour)
		for i := range n {
			l.files = append(l.files, made(10_000+i, epoch.Add(25*time.Hour)))
		}
		for i := range 1500 {
			l.files = append(l.files, made(90_000+i, epoch.Add(26*time.Hour+time.Duration(i)*time.Minute)))
		}
		return l
	}
	at := func(times ...string) *library {
		l := &library{}
		for i, text := range times {
			moment, err := time.Parse(time.RFC3339Nano, text)
			if err != nil {
				t.Fatal(err)
			}
			l.add(made(i, moment))
		}
		return l
	}
	tests := []struct {
		name    string
		library *library
		calls   int
	}{
		{"Empty", spread(0, year), 2},
		{"One", spread(1, year), 3},
		{"Some", spread(10, year), 3},
		{"OneShortOfAPage", spread(999, year), 3},
		{"OnePage", spread(1000, year), 3},
		{"OneMoreThanAPage", spread(1001, year), 4},
		{"TwoPagesLessTheirOverlap", spread(1999, year), 4},
		{"TwoPages", spread(2000, year), 5},
		{"TenThousand", spread(10_000, year), 13},
		{"AHundredThousand", spread(100_000, year), 103},
		{"TenThousandInHalfAMinute", spread(10_000, 36*time.Second), 20},
		{"AllInOneSecond", second(500), 3},
		{"APageInOneSecond", second(1000), 4},
		{"OneMoreThanAPageInOneSecond", second(1001), 5},
		{"TwoAndAHalfThousandInOneSecond", second(2500), 6},
		{"TenThousandInOneSecond", second(10_000), 14},
		{"ABurstInBetween", lump(1), 6},
		{"ABurstOfAThousand", lump(1000), 7},
		{"ABurstOfTwoAndAHalfThousand", lump(2500), 9},
		{"SubSeconds", spread(5000, 20*time.Second), 11},
		{"AtTheBeginningOfTime", at("1970-01-01T00:00:00Z", "1970-01-01T00:00:00.5Z", "1970-01-01T00:00:01Z", "2020-01-01T00:00:00Z"), 3},
		{"InTheFuture", at("2020-01-01T00:00:00Z", "2199-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"), 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := walked(t, tt.library, 3000)
			o.is(t, tt.library.files)
			if len(o.Notes()) > 0 {
				t.Errorf("notes %v", o.Notes())
			}
			if o.Calls() != tt.calls || len(tt.library.asked) != tt.calls {
				t.Errorf("%d calls, want %d", o.Calls(), tt.calls)
			}
			for _, q := range tt.library.asked {
				if q.from.Nanosecond() != 0 || q.from.Location() != time.UTC || !q.from.IsZero() && q.from.Unix() < 0 {
					t.Errorf("asked for %s", q)
				}
			}
		})
	}
}

// TestManyEpochFiles: the window must leave the very first second, too.
func TestManyEpochFiles(t *testing.T) {
	l := &library{}
	for i := range 2500 {
		l.files = append(l.files, made(i, time.Unix(0, 0).UTC()))
	}
	l.add(made(9999, epoch))
	walked(t, l, 10).is(t, l.files)
	for _, q := range l.asked {
		if !q.from.IsZero() && q.from.Unix() < 0 {
			t.Errorf("asked for %s", q)
		}
	}
}

// TestCallsOfALibraryOverAYear: what design section 13 allows.
func TestCallsOfALibraryOverAYear(t *testing.T) {
	for _, n := range []int{0, 1, 997, 998, 999, 1000, 1996, 1998, 2994, 20_000, 54_321, 100_000} {
		l := spread(n, year)
		o := walked(t, l, 200)
		o.is(t, l.files)
		if most := (n+997)/998 + 2; o.Calls() > most {
			t.Errorf("%d files: %d calls, at most %d", n, o.Calls(), most)
		}
		if len(o.seen) > 2001 {
			t.Errorf("%d files: %d ids are held at the end", n, len(o.seen))
		}
	}
}

// TestResuming: a walk that is killed after any page goes on from its cursor and the ids
// of its last pages; what came stays, and nothing is asked for again.
func TestResuming(t *testing.T) {
	libraries := map[string]*library{
		"OverAYear":     spread(5500, year),
		"InOneSecond":   spread(5500, 0),
		"InSomeSeconds": spread(5500, 5*time.Second),
	}
	for name, l := range libraries {
		t.Run(name, func(t *testing.T) {
			whole := walked(t, l, 30)
			for killed := range len(whole.pages) {
				var ids []string
				for _, p := range whole.pages[:killed+1] {
					for _, f := range p.Files {
						ids = append(ids, f.ID)
					}
				}
				rest := walked(t, l, 30, resumed(t, whole.pages[killed].Cursor, ids[max(0, len(ids)-2000):]))
				if rest.broken != nil || !rest.Whole() || len(rest.Notes()) > 0 {
					t.Fatalf("after page %d: broken %v, whole %v, notes %v", killed, rest.broken, rest.Whole(), rest.Notes())
				}
				if all := append(ids, rest.ids...); !slices.Equal(all, whole.ids) {
					t.Errorf("after page %d: %d files, want %d", killed, len(all), len(whole.ids))
				}
				if before := whole.pages[killed].Cursor; !before.Done && rest.Calls() > whole.Calls()-killed {
					t.Errorf("after page %d: %d calls more, of %d", killed, rest.Calls(), whole.Calls())
				}
			}
		})
	}
}

// resumed sends the cursor through JSON, as a spool does.
func resumed(t testing.TB, c Cursor, recent []string) func(*Config) {
	t.Helper()
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	if len(text) > 1000 {
		t.Errorf("a cursor of %d bytes", len(text))
	}
	return func(config *Config) {
		if err := json.Unmarshal(text, &config.Cursor); err != nil {
			t.Fatal(err)
		}
		config.Recent = recent
	}
}

func TestTheCursorKeepsWhatWasDoubtful(t *testing.T) {
	l := spread(2500, year)
	l.answer = func(n int, _ query, honest []file.Snapshot) (file.Answer, error) {
		a := rows(honest...)
		if n == 0 {
			a.Rows, a.Nameless = a.Rows+1, 1
		}
		return a, nil
	}
	o := walked(t, l, 20)
	rest := walked(t, l, 20, resumed(t, o.pages[0].Cursor, o.ids[:1000]))
	if o.Whole() || rest.Whole() || rest.Notes()[noteNameless] != 1 || rest.broken != nil {
		t.Errorf("whole %v, resumed %v with notes %v", o.Whole(), rest.Whole(), rest.Notes())
	}
}

// TestResumingWhereTheListingShrank: the resumed walk steps back behind the place where it
// began, and counts from there.
func TestResumingWhereTheListingShrank(t *testing.T) {
	l := spread(5500, 0)
	o := walked(t, l, 30)
	kept := o.ids[:1950] // what came before the cursor
	l.remove(func(i int, _ file.Snapshot) bool { return i >= 1850 && i < 1950 })
	l.asked = nil
	l.before = func(l *library, _ int, q query) {
		if q.skip == 1850 && len(l.files) == 5400 {
			l.files = slices.Insert(l.files, 1000, made(100_000, epoch), made(100_001, epoch))
		}
	}
	rest := walked(t, l, 40, resumed(t, o.pages[1].Cursor, kept[950:]))
	notes := rest.Notes()
	if !rest.Whole() || notes[noteShrank] != maxVain || notes[noteMoved] == 0 || len(set(slices.Concat(kept, rest.ids))) != 5502 {
		t.Errorf("whole %v, notes %v, %d files", rest.Whole(), notes, len(set(slices.Concat(kept, rest.ids))))
	}
}

// TestWithoutRecent: with nothing to recognise the overlap by, files come twice, and all.
func TestWithoutRecent(t *testing.T) {
	l := spread(5500, 0)
	o := walked(t, l, 30)
	rest := walked(t, l, 30, resumed(t, o.pages[2].Cursor, nil))
	if rest.broken != nil || !rest.Whole() || len(set(append(o.ids[:2900], rest.ids...))) != 5500 {
		t.Errorf("broken %v, whole %v, %d files, notes %v", rest.broken, rest.Whole(), len(rest.ids), rest.Notes())
	}
}

// TestFaults: what ImageKit says instead of a page.
func TestFaults(t *testing.T) {
	away := func(kind file.FaultKind) error { return &file.Fault{Kind: kind, Err: errors.New("x")} }
	t.Run("OfTheMomentLoseNothing", func(t *testing.T) {
		for _, kind := range []file.FaultKind{file.Limited, file.Unavailable, file.Unreachable, file.TimedOut, file.Garbled} {
			l := spread(2500, 0)
			l.answer = func(n int, _ query, honest []file.Snapshot) (file.Answer, error) {
				if n%3 != 2 {
					return file.Answer{}, fmt.Errorf("list: %w", away(kind))
				}
				return rows(honest...), nil
			}
			o := walked(t, l, 40)
			o.is(t, l.files)
			if o.Calls() != 3*6 {
				t.Errorf("%s: %d calls", kind, o.Calls())
			}
		}
	})
	t.Run("ForGoodBreakOff", func(t *testing.T) {
		for _, kind := range []file.FaultKind{file.Unauthorized, file.Forbidden, file.BadRequest} {
			l := spread(2500, 0)
			l.answer = func(n int, _ query, honest []file.Snapshot) (file.Answer, error) {
				if n == 2 {
					return file.Answer{}, away(kind)
				}
				return rows(honest...), nil
			}
			o := walked(t, l, 40)
			var fault *file.Fault
			if o.broken == nil || !errors.As(o.broken, &fault) || fault.Kind != kind || len(o.ids) != 1000 || o.Whole() {
				t.Errorf("%s: %v with %d files", kind, o.broken, len(o.ids))
			}
			if _, err := o.Next(t.Context()); !errors.Is(err, o.broken) || len(l.asked) != 3 {
				t.Errorf("%s: then %v after %d calls", kind, err, len(l.asked))
			}
		}
	})
	t.Run("TheContextsAreNoBreak", func(t *testing.T) {
		l := spread(10, year)
		fail := true
		l.answer = func(_ int, _ query, honest []file.Snapshot) (file.Answer, error) {
			if fail {
				return file.Answer{}, context.Canceled
			}
			return rows(honest...), nil
		}
		w, err := New(Config{Lister: l})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Next(t.Context()); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		fail = false
		if p, err := w.Next(t.Context()); err != nil || len(p.Files) != 10 || p.Status != 200 || p.RequestID != "r" {
			t.Errorf("page %+v, error %v", p, err)
		}
	})
}

func TestAfterTheEnd(t *testing.T) {
	l := spread(10, year)
	o := walked(t, l, 10)
	if _, err := o.Next(t.Context()); !errors.Is(err, io.EOF) || len(l.asked) != 3 {
		t.Errorf("error %v, %d calls", err, len(l.asked))
	}
	last := o.pages[len(o.pages)-1]
	if !last.Last || !last.Cursor.Done || !last.Cursor.Whole() {
		t.Errorf("last page %+v", last)
	}
	again := walked(t, l, 10, resumed(t, last.Cursor, o.ids))
	if again.Calls() != 0 || !again.Whole() {
		t.Errorf("resumed after the end: %d calls, whole %v", again.Calls(), again.Whole())
	}
}

func TestALister(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("a walk without a listing")
	}
}
