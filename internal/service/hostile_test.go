package service_test

import (
	"context"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/file"
	"github.com/trueup/trueup/internal/run"
)

// hostileCase is one thing that ImageKit, a person or a clock does to a run. Before each,
// of 24 files in rows 1 and 2 were deleted by a person, 3 was corrupted and given to
// somebody else; ImageKit has lost 5 and overwritten 6, and 24 is new.
type hostileCase struct {
	name    string
	page    int // rows of a page; zero means 7
	prepare func(r *hostileRig)
	tricks  func(r *hostileRig) []trick
	state   run.State
	// says are parts of what the run's notes, error or fuse must say.
	says []string
	// fuse: it is latched. intact: no row was touched. orphans: nothing was removed.
	fuse, intact, kept bool
	// whole: apart from orphans the table equals the library at once.
	whole bool
	check func(t *testing.T, r *hostileRig, got run.Run)
}

func (c hostileCase) run(t *testing.T, r *hostileRig) {
	r.t = t
	page := c.page
	if page == 0 {
		page = 7
	}
	r.reset(page, true, firstOnes(24)...)
	r.damage()
	if c.prepare != nil {
		c.prepare(r)
	}
	untouched := r.table()
	if c.tricks != nil {
		r.shelf.play(c.tricks(r)...)
	}
	got := r.run()
	t.Logf("%s in %d calls; listed %d, rows %d, found %v; fuse %q, error %q, account %+v, notes %q; tricks %v", got.State, got.Calls, got.Listed, got.Rows, got.Found,
		got.Fuse, got.Error, got.Account, got.Notes, r.shelf.names)
	if err := r.safe(); err != nil {
		t.Error(err)
	}
	if got.State != c.state {
		t.Errorf("the run is %s, want %s", got.State, c.state)
	}
	c.judge(t, r, got, untouched)
	if err := r.recover(); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func (c hostileCase) judge(t *testing.T, r *hostileRig, got run.Run, untouched map[string]row) {
	said := strings.Join(append(got.Notes, got.Error, got.Fuse, r.doubt()), "\n")
	for _, want := range c.says {
		if !strings.Contains(said, want) {
			t.Errorf("nothing is said of %q:\n%s", want, said)
		}
	}
	if why := r.fuse(); (why != "") != c.fuse {
		t.Errorf("the fuse is latched: %q", why)
	}
	// What a latched fuse holds back is not even asked about.
	if n := of(&got, run.Orphaned); got.Fuse != "" && got.Found[run.Orphaned][run.Refused] != n {
		t.Errorf("the fuse is latched, and of %d candidates not all are refused: %v", n, got.Found)
	}
	have := r.table()
	if c.intact && !reflect.DeepEqual(untouched, have) {
		t.Error("rows were touched")
	}
	if removed := r.removed(); (c.kept || c.fuse || c.intact) && len(removed) > 0 {
		t.Errorf("removed: %v", removed)
	}
	if c.whole {
		want := r.shelf.want()
		for id := range have { // what is not removed may stand
			if _, held := want[id]; !held {
				delete(have, id)
			}
		}
		if err := differ(want, have); err != nil {
			t.Errorf("not repaired: %v", err)
		}
	}
	if c.check != nil {
		c.check(t, r, got)
	}
}

// damage does what the cases begin with.
func (r *hostileRig) damage() {
	r.exec(`DELETE FROM public.imagekit_files WHERE file_id = ANY($1)`, []string{made(1).id, made(2).id})
	r.exec(`UPDATE public.imagekit_files SET file_name = 'corrupted', width = 1, user_id = 'thief' WHERE file_id = $1`, made(3).id)
	r.shelf.take(made(5).id)
	r.shelf.overwrite(made(6).id)
	r.shelf.put(made(24))
}

// TestHostile: whatever a listing, a look-up, a clock or a person does, no row of a file
// that ImageKit holds is removed, the run says what happened, what can be repaired safely
// is repaired, and after an honest run the table equals the library with every owner.
func TestHostile(t *testing.T) {
	t.Parallel()
	r := newHostileRig(t, hostileFiles)
	r.keep()
	for _, c := range hostileCases() {
		t.Run(c.name, func(t *testing.T) { c.run(t, r) })
	}
	r.t = t
}

func play(tricks ...trick) func(*hostileRig) []trick {
	return func(*hostileRig) []trick { return tricks }
}

func hostileCases() []hostileCase {
	const broken, jumped, behind, older, nobody = "the listing is incomplete", "shrank, or jumped", "fewer than 90 %", "older than asked for", "may be another account's key"
	unshown := func(n string) string { return "did not show " + n + " files that ImageKit has" }
	return []hostileCase{
		{name: "EmptyListing", tricks: play(emptied(every)), state: run.Partial, fuse: true, says: []string{"the listing is empty, and 22 rows exist", behind, "22 of 22 rows are candidates"}},
		{name: "EmptyFromTheThirdPageOn", tricks: play(emptied(since(2))), state: run.Partial, fuse: true, says: []string{broken, jumped, "12 rows are not in the listing"}},
		{name: "EmptyOnce", tricks: play(emptied(nth(1))), state: run.Complete, whole: true, says: []string{jumped}},
		{name: "TruncatedPage", tricks: play(truncated(nth(1), 2)), state: run.Complete, whole: true},
		{name: "EveryPageTruncated", tricks: play(truncated(every, 1)), state: run.Complete, whole: true, says: []string{"shorter than the listing (23×)"}},
		{name: "HTMLWith200Once", tricks: play(garbled(nth(1), 0)), state: run.Complete, whole: true},
		{name: "HTMLWith200FromTheThirdPageOn", tricks: play(garbled(since(2), 0)), state: run.Partial, fuse: true, says: []string{broken, "a Content-Type that is not JSON"}},
		{name: "HTMLWith200Always", tricks: play(garbled(every, 1)), state: run.Failed, intact: true, says: []string{"nothing was listed", "not one whole JSON value"}},
		{name: "CutJSONOnce", tricks: play(garbled(nth(2), 2)), state: run.Complete, whole: true},
		{name: "CutJSONFromTheThirdPageOn", tricks: play(garbled(since(2), 2)), state: run.Partial, fuse: true, says: []string{broken, "not one whole JSON value (byte 29)"}},
		{name: "CutConnectionFromTheThirdPageOn", tricks: play(garbled(since(2), 3)), state: run.Partial, fuse: true, says: []string{broken, "unexpected EOF"}},
		{name: "RepeatedPage", tricks: play(repeated(nth(2))), state: run.Complete, whole: true, says: []string{older}},
		{name: "PageRepeatedForEver", tricks: play(repeated(since(2))), state: run.Partial, fuse: true, says: []string{broken, "the same page again"}},
		{name: "OutOfOrderOnce", tricks: play(disordered(nth(1), 1)), state: run.Complete, whole: true, says: []string{"not in the order of creation"}},
		{name: "AlwaysOutOfOrder", tricks: play(disordered(every, 2)), state: run.Complete, whole: true, says: []string{"not in the order of creation", "read by position"}},
		{name: "FilesTwice", tricks: play(doubled(every)), state: run.Complete, whole: true, says: []string{"a page showed a file twice"}},
		// Of two hidden files one has a row, which tells of it; the other stays unknown.
		{name: "FilesHidden", tricks: play(hidden(every, made(8).id, made(24).id)), state: run.Partial, says: []string{unshown("1")}},
		{name: "FilesSkipped", tricks: play(dropped(every, made(8).id, made(9).id)), state: run.Partial, whole: true, says: []string{unshown("2")}},
		{name: "ManyFilesHidden", tricks: play(hidden(every, firstOnes(13)...)), state: run.Partial, fuse: true, says: []string{behind, "more than 10 and more than 1 %"}},
		{name: "AQuarterHiddenOfFewRows", tricks: play(hidden(every, firstOnes(8)...)), state: run.Partial, fuse: true, says: []string{behind}},
		{name: "SkipIgnored", tricks: play(skipIgnored), state: run.Partial, fuse: true, whole: true, says: []string{broken, "skip is ignored"}},
		{name: "SkipRefused", tricks: play(skipRefused), state: run.Partial, fuse: true, whole: true, says: []string{broken, "refuses to skip"}},
		{name: "UnknownTypesInBetween", tricks: play(strangers(every)), state: run.Complete, whole: true, says: []string{"something else than files"}},
		{name: "UnreadableRows", tricks: play(unreadable(every, 0, made(2).id, made(3).id, made(10).id)), state: run.Complete, says: []string{"3 files are listed in a form that cannot be believed"}},
		{name: "NamelessRow", tricks: play(nameless(nth(1))), state: run.Partial, fuse: true, says: []string{broken, "could not be told from any file"}},
		{name: "OutdatedRows", tricks: play(outdated(every, made(6).id)), state: run.Complete, check: wantNoRaise},
		{name: "GrowsWhileRead", tricks: play(grows(2, made(30), made(31)), grows(3, made(32))), state: run.Complete, whole: true},
		{name: "GrowsBehindTheReader", tricks: play(grows(3, early(50), early(51), early(52))), state: run.Complete},
		{name: "GrowsBehindTheReaderAndIsToldOf", tricks: toldOf(3, early(50), early(51)), state: run.Complete, whole: true},
		{name: "ShrinksWhileRead", tricks: play(shrinks(2, made(10).id, made(16).id), shrinks(3, made(0).id)), state: run.Complete},
		{name: "FlickerOnDetails", tricks: play(hidden(every, made(8).id, made(9).id), flickers(every, made(8).id, made(9).id, made(10).id)), state: run.Partial, whole: true, says: []string{unshown("2")}},
		{name: "FlickerOfTheWholeLibrary", tricks: play(flickers(every, firstOnes(30)...)), state: run.Failed, intact: true, says: []string{nobody}},
		{name: "DetailsThatStutter", tricks: play(stutters(3, 1), hidden(every, made(8).id, made(9).id)), state: run.Partial, whole: true, says: []string{unshown("2")}},
		{name: "KeyOfAnotherAccount", tricks: play(anotherAccount(-1, 20)), state: run.Failed, intact: true, says: []string{nobody}, check: wantDoubt},
		{name: "KeyOfAnotherAccountThatIsEmpty", tricks: play(anotherAccount(-1, 0)), state: run.Failed, intact: true, says: []string{nobody}, check: wantDoubt},
		{name: "KeyOfAnotherAccountFromTheFirstPageOn", tricks: play(anotherAccount(0, 20)), state: run.Failed, intact: true, says: []string{"after it was listed", nobody}, check: wantDoubt},
		{name: "KeyOfAnotherAccountFromTheThirdPageOn", tricks: play(anotherAccount(2, 20)), state: run.Failed, intact: true, says: []string{broken, nobody}, check: wantDoubt},
		{name: "KeyRevokedFromTheBeginning", tricks: play(revoked(-1, http.StatusUnauthorized)), state: run.Failed, intact: true, fuse: true, says: []string{"refuses the private key", "401"}},
		{name: "KeyRevokedAtTheFirstPage", tricks: play(revoked(0, http.StatusForbidden)), state: run.Failed, intact: true, fuse: true, says: []string{"nothing was listed", "does not let us in", "403"}},
		{name: "KeyRevokedInTheMiddle", tricks: play(revoked(2, http.StatusUnauthorized)), state: run.Partial, fuse: true, says: []string{broken, "refused the private key", "401"}},
		{name: "KeyForbiddenInTheMiddle", tricks: play(revoked(2, http.StatusForbidden)), state: run.Partial, fuse: true, says: []string{broken, "refused the private key", "403"}},
		{name: "KeyRevokedAfterTheListing", tricks: play(revokedAfter(6)), state: run.Partial, fuse: true, says: []string{"refused the private key"}},
		{name: "ImageKitsClockAnHourBehind", tricks: play(clockOff(-time.Hour)), state: run.Complete, whole: true, says: []string{"ImageKit's clock is 1h0m0s behind"}},
		{name: "ImageKitsClockAnHourAhead", tricks: play(clockOff(time.Hour)), state: run.Complete, whole: true, says: []string{"ImageKit's clock is 1h0m0s ahead"}},
		// Whoever's clock is behind the database's looks again late: the orphan waits.
		{name: "OurClockAnHourBehind", prepare: ourClock(-time.Hour), state: run.Partial, kept: true, whole: true, says: []string{"1 events are not settled yet", "the clock of this process is 1h0m0s behind"}},
		{name: "OurClockAnHourAhead", prepare: ourClock(time.Hour), state: run.Complete, whole: true, says: []string{"the clock of this process is 1h0m0s ahead"}},
		{name: "TableTruncatedByAPerson", prepare: func(r *hostileRig) { r.exec(`TRUNCATE public.imagekit_files`) }, state: run.Complete, whole: true, says: []string{"23 rows of files that ImageKit has were deleted, and not by trueup"}, check: wantOwners},
	}
}

// toldOf puts files behind the reader, and their rows with them, as polling or a webhook
// would: the listing never shows them, and the run must leave them alone.
func toldOf(k int, books ...book) func(*hostileRig) []trick {
	return func(r *hostileRig) []trick {
		return play(before(k, "told of", func(q *question) {
			q.s.add(books...)
			fence, _, err := r.rows.Fence(context.Background(), nil)
			if err != nil {
				r.t.Error(err)
			}
			for _, b := range books {
				hit := file.Observation{FileID: b.id, How: file.Hit, Fence: fence, Snapshot: b.snapshot(), Status: http.StatusOK}
				if _, err := r.rows.Repair(context.Background(), r.worker.State().Turn, "", 0, []file.Observation{hit}); err != nil {
					r.t.Error(err)
				}
			}
		}))(r)
	}
}

// early is a new file that sorts before all others.
func early(n int) book {
	b := made(n)
	b.created = shelfBegan.Add(-time.Duration(n) * time.Minute)
	b.updated = b.created
	return b
}

func wantDoubt(t *testing.T, r *hostileRig, _ run.Run) {
	if r.doubt() == "" {
		t.Error("the account is not in doubt")
	}
}

// wantNoRaise: an outdated row is no drift: its file is looked up by id, and right.
func wantNoRaise(t *testing.T, r *hostileRig, _ run.Run) {
	if got := r.table()[made(6).id]; got.Name != "f006_v1.jpg" && got.Name != "f006_v2.jpg" {
		t.Errorf("row %+v", got)
	}
}

// wantOwners: everybody who had a file has it, though no row told of them.
func wantOwners(t *testing.T, r *hostileRig, _ run.Run) {
	for id, row := range r.table() {
		if row.User != r.before[id] {
			t.Errorf("%s is %q's, and was %q's", id, row.User, r.before[id])
		}
	}
}

// ourClock sets the clock of this process.
func ourClock(by time.Duration) func(*hostileRig) {
	return func(r *hostileRig) {
		r.stop()
		r.now = func() time.Time { return time.Now().Add(by) }
		r.start()
		r.now = time.Now // from the next start on
	}
}
