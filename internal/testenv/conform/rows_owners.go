package conform

import (
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/store"
)

func ownerCases() map[string]func(*rows) {
	return map[string]func(*rows){
		"Owner_TheEarliestClaimWinsAcrossCalls":    (*rows).earliest,
		"Owner_ATicketProves":                      (*rows).proves,
		"Owner_AssignedForGood":                    (*rows).assigned,
		"Owner_SignedModeHearsNoClaims":            (*rows).signed,
		"Owner_ClaimsNeedAFreshFile":               (*rows).fresh,
		"Owner_PoisonClaimsNothing":                (*rows).poisoned,
		"Owner_AnOldAnswerOpensNoClaims":           (*rows).overtaken,
		"Owner_AnOldAnswerOfTheFirstVersionProves": (*rows).moved,
		"Owner_NoVersionIsNotAnother":              (*rows).unversioned,
	}
}

func (r *rows) earliest() {
	late, early, latest := r.report("f", "bob"), r.report("f", "ann"), r.report("f", "eve")
	early.AcceptedAt, latest.AcceptedAt = late.AcceptedAt.Add(-time.Second), late.AcceptedAt.Add(time.Second)
	got := r.see(late, r.look("f", snapshot("f", 0)), file.Applied, file.ReasonAdded)
	r.same("bob", got.Claim, file.ClaimHeld)
	got = r.see(early, r.look("f", snapshot("f", 0)), file.Applied, file.ReasonOwner)
	r.same("ann", got.Claim, file.ClaimHeld)
	r.holds("f=ann")
	out := r.settled([]event.Pending{latest}, []file.Observation{r.look("f", snapshot("f", 0))}, table)
	r.same("eve", []any{out.Ends[latest.ID].Kind, out.Security}, []any{event.Rejected, map[string]int{"claim_refused": 1}})
	s := r.passport("f").State
	r.same("evidence", []any{s.Owner, s.OwnerKind, s.OwnerAt, s.OwnerEvent, s.Flags}, []any{"ann", "claimed", early.AcceptedAt, early.ID, []string{"claim_refused"}})
	again := r.report("f", "eve")
	out = r.settled([]event.Pending{again}, []file.Observation{r.look("f", snapshot("f", 0))}, table)
	r.same("noted once", len(out.Security), 0)
}

func (r *rows) proves() {
	proof := func(o file.Observation, user, ticket string) file.Observation {
		o.Proof = file.Proof{User: user, Ticket: ticket}
		return o
	}
	r.see(r.report("f", "bob"), proof(r.look("f", snapshot("f", 0)), "ann", "t1"), file.Applied, file.ReasonAdded)
	r.holds("f=ann")
	r.see(r.webhook("copy"), proof(r.look("copy", snapshot("copy", 0)), "ann", "t1"), file.Applied, file.ReasonAdded)
	r.same("a copy", r.passport("copy").State.Flags, []string{"ticket_reused"})
	r.see(r.webhook("f"), r.look("f", snapshot("f", 0)), file.Unchanged, file.ReasonSame)
	r.see(r.webhook("f"), proof(r.look("f", snapshot("f", 0)), "eve", "t2"), file.Unchanged, file.ReasonSame)
	s := r.passport("f").State
	r.same("f", []any{s.Owner, s.OwnerKind, s.Ticket, s.Flags}, []any{"ann", "proven", "t1", []string{"claim_refused", "proof_missing", "ticket_conflict"}})
	two := r.look("two", snapshot("two", 0))
	two.Proof = file.Proof{Conflict: true}
	r.see(r.webhook("two"), two, file.Applied, file.ReasonAdded)
	r.see(r.webhook("two"), proof(r.look("two", snapshot("two", 0)), "ann", "t3"), file.Unchanged, file.ReasonSame)
	r.holds("copy=ann", "f=ann", "two=")
}

func (r *rows) assigned() {
	r.fails(r.door.Assign(r.Context(), "f", "ann", store.Act{Who: "op"}), store.ErrUnknownFile)
	r.see(r.report("f", "bob"), r.look("f", snapshot("f", 0)), file.Applied, file.ReasonAdded)
	act := store.Act{Who: "op", Note: "by mail", Key: "k"}
	r.must(r.door.Assign(r.Context(), "f", "ann", act))
	r.holds("f=ann")
	r.must(r.door.Assign(r.Context(), "f", "eve", act)) // the same key: it is done already
	r.holds("f=ann")
	r.Insert("app", "cat")
	r.must(r.door.Assign(r.Context(), "app", "dan", store.Act{Who: "op"}))
	r.holds("app=dan", "f=ann")
	early := r.report("f", "bob")
	early.AcceptedAt = made()
	r.see(early, r.look("f", snapshot("f", 0)), file.Unchanged, file.ReasonSame)
	r.holds("app=dan", "f=ann")
	if err := r.door.Assign(r.Context(), "f", "", act); err == nil {
		r.Error("assigned to nobody")
	}
	seen := r.passport("f").State.Seen
	r.see(r.webhook("f"), looked(file.Fence{Number: seen}, "f", nil), file.LookAgain, file.ReasonStaleHit)
}

