package rule

import (
	"testing"
	"time"

	"github.com/trueup/trueup/internal/file"
)

// The order rule, branch by branch. The database's clock says now; the row was last
// moved at fence 10; content hashes are small numbers: 1 is what file_state wrote last.
func TestOrder(t *testing.T) {
	now := time.Date(2026, 5, 1, 10, 0, 0, 0, time.UTC)
	high := now.Add(-time.Hour)
	ours := int64(1)
	user := func(u string) Owning { return Owning{Owner: file.Owner{User: u, Kind: file.Claimed}} }
	type at struct {
		Standing
		World
	}
	// A live, settled row of ann's with content 1; observed: content 1 at `high`.
	live := func(tune ...func(*at)) at {
		a := at{Standing: Standing{FileID: "f", Known: true, Seen: 10, High: high, Hash: &ours, Live: true, LiveUser: "ann", LiveHash: 1, Proposed: 1,
			Owner: user("ann"), Now: now}, World: World{AbsentConfirm: time.Minute, Canary: true}}
		for _, f := range tune {
			f(&a)
		}
		return a
	}
	differs := func(a *at) { a.Proposed = 2 }
	corrupted := func(a *at) { a.LiveHash = 9 }
	drift := func(a *at) { a.LiveUser = "eve" }
	missing := func(a *at) { a.Live, a.LiveUser, a.LiveHash = false, "", 0 }
	gone := func(a *at) { missing(a); a.Gone, a.Hash = true, nil }
	unknown := func(a *at) { a.Known, a.Seen, a.High, a.Hash, a.Owner = false, 0, time.Time{}, nil, Owning{} }
	never := func(a *at) { unknown(a); missing(a) }
	suspect := func(ago time.Duration) func(*at) {
		return func(a *at) { a.Suspect, a.SuspectAt, a.SuspectFence = true, now.Add(-ago), 10 }
	}
	announced := func(a *at) { a.Announced = true }
	noCanary := func(a *at) { a.Canary = false }
	latched := func(a *at) { a.Latched = true }

	seen := func(how file.How, fence int64, updated time.Time) file.Observation {
		return file.Observation{FileID: "f", How: how, Fence: file.Fence{Number: fence, At: now}, Snapshot: &file.Snapshot{ID: "f", UpdatedAt: updated}}
	}
	alone := func(updated time.Time) file.Observation { return seen(file.LookUp, 11, updated) }
	beside := func(updated time.Time) file.Observation { return seen(file.LookUp, 10, updated) }
	hit := func(updated time.Time) file.Observation { return seen(file.Hit, 11, updated) }
	absent := func(fence int64, drawn time.Time) file.Observation {
		return file.Observation{FileID: "f", How: file.LookUp, Fence: file.Fence{Number: fence, At: drawn}}
	}
	later, earlier := high.Add(time.Second), high.Add(-time.Second)

	again := func(reason file.Reason) Change { return Change{Outcome: file.LookAgain, Reason: reason} }
	applied := func(reason file.Reason) Change {
		return Change{Outcome: file.Applied, Reason: reason, Content: true}
	}
	clears := func(c Change) Change { c.Clear = true; return c }
	userOnly := Change{Outcome: file.Applied, Reason: file.ReasonRepaired, User: true}
	same := Change{Outcome: file.Unchanged, Reason: file.ReasonSame}
	cleared := Change{Outcome: file.Applied, Reason: file.ReasonCleared, Clear: true}
	nominated := Change{Outcome: file.LookAgain, Reason: file.ReasonNominated, Nominate: true, Wait: time.Minute}
	doubted := Change{Outcome: file.LookAgain, Reason: file.ReasonNoCanary, Doubt: true}
	doubt := func(a *at) { suspect(2 * time.Minute)(a); a.SuspectFence = 0 }
	removed := func(reason file.Reason) Change {
		return Change{Outcome: file.Tombstoned, Reason: reason, Remove: true}
	}

	for _, c := range []struct {
		name string
		at   at
		obs  file.Observation
		want Change
	}{
		{"LookUpAddsAFileNeverSeen", live(never), alone(high), applied(file.ReasonAdded)},
		{"HitAddsAFileNeverSeen", live(never), hit(high), applied(file.ReasonAdded)},
		{"LookUpAdoptsAnEqualRow", live(unknown), alone(high), Change{Outcome: file.Applied, Reason: file.ReasonAdopted, Adopt: true}},
		{"LookUpAdoptsAndCorrectsARow", live(unknown, differs), alone(high), Change{Outcome: file.Applied, Reason: file.ReasonAdopted, Adopt: true, Content: true}},
		{"HitRaisesAnAdoptedRow", live(unknown, differs), hit(high), Change{Outcome: file.Applied, Reason: file.ReasonAdopted, Adopt: true, Content: true}},
		{"NothingOnAnEqualLookUp", live(), alone(high), same},
		{"NothingOnAnEqualOverlappingLookUp", live(), beside(high), same},
		{"NothingOnAnEqualHit", live(), hit(high), same},

		{"LookUpRaises", live(differs), alone(later), applied(file.ReasonRaised)},
		{"LookUpGoesBackAndAsksOnceMore", live(differs), alone(earlier), Change{Outcome: file.Applied, Reason: file.ReasonRegressed, Content: true, Wait: RegressedWait}},
		{"LookUpRepairsACorruptedRow", live(corrupted), alone(high), applied(file.ReasonRepaired)},
		{"LookUpRepairsADeletedRow", live(missing), alone(high), applied(file.ReasonRepaired)},
		{"LookUpRaisesADeletedRow", live(missing, differs), alone(later), applied(file.ReasonRaised)},
		{"LookUpPutsAStrangersUserBack", live(drift), alone(high), userOnly},
		{"LookUpRevives", live(gone), alone(earlier), applied(file.ReasonRevived)},
		{"LookUpRevivesUnderARowSomebodyPut", live(gone, func(a *at) { a.Live, a.LiveHash = true, 1 }), alone(high), applied(file.ReasonRevived)},
		{"LookUpClearsASuspicion", live(suspect(time.Second)), alone(high), cleared},
		{"LookUpRaisesAndClears", live(suspect(time.Second), differs), alone(later), clears(applied(file.ReasonRaised))},
		{"LookUpRepairsAndClears", live(suspect(time.Second), drift), alone(high), clears(userOnly)},
		{"LookUpCorrectsOtherContentOfTheSameTime", live(differs), alone(high), applied(file.ReasonRepaired)},

		{"HitRaises", live(differs), hit(later), applied(file.ReasonRaised)},
		{"HitRaisesAndClears", live(differs, suspect(time.Second)), hit(later), clears(applied(file.ReasonRaised))},
		{"OverlappingLookUpRaises", live(differs), beside(later), applied(file.ReasonRaised)},
		{"HitMayNotGoBack", live(differs), hit(earlier), again(file.ReasonStaleHit)},
		{"HitMayNotChangeContentOfTheSameTime", live(differs), hit(high), again(file.ReasonStaleHit)},
		{"HitDoesNotRevive", live(gone), hit(later), again(file.ReasonStaleHit)},
		{"OverlappingLookUpDoesNotRevive", live(gone), beside(later), again(file.ReasonStaleHit)},
		{"HitPutsBackACorruptedRow", live(corrupted), hit(high), applied(file.ReasonRepaired)},
		{"HitPutsBackADeletedRow", live(missing), hit(high), applied(file.ReasonRepaired)},
		{"HitPutsBackAStrangersUser", live(drift), hit(high), userOnly},
		{"HitMayNotRaiseADeletedRow", live(missing, differs), hit(later), again(file.ReasonStaleHit)},
		{"HitOfOtherContentLeavesAStrangersUser", live(drift, func(a *at) { a.Hash = nil }), hit(high), again(file.ReasonStaleHit)},
		{"HitDoesNotClearASuspicion", live(suspect(time.Second)), hit(high), again(file.ReasonStaleHit)},
		{"HitPutsNothingBackThatIsSuspect", live(suspect(time.Second), missing), hit(high), again(file.ReasonStaleHit)},
		{"OverlappingLookUpClears", live(suspect(time.Second)), beside(high), cleared},
		{"OverlappingLookUpClearsThoughItMayNotDecide", live(suspect(time.Second), differs), beside(earlier), clears(again(file.ReasonStaleHit))},
		{"OverlappingLookUpPutsBackAndClears", live(suspect(time.Second), missing), beside(high), clears(applied(file.ReasonRepaired))},

		{"AbsenceOfAFileNeverSeenWritesNothing", live(never), absent(11, now), Change{Outcome: file.Unchanged, Reason: file.ReasonNotFound}},
		{"AnnouncedAbsenceOfAFileNeverSeen", live(never, announced), absent(11, now), removed(file.ReasonAnnounced)},
		{"AnnouncedAbsenceNeedsACanary", live(never, announced, noCanary), absent(11, now), again(file.ReasonNoCanary)},
		{"AbsenceOfATombstone", live(gone), absent(11, now), Change{Outcome: file.Unchanged, Reason: file.ReasonGone}},
		{"AbsenceUnderARowSomebodyPutOnATombstone", live(gone, func(a *at) { a.Live = true }), absent(11, now), nominated},
		{"OverlappingAbsence", live(), absent(10, now), again(file.ReasonStaleHit)},
		{"OverlappingAnnouncedAbsence", live(announced), absent(10, now), again(file.ReasonStaleHit)},
		{"FirstAbsenceNominates", live(), absent(11, now), nominated},
		{"FirstAbsenceOfADeletedRowNominates", live(missing), absent(11, now), nominated},
		{"FirstAbsenceOfAnUnknownRowAdoptsAndNominates", live(unknown), absent(11, now),
			Change{Outcome: file.LookAgain, Reason: file.ReasonNominated, Nominate: true, Adopt: true, Wait: time.Minute}},
		{"FirstAbsenceNeedsACanary", live(noCanary), absent(11, now), doubted},
		{"FirstAbsenceOfAnUnknownRowNeedsACanary", live(unknown, noCanary), absent(11, now),
			Change{Outcome: file.LookAgain, Reason: file.ReasonNoCanary, Doubt: true, Adopt: true}},
		{"DoubtedAlready", live(doubt, noCanary), absent(11, now), again(file.ReasonNoCanary)},
		{"DoubtConfirmsNothing", live(doubt), absent(11, now), nominated},
		{"LookUpClearsADoubt", live(doubt), alone(high), cleared},
		{"SecondAbsenceTooSoonNeedsNoCanary", live(suspect(20*time.Second), noCanary), absent(11, now), Change{Outcome: file.LookAgain, Reason: file.ReasonTooSoon, Wait: 40 * time.Second}},
		{"FirstAbsenceNominatesUnderALatchedFuse", live(latched), absent(11, now), nominated},
		{"OneAbsenceAfterAnAnnouncement", live(announced), absent(11, now), removed(file.ReasonAnnounced)},
		{"AnnouncedAbsenceOfALiveFileNeedsACanary", live(announced, noCanary), absent(11, now), again(file.ReasonNoCanary)},
		{"AnnouncementsPassALatchedFuse", live(announced, latched), absent(11, now), removed(file.ReasonAnnounced)},
		{"SecondAbsenceTooSoon", live(suspect(20 * time.Second)), absent(11, now), Change{Outcome: file.LookAgain, Reason: file.ReasonTooSoon, Wait: 40 * time.Second}},
		{"SecondAbsenceWhoseFenceIsTooOld", live(suspect(2 * time.Minute)), absent(11, now.Add(-90*time.Second)), again(file.ReasonTooSoon)},
		{"SecondAbsenceConfirms", live(suspect(time.Minute)), absent(11, now), removed(file.ReasonConfirmed)},
		{"ConfirmationNeedsACanary", live(suspect(time.Minute), noCanary), absent(11, now), again(file.ReasonNoCanary)},
		{"ConfirmationStopsAtTheFuse", live(suspect(time.Minute), latched), absent(11, now), again(file.ReasonFuseLatched)},
		{"AnOldSuspicionCountsAsNone", live(suspect(21 * time.Minute)), absent(11, now), nominated},
		{"AfterAnOldSuspicionTheFirstNeedsACanary", live(suspect(21*time.Minute), noCanary), absent(11, now), doubted},
		{"ASuspicionJustNotTooOldConfirms", live(suspect(20 * time.Minute)), absent(11, now), removed(file.ReasonConfirmed)},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Order(&c.obs, &c.at.Standing, c.at.World); got != c.want {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

func TestAHitAnswersOnlySomeEvents(t *testing.T) {
	up := time.Date(2026, 5, 1, 10, 0, 0, 0, time.UTC)
	news := Change{Outcome: file.Applied, Reason: file.ReasonRaised}
	same := Change{Outcome: file.Unchanged, Reason: file.ReasonSame}
	for _, c := range []struct {
		name string
		do   Change
		ev   evented
		want bool
	}{
		{"ReportWithNews", news, evented{"client", "report", time.Time{}}, true},
		{"ReportWithoutNews", same, evented{"client", "report", time.Time{}}, false},
		{"WebhookWithNews", news, evented{"webhook", "file.updated", up.Add(time.Hour)}, true},
		{"WebhookAtItsTime", same, evented{"webhook", "file.updated", up}, true},
		{"WebhookOfALaterTime", same, evented{"webhook", "file.updated", up.Add(time.Microsecond)}, false},
		{"WebhookWithoutATime", same, evented{"webhook", "file.updated", time.Time{}}, false},
		{"Deletion", news, evented{"webhook", "file.deleted", up}, false},
		{"Recheck", news, evented{"reconcile", "recheck", time.Time{}}, false},
		{"Reconciliation", news, evented{"reconcile", "x", time.Time{}}, false},
		{"Replay", news, evented{"replay", "report", time.Time{}}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := file.Observation{How: file.Hit, Snapshot: &file.Snapshot{UpdatedAt: up}}
			e := c.ev.event()
			if got := answers(&o, c.do, &e); got != c.want {
				t.Errorf("a hit: got %v", got)
			}
			o.How = file.LookUp
			if !answers(&o, c.do, &e) {
				t.Error("a look-up answers every event")
			}
		})
	}
}
