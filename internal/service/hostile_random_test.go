package service_test

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trueup/trueup/internal/run"
)

var (
	hostileSeed = flag.Uint64("hostile.seed", 1, "TestHostileListings: the first seed")
	hostileN    = flag.Int("hostile.n", 60, "TestHostileListings: how many seeds")
	hostileRigs = flag.Int("hostile.rigs", 3, "TestHostileListings: how many at once")
)

// TestHostileListings: random libraries, damaged in random ways, read through random
// tricks. Between seeds the fuse, its day's count and all runs are reset by SQL. Always:
//
//   - No row of a file that ImageKit holds is removed, not even for a moment.
//   - With another account's key, from whatever page on, nothing at all is removed, and the
//     account is in doubt or the fuse latched.
//   - A run is complete only if it was whole, confirmed and latched nothing; if every file
//     that a row told of, and that ImageKit held all the while, was shown in some form; if
//     what was only shown as it is has its row, where no page was turned down; and if no row is
//     left of what was not shown and is not there. A file without a row that no page showed
//     cannot be known of.
//   - A run that is not complete says why; one that was not whole judges no row that it
//     was not shown, and one that latched the fuse removes nothing.
//   - After honest runs, and an operator's releases, the table equals the library, owners
//     included.
//
// A failure names its seed; -hostile.seed=S -hostile.n=1 plays it again.
func TestHostileListings(t *testing.T) {
	t.Parallel()
	var sum hostileSum
	began := time.Now()
	seeds := make(chan uint64)
	var all sync.WaitGroup
	for range min(*hostileRigs, *hostileN) {
		r := newHostileRig(t, hostileFiles)
		r.keep()
		all.Go(func() {
			for seed := range seeds {
				s := &scenario{hostileRig: r, seed: seed, rng: rand.New(rand.NewPCG(seed, 20))}
				got, err := s.play()
				sum.add(s, &got)
				if n := sum.runs(); n%500 == 0 {
					t.Logf("so far %d in %s: %s", n, time.Since(began).Round(time.Second), sum.String())
				}
				if err != nil {
					t.Errorf("-hostile.seed=%d -hostile.n=1: %v\n%s\nrun: %s (%s), fuse %q, notes %q, found %v, tricks played %v", seed, err, s.told(), got.State, got.Error, got.Fuse, got.Notes, got.Found, s.played)
				}
			}
		})
	}
	ended := make(chan struct{})
	go func() { all.Wait(); close(ended) }()
	for i := range *hostileN {
		select {
		case seeds <- *hostileSeed + uint64(i):
		case <-ended: // every rig has failed
		}
	}
	close(seeds)
	<-ended
	t.Logf("%d listings in %s: %s", *hostileN, time.Since(began).Round(time.Second), sum.String())
}

// scenario is one seed's.
type scenario struct {
	*hostileRig
	seed uint64
	rng  *rand.Rand

	tricks  []trick
	words   []string // of the tricks
	started map[string]row
	held    map[string]row // when the run began
	played  map[string]int
	asked   map[string]int
	shown   map[string]int
	named   map[string]bool
	odd     map[string]bool
	last    string
	gone    []string
}

func (s *scenario) told() string {
	return fmt.Sprintf("%d files in ImageKit, %d rows, pages of %d; %q", len(s.held), len(s.started), s.shelf.page, s.words)
}

func (s *scenario) play() (got run.Run, err error) {
	s.set()
	s.started, s.held = s.table(), s.shelf.want()
	s.shelf.play(s.tricks...)
	got = s.run()
	s.shelf.mu.Lock()
	s.played, s.asked, s.shown, s.named, s.odd, s.last = maps.Clone(s.shelf.names), maps.Clone(s.shelf.asked), maps.Clone(s.shelf.shown), maps.Clone(s.shelf.named), maps.Clone(s.shelf.odd), s.shelf.last
	s.shelf.mu.Unlock()
	s.gone = s.removed()
	return got, errors.Join(s.safe(), s.foreign(), s.honest(&got), s.recover())
}

// some are up to n of ids.
func (s *scenario) some(ids []string, n int) []string {
	ids = slices.Clone(ids)
	s.rng.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	return ids[:min(len(ids), s.rng.IntN(n+1))]
}