func (r *rows) signed() {
	r.reopened(store.Config{Ownership: store.BySigned})
	got := r.see(r.report("f", "ann"), r.look("f", snapshot("f", 0)), file.Applied, file.ReasonAdded)
	r.same("claim", got.Claim, file.ClaimRefused)
	r.holds("f=")
}

// poisoned: what is parked without being judged says nothing of its file, whoever was judged
// beside it; once its replay is judged it counts from when it was first said.
func (r *rows) poisoned() {
	first, beside := r.report("f", "ann"), r.webhook("f")
	first.Poison = true
	r.settled([]event.Pending{first, beside}, []file.Observation{r.look("f", snapshot("f", 0))}, func(p event.Pending, res file.Result) event.End {
		if p.ID == first.ID {
			r.same("told", res, file.Result{})
			return event.End{Kind: event.Dead, Reason: "panic", Class: event.ClassTrueup}
		}
		return table(p, res)
	})
	r.holds("f=")
	r.see(r.report("f", "bob"), r.look("f", snapshot("f", 0)), file.Applied, file.ReasonOwner)
	e := r.replayed(r.job(event.Job{Verb: event.JobReplay}), 1)[0]
	r.see(event.Pending{Event: e}, r.look("f", snapshot("f", 0)), file.Applied, file.ReasonOwner)
	r.holds("f=ann")
}

// moved: a file was changed and is in its first version still; an answer from before the
// change proves a report no less than one from after it.
func (r *rows) moved() {
	r.see(r.webhook("f"), r.look("f", snapshot("f", 1)), file.Applied, file.ReasonAdded)
	got := r.see(r.report("f", "ann"), r.look("f", snapshot("f", 0)), file.Applied, file.ReasonRegressed)
	r.same("claim", got.Claim, file.ClaimHeld)
	r.holds("f=ann")
}

// unversioned: an answer that tells no version does not say that there was another.
func (r *rows) unversioned() {
	bare := snapshot("f", 1)
	bare.FirstVersion, bare.VersionID = false, nil
	got := r.see(r.report("f", "ann"), r.look("f", bare), file.Applied, file.ReasonAdded)
	r.same("no first version", got.Claim, file.ClaimRefused)
	got = r.see(r.report("f", "ann"), r.look("f", snapshot("f", 2)), file.Applied, file.ReasonRaised)
	r.same("the first", got.Claim, file.ClaimHeld)
	r.holds("f=ann")
}

// overtaken: a file was overwritten, so nobody can claim it any more; an answer that still
// shows its first version, once or for good, changes nothing about that.
func (r *rows) overtaken() {
	second := snapshot("f", 1)
	second.FirstVersion = false
	r.see(r.webhook("f"), r.look("f", second), file.Applied, file.ReasonAdded)
	got := r.see(r.report("f", "ann"), r.look("f", snapshot("f", 0)), file.Applied, file.ReasonRegressed)
	r.same("once", got.Claim, file.ClaimRefused)
	got = r.see(r.report("f", "bob"), r.look("f", snapshot("f", 0)), file.Unchanged, file.ReasonSame)
	r.same("for good", got.Claim, file.ClaimRefused)
	r.holds("f=")
}

func (r *rows) fresh() {
	old := snapshot("old", 0)
	old.FirstVersion = false
	got := r.see(r.report("old", "ann"), r.look("old", old), file.Applied, file.ReasonAdded)
	r.same("not the first version", got.Claim, file.ClaimRefused)
	late := r.report("f", "ann")
	late.AcceptedAt = made().Add(time.Hour + time.Microsecond)
	got = r.see(late, r.look("f", snapshot("f", 0)), file.Applied, file.ReasonAdded)
	r.same("too late", got.Claim, file.ClaimRefused)
	ann := r.report("f", "ann")
	ann.AcceptedAt = made().Add(time.Hour)
	r.see(ann, r.look("f", snapshot("f", 0)), file.Applied, file.ReasonOwner)
	second := snapshot("f", 9)
	second.FirstVersion = false
	bob := r.report("f", "bob") // earlier, and settled when there is a second version
	r.see(bob, r.look("f", second), file.Applied, file.ReasonRaised)
	r.holds("f=bob", "old=")
}
