package reconcile

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/run"
)

// left are the rows that ImageKit does not have, those newer than the run aside.
func (d *world) left() (n int) {
	for id := range d.rows {
		if _, there := d.shelf[id]; !there && id != "moved_away" {
			n++
		}
	}
	return n
}

// repairedAll checks that everything but deletions was repaired.
func (d *world) repairedAll(t *testing.T) {
	t.Helper()
	for _, w := range d.wrong {
		t.Error("never:", w)
	}
	for id, s := range d.shelf {
		if !prefixed(id, "moved") && d.rows[id] != *s.Name {
			t.Errorf("row %s is %q, ImageKit has %q", id, d.rows[id], *s.Name)
		}
	}
}

func (d *world) said(t *testing.T, r run.Run, what string) {
	t.Helper()
	if !strings.Contains(strings.Join(r.Notes, "\n")+"\n"+r.Error+"\n"+r.Fuse, what) {
		t.Errorf("%q is not said: %q, error %q, fuse %q", what, r.Notes, r.Error, r.Fuse)
	}
}

func orphaned(more int) *world {
	d := scene()
	for i := range more {
		d.keep(fmt.Sprintf("orphan_%03d", i), "old")
	}
	return d
}

func TestI8RunBeyondTheFuse(t *testing.T) {
	t.Run("DeletesNothingRepairsTheRestAndIsReleasedByItsNumber", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d, dir := orphaned(300).started(run.Full), t.TempDir()
			d.process(t, dir)
			d.repairedAll(t)
			r := d.last()
			if r.State != run.Partial || r.Candidates != 306 || d.left() != 306 || d.latched == "" || r.Found[run.Orphaned][run.Refused] != 306 {
				t.Fatalf("%+v, latched %q, %d left", r, d.latched, d.left())
			}
			d.said(t, r, "306 of 385 rows are candidates")
			expect := r.Candidates
			d.apply("R1", &expect, false)
			d.process(t, dir)
			d.check(t)
			if r := d.last(); r.State != run.Complete || d.latched != "" || r.Found[run.Orphaned][run.Repaired] != 306 {
				t.Errorf("%+v", r)
			}
		})
	})
	t.Run("NorAfterAnEarlierLatch", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := scene().started(run.Full)
			d.latched = "too many today"
			d.process(t, t.TempDir())
			d.repairedAll(t)
			if r := d.last(); r.State != run.Partial || d.left() != 6 || r.Found[run.Orphaned][run.Refused] != 6 || r.Fuse != "" {
				t.Errorf("%+v, %d left", r, d.left())
			} else {
				d.said(t, r, "the fuse was latched before")
			}
		})
	})
	t.Run("NorWhenItLatchesMeanwhile", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := scene().started(run.Full)
			d.before = func(call string, _ int) error {
				if call == "take" { // somebody else's deletions were too many
					d.latched = "too many today"
				}
				return nil
			}
			d.process(t, t.TempDir())
			d.repairedAll(t)
			if r := d.last(); r.State != run.Partial || d.left() != 6 {
				t.Errorf("%+v, %d left", r, d.left())
			}
		})
	})
	t.Run("CountsTheDay", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := scene().started(run.Full)
			d.today = 5 // and 6 are eleven
			d.process(t, t.TempDir())
			if r := d.last(); r.State != run.Partial || d.left() != 6 || !strings.Contains(r.Fuse, "within a day") {
				t.Errorf("%+v, %d left", r, d.left())
			}
		})
	})
	t.Run("APlanLatchesWhenItIsApplied", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d, dir := orphaned(30).started(run.Plan), t.TempDir()
			d.process(t, dir)
			d.apply("R1", nil, false)
			d.process(t, dir)
			d.repairedAll(t)
			if r := d.last(); r.State != run.Partial || d.left() != 36 || d.latched == "" {
				t.Errorf("%+v, %d left", r, d.left())
			}
		})
	})
	t.Run("EmptyListing", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := scene().started(run.Full)
			d.listing = func(query, file.Answer) (file.Answer, error) { return file.Answer{Status: 200}, nil }
			d.process(t, t.TempDir())
			if r := d.last(); r.State != run.Partial || len(d.rows) != 85 || !strings.Contains(d.latched, "the listing is empty") || len(d.stored) > 0 {
				t.Errorf("%+v, latched %q", r, d.latched)
			}
		})
	})
	t.Run("MuchLessThanTheLastTime", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := scene()
			d.runs = append(d.runs, run.Run{ID: "R0", Kind: run.Full, State: run.Complete, Listed: 96})
			d.started(run.Full).process(t, t.TempDir()) // 86 of 96
			if r := d.last(); r.State != run.Partial || d.left() != 6 || !strings.Contains(d.latched, "fewer than 90 % of the 96") {
				t.Errorf("%+v, latched %q", r, d.latched)
			}
		})
	})
}

