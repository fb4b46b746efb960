package reconcile

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/run"
)

// suspects are n rows of files that are there, and each has answered 404 once.
func suspects(prefix string, n int) *world {
	d := newWorld()
	for i := range n {
		id := fmt.Sprint(prefix, i)
		d.put(id, i, "new")
		d.rows[id], d.state[id] = "new", standing{seen: 1, suspect: true}
	}
	return d
}

func (d *world) suspected() (n int) {
	for s := range maps.Values(d.state) {
		if s.suspect {
			n++
		}
	}
	return n
}

// TestI7ShownToTheAccountCheck: a suspect file that the check of the account was shown has
// been there between two 404s, and the rows are told.
func TestI7ShownToTheAccountCheck(t *testing.T) {
	t.Run("ARunTellsTheRows", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := suspects("f", 1).started(run.Full)
			d.process(t, t.TempDir())
			if r := d.last(); r.State != run.Complete || d.suspected() > 0 || len(d.wrong) > 0 || len(d.stored) > 0 {
				t.Errorf("%+v, %d suspect, stored %v, %q", r, d.suspected(), d.stored, d.wrong)
			}
		})
	})
	t.Run("AlsoOnceListed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := suspects("f", 1).started(run.Full)
			d.after = func(call string, _ int) error {
				if call == "list" {
					d.state["f0"] = standing{seen: 1, suspect: true}
				}
				return nil
			}
			d.process(t, t.TempDir())
			told := slices.DeleteFunc(slices.Clone(d.calls), func(c string) bool { return c != "clearSuspect" })
			if r := d.last(); r.State != run.Complete || d.suspected() > 0 || len(told) != 2 || len(d.wrong) > 0 {
				t.Errorf("%+v, %d suspect, told %d times, %q", r, d.suspected(), len(told), d.wrong)
			}
		})
	})
	t.Run("WhatThatCannotDecideIsLookedUp", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := suspects("ask", 1).started(run.Full)
			d.process(t, t.TempDir())
			if r := d.last(); r.State != run.Complete || d.suspected() > 0 || len(d.stored["ask0"]) != 1 || len(d.wrong) > 0 {
				t.Errorf("%+v, %d suspect, stored %v, %q", r, d.suspected(), d.stored, d.wrong)
			}
		})
	})
	t.Run("OfASoundFileThereIsNothingToTell", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := suspects("g", 2)
			d.put("a", 9, "new")
			d.keep("a", "new")
			d.started(run.Full).process(t, t.TempDir())
			if r := d.last(); r.State != run.Complete || d.suspected() != 2 || slices.Contains(d.calls, "clearSuspect") || len(d.wrong) > 0 {
				t.Errorf("%+v, %d suspect, %q", r, d.suspected(), d.wrong)
			}
		})
	})
	t.Run("APlanAsksNone", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := suspects("f", 3).started(run.Plan)
			d.process(t, t.TempDir())
			r := d.last()
			if r.State != run.Failed || r.Account.Confirmed || len(d.fenceAsked) > 0 || d.suspected() != 3 || d.doubted != "" || len(d.wrong) > 0 {
				t.Errorf("%+v, asked %v, doubted %q, %q", r, d.fenceAsked, d.doubted, d.wrong)
			}
			d.said(t, r, "of 3 known files all have answered 404 lately")
		})
	})
	t.Run("APlanAsksTheSoundOnes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := suspects("f", 3)
			d.put("z", 9, "new")
			d.keep("z", "new")
			d.started(run.Plan).process(t, t.TempDir())
			if r := d.last(); r.State != run.Planned || len(d.fenceAsked) != 1 || d.fenceAsked["z"] == 0 || len(d.wrong) > 0 {
				t.Errorf("%+v, asked %v, %q", r, d.fenceAsked, d.wrong)
			}
		})
	})
	for _, after := range []bool{false, true} {
		t.Run(fmt.Sprintf("APollTellsTheRows/FailsAfterIt:%v", after), func(t *testing.T) {
			inPoll(t, func(t *testing.T, d *pollDoors) {
				d.position = time.Now()
				d.known = []run.KnownFile{{FileID: "k"}}
				d.suspect["k"], d.ask["k"] = true, !after
				if d.before["ClearSuspect"] = errAway; after {
					delete(d.before, "ClearSuspect")
					d.after["ClearSuspect"] = errAway
				}
				defer d.start()()
				d.update("a", 1, 0)
				d.polls(1)
				d.wantFed(0)
				d.polls(2)
				if d.wantFed(1); len(d.suspect) > 0 {
					t.Error("suspect still")
				}
				asked := func(e event.Event) bool { return e.FileID == "k" && e.Kind == event.KindRecheck }
				if n := len(d.published); n == 1 == after || n > 1 || n == 1 && !asked(d.published[0]) {
					t.Errorf("published %+v", d.published)
				}
			})
		})
	}
}