// set makes library and table.
func (s *scenario) set() {
	pick := func(of ...int) int { return of[s.rng.IntN(len(of))] }
	ids := firstOnes(hostileFiles)
	s.rng.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	ids = ids[:pick(1, 3, 12, 25, 25, 40, 60, 60)]
	s.reset(pick(1, 5, 7, 13, 1000), s.rng.IntN(2) == 0, ids...)
	people := pick(0, 2, 5)
	if s.rng.IntN(20) == 0 {
		people = len(ids)
	}
	s.exec(`DELETE FROM public.imagekit_files WHERE file_id = ANY($1)`, s.some(ids, people))
	s.exec(`UPDATE public.imagekit_files SET file_name = 'x', tags = '{}', user_id = 'thief' WHERE file_id = ANY($1)`, s.some(ids, pick(0, 3, 10)))
	for i := range pick(0, 0, 1, 3) {
		s.exec(`INSERT INTO public.imagekit_files (file_id, file_url, user_id) VALUES ($1, 'https://x', 'bogus')`, fmt.Sprintf("bogus%019d", i))
	}
	s.shelf.take(s.some(ids, pick(0, 0, 2, 15))...)
	s.shelf.overwrite(s.some(s.there(), pick(0, 3, 10))...)
	for i := range pick(0, 1, 5, 20) {
		s.shelf.put(made(100 + i*s.rng.IntN(3)))
	}
	for range 1 + s.rng.IntN(3) {
		s.trick()
	}
	if s.rng.IntN(4) == 0 {
		s.use("flickers", flickers(sometimes(50, s.seed), s.there()...))
	}
}

func (s *scenario) there() (ids []string) {
	for _, b := range s.shelf.holds() {
		ids = append(ids, b.id)
	}
	return ids
}

func (s *scenario) use(word string, t trick) {
	s.words, s.tricks = append(s.words, word), append(s.tricks, t)
}

func (s *scenario) when() (calls, string) {
	k := s.rng.IntN(6)
	switch s.rng.IntN(4) {
	case 0:
		return nth(k), fmt.Sprintf("at page %d", k)
	case 1:
		return since(k), fmt.Sprintf("from page %d on", k)
	case 2:
		return sometimes(30, s.seed+uint64(k)), "sometimes"
	default:
		return every, "always"
	}
}

// trick chooses one more.
func (s *scenario) trick() {
	when, at := s.when()
	k, some := s.rng.IntN(6), s.some(s.there(), 12)
	all := []func(){
		func() { s.use("emptied "+at, emptied(when)) },
		func() { n := s.rng.IntN(6); s.use(fmt.Sprintf("truncated to %d %s", n, at), truncated(when, n)) },
		func() { s.use(fmt.Sprintf("garbled in form %d %s", k, at), garbled(when, k+s.rng.IntN(3))) },
		func() { s.use("repeated "+at, repeated(when)) },
		func() { s.use("disordered "+at, disordered(when, s.seed)) },
		func() { s.use("doubled "+at, doubled(when)) },
		func() { s.use(fmt.Sprintf("hidden %s: %q", at, some), hidden(when, some...)) },
		func() { s.use(fmt.Sprintf("dropped %s: %q", at, some), dropped(when, some...)) },
		func() { s.use("skip ignored", skipIgnored) },
		func() { s.use("skip refused", skipRefused) },
		func() { s.use("strangers "+at, strangers(when)) },
		func() { s.use(fmt.Sprintf("unreadable %s: %q", at, some), unreadable(when, k, some...)) },
		func() { s.use("nameless "+at, nameless(when)) },
		func() { s.use(fmt.Sprintf("outdated %s: %q", at, some), outdated(when, some...)) },
		func() {
			s.use(fmt.Sprintf("grows at page %d", k), grows(k, made(200), early(201), made(202), made(203)))
		},
		func() { s.use(fmt.Sprintf("shrinks at page %d: %q", k, some), shrinks(k, some...)) },
		func() {
			s.use(fmt.Sprintf("revoked from page %d on", k), revoked(k-1, http.StatusUnauthorized+2*(k%2)))
		},
		func() { s.use(fmt.Sprintf("another account from page %d on", k), anotherAccount(k-1, 5*k)) },
		func() { s.use("another account", anotherAccount(-1, 10*k)) },
		func() { s.use("stutters", stutters(2+k, k)) },
		func() { s.use("clock", clockOff(time.Duration(s.rng.IntN(7200)-3600)*time.Second)) },
	}
	all[s.rng.IntN(len(all))]()
}

// foreign: another account removes nothing, and is noticed.
func (s *scenario) foreign() error {
	if s.played["another account"] == 0 {
		return nil
	}
	if len(s.gone) > 0 {
		return fmt.Errorf("another account removed %q", s.gone)
	}
	if s.doubt() == "" && s.fuse() == "" {
		return errors.New("another account was not noticed")
	}
	return nil
}

