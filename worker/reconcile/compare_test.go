package reconcile

import (
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/trueup/trueup/internal/run"
	"github.com/trueup/trueup/worker/reconcile/spool"
)

// sides yields every combination of what either side may say of one file.
func sides(yield func(e *spool.Entry, r *run.Local, whole bool)) {
	flags := []bool{false, true}
	entries := []*spool.Entry{nil, {FileID: "f", Hash: 1}, {FileID: "f", Hash: 1, Ticketed: true}, {FileID: "f", Unreadable: true}}
	for _, e := range entries {
		for _, whole := range flags {
			if e != nil { // else there is no file
				yield(e, nil, whole)
			}
			for bits := range 1 << 7 {
				bit := func(i int) bool { return bits>>i&1 == 1 }
				yield(e, &run.Local{FileID: "f", Live: bit(0), Known: bit(1), Gone: bit(2), Moved: bit(3), Suspect: bit(4),
					Hash: map[bool]int64{true: 1, false: 2}[bit(5)], Followed: bit(6), Unowned: bits%3 == 0}, whole)
			}
		}
	}
}

// The properties are stated one by one, as design section 11 and rules 2, 3 and 5 have
// them, and not as judge has them.
func TestJudgeEveryCombination(t *testing.T) {
	n := 0
	sides(func(e *spool.Entry, r *run.Local, whole bool) {
		n++
		v := judge(e, r, whole)
		live, moved := r != nil && r.Live, r != nil && r.Moved
		listed, readable := e != nil, e != nil && !e.Unreadable
		same := live && readable && r.Known && r.Hash == e.Hash && r.Followed
		is := func(k run.FindingKind) bool { return v.Kind == k }
		for what, wrong := range map[string]bool{
			"a row newer than the run is judged":                 moved && (v.Kind != "" || v.Count != countMoved),
			"an orphan that is listed":                           is(run.Orphaned) && listed,
			"an orphan that has no row":                          is(run.Orphaned) && !live,
			"an orphan of an incomplete listing":                 is(run.Orphaned) && !whole,
			"a row that a whole listing does not show stays":     !moved && live && !listed && whole && !is(run.Orphaned),
			"a row that nothing shows is not counted":            !moved && live && !listed && !whole && v.Count != countUnjudged,
			"missing where a row stands":                         is(run.Missing) && live,
			"a listed file without a row is not missing":         !moved && listed && !live && !is(run.Missing),
			"an unreadable file is to be repaired":               listed && !readable && v.Status == run.Found && v.Kind != "",
			"an unreadable file's row is judged":                 listed && !readable && live && v.Kind != "",
			"a row that file_state does not know, not taken":     !moved && live && readable && !r.Known && !is(run.Adopted),
			"adopted though known":                               is(run.Adopted) && r.Known,
			"a row that differs is not drifted":                  !moved && live && readable && r.Known && (r.Hash != e.Hash || !r.Followed) && !is(run.Drifted),
			"drifted though the same":                            is(run.Drifted) && same,
			"the same, somebody's, and yet a finding":            same && !moved && !r.Unowned && (v.Kind != "" || v.Count != countSame),
			"the same, nobody's, and not counted":                same && !moved && r.Unowned && (!is(run.Unowned) || v.Count != countUnowned),
			"nobody's and repaired without a ticket":             is(run.Unowned) && v.Status == run.Found && !e.Ticketed,
			"nobody's, with a ticket, and not repaired":          is(run.Unowned) && v.Status != run.Found && e.Ticketed,
			"a finding without a status":                         v.Kind != "" && v.Status == "",
			"skipped or refused without a reason":                v.Status != "" && v.Status != run.Found && v.Reason == "",
			"tombstone or suspicion decide":                      r != nil && v != judge(e, plain(r), whole),
			"something said of what is nowhere":                  !listed && !live && !moved && v != verdict{},
			"a listing that is not whole changes what is listed": listed && v != judge(e, r, !whole),
		} {
			if wrong {
				t.Errorf("%s: listed %+v, row %+v, whole %v: %+v", what, e, r, whole, v)
			}
		}
	})
	if n != 2*3+2*4*128 {
		t.Errorf("%d combinations", n)
	}
}

// plain is r without what a listing cannot know.
func plain(r *run.Local) *run.Local {
	p := *r
	p.Gone, p.Suspect = false, false
	return &p
}

