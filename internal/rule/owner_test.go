package rule

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/event"
	"github.com/trueup/trueup/internal/file"
)

type evented struct {
	source, kind string
	updated      time.Time
}

func (e evented) event() event.Event {
	return event.Event{Source: event.Source(e.source), Kind: e.kind, UpdatedAt: e.updated}
}

func TestDecideOwner(t *testing.T) {
	made := time.Date(2026, 5, 1, 10, 0, 0, 0, time.UTC)
	at := func(user string, after time.Duration) Claim {
		return Claim{User: user, At: made.Add(after), Event: "e-" + user}
	}
	proof := func(user, ticket string) file.Proof { return file.Proof{User: user, Ticket: ticket} }
	nobody := Owning{}
	owned := func(user string, kind file.OwnerKind) Owning {
		return Owning{Owner: file.Owner{User: user, Kind: kind}}
	}
	proven := Owning{Owner: file.Owner{User: "ann", Kind: file.Proven}, Ticket: "t1"}
	claimed := Owning{Owner: file.Owner{User: "bob", Kind: file.Claimed}, At: made.Add(time.Minute), Event: "e-bob", Open: true}
	with := func(k Owning, flags ...string) Owning { k.Flags = flags; return k }
	open := func(k Owning, c Claim) Owning {
		k.Owner, k.At, k.Event, k.Open = file.Owner{User: c.User, Kind: file.Claimed}, c.At, c.Event, true
		return k
	}
	e := func(p file.Proof, claims ...Claim) Evidence {
		return Evidence{Mode: ByClaim, Window: time.Hour, ByID: true, Proof: p, FirstVersion: true, CreatedAt: made, Claims: claims}
	}
	tuned := func(e Evidence, f func(*Evidence)) Evidence { f(&e); return e }

	for _, c := range []struct {
		name string
		was  Owning
		e    Evidence
		want Owning
	}{
		{"NobodyWithoutEvidence", nobody, e(file.Proof{}), nobody},
		{"TicketOwnsWhatNobodyOwns", nobody, e(proof("ann", "t1")), proven},
		{"TicketBeforeClaims", nobody, e(proof("ann", "t1"), at("bob", 0)), with(proven, FlagClaimRefused)},
		{"TicketAndItsUsersOwnReport", nobody, e(proof("ann", "t1"), at("ann", 0)), proven},
		{"LaterTicketOfAnother", proven, e(proof("bob", "t2")), with(proven, FlagTicketConflict)},
		{"LaterTicketOfTheSameUser", proven, e(proof("ann", "t2")), proven},
		{"VanishedTicket", proven, e(file.Proof{}), with(proven, FlagProofMissing)},
		{"TicketVanishedFromAHitSaysNothing", proven, tuned(e(file.Proof{}), func(e *Evidence) { e.ByID = false }), proven},
		{"TwoTicketsOwnNothing", nobody, e(file.Proof{Conflict: true}, at("bob", 0)), with(nobody, FlagClaimRefused, FlagTicketConflict)},
		{"AfterTwoTicketsNeitherOwns", with(nobody, FlagTicketConflict), e(proof("ann", "t1")), with(nobody, FlagTicketConflict)},
		{"AfterTwoTicketsNobodyClaims", with(nobody, FlagTicketConflict), e(file.Proof{}, at("bob", 0)), with(nobody, FlagClaimRefused, FlagTicketConflict)},
		{"CopiedFile", nobody, tuned(e(proof("ann", "t1")), func(e *Evidence) { e.Reused = true }), with(proven, FlagTicketReused)},
		{"TicketOnAClaimedFile", claimed, e(proof("ann", "t1")), with(claimed, FlagTicketConflict)},
		{"TicketOnAnAdoptedFile", owned("old", file.Adopted), e(proof("ann", "t1")), with(owned("old", file.Adopted), FlagTicketConflict)},

		{"EarliestClaimWins", nobody, e(file.Proof{}, at("bob", time.Minute), at("cat", time.Second)), with(open(nobody, at("cat", time.Second)), FlagClaimRefused)},
		{"TiesGoToTheSmallerEvent", nobody, e(file.Proof{}, at("cat", 0), at("bob", 0)), with(open(nobody, at("bob", 0)), FlagClaimRefused)},
		{"EarlierClaimDisplaces", claimed, e(file.Proof{}, at("ann", time.Second)), open(nobody, at("ann", time.Second))},
		{"EarlierClaimDisplacesAfterTheFirstVersion", claimed, tuned(e(file.Proof{}, at("ann", time.Second)), func(e *Evidence) { e.FirstVersion = false }), open(nobody, at("ann", time.Second))},
		{"LaterClaimIsRefused", claimed, e(file.Proof{}, at("eve", time.Hour)), with(claimed, FlagClaimRefused)},
		{"ClaimAfterTheFirstVersion", nobody, tuned(e(file.Proof{}, at("bob", 0)), func(e *Evidence) { e.FirstVersion = false }), with(nobody, FlagClaimRefused)},
		{"ClaimAtTheWindowsEnd", nobody, e(file.Proof{}, at("bob", time.Hour)), open(nobody, at("bob", time.Hour))},
		{"ClaimAfterTheWindow", nobody, e(file.Proof{}, at("bob", time.Hour+time.Microsecond)), with(nobody, FlagClaimRefused)},
		{"ClaimALittleBeforeCreation", nobody, e(file.Proof{}, at("bob", -ClaimSkew)), open(nobody, at("bob", -ClaimSkew))},
		{"ClaimLongBeforeCreation", nobody, e(file.Proof{}, at("bob", -ClaimSkew-time.Second)), with(nobody, FlagClaimRefused)},
		{"ClaimOnAProvenFile", proven, e(proof("ann", "t1"), at("bob", 0)), with(proven, FlagClaimRefused)},
		{"ClaimOnAProvenFileWhoseTicketIsGone", proven, e(file.Proof{}, at("bob", 0)), with(proven, FlagClaimRefused, FlagProofMissing)},
		{"ClaimOnAnAssignedFile", owned("ann", file.Assigned), e(file.Proof{}, at("bob", 0)), with(owned("ann", file.Assigned), FlagClaimRefused)},
		{"ClaimOnAnAdoptedFile", owned("ann", file.Adopted), e(file.Proof{}, at("bob", 0)), with(owned("ann", file.Adopted), FlagClaimRefused)},
		{"SignedModeHearsNoClaims", nobody, tuned(e(file.Proof{}, at("bob", 0)), func(e *Evidence) { e.Mode = BySigned }), with(nobody, FlagClaimRefused)},
		{"SignedModeHearsTickets", nobody, tuned(e(proof("ann", "t1")), func(e *Evidence) { e.Mode = BySigned }), proven},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := DecideOwner(c.was, c.e)
			if len(got.Flags) == 0 {
				got.Flags = nil
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

// I4: the owner of a claimed file depends on the set of reports, not on their order or
// on how they are cut into calls.
func TestOwnerDoesNotDependOnOrderOrBatching(t *testing.T) {
	made := time.Date(2026, 5, 1, 10, 0, 0, 0, time.UTC)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var all []Claim
		for i := range 1 + rng.IntN(6) {
			all = append(all, Claim{User: string(rune('a' + rng.IntN(4))), At: made.Add(time.Duration(rng.IntN(5)-1) * 25 * time.Minute), Event: string(rune('0' + i))})
		}
		want := settleClaims(made, [][]Claim{all})
		rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		var cut [][]Claim
		for rest := slices.Clone(all); len(rest) > 0; {
			n := 1 + rng.IntN(len(rest))
			cut, rest = append(cut, rest[:n]), rest[n:]
		}
		if got := settleClaims(made, cut); got != want {
			t.Fatalf("claims %+v cut as %+v: got %+v, want %+v", all, cut, got, want)
		}
	}
}

func settleClaims(made time.Time, calls [][]Claim) file.Owner {
	var k Owning
	for _, claims := range calls {
		k = DecideOwner(k, Evidence{Mode: ByClaim, Window: time.Hour, ByID: true, FirstVersion: true, CreatedAt: made, Claims: claims})
	}
	return k.Owner
}