// honest: the run says what it may say.
func (s *scenario) honest(got *run.Run) error {
	if got.State != run.Complete {
		switch orphans := of(got, run.Orphaned); {
		case got.Error == "":
			return errors.New("it does not say why")
		case got.Fuse != "" && (len(s.gone) > 0 || got.Found[run.Orphaned][run.Refused] != orphans):
			return fmt.Errorf("the fuse was latched, and %q removed, or asked about", s.gone)
		case !got.Whole && orphans > 0:
			return fmt.Errorf("%d rows were judged by an incomplete listing", orphans)
		}
		return nil
	}
	if !got.Whole || !got.Account.Confirmed || got.Fuse != "" || s.played["another account"] > 0 || s.last == "garbled" || s.last == "revoked" {
		return fmt.Errorf("complete: whole %v, confirmed %v, last page %q", got.Whole, got.Account.Confirmed, s.last)
	}
	held, have := s.shelf.want(), s.table()
	for id := range s.started {
		_, before := s.held[id]
		if _, after := held[id]; before && after && !s.named[id] {
			return fmt.Errorf("complete, and %s was never listed", id)
		}
	}
	for id, h := range have {
		_, there := held[id]
		// A row that nobody has verified counts as new while any transaction is open that
		// began before it: another rig's will do.
		newly := got.Moved > 0 && strings.HasPrefix(id, "bogus")
		if !there && !s.named[id] && !newly {
			return fmt.Errorf("complete, and the row %s stands, which was not listed and is not there", id)
		}
		h.User, h.XMin = "", ""
		if version, ok := s.shown[id]; ok && there && version > 0 && !s.odd[id] && !turnedDown(got.Notes) && !reflect.DeepEqual(h, held[id]) {
			return fmt.Errorf("complete, and %s was listed as it is, and its row is %+v", id, h)
		}
	}
	for id, version := range s.shown {
		if _, ok := have[id]; !ok && version > 0 && !s.odd[id] && !turnedDown(got.Notes) {
			if _, there := held[id]; there {
				return fmt.Errorf("complete, and %s was listed and has no row", id)
			}
		}
	}
	return nil
}

// of is how many findings of a kind there are.
func of(r *run.Run, kind run.FindingKind) (n int64) {
	for _, count := range r.Found[kind] {
		n += count
	}
	return n
}

// turnedDown reports whether the run has not believed a page: then what that showed may
// not have come again.
func turnedDown(notes []string) bool {
	return slices.ContainsFunc(notes, func(n string) bool {
		for _, part := range []string{"order of creation", "another question", "shrank", "came again"} {
			if strings.Contains(n, part) {
				return true
			}
		}
		return false
	})
}

// hostileSum counts over all seeds.
type hostileSum struct {
	mu                           sync.Mutex
	states                       map[run.State]int
	found                        map[string]int64
	fused, doubted, foreign      int
	lists, details, gone, bitten int
	tricks, errors               map[string]int
}

func (h *hostileSum) add(s *scenario, got *run.Run) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.states == nil {
		h.states, h.found, h.tricks, h.errors = map[run.State]int{}, map[string]int64{}, map[string]int{}, map[string]int{}
	}
	h.states[got.State]++
	if got.State == run.Failed {
		h.errors[regexp.MustCompile(`[0-9]+`).ReplaceAllString(got.Error, "n")]++
	}
	for kind, of := range got.Found {
		for status, n := range of {
			h.found[string(kind)+"/"+string(status)] += n
		}
	}
	if got.Fuse != "" {
		h.fused++
	}
	if !got.Account.Confirmed {
		h.doubted++
	}
	if s.played["another account"] > 0 {
		h.foreign++
	}
	if len(s.played) > 0 {
		h.bitten++
	}
	for word, n := range s.played {
		h.tricks[word] += n
	}
	h.lists, h.details, h.gone = h.lists+s.asked["list"], h.details+s.asked["details"], h.gone+len(s.gone)
}

func (h *hostileSum) runs() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, of := range h.states {
		n += of
	}
	return n
}

func (h *hostileSum) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return fmt.Sprintf("runs %v, %d of them met a trick; fuse latched by %d, account not confirmed in %d, another account answered in %d; findings %v; %d list calls, %d look-ups, %d rows of files that are gone removed; answers touched %v; failed for %v",
		h.states, h.bitten, h.fused, h.doubted, h.foreign, h.found, h.lists, h.details, h.gone, h.tricks, h.errors)
}