func TestJudge(t *testing.T) {
	listed := &spool.Entry{FileID: "f", Hash: 1}
	for name, c := range map[string]struct {
		e    *spool.Entry
		r    *run.Local
		want verdict
	}{
		"NeverSeen":          {listed, nil, verdict{Kind: run.Missing, Status: run.Found}},
		"DeletedByAPerson":   {listed, &run.Local{Known: true}, verdict{Kind: run.Missing, Status: run.Found}},
		"Tombstoned":         {listed, &run.Local{Known: true, Gone: true}, verdict{Kind: run.Missing, Status: run.Found}},
		"TombstonedSince":    {listed, &run.Local{Known: true, Gone: true, Moved: true}, verdict{Count: countMoved}},
		"Same":               {listed, &run.Local{Live: true, Known: true, Hash: 1, Followed: true}, verdict{Count: countSame}},
		"OtherContent":       {listed, &run.Local{Live: true, Known: true, Hash: 2, Followed: true}, verdict{Kind: run.Drifted, Status: run.Found}},
		"OtherOwner":         {listed, &run.Local{Live: true, Known: true, Hash: 1}, verdict{Kind: run.Drifted, Status: run.Found}},
		"AnApplicationsOwn":  {listed, &run.Local{Live: true, Hash: 1, Followed: true}, verdict{Kind: run.Adopted, Status: run.Found}},
		"Bogus":              {nil, &run.Local{Live: true, Followed: true}, verdict{Kind: run.Orphaned, Status: run.Found}},
		"Nobodys":            {listed, &run.Local{Live: true, Known: true, Hash: 1, Followed: true, Unowned: true}, verdict{Kind: run.Unowned, Status: run.Skipped, Reason: run.ReasonNobody, Count: countUnowned}},
		"UnreadableAndAlive": {&spool.Entry{Unreadable: true}, &run.Local{Live: true, Known: true}, verdict{Count: countUnreadable}},
		"UnreadableAndNew":   {&spool.Entry{Unreadable: true}, nil, verdict{Kind: run.Missing, Status: run.Skipped, Reason: run.ReasonUnreadable, Count: countUnreadable}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := judge(c.e, c.r, true); got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

func stream(ids ...string) iter.Seq2[spool.Entry, error] {
	return func(yield func(spool.Entry, error) bool) {
		for _, id := range ids {
			if id == "!" {
				yield(spool.Entry{}, errTorn)
				return
			}
			if !yield(spool.Entry{FileID: id}, nil) {
				return
			}
		}
	}
}

var errTorn = errors.New("torn")

func rows(ids ...string) func(func(run.Local) error) error {
	return func(yield func(run.Local) error) error {
		for _, id := range ids {
			if id == "!" {
				return errTorn
			}
			if err := yield(run.Local{FileID: id, Live: true}); err != nil {
				return err
			}
		}
		return nil
	}
}

// paired is a merge as text: "a" on both sides, "+a" only listed, "-a" only a row.
func paired(listing iter.Seq2[spool.Entry, error], local func(func(run.Local) error) error) (string, error) {
	var out []string
	err := merge(listing, local, func(e *spool.Entry, r *run.Local) error {
		switch {
		case r == nil:
			out = append(out, "+"+e.FileID)
		case e == nil:
			out = append(out, "-"+r.FileID)
		case e.FileID != r.FileID:
			return fmt.Errorf("%s with %s", e.FileID, r.FileID)
		default:
			out = append(out, e.FileID)
		}
		return nil
	})
	return strings.Join(out, " "), err
}

func TestMerge(t *testing.T) {
	for name, c := range map[string]struct {
		listed, rows, want string
		err                error
	}{
		"Nothing":               {"", "", "", nil},
		"OnlyListed":            {"a b", "", "+a +b", nil},
		"OnlyRows":              {"", "a b", "-a -b", nil},
		"Both":                  {"a b c", "a b c", "a b c", nil},
		"Between":               {"b d", "a c e", "-a +b -c +d -e", nil},
		"ListedBeforeAndBehind": {"a b y z", "m", "+a +b -m +y +z", nil},
		"ByteOrder":             {"- 0 A Z _ a z", "- 0 A Z _ a z", "- 0 A Z _ a z", nil},
		"RowsInAnotherOrder":    {"A a b", "a A b", "+A a", errDisorder},
		"RowsTwice":             {"", "a a", "-a", errDisorder},
		"ListedInAnotherOrder":  {"b a", "", "+b", errDisorder},
		"ListedTwice":           {"a a", "a", "a", errDisorder},
		"ListingBreaks":         {"a !", "a b", "a", errTorn},
		"ListingBreaksAtOnce":   {"!", "a", "", errTorn},
		"ListingBreaksBehind":   {"a b !", "", "+a +b", errTorn},
		"RowsBreak":             {"a b", "a !", "a", errTorn},
		"RowsBreakAtOnce":       {"a", "!", "", errTorn},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := paired(stream(strings.Fields(c.listed)...), rows(strings.Fields(c.rows)...))
			if got != c.want || !errors.Is(err, c.err) {
				t.Errorf("%q, %v; want %q, %v", got, err, c.want, c.err)
			}
		})
	}
	t.Run("ARowWithAnEmptyID", func(t *testing.T) {
		if got, err := paired(stream("a"), rows("", "a")); got != "- a" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	})
	t.Run("AnErrorOfThePairEndsIt", func(t *testing.T) {
		for _, at := range []int{1, 2, 3} {
			n := 0
			err := merge(stream("a", "b"), rows("b", "c"), func(*spool.Entry, *run.Local) error {
				if n++; n == at {
					return errTorn
				}
				return nil
			})
			if n != at || !errors.Is(err, errTorn) {
				t.Errorf("%d pairs, %v; want %d", n, err, at)
			}
		}
	})
}

func TestMergeIsTheUnionOfBothSides(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 0))
		var a, b, all []string
		for i := range rng.IntN(40) {
			id := fmt.Sprintf("%02d", i)
			in := rng.IntN(4)
			if in&1 == 1 {
				a = append(a, id)
			}
			if in&2 == 2 {
				b = append(b, id)
			}
			all = append(all, map[int]string{1: "+" + id, 2: "-" + id, 3: id}[in])
		}
		want := strings.Join(slices.DeleteFunc(all, func(s string) bool { return s == "" }), " ")
		if got, err := paired(stream(a...), rows(b...)); got != want || err != nil {
			t.Errorf("seed %d: %q, %v; want %q", seed, got, err, want)
		}
	}
}