// A listing that breaks off: what it shows is repaired, what it does not show stays.
func TestI7IncompleteListing(t *testing.T) {
	refused := &file.Fault{Kind: file.Unauthorized, Status: 401}
	for name, c := range map[string]struct {
		from  int // the first query that fails
		fault *file.Fault
		state run.State
		said  string
	}{
		"KeyRevokedInTheMiddle":  {3, refused, run.Partial, "does not let us in"},
		"KeyRevokedAtOnce":       {1, refused, run.Failed, "nothing was listed"},
		"QueryRefused":           {3, &file.Fault{Kind: file.BadRequest, Status: 400}, run.Partial, "refuses the query"},
		"GarbageThatStays":       {3, &file.Fault{Kind: file.Garbled, Status: 200, Excerpt: "<html>"}, run.Partial, "it did not get on for 15m0s"},
		"AwayForTooLong":         {4, &file.Fault{Kind: file.Unavailable, Status: 503}, run.Partial, "it did not get on for 15m0s"},
		"AwayFromTheBeginning":   {1, &file.Fault{Kind: file.Unavailable, Status: 503}, run.Failed, "nothing was listed"},
		"TooManyForTheRateLimit": {3, &file.Fault{Kind: file.Limited, Status: 429}, run.Partial, "it did not get on"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := scene().started(run.Full)
				d.listing = func(_ query, a file.Answer) (file.Answer, error) {
					if len(d.queries) >= c.from {
						return file.Answer{}, c.fault
					}
					return a, nil
				}
				shown := min(86, 19*(c.from-1))
				before := maps.Clone(d.rows)
				d.process(t, t.TempDir())
				r := d.last()
				d.said(t, r, c.said)
				if r.State != c.state || r.Whole || r.Candidates != 0 || d.left() != 6 || r.Listed < int64(shown) {
					t.Fatalf("%+v, %d left, %d shown", r, d.left(), shown)
				}
				for id := range before {
					if _, ok := d.rows[id]; !ok {
						t.Errorf("row %s is gone", id)
					}
				}
				if latched := d.latched != ""; latched != (c.state == run.Partial || c.fault == refused) {
					t.Errorf("latched %q", d.latched)
				}
				if r.State == run.Failed {
					return
				}
				none := int64(0) // an operator who releases the fuse does not make the listing whole
				d.apply("R1", &none, false)
				d.process(t, t.TempDir())
				if r := d.last(); r.State != run.Partial || d.left() != 6 || d.latched != "" {
					t.Errorf("%+v, %d left", r, d.left())
				}
				for _, f := range d.findings["R1"] {
					if f.Status == run.Found || f.Status == run.Refused {
						t.Errorf("%+v", f)
					}
				}
			})
		})
	}
}

func TestAnotherAccountsKey(t *testing.T) {
	gone := func(string) error { return &file.Fault{Kind: file.NotFound, Status: 404} }
	t.Run("NothingIsJudgedUntilItIsAccepted", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d, dir := scene().started(run.Full), t.TempDir()
			d.details = gone
			rows := maps.Clone(d.rows)
			d.process(t, dir)
			r := d.last()
			if r.State != run.Failed || r.Account.Confirmed || r.Account.Asked != 5 || len(d.queries) > 0 || !maps.Equal(rows, d.rows) || d.latched != "" {
				t.Fatalf("%+v", r)
			}
			if d.doubted == "" || d.doubted != r.Error {
				t.Errorf("doubted %q, error %q", d.doubted, r.Error)
			}
			d.apply("R1", nil, true)
			d.process(t, dir)
			d.check(t)
			if got := d.found(); !slices.Equal(got, wantFound) || d.last().State != run.Complete || d.doubted != "" {
				t.Errorf("%+v, found %q", d.last(), got)
			}
			d.said(t, d.last(), "operator has vouched for the account")
		})
	})
	t.Run("APlanOnlySaysSo", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := scene().started(run.Plan)
			d.details = gone
			d.process(t, t.TempDir())
			if r := d.last(); r.State != run.Failed || d.doubted != "" || len(d.wrong) > 0 {
				t.Errorf("%+v, %q", r, d.wrong)
			}
		})
	})
	t.Run("ARefusedKeyLatches", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := scene().started(run.Full)
			d.details = func(string) error { return &file.Fault{Kind: file.Forbidden, Status: 403} }
			d.process(t, t.TempDir())
			if r := d.last(); r.State != run.Failed || d.doubted == "" || !strings.Contains(d.latched, "refuses the private key") || len(d.queries) > 0 {
				t.Errorf("%+v, %q", r, d.latched)
			}
		})
	})
	t.Run("AnotherKeyOfTheSameAccountIsNoted", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := scene().started(run.Full)
			d.account = run.Account{Key: "old", Endpoint: "old", Confirmed: true}
			d.process(t, t.TempDir())
			d.check(t)
			d.said(t, d.last(), "the private key is not the one")
			d.said(t, d.last(), "endpoint, and old before")
		})
	})
	for name, c := range map[string]struct {
		away  time.Duration
		state run.State
	}{"AwayForAWhileIsNoDoubt": {5 * time.Minute, run.Complete}, "AwayForLongIsNoDoubtEither": {time.Hour, run.Failed}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := scene().started(run.Full)
				back := time.Now().Add(c.away)
				d.details = func(string) error {
					if time.Now().Before(back) {
						return &file.Fault{Kind: file.Unavailable, Status: 503}
					}
					return nil
				}
				waited := false
				d.before = func(call string, _ int) error {
					waited = waited || strings.Contains(d.runs[0].Waiting, "ImageKit does not answer")
					return nil
				}
				d.process(t, t.TempDir())
				if r := d.last(); r.State != c.state || d.doubted != "" || d.latched != "" || !waited || r.Waiting != "" {
					t.Errorf("%+v, doubted %q, waited %v", r, d.doubted, waited)
				}
			})
		})
	}
}
